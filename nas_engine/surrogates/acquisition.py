"""What a predicted score promises: acquisition functions of Bayesian optimisation."""

from __future__ import annotations

import numpy as np
from scipy.special import erfcx

from nas_engine.scores import FloatArray

_FAR = -1e3  # standard deviations below the best, from where phi(z) + z Phi(z) is phi(z) / z**2 ...
_ABOVE = 30.0  # ... and above it, from where it is z, to all digits


def log_expected_improvement(gain: FloatArray, deviation: FloatArray) -> FloatArray:
    """Logarithm of the expected improvement on the best score, for normally distributed predictions.

    With z = gain / deviation it is log(deviation) + log(phi(z) + z Phi(z)) (Jones et al. 1998, equation 15), computed
    without underflow as in Ament et al. 2023, "Unexpected improvements to expected improvement for Bayesian
    optimization", equation 9: far below the best, where the improvement itself is 0, an order remains.

    Args:
        gain: expected score minus the best known, [n].
        deviation: standard deviations of the predictions, positive, [n].

    Returns:
        [n], natural logarithms.
    """
    z = gain / deviation
    log_density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    near = np.maximum(z, _FAR)
    with np.errstate(over="ignore", invalid="ignore"):  # erfcx of large positive z, which the next line does not take
        ratio = np.log1p(near * np.sqrt(np.pi / 2) * erfcx(-near / np.sqrt(2)))
    far = np.log(np.maximum(np.abs(z), 1.0))
    unit = np.where(z > _ABOVE, far, log_density + np.where(z > _FAR, ratio, -2 * far))
    result: FloatArray = unit + np.log(deviation)
    return result
