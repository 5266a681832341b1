"""A hard limit on one metric: how it is written, and by how much a value breaks it."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_engine.errors import ConfigError
from nas_engine.types import Metrics

_COMPARISONS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A hard limit on one metric.

    Attributes:
        metric: for example ``macs``.
        operator: ``<=``, ``<``, ``>=`` or ``>``.
        limit: in the unit of the metric.
    """

    metric: str
    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read for example ``macs <= 2e6``.

        Raises:
            ConfigError: the text has another form or the limit is no finite number.
        """
        match = re.fullmatch(r"\s*([A-Za-z]\w*)\s*(<=|>=|<|>)\s*([^\s<>=]+)\s*", text)
        try:
            limit = float(match[3]) if match else math.nan
        except ValueError:
            limit = math.nan
        if match is None or not math.isfinite(limit):
            raise ConfigError(
                f"constraint {text!r} is not understood: write METRIC, one of <=, <, >=, >, and a number, "
                "for example 'macs <= 2e6'"
            )
        return cls(match[1], match[2], limit)

    def __str__(self) -> str:
        """The text that `parse` reads."""
        limit = str(int(self.limit)) if self.limit.is_integer() and abs(self.limit) < 1e15 else repr(self.limit)
        return f"{self.metric} {self.operator} {limit}"

    @property
    def is_upper(self) -> bool:
        """Whether the limit bounds from above."""
        return self.operator.startswith("<")

    def violation(self, metrics: Metrics) -> float:
        """0 where the limit is met, else the excess relative to the limit; infinite where the metric is unknown."""
        value = metrics.values.get(self.metric, math.nan)
        if math.isnan(value):
            return math.inf
        excess = (value - self.limit) if self.is_upper else (self.limit - value)
        if excess < 0 or (excess == 0 and self.operator.endswith("=")):
            return 0.0
        return max(excess / (abs(self.limit) or 1.0), math.ulp(1.0))

    def met(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which of `values` [n] of the metric are within the limit; an unknown one, NaN, is not."""
        within: npt.NDArray[np.bool_] = _COMPARISONS[self.operator](values, self.limit)
        return within
