"""The command line: search, resume, show, train, export, benchmark, convert, doctor. The only file that prints."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nas_engine.arguments import parse_arguments
from nas_engine.errors import ConfigError, NasEngineError, SearchInterrupted

app = typer.Typer(
    name="nas-engine",
    help="Neural architecture search: an LSTM controller proposes networks, a weight-sharing supernet scores them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_METHODS = "random,evolution,local-search,tpe,thompson,reinforce,ppo,ppo-model"
# Typer does not export the base of its errors of usage.
_UsageError: Any = typer.BadParameter.__base__
# `search` takes every setting of the configuration as an option, so it reads its arguments itself.
_FREE = {"ignore_unknown_options": True, "allow_extra_args": True}
_Run = Annotated[Path, typer.Argument(help="folder of a run, for example runs/digits-nasbench201-ppo-1")]


@app.command(context_settings=_FREE)
def search(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE.yaml] [--SETTING VALUE]...", show_default=False)
    ] = None,
    settings: Annotated[bool, typer.Option("--settings", help="List every setting with its default and stop.")] = False,
) -> None:
    """Search on image data, retrain the best few, choose the winner, test it once, export it.

    Settings have the same names in YAML and as options; options win.

    \b
    Examples:
      python -m nas_engine search
      python -m nas_engine search --data my.npz --constraints "macs <= 2e6" --run runs/mine
      python -m nas_engine search my.yaml --controller reinforce --space.channels 16
      python -m nas_engine search --settings
    """
    if settings:
        _print_settings()
        return
    from nas_engine.config import load_config
    from nas_engine.job import Job

    file, overrides = parse_arguments(arguments or [])
    with _reporting() as (console, reporter):
        job = Job.start(load_config(file, overrides), reporter)
        reporter.message(f"run folder: {job.context.store.folder}")
        _finish(console, job)


@app.command()
def resume(
    run: _Run,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Train again what has failed from scratch; else a failure stands.")
    ] = False,
) -> None:
    """Continue an interrupted run; nothing is evaluated twice. A finished run is shown.

    \b
    Example:
      python -m nas_engine resume runs/digits-nasbench201-ppo-1
    """
    from nas_engine.job import Job
    from nas_engine.result import finished

    with _reporting() as (console, reporter):
        result = finished(run)
        if result is not None:
            _conclude(console, result)
        else:
            _finish(console, Job.resume(run, reporter), retry_failed=retry_failed)


@app.command()
def show(run: _Run, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show what a run has found so far, also while it is running.

    \b
    Example:
      python -m nas_engine show runs/digits-nasbench201-ppo-1 --json
    """
    from nas_engine.result import SearchResult
    from nas_engine.terminal import print_progress, print_result

    result = SearchResult(run)
    if as_json:
        print(json.dumps(result.as_json(), indent=2, allow_nan=False))
        return
    console = Console()
    print_progress(console, result)
    if result.report:
        print_result(console, result)


