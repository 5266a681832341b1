"""The most that a search in 3,000 simulated seconds of NAS-Bench-201 can reach: python search_ceiling.py [--quick].

Three bounds, for each data set searched for itself. What the reward itself prefers: no search that returns the best
that it saw does better. Where the row stands whose test accuracies RoBoT (He et al. 2024) reports. And what the
reward model of ppo-model knows of the best row when it is told so many random rows of the table and no search chose
them; with half of the table that is all that its features can say.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
from record import Row, arguments, write_rows

from nas_engine.scores import FloatArray, log_rank_scores
from nas_engine.spaces.table import TableSpace
from nas_engine.surrogates.ensemble import RewardModel
from nas_engine.tables.description import load_description
from nas_engine.tables.table import Table, load_table

REWARDS = ("val12_cifar10", "val12_cifar100", "val12_imagenet16")
ROBOT = (94.36, 73.51, 46.34)  # test accuracies at 3,051 s, table 2 of He et al. 2024, "Robustifying and boosting ..."
SECONDS = 3_000.0
KNOWN = (20, 50, 100, 200, 500, 1_000)
_PREDICTED_AT_ONCE = 1_000


def load(reward: str, file: Path | None) -> Table:
    """NAS-Bench-201 with another reward."""
    return load_table(load_description("nasbench201", {"reward": reward}, file=file))


def rows_of_reward(table: Table, reward: str) -> list[Row]:
    """What the rows that the reward likes best test at, and the standing of the row that RoBoT's numbers are of."""
    tied = table.rewards == table.rewards.max()
    rows = [_row(reward, "rows of the best reward", "count", float(tied.sum()), "rows")]
    for name, mean in zip(table.description.reported, table.reports[tied].mean(axis=0), strict=True):
        rows.append(_row(reward, "rows of the best reward", f"mean {name}", float(mean), "%"))
    like_robot = np.flatnonzero((np.abs(table.reports - ROBOT) < 0.006).all(axis=1))
    for row in like_robot:
        standing = float((table.rewards > table.rewards[row]).sum() + 1)
        rows.append(_row(reward, "the row that tests as RoBoT reports", "place by the reward", standing, ""))
    return rows


def rows_of_model(table: Table, reward: str, known: int, repeats: int) -> list[Row]:
    """Places that the reward model gives the best row which it was not told, and what its order finds in time."""
    assert table.costs is not None
    space, genes = TableSpace(table), table.genes.astype(np.int64)
    best = int(np.argmax(table.rewards))
    others = np.delete(np.arange(len(table)), best)
    places, found = [], []
    for repeat in range(repeats):
        told = np.random.default_rng(repeat).permutation(others)[:known]
        rest = np.setdiff1d(np.arange(len(table)), told)
        model = RewardModel(space)
        model.fit(genes[told], log_rank_scores(table.rewards[told]))
        order = rest[np.argsort(-predicted(model, genes[rest]), kind="stable")]
        places.append(int(np.flatnonzero(order == best)[0]) + 1)
        in_time = order[np.cumsum(table.costs[order]) <= SECONDS]
        found.append(table.reports[in_time[np.argmax(table.rewards[in_time])]])
    variant = f"reward model, told {known} random rows"
    rows = [
        _row(reward, variant, "place of the best row, median", statistics.median(places), ""),
        _row(reward, variant, "place of the best row, last", float(max(places)), ""),
        _row(reward, variant, f"first in the {SECONDS:,.0f} s that follow", float(np.mean(np.array(places) == 1)), ""),
    ]
    means = np.mean(found, axis=0)
    for name, mean in zip(table.description.reported, means, strict=True):
        rows.append(_row(reward, variant, f"mean {name}, {SECONDS:,.0f} s later", float(mean), "%"))
    return rows


def predicted(model: RewardModel, genes: np.ndarray) -> FloatArray:
    """Expected scores, some rows at a time: their kernel with all that is known would not fit in memory."""
    parts = range(0, len(genes), _PREDICTED_AT_ONCE)
    return np.concatenate([model.predict(genes[first : first + _PREDICTED_AT_ONCE])[0] for first in parts])


def _row(case: str, variant: str, metric: str, value: float, unit: str) -> Row:
    return {"case": case, "variant": variant, "metric": metric, "value": value, "unit": unit}


def main() -> None:
    """All bounds for all rewards."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help="the table, where it is not in NAS_ENGINE_DATA")
    options = parser.parse_args()
    rows: list[Row] = []
    for reward in REWARDS:
        table = load(reward, options.file)
        rows += rows_of_reward(table, reward)
        for known in KNOWN[:2] if options.quick else (*KNOWN, len(table) // 2):
            large = known > KNOWN[-1]
            rows += rows_of_model(table, reward, known, 1 if large else 3 if options.quick else 20)
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
