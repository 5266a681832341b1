"""What models see of an architecture: numbers that say more of its graph than the genes themselves do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nas_engine.spaces.base import CellStructure, SearchSpace

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_LARGEST_LISTED_SPACE = 50_000
_REFERENCE_SAMPLES = 1_000
_REFERENCE_SEED = 0
_MOST_PATHS = 64
_LARGEST_CODE = 2**63 - 1
_LEAST_DEVIATION = 1e-12


class ArchitectureFeatures:
    """Features of the architectures of one space, on a scale that does not depend on which were evaluated.

    Where the decisions are the edges of a cell, the features describe the graph: how many paths lead from input to
    output and how many of them pass their input on unchanged, the longest, mean and shortest number of operations on
    a path, for each operation the most and the fewest of it on a path, and how often each is on an edge that counts.
    Other spaces: how often each choice was made among the decisions that share it, and whether rather early or late
    (the sum of the positions, -1 first to 1 last). Both: the logarithms of the metrics that are known before an
    evaluation (parameters, multiply-accumulates ...). What does not vary is left out.

    Attributes:
        space: whose architectures are described.
    """

    def __init__(self, space: SearchSpace) -> None:
        """Measure mean and spread of each feature over `space`, or over a thousand random architectures of it."""
        self.space = space
        paths = _paths(space.cell, len(space.decisions[0].choices)) if space.cell is not None else []
        self._cell = space.cell if paths else None
        self._paths = paths
        small = space.size <= _LARGEST_LISTED_SPACE
        rng = np.random.default_rng(_REFERENCE_SEED)
        reference = list(space) if small else space.samples(rng, _REFERENCE_SAMPLES)
        genes = np.array([architecture.genes for architecture in reference], dtype=np.int64)
        raw = self._raw(genes)
        known = ~np.isnan(raw)
        counts = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, raw, 0.0).sum(axis=0) / counts
        deviation = np.sqrt((np.where(known, raw - mean, 0.0) ** 2).sum(axis=0) / counts)
        self._varies = deviation > _LEAST_DEVIATION
        self._mean, self._deviation = mean[self._varies], deviation[self._varies]
        self._listed: tuple[FloatArray, IntArray] | None = None
        if small:  # what is asked for again and again is looked up
            self._listed = self._summary(genes), self._path_codes(genes)

    def summary(self, genes: IntArray) -> FloatArray:
        """Standardised features of valid `genes` [n, decisions], float64 [n, features]; what is not known counts 0."""
        return self._summary(genes) if self._listed is None else self._listed[0][self.space.diagram.rank(genes)]

    def path_codes(self, genes: IntArray) -> IntArray:
        """The operations along each path from input to output, as numbers: int64 [n, paths].

        Operations that pass their input on are left out, so paths that compute the same have the same number.
        -1: the path is cut by a zero operation.
        """
        return self._path_codes(genes) if self._listed is None else self._listed[1][self.space.diagram.rank(genes)]

    def _summary(self, genes: IntArray) -> FloatArray:
        features: FloatArray = (self._raw(genes)[:, self._varies] - self._mean) / self._deviation
        return np.nan_to_num(features)

    def _path_codes(self, genes: IntArray) -> IntArray:
        codes = [self._code(genes[:, list(path)]) for path in self._paths]
        return np.stack(codes, axis=1) if codes else np.empty((len(genes), 0), dtype=np.int64)

    def _code(self, operations: IntArray) -> IntArray:
        assert self._cell is not None
        code = np.zeros(len(operations), dtype=np.int64)
        base = len(self.space.decisions[0].choices) + 1
        for column in operations.T:
            counts = column != self._cell.identity_choice
            code = np.where(counts, code * base + column + 1, code)
        code[(operations == self._cell.zero_choice).any(axis=1)] = -1
        return code

    def _raw(self, genes: IntArray) -> FloatArray:
        if self._cell is not None:
            structure = _cell_features(genes, self._cell, self._paths, len(self.space.decisions[0].choices))
        else:
            structure = _choice_features(genes, self.space)
        known = self.space.known_metrics(genes)
        with np.errstate(invalid="ignore", divide="ignore"):
            logarithms = np.where(known > 0, np.log(known), np.nan)
        return np.concatenate([structure, logarithms], axis=1)


@lru_cache(maxsize=4)
def features_of(space: SearchSpace) -> ArchitectureFeatures:
    """The features of a space, which are the same for all that ask; those of the last few spaces are kept."""
    return ArchitectureFeatures(space)


def _paths(cell: CellStructure, choices: int) -> list[tuple[int, ...]]:
    """Decisions along every path from node 0 to the last node; none where they are too many, or too long for a code."""
    last = max(target for _, target in cell.edges)
    complete: list[tuple[int, ...]] = []
    open_paths: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    while open_paths:
        node, path = open_paths.pop()
        if node == last:
            complete.append(path)
        for decision, (source, target) in enumerate(cell.edges):
            if source == node:
                open_paths.append((target, (*path, decision)))
        if len(complete) > _MOST_PATHS or (choices + 1) ** len(path) > _LARGEST_CODE:
            return []
    return sorted(complete, key=lambda path: (len(path), path))


def _cell_features(genes: IntArray, cell: CellStructure, paths: Sequence[tuple[int, ...]], choices: int) -> FloatArray:
    zero, identity = cell.zero_choice, cell.identity_choice
    whole = np.stack([(genes[:, list(path)] != zero).all(axis=1) for path in paths], axis=1)
    made = genes[None] == np.arange(choices)[:, None, None]
    counts = np.stack([made[:, :, list(path)].sum(axis=2) for path in paths], axis=2)
    operations = [choice for choice in range(choices) if choice not in (zero, identity)]
    lengths = counts[operations].sum(axis=0)
    live = np.zeros(genes.shape, dtype=bool)
    for column, path in enumerate(paths):
        live[:, list(path)] |= whole[:, [column]]
    features = [whole.sum(axis=1), (whole & (lengths == 0)).sum(axis=1), live.sum(axis=1)]
    features += [_most(lengths, whole), _least(lengths, whole), _average(lengths, whole)]
    for choice in operations:
        features += [_most(counts[choice], whole), _least(counts[choice], whole)]
    features += [((genes == choice) & live).sum(axis=1) for choice in range(choices) if choice != zero]
    return np.stack(features, axis=1).astype(np.float64)


def _most(values: IntArray, among: BoolArray) -> IntArray:
    most: IntArray = np.where(among, values, 0).max(axis=1)
    return most


def _least(values: IntArray, among: BoolArray) -> IntArray:
    least: IntArray = np.where(among, values, np.iinfo(np.int64).max).min(axis=1)
    return np.where(among.any(axis=1), least, 0)


def _average(values: IntArray, among: BoolArray) -> FloatArray:
    average: FloatArray = np.where(among, values, 0).sum(axis=1) / np.maximum(among.sum(axis=1), 1)
    return average


def _choice_features(genes: IntArray, space: SearchSpace) -> FloatArray:
    """For each choice: how many decisions made it, and the sum of their positions (-1 first, 1 last)."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, decision in enumerate(space.decisions):
        groups.setdefault(decision.choices, []).append(position)
    features = []
    for choices, positions in groups.items():
        for choice in range(len(choices)):
            made = genes[:, positions] == choice
            features.append(made.sum(axis=1))
            if len(positions) > 1:
                features.append(made @ np.linspace(-1, 1, len(positions)))
    return np.stack(features, axis=1).astype(np.float64)
