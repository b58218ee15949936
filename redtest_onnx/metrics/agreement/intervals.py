"""How far an agreement measured on few samples tells that on all: confidence intervals of 95 %."""

from __future__ import annotations

from math import atanh, isfinite, sqrt, tanh
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]
"""Lower and upper end; shares between 0 and 1."""

_Z = 1.959963984540054  # quantile of the normal distribution for 95 %
_CLOSE_TO_NORMAL = 10  # degrees of freedom


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
    half = _student(samples - 1) * sqrt(max(variance, 0.0) / samples)
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


def _student(freedom: int) -> float:
    """The quantile of Student's distribution that leaves 2.5 % above it, to 4e-6 of it.

    By the expansion about the normal distribution (Abramowitz and Stegun, 26.7.5) where it is close: SciPy's
    functions take a quarter of a second to load.
    """
    if freedom < _CLOSE_TO_NORMAL:
        from scipy.special import stdtrit

        return float(stdtrit(freedom, 0.975))
    z, n = _Z, 4 * freedom
    terms = (
        z,
        (z**3 + z) / n,
        (5 * z**5 + 16 * z**3 + 3 * z) / (6 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (6 * n**3),
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (360 * n**4),
    )
    return sum(terms)


def _cut(value: float) -> float:
    return min(max(value, 0.0), 1.0)
