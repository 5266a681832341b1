"""A small table in a file, with a known optimum and a cost."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from nas_engine.spaces.table import TableSpace
from nas_engine.tables.description import load_description
from nas_engine.tables.table import load_table

DESCRIPTION = """
file: table.csv
decisions: [a, b, c, d]
reward: {column: loss, direction: min}
report: [test, loss]
cost: seconds
known: [size]
"""


@pytest.fixture
def described(tmp_path: Path) -> str:
    """256 rows, the loss of which is 1 at genes 3-2-1-0 and grows with the distance from there; 10 s each."""
    lines = ["a,b,c,d,loss,test,seconds,size"]
    for genes in itertools.product(range(4), repeat=4):
        distance = sum(abs(gene - best) for gene, best in zip(genes, (3, 2, 1, 0), strict=True))
        loss = 1 + distance + 0.01 * genes[0] * (distance > 0)
        lines.append(",".join(map(str, (*genes, loss, 100 - distance, 10, sum(genes)))))
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "mine.yaml").write_text(DESCRIPTION)
    return str(tmp_path / "mine.yaml")


@pytest.fixture
def space(described: str) -> TableSpace:
    return TableSpace(load_table(load_description(described)))
