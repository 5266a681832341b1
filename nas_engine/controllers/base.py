"""What proposes architectures: the protocol that learning controllers and search baselines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from nas_engine.types import Architecture, StateDict

Diagnostics = Mapping[str, float]
"""What an update reports, for example entropy (nats a decision), approx_kl, clip_fraction, baseline."""


class Controller(Protocol):
    """Proposes architectures and learns from their rewards.

    Built as ``factory(space, options, seed)`` where `options` is an instance of the class attribute ``Options``; where
    that has a field ``proxies`` and it is not empty, as ``factory(space, options, seed, proxies)``: the fourth argument
    is a `nas_engine.proxies.scoring.ProxyScores` of these names.

    Promises:

    - `propose(n)` returns exactly `n` valid, canonical architectures. Within what the space holds they are new: not
      proposed before, not told by `update`, not twice in one list; only when the space has no unseen architecture
      left (or none is found with reasonable effort) does it repeat one.
    - `update` takes the last proposals with their rewards, higher is better, every reward finite (failures and
      infeasible architectures come with a penalty). It never raises for odd rewards (all equal, huge): an update
      that would make a weight non-finite is undone and reported as ``nan_guard`` = 1.
    - Same space, options, seed and rewards: same proposals. Randomness is the controller's own.
    - `load_state_dict(state_dict())` into a fresh controller continues exactly; the state holds tensors, numbers,
      strings, lists and dicts only.
    """

    def propose(self, n: int) -> list[Architecture]:
        """The next `n` architectures to evaluate."""
        ...

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> Diagnostics:
        """Learn from `rewards` [n] of `architectures` [n]; returns diagnostics by name."""
        ...

    def state_dict(self) -> StateDict:
        """Weights, optimiser, memory of seen architectures, and random state."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        ...


@runtime_checkable
class SecondsLearner(Protocol):
    """A controller that also wants to know how long evaluations took."""

    def learn_seconds(self, architectures: Sequence[Architecture], seconds: Sequence[float]) -> None:
        """Told before `Controller.update` is told the rewards of the same `architectures`; 0 where it is not known."""
        ...
