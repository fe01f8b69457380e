"""Verdicts on the claims of a table: a paired or an unpaired mean, what it must lie in, and Holm's
correction over all claims of the table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from ..evaluation.statistics import holm
from .claims import HELD, Interval

LEVEL = 0.05
NOT_TESTED, UNDECIDED = "not tested", "undecided"


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error and degrees of freedom, 0 where a single value has none."""

    mean: float
    error: float
    freedom: float

    @property
    def interval(self) -> Interval:
        """The mean and the ends of its 95 % interval, rounded so that no rounding error counts."""
        if not self.freedom:
            return self.mean, -math.inf, math.inf
        half = float(stats.t.ppf(1 - LEVEL / 2, self.freedom)) * self.error
        return tuple(round(end, 6) + 0.0 for end in (self.mean, self.mean - half, self.mean + half))


def paired_mean(values: Sequence[float]) -> Estimate:
    """The mean of independent differences (Student)."""
    mean, square = _moments(values)
    return Estimate(mean, math.sqrt(square), len(values) - 1)


def mean_difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """The difference of the means of two independent groups (Welch)."""
    (mean, square), (base, other) = _moments(values), _moments(others)
    if min(len(values), len(others)) < 2:
        return Estimate(mean - base, 0.0, 0)
    parts = square**2 / (len(values) - 1) + other**2 / (len(others) - 1)
    freedom = (square + other) ** 2 / parts if parts else len(values) + len(others) - 2
    return Estimate(mean - base, math.sqrt(square + other), freedom)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the square of its standard error."""
    n = len(values)
    mean = sum(values) / n
    return mean, sum((value - mean) ** 2 for value in values) / (n - 1) / n if n > 1 else 0.0


def p_value(found: Estimate, low: float, high: float) -> tuple[float, bool]:
    """How surprising the estimate is if the truth lies at the nearest bound, two-sided; and whether
    it speaks for the range or against it.
    """
    if not found.freedom:
        return 1.0, True
    inside = max(_tail(found, found.mean - low), _tail(found, high - found.mean))
    outside = min(_tail(found, low - found.mean), _tail(found, found.mean - high))
    return min(1.0, 2 * min(inside, outside)), inside <= outside


def _tail(found: Estimate, distance: float) -> float:
    """The probability of a distance beyond a bound as large as this one; 0 and 1 where nothing
    varies, and 0 for no bound.
    """
    if math.isinf(distance):
        return 0.0 if distance > 0 else 1.0
    if not found.error:
        return 0.0 if distance > 0 else 1.0
    return float(stats.t.sf(distance / found.error, found.freedom))


def verdicts(found: Sequence[tuple[Estimate | None, float, float]]) -> list[str]:
    """The verdict on every claim of a table, given as an estimate and the range that it has to lie
    in; claims without an estimate are not tested, and do not count.
    """
    tested = [row for row, (estimate, _, _) in enumerate(found) if estimate]
    known = [p_value(*found[row]) for row in tested]
    said = [NOT_TESTED] * len(found)
    for row, (_, inside), p in zip(tested, known, holm([p for p, _ in known]), strict=True):
        said[row] = (HELD[0] if inside else HELD[1]) if p < LEVEL else UNDECIDED
    return said
