"""What scores architectures: the promises every evaluator keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from nas_engine.types import Architecture, Fidelity, Outcome, StateDict


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished unit of a long phase.

    Attributes:
        done: units finished so far.
        total: units in all.
        values: what to log about this unit, for example ``{"loss": 0.4, "learning_rate": 0.01}``.
    """

    done: int
    total: int
    values: dict[str, float]


class Evaluator(Protocol):
    """Scores architectures.

    Promises:

    - `evaluate` returns one outcome for each architecture, in order, and never raises for a fault of an architecture:
      an exception, NaN, lack of memory or a timeout is a `Failure`. KeyboardInterrupt passes through.
    - With equal state, `evaluate` is a pure function of (architectures, fidelity).
    - `prepare` does what must come before the first evaluation (training a supernet), one unit at each step of the
      iterator. After any step `state_dict` may be saved; a fresh evaluator that loads it and iterates `prepare` again
      goes on from there, to the same result as without the interruption. When nothing is left it yields nothing.
    - `state_dict` holds tensors, numbers, strings, lists and dicts only, so that it loads with ``weights_only=True``.
    """

    @property
    def fidelity(self) -> Fidelity:
        """The fidelity this evaluator uses unless told otherwise."""
        ...

    def prepare(self) -> Iterator[Progress]:
        """Do the work that precedes the first evaluation, step by step."""
        ...

    def evaluate(self, architectures: Sequence[Architecture], fidelity: Fidelity | None = None) -> list[Outcome]:
        """Score each architecture on validation data."""
        ...

    def state_dict(self) -> StateDict:
        """Everything that `prepare` has built up."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        ...
