"""What a search in 3,000 simulated seconds of NAS-Bench-201 has to know: python search_ceiling.py [--quick].

For each data set searched for itself: the test accuracies of what its reward likes best, which a search reports that
misses nothing (one that misses it may by luck test higher); where the architecture stands whose test accuracies RoBoT
(He et al. 2024) reports; and where the reward model of ppo-model expects the best architecture when it was told so many
random others. Told half of the table, it shows how much its features can say; told few, how much 20 evaluations can.
Seconds are those of training on CIFAR-10 throughout: the table has no others.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
from record import Row, arguments, make_row, write_rows

from nas_engine.scores import FloatArray, log_rank_scores
from nas_engine.spaces.table import TableSpace
from nas_engine.surrogates.ensemble import RewardModel
from nas_engine.tables.description import load_description
from nas_engine.tables.table import Table, load_table

REWARDS = ("val12_cifar10", "val12_cifar100", "val12_imagenet16")
ROBOT = (94.36, 73.51, 46.34)  # test accuracies at 3,051 s, He et al. 2024, table 2
SECONDS = 3_000.0
KNOWN = (20, 100, 500)
REPEATS = 10
_PREDICTED_AT_ONCE = 1_000


def load(reward: str, file: Path | None) -> Table:
    """NAS-Bench-201 with another reward."""
    return load_table(load_description("nasbench201", {"reward": reward}, file=file))


def rows_of_reward(table: Table, reward: str) -> list[Row]:
    """What the rows that the reward likes best test at, and the standing of the row that RoBoT's numbers are of."""
    tied = table.rewards == table.rewards.max()
    rows = [make_row(reward, "rows of the best reward", "count", float(tied.sum()), "rows")]
    for name, mean in zip(table.description.reported, table.reports[tied].mean(axis=0), strict=True):
        rows.append(make_row(reward, "rows of the best reward", f"mean {name}", float(mean), "%"))
    like_robot = np.flatnonzero((np.abs(table.reports - ROBOT) < 0.006).all(axis=1))
    for row in like_robot:
        standing = float((table.rewards > table.rewards[row]).sum() + 1)
        rows.append(make_row(reward, "the row that tests as RoBoT reports", "place by the reward", standing, ""))
    return rows


def rows_of_model(table: Table, reward: str, known: int, repeats: int) -> list[Row]:
    """Place that the reward model gives the first of the best rows, and what following its order finds in time."""
    assert table.costs is not None
    space, genes = TableSpace(table), table.genes.astype(np.int64)
    is_best = table.rewards == table.rewards.max()
    places, found, reports = [], [], []
    for repeat in range(repeats):
        told = np.random.default_rng(repeat).permutation(np.flatnonzero(~is_best))[:known]
        rest = np.setdiff1d(np.arange(len(table)), told)
        model = RewardModel(space)
        model.fit(genes[told], log_rank_scores(table.rewards[told]))
        order = rest[np.argsort(-predicted(model, genes[rest]), kind="stable")]
        places.append(int(np.argmax(is_best[order])) + 1)
        in_time = order[np.cumsum(table.costs[order]) <= SECONDS]
        found.append(bool(is_best[in_time].any()))
        reports.append(table.reports[in_time[np.argmax(table.rewards[in_time])]])
    variant = f"reward model, told {known} random rows"
    rows = [
        make_row(reward, variant, "place of the best, median", statistics.median(places), ""),
        make_row(reward, variant, "place of the best, last", float(max(places)), ""),
        make_row(reward, variant, f"found in the {SECONDS:,.0f} s that follow", statistics.fmean(found), "share"),
    ]
    for name, mean in zip(table.description.reported, np.mean(reports, axis=0), strict=True):
        rows.append(make_row(reward, variant, f"mean {name}, {SECONDS:,.0f} s later", float(mean), "%"))
    return rows


def predicted(model: RewardModel, genes: np.ndarray) -> FloatArray:
    """Expected scores, some rows at a time: their kernel with all that is known would not fit in memory."""
    parts = range(0, len(genes), _PREDICTED_AT_ONCE)
    return np.concatenate([model.predict(genes[first : first + _PREDICTED_AT_ONCE])[0] for first in parts])


def main() -> None:
    """Write all rows for all rewards."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help="the table, where it is not in NAS_ENGINE_DATA")
    options = parser.parse_args()
    rows: list[Row] = []
    for reward in REWARDS:
        table = load(reward, options.file)
        rows += rows_of_reward(table, reward)
        for known in KNOWN[:1] if options.quick else (*KNOWN, len(table) // 2):
            rows += rows_of_model(table, reward, known, 1 if options.quick or known > KNOWN[-1] else REPEATS)
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
