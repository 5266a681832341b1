"""Which gene sequences are valid: a layered decision diagram that gives masks, counts, ranks and uniform samples.

A multi-valued decision diagram is an automaton whose paths from the start state to the end are exactly the valid
architectures. Because each space describes its rules this way, one piece of code answers "which choices are open
after this prefix?" for every space, and the native environments step through the same two arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Step = Callable[[int, Hashable, int], Hashable | None]
"""(decision index, state, choice) -> next state, or None where the choice is not allowed."""


class DecisionDiagram:
    """All valid gene sequences of a space.

    Attributes:
        choices: number of choices of each decision, [decisions].
        transitions: int32 [states, max_choices]; the next state, or -1 where the choice is not allowed. State 0 is
            the start. States of different decisions are distinct; from every state the end can be reached.
    """

    def __init__(self, choices: Sequence[int], start: Hashable, step: Step) -> None:
        """Explore all states reachable from `start` and drop those from which no valid sequence can be finished.

        Args:
            choices: number of choices of each decision.
            start: any hashable state before the first decision.
            step: the rule; states are compared by equality within one decision.

        Raises:
            ValueError: no sequence is valid.
        """
        self.choices = tuple(choices)
        layers: list[list[Hashable]] = [[start]]
        moves: list[list[list[Hashable | None]]] = []
        for position, count in enumerate(self.choices):
            layer_moves = [[step(position, state, choice) for choice in range(count)] for state in layers[-1]]
            following = dict.fromkeys(state for row in layer_moves for state in row if state is not None)
            moves.append(layer_moves)
            layers.append(list(following))
        self.transitions, self._path_counts = self._number_states(layers, moves)

    @classmethod
    def from_sequences(cls, choices: Sequence[int], rows: npt.NDArray[np.integer[Any]]) -> DecisionDiagram:
        """The diagram whose valid sequences are exactly the rows of a table.

        States with equal futures are one, so the diagram is the smallest there is: a complete table needs one state a
        decision.

        Args:
            choices: number of choices of each decision.
            rows: genes [rows, decisions], at least one row, in lexicographic order, no two equal.

        Raises:
            ValueError: there are no rows, they are out of order, or a gene is no choice.
        """
        genes: IntArray = np.asarray(rows, dtype=np.int64)
        if genes.ndim != 2 or not len(genes) or genes.shape[1] != len(choices):
            raise ValueError(f"genes must be at least one row of {len(choices)}, got shape {genes.shape}")
        if (genes < 0).any() or (genes >= np.array(choices)).any():
            raise ValueError(f"a gene is outside its decision, which have {list(choices)} choices")
        diagram = cls.__new__(cls)
        diagram.choices = tuple(choices)
        diagram.transitions, diagram._path_counts = _merged_trie(genes, max(choices))
        return diagram

    def _number_states(
        self, layers: list[list[Hashable]], moves: list[list[list[Hashable | None]]]
    ) -> tuple[npt.NDArray[np.int32], list[int]]:
        # Counts are Python integers: a mobilenet space holds more than 2**63 architectures.
        counts: list[dict[Hashable, int]] = [{} for _ in layers]
        counts[-1] = dict.fromkeys(layers[-1], 1)
        for position in range(len(self.choices) - 1, -1, -1):
            for state, row in zip(layers[position], moves[position], strict=True):
                total = sum(counts[position + 1].get(target, 0) for target in row if target is not None)
                if total:
                    counts[position][state] = total
        if not counts[0]:
            raise ValueError("the rules of this space allow no architecture at all")
        alive = ((position, state) for position in range(len(layers)) for state in counts[position])
        ids = {identity: number for number, identity in enumerate(alive)}
        transitions = np.full((len(ids), max(self.choices)), -1, dtype=np.int32)
        for position, layer_moves in enumerate(moves):
            for state, row in zip(layers[position], layer_moves, strict=True):
                for choice, target in enumerate(row):
                    if (position, state) in ids and target is not None and (position + 1, target) in ids:
                        transitions[ids[position, state], choice] = ids[position + 1, target]
        return transitions, [counts[position][state] for position, state in ids]

    @property
    def size(self) -> int:
        """Exact number of valid architectures."""
        return self._path_counts[0]

    @cached_property
    def allowed(self) -> BoolArray:
        """The choices open in each state, bool [states, max_choices]."""
        return self.transitions >= 0

    def walk(self, prefix: Sequence[int]) -> int | None:
        """State after `prefix`, or None where the prefix is not the start of any valid architecture."""
        state = 0
        if len(prefix) > len(self.choices):
            return None
        for position, gene in enumerate(prefix):
            if not 0 <= gene < self.choices[position]:
                return None
            state = int(self.transitions[state, gene])
            if state < 0:
                return None
        return state

    def contains(self, genes: Sequence[int]) -> bool:
        """Whether `genes` is a complete, valid architecture."""
        return len(genes) == len(self.choices) and self.walk(genes) is not None

    def rank(self, genes: npt.NDArray[np.integer[Any]]) -> IntArray:
        """Numbers of architectures in lexicographic order, the inverse of `unrank`; -1 for what is not valid.

        Args:
            genes: [architectures, decisions].

        Raises:
            OverflowError: the space holds 2**63 architectures or more.
            ValueError: the rows of genes have another length.
        """
        offsets, transitions = self._rank_tables
        width = transitions.shape[1]
        genes = np.asarray(genes)
        if genes.shape[1:] != (len(self.choices),):
            raise ValueError(f"genes must be rows of {len(self.choices)}, got shape {genes.shape}")
        genes = np.where((genes >= 0) & (genes < self.choices), genes, width - 1)  # no choice: it leads nowhere
        state = np.zeros(len(genes), dtype=np.int64)
        total = np.zeros(len(genes), dtype=np.int64)
        for column in genes.T:
            total += offsets[state, column]
            state = transitions[state, column]
        return np.where(state >= 0, total, -1)

    @cached_property
    def _rank_tables(self) -> tuple[IntArray, IntArray]:
        # Sequences that pass through lower choices, and transitions, both int64 [states + 1, max_choices + 1]. The
        # last row is state -1, which is never left; the last column is no choice, and leads there.
        transitions = np.pad(self.transitions.astype(np.int64), (0, 1), constant_values=-1)
        counts = np.array([*self._path_counts, 0], dtype=np.int64)  # transitions of -1 read the last
        below = np.cumsum(counts[transitions], axis=1)
        return np.concatenate([np.zeros_like(below[:, :1]), below[:, :-1]], axis=1), transitions

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Genes drawn uniformly from *all valid architectures* (not uniformly at each decision)."""
        [genes] = self.samples(rng, 1)
        return genes

    def samples(self, rng: np.random.Generator, count: int) -> list[tuple[int, ...]]:
        """As many independent draws, all at once: those that as many calls of `sample` give."""
        uniform = rng.random((count, len(self.choices)))
        state: IntArray = np.zeros(count, dtype=np.int64)
        genes = np.empty((count, len(self.choices)), dtype=np.int64)
        for position in range(len(self.choices)):
            genes[:, position] = (self._cumulative[state] <= uniform[:, position, None]).sum(axis=1)
            state = self.transitions[state, genes[:, position]].astype(np.int64)
        return [tuple(row) for row in genes.tolist()]

    @cached_property
    def _cumulative(self) -> FloatArray:
        """Probability that a draw takes a choice or one before it, [states, max_choices]; 1 from the last open one."""
        # Ratios of (possibly huge) path counts as floats: exact for counts below 2**53, else within 1e-15.
        cumulative = np.ones(self.transitions.shape)
        for state, targets in enumerate(self.transitions.tolist()):
            shares = np.cumsum([self._path_counts[t] / self._path_counts[state] if t >= 0 else 0.0 for t in targets])
            if shares[-1] > 0:
                last = max(choice for choice, target in enumerate(targets) if target >= 0)
                cumulative[state, :last] = shares[:last] / shares[-1]
        return cumulative

    def unrank(self, index: int) -> tuple[int, ...]:
        """The valid architecture number `index` in lexicographic order of genes, 0 <= index < size."""
        if not 0 <= index < self.size:
            raise IndexError(f"architecture index {index} is outside 0..{self.size - 1}")
        state, genes = 0, []
        for count in self.choices:
            for gene, target in enumerate(self.transitions[state, :count]):
                below = self._path_counts[target] if target >= 0 else 0
                if index < below:
                    genes.append(gene)
                    state = int(target)
                    break
                index -= below
        return tuple(genes)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """All valid gene tuples in lexicographic order."""
        return (self.unrank(index) for index in range(self.size))