@app.command(context_settings=_FREE)
def train(
    run: _Run,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[--training.SETTING VALUE]...")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="architecture key or text; by default the winner", show_default=False)
    ] = None,
) -> None:
    """Train an architecture of a run from scratch, usually for longer, and export it.

    \b
    Examples:
      python -m nas_engine train runs/digits-nasbench201-ppo-1 --training.epochs 200
      python -m nas_engine train runs/first --architecture nasbench201:3-3-1-3-1-3
    """
    from nas_engine.job import Job

    file, overrides = parse_arguments(arguments or [])
    strange = [name for name in overrides if not name.startswith("training.")]
    if file is not None or strange:
        raise ConfigError(
            f"train takes training settings only, got {strange or file}: for example --training.epochs 200"
        )
    with _reporting() as (console, reporter):
        job = Job.resume(run, reporter)
        with _stopping(job):
            trained = job.train(architecture, {name.removeprefix("training."): v for name, v in overrides.items()})
        metrics = trained["metrics"]
        console.print(
            f"{trained['text']}: test accuracy {metrics['test_accuracy']:.2%}, "
            f"validation {metrics['validation_accuracy']:.2%}, exports in {trained['exports']}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@app.command()
def export(
    run: _Run,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="onnx, torch_export, state_dict or python; may be repeated")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="folder to write; by default RUN/export")] = None,
) -> None:
    """Write the winner again, each file loaded back and compared with the network.

    \b
    Example:
      python -m nas_engine export runs/digits-nasbench201-ppo-1 --format onnx --to deploy
    """
    from nas_engine.config import EXPORT_FORMATS, load_config
    from nas_engine.exports import export_network
    from nas_engine.job import describe_best
    from nas_engine.result import SearchResult

    chosen = load_config(overrides={"export.formats": formats or list(EXPORT_FORMATS)}).export.formats
    result = SearchResult(run)
    folder = to or run / "export"
    files = export_network(
        result.best.build(),
        result.best.example_images(),
        folder,
        formats=chosen,
        description=describe_best(result),
    )
    for file in files:
        print(f"{file.path}: largest difference {file.max_abs_difference:.1e}")


@app.command()
def benchmark(
    table: Annotated[str, typer.Argument(help="nasbench201, nasbench201-hardware, nasbench-macro, or FILE.yaml")],
    methods: Annotated[str, typer.Option(help="NAME[:OPTION=VALUE...], separated by commas")] = _METHODS,
    seeds: Annotated[int, typer.Option(help="repetitions of each method")] = 100,
    budget_seconds: Annotated[float | None, typer.Option(help="simulated seconds of a repetition")] = None,
    budget_evaluations: Annotated[int | None, typer.Option(help="evaluations of a repetition")] = None,
    until_optimum: Annotated[
        bool, typer.Option("--until-optimum", help="Go on after the budget, if there is one, until the best is found.")
    ] = False,
    cap: Annotated[int, typer.Option(help="evaluations after which --until-optimum gives up")] = 2_000,
    file: Annotated[Path | None, typer.Option(help="the table's file; by default in NAS_ENGINE_DATA")] = None,
    reward: Annotated[str | None, typer.Option(help="reward column; by default that of the description")] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="limit in place of those described, 'COLUMN <= NUMBER'; may be repeated")
    ] = None,
    merge_isomorphic: Annotated[
        bool, typer.Option("--merge-isomorphic", help="Rows that the description's space calls equal count as one.")
    ] = False,
    published: Annotated[Path | None, typer.Option(help="CSV of published results, of the described form")] = None,
    proxies: Annotated[
        Path | None, typer.Option(help="file of zero-cost proxies; by default in NAS_ENGINE_DATA or beside the table")
    ] = None,
    out: Annotated[Path, typer.Option(help="results; single seeds go beside it as NAME.seeds.jsonl")] = Path(
        "results.json"
    ),
    plot: Annotated[Path | None, typer.Option(help="anytime plot, for example anytime.png")] = None,
    processes: Annotated[int | None, typer.Option(help="worker processes; by default one for each CPU")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the seeds that an earlier run of the same benchmark finished.")
    ] = False,
) -> None:
    """Compare search methods on a table of known results, over many seeds.

    \b
    Examples:
      python -m nas_engine benchmark nasbench201 --seeds 500 --budget-seconds 12000 --plot anytime.png
      python -m nas_engine benchmark nasbench201 --methods random,ppo --reward val12_cifar100 --until-optimum
      python -m nas_engine benchmark my_table.yaml --methods evolution,ppo:learning_rate=0.01 --budget-evaluations 150
    """
    from nas_engine.suite.command import Request, run_request

    request = Request(
        table=table,
        methods=methods,
        seeds=seeds,
        budget_seconds=budget_seconds,
        budget_evaluations=budget_evaluations,
        until_optimum=until_optimum,
        cap=cap,
        file=file,
        reward=reward,
        constraints=constraint,
        merge_isomorphic=merge_isomorphic,
        published=published,
        proxies=proxies,
        out=out,
        plot=plot,
        processes=processes,
        resume=resume,
    )
    with _reporting() as (_, reporter), _interruptible(request.how_to_continue):
        print(run_request(request, reporter))


