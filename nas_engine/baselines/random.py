"""Random search: architectures drawn uniformly from all valid ones, each form once."""

from __future__ import annotations

from nas_engine.baselines.remembering import RememberingController
from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture


class RandomOptions(Options):
    """Random search has no options."""


class RandomController(RememberingController):
    """Proposes architectures uniformly at random: the baseline every other method has to beat.

    Uniform means over all valid architectures, not over the choices of each decision; an architecture whose
    canonical form stands for many is that much likelier, as it is for whoever samples the space by hand.
    """

    Options = RandomOptions

    def __init__(self, space: SearchSpace, options: RandomOptions = RandomOptions(), seed: int = 0) -> None:
        """Set up.

        Args:
            space: where architectures come from.
            options: none so far.
            seed: of all draws.
        """
        super().__init__(space, seed)

    def _next(self) -> Architecture:
        return self._seen.draw(self._rng)