def _merged_trie(genes: IntArray, width: int) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Transitions and path counts of the smallest diagram of sorted rows, built from the last decision backwards."""
    changes = genes[1:] != genes[:-1]
    if not changes.any(axis=1).all():
        raise ValueError("two rows of genes are equal")
    first = changes.argmax(axis=1)
    rows = np.arange(len(first))
    if (genes[1:][rows, first] < genes[:-1][rows, first]).any():
        raise ValueError("rows of genes are not in lexicographic order")
    layers: list[IntArray] = [np.full((1, width), -1)]
    counts: list[IntArray] = [np.ones(1, dtype=np.int64)]
    targets = np.zeros(len(genes), dtype=np.int64)  # of each row: its state in the layer after the decision
    for position in range(genes.shape[1] - 1, -1, -1):
        # Rows that agree before the decision are one prefix; prefixes with equal moves are one state.
        prefix = np.concatenate([[0], np.cumsum(first < position)])
        moves = np.full((int(prefix[-1]) + 1, width), -1)
        moves[prefix, genes[:, position]] = targets
        states, state_of = _distinct(moves)
        targets = state_of[prefix]
        layers.append(states)
        counts.append(np.where(states >= 0, counts[-1][states], 0).sum(axis=1))
    layers.reverse()
    starts = np.cumsum([0, *map(len, layers)])
    numbered = [np.where(s >= 0, s + start, -1) for s, start in zip(layers, starts[1:], strict=True)]
    return np.concatenate(numbered).astype(np.int32), np.concatenate(counts[::-1]).tolist()


def _distinct(rows: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct rows, and which of them each row is.

    Rows are told apart by a 64-bit hash, which is verified: sorting whole rows takes fifty times as long.
    """
    factors = np.random.default_rng(0).integers(1, 2**63, rows.shape[1], dtype=np.uint64) * 2 + 1
    with np.errstate(over="ignore"):
        hashes = (rows.astype(np.uint64) * factors).sum(axis=1)
    _, places, which = np.unique(hashes, return_index=True, return_inverse=True)
    distinct = rows[places]
    if not np.array_equal(distinct[which], rows):
        distinct, which = np.unique(rows, axis=0, return_inverse=True)
    return distinct, which.reshape(-1)
