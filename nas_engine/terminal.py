"""How a run looks in a terminal: progress bars with time left, plain lines elsewhere, and the final table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from nas_engine.context import Advance, Reporter
from nas_engine.result import SearchResult

_LINE_EVERY_SECONDS = 5.0
_SHOWN = ("loss", "accuracy", "best reward", "entropy", "learning_rate", "looked at", "proxies_in_search")


class BarReporter:
    """A progress bar for each phase, for terminals."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`."""
        self._console = console

    @contextmanager
    def phase(self, name: str) -> Iterator[Advance]:
        """A bar that stays on screen when the phase ends."""
        columns = (
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:>4.0f}/{task.total:<4.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=1, note="")

            def advance(done: int, total: int, values: Mapping[str, float]) -> None:
                progress.update(task, completed=done, total=total, note=_note(values))

            yield advance

    def message(self, text: str) -> None:
        """One line above the next bar."""
        self._console.print(text, highlight=False)


class LineReporter:
    """A plain line now and then, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self._console = console

    @contextmanager
    def phase(self, name: str) -> Iterator[Advance]:
        """A line at most every few seconds, and one when the phase is complete."""
        started = time.monotonic()
        last = started

        def advance(done: int, total: int, values: Mapping[str, float]) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _LINE_EVERY_SECONDS or done == total:
                last = now
                left = (now - started) / max(done, 1) * (total - done)
                self.message(
                    f"{name}: {done}/{total}, {now - started:.0f} s, {left:.0f} s left {_note(values)}".rstrip()
                )

        self.message(f"{name} ...")
        yield advance

    def message(self, text: str) -> None:
        """One line."""
        self._console.print(text, highlight=False, soft_wrap=True)


def reporter_for(console: Console) -> Reporter:
    """Bars in a terminal, lines elsewhere."""
    return BarReporter(console) if console.is_terminal else LineReporter(console)


def _note(values: Mapping[str, float]) -> str:
    return " ".join(f"{name} {values[name]:.3g}" for name in _SHOWN if name in values)


def print_result(console: Console, result: SearchResult) -> None:
    """The table of the winner beside random architectures, where the files are, and what to do next."""
    winner, baseline = result.report["winner"], result.report["random"]
    source = Path(result.data["source"]).name
    table = Table(title=f"{source}: winner and {len(baseline)} random architectures, trained alike")
    for heading in ("", "test", "validation", "params", "MACs", "ms", "p95 ms"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    table.add_row("winner", *_cells(winner["metrics"]), style="bold")
    if baseline:
        rows = [row["metrics"] for row in baseline]
        table.add_row("mean random", *_cells({name: statistics.fmean(r[name] for r in rows) for name in rows[0]}))
        best = max(rows, key=lambda metrics: metrics["test_accuracy"])
        table.add_row("best random", *_cells(best))
    console.print(table)
    setup = winner["latency_setup"]
    console.print(
        "test and validation accuracy; best random: by test accuracy; latency: median and 95th percentile on this "
        f"machine, {setup.get('device', 'cpu')}, {setup['threads']} thread(s), batch {setup['batch_size']}",
        highlight=False,
    )
    for line in result.unmet:
        console.print(line, style="bold", highlight=False, soft_wrap=True)
    if result.report["rank_quality"]:
        quality = result.report["rank_quality"]
        console.print(
            f"{result.config.evaluator.name} ranking on {quality['n']} random architectures: "
            f"Kendall tau {quality['tau']:.2f} (95 % interval {quality['tau_low']:.2f} "
            f"to {quality['tau_high']:.2f}; trained from scratch they reach "
            f"{quality['accuracy_min']:.1%} to {quality['accuracy_max']:.1%})",
            highlight=False,
        )
    console.print(f"winner: {winner['text']}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        "seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in result.seconds.items()), highlight=False
    )


def print_progress(console: Console, result: SearchResult) -> None:
    """How far the run has come, and its accuracy/cost trade-off."""
    searched = [trial for trial in result.trials if trial.phase == "search"]
    failed = sum(trial.metrics is None for trial in searched)
    console.print(
        f"run {result.run}: {len(searched)} proposals, {failed} without metrics, "
        + ("finished" if result.report else "not finished"),
        highlight=False,
        soft_wrap=True,
    )
    table = Table(title="best trade-offs found (score of the search, not of a trained network)")
    for heading in ("architecture", "score", "params", "MACs"):
        table.add_column(heading, justify="left" if heading == "architecture" else "right")
    for trial in result.pareto_front:
        values = trial.outcome.values
        table.add_row(
            trial.architecture.key,
            f"{values['accuracy']:.2%}",
            f"{values.get('params', float('nan')):,.0f}",
            f"{values.get('macs', float('nan')):,.0f}",
        )
    console.print(table)


def print_next(console: Console, result: SearchResult) -> None:
    """Where the files are and the command to do next."""
    console.print(
        f"files: {result.run}/ (run.db, config.yaml, search.jsonl), exports: {result.run}/export/",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"next: python -m nas_engine train {result.run}   (train the winner longer)", highlight=False, soft_wrap=True
    )


def _cells(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{metrics['test_accuracy']:.2%}",
        f"{metrics['validation_accuracy']:.2%}",
        f"{metrics['params']:,.0f}",
        f"{metrics['macs']:,.0f}",
        f"{metrics['measured_latency_ms']:.3f}",
        f"{metrics['measured_latency_p95_ms']:.3f}",
    )