@app.command()
def convert(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="folder NATS-tss-v1_0-3ffb9-simple, HW-NAS-Bench-v1_0.pickle, or both"
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder of the tables")] = Path("tables"),
) -> None:
    """Make tables for `benchmark` from the files that NATS-Bench and HW-NAS-Bench publish.

    \b
    Example:
      python -m nas_engine convert NATS-tss-v1_0-3ffb9-simple HW-NAS-Bench-v1_0.pickle --out tables
      NAS_ENGINE_DATA=tables python -m nas_engine benchmark nasbench201-hardware --budget-evaluations 150
    """
    from nas_engine.tables.official import convert

    with _reporting() as (_, reporter), _interruptible("no unfinished table is left"):
        files = convert(sources, out, reporter)
    print(f"wrote {' and '.join(map(str, files))}; use them with NAS_ENGINE_DATA={out}")


@app.command()
def doctor() -> None:
    """Say what this installation can do: versions, devices, the native module and why it is or is not used.

    \b
    Example:
      python -m nas_engine doctor
    """
    from nas_engine.diagnosis import diagnose

    table = Table("", "", show_header=False, box=None)
    for name, value in diagnose():
        table.add_row(name, value)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors a user can act on are one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except NasEngineError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except _UsageError as error:
        text = error.format_message()
        # Without arguments the message is the help.
        print(text if "\n" in text else f"error: {text.rstrip('.')}; see {_help_of(error)}", file=sys.stderr)
        code = 2
    except typer.Abort:
        print("stopped", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


def _help_of(error: Any) -> str:
    return f"{error.ctx.command_path if error.ctx else 'python -m nas_engine'} --help"


@contextmanager
def _reporting() -> Iterator[tuple[Console, Any]]:
    from nas_engine.terminal import reporter_for

    console = Console()
    yield console, reporter_for(console)


def _finish(console: Console, job: Any, **how: bool) -> None:
    with _stopping(job):
        result = job.run(**how)
    _conclude(console, result)


def _conclude(console: Console, result: Any) -> None:
    """Show a finished run; exit code 1 where its winner breaks a limit, so that scripts notice."""
    from nas_engine.terminal import print_next, print_result

    print_result(console, result)
    print_next(console, result)
    if result.unmet:
        raise typer.Exit(1)


@contextmanager
def _interruptible(hint: str) -> Iterator[None]:
    """Ctrl-C ends the work at once; one line says how to continue it."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped: {hint}", file=sys.stderr)
        raise typer.Exit(130) from None


@contextmanager
def _stopping(job: Any) -> Iterator[None]:
    """Ctrl-C once ends the run after the current unit of work; a second one ends it at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if job.context.stop_requested:
            raise KeyboardInterrupt
        job.context.stop_requested = True
        print("\nstopping after the current step; press Ctrl-C again to stop at once", file=sys.stderr)

    previous: Callable[[int, FrameType | None], Any] | int | None = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt as interruption:
        # Answered here: Typer would turn it into "Aborted!".
        saved = isinstance(interruption, SearchInterrupted)
        command = job.context.how_to_continue or f"python -m nas_engine resume {job.context.store.folder}"
        hint = f"stopped: continue with '{command}'"
        print(f"\n{interruption if saved else hint}", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGINT, previous)


def _print_settings() -> None:
    from nas_engine.config import describe

    table = Table("setting", "default", "meaning", box=None, pad_edge=False)
    for name, default, meaning in describe():
        table.add_row(f"--{name}", default, meaning)
    Console().print(table)
