"""Sizes of the code: lines of files, and lines of functions without their docstrings; median, 90 %, largest."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from record import Row, arguments, make_row, write_rows

ROOT = Path(__file__).parents[1]
GROUPS = {
    "nas_engine + envs": ("nas_engine", "envs"),
    "tests": ("tests",),
    "benchmarks": ("benchmarks",),
    "csrc": ("csrc",),
}


def main() -> None:
    """Measure every tracked source file."""
    options = arguments(__doc__).parse_args()
    rows: list[Row] = []
    for group, folders in GROUPS.items():
        files = list(tracked(folders))
        rows += summary(group, "file", [(len(file.read_text().splitlines()), str(file)) for file in files])
        functions = [found for file in files if file.suffix == ".py" for found in functions_of(file)]
        if functions:
            rows += summary(group, "function", functions)
    write_rows(rows, options.out)


def tracked(folders: Sequence[str]) -> Iterator[Path]:
    """Source files that git tracks."""
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if name.endswith((".py", ".cpp", ".cu", ".h")) and (ROOT / name).stat().st_size:
            yield ROOT / name


def functions_of(file: Path) -> Iterator[tuple[int, str]]:
    """(lines without the docstring, name) of every function and method."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
            yield (node.end_lineno or node.lineno) - node.lineno + 1 - docstring, f"{file.name}:{node.name}"


def summary(group: str, kind: str, sizes: Sequence[tuple[int, str]]) -> list[Row]:
    """Count, median, 90th percentile and the largest, by name."""
    lines = [size for size, _ in sizes]
    largest, name = max(sizes)
    values = [
        ("count", float(len(lines)), f"{kind}s"),
        ("median", float(np.median(lines)), "lines"),
        ("90 %", float(np.percentile(lines, 90)), "lines"),
        (f"largest ({Path(name).name})", float(largest), "lines"),
    ]
    return [make_row(group, kind, metric, value, unit) for metric, value, unit in values]


if __name__ == "__main__":
    main()
