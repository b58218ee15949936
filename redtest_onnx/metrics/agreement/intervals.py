"""How far an agreement measured on few samples tells that on all: confidence intervals of 95 %."""

from __future__ import annotations

from math import atanh, isfinite, sqrt, tanh
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]
"""Lower and upper end; shares between 0 and 1."""

_Z = 1.959963984540054  # quantile of the normal distribution for 95 %


def share_interval(share: float, samples: int) -> Interval | None:
    """Wilson's interval (1927) of a share.

    Also for the mean of any values between 0 and 1, such as the share of a picture's positions: their
    variance is at most that of answers that are right or wrong, so that the interval is no narrower than it
    must be.

    Args:
        share: measured.
        samples: independent ones that it was measured on.
    """
    if samples < 1:
        return None
    z2 = _Z * _Z
    middle = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    half = _Z / (1 + z2 / samples) * sqrt(max(share * (1 - share), 0) / samples + z2 / (4 * samples**2))
    return min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)


def mean_interval(mean: float, variance: float, samples: int) -> Interval | None:
    """Student's interval of a mean, cut to 0 and 1; None for a single sample, or what is not finite.

    Args:
        mean: of the values.
        variance: of the values, estimated with n - 1.
        samples: number of values.
    """
    if samples < 2 or not isfinite(mean + variance):
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(samples - 1, 0.975)) * sqrt(max(variance, 0.0) / samples)
    return _cut(mean - half), _cut(mean + half)


def correlation_interval(correlation: float, samples: int) -> Interval | None:
    """Interval of a rank correlation by Fisher's transformation, with the variance 1.06 / (n - 3).

    Of a correlation over all pairs of samples: pairs that share a sample depend on each other, so that no
    more than the samples are counted. Fieller, Hartley and Pearson (1957).
    """
    if samples < 5:
        return None
    if correlation >= 1:
        return 1.0, 1.0
    centre, half = atanh(max(correlation, -0.999999)), _Z * sqrt(1.06 / (samples - 3))
    return _cut(tanh(centre - half)), _cut(tanh(centre + half))


def _cut(value: float) -> float:
    return min(max(value, 0.0), 1.0)
