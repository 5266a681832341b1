"""Expected improvement equals its definition, and keeps an order where the definition underflows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from nas_engine.surrogates.acquisition import log_expected_improvement


@pytest.mark.parametrize("gain", [-3.0, -0.5, 0.0, 0.2, 4.0])
@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.5])
def test_equals_the_integral(gain: float, deviation: float) -> None:
    expected, _ = quad(lambda x: x * norm.pdf(x, gain, deviation), 0, gain + 30 * deviation, epsabs=0)
    found = log_expected_improvement(np.array([gain]), np.array([deviation]))
    assert found[0] == pytest.approx(np.log(expected), rel=1e-6)


def test_is_smooth_where_the_formula_changes() -> None:
    for edge in (-1e3, 30.0):
        gain = edge * np.array([1 - 1e-9, 1 + 1e-9])
        left, right = log_expected_improvement(gain, np.ones(2))
        assert left == pytest.approx(right, rel=1e-7)


@pytest.mark.filterwarnings("error")
def test_an_order_remains_far_below_the_best() -> None:
    gain = -np.geomspace(1e6, 1e-3, 200)
    values = log_expected_improvement(gain, np.ones(200))
    assert np.all(np.isfinite(values))
    assert np.all(np.diff(values) > 0)
    more = log_expected_improvement(np.full(2, -50.0), np.array([1.0, 1.1]))
    assert more[1] > more[0], "the less certain of two that are equally bad"
