"""Statistics of a comparison: intervals of shares and tests of paired differences."""

from collections.abc import Sequence

from scipy import stats

Z = 1.96
"""Standard deviations from the mean that hold 95 % of a normal distribution."""


def z_of(intervals: int) -> float:
    """The `Z` with which so many intervals hold together in 95 % of all cases (Bonferroni)."""
    return float(stats.norm.ppf(1 - 0.025 / intervals))


def wilson(right: float, n: int, z: float = Z) -> tuple[float, float]:
    """95 % Wilson interval of a proportion with `right` of `n`."""
    if n == 0:
        return 0.0, 1.0
    p = right / n
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def difference_interval(
    right: float, n: int, base: float, m: int, z: float = Z
) -> tuple[float, float, float]:
    """The difference of two independent shares, `right` of `n` less `base` of `m`, and its 95 %
    interval.

    Newcombe's hybrid score interval (1998, method 10), from the Wilson interval of each share.
    """
    p, q = right / n, base / m
    (low_p, high_p), (low_q, high_q) = wilson(right, n, z), wilson(base, m, z)
    below = ((p - low_p) ** 2 + (high_q - q) ** 2) ** 0.5
    above = ((high_p - p) ** 2 + (q - low_q) ** 2) ** 0.5
    return p - q, p - q - below, p - q + above


def paired_change(
    before: Sequence[bool], after: Sequence[bool]
) -> tuple[float, float, float, float]:
    """The change of a share over pairs, `after` less `before`, its 95 % interval, and McNemar's
    exact p-value.

    The interval is Bonett and Price's adjusted Wald one (2012), which is no point where no pair
    changes; the p-value is that of the binomial test of the pairs that did.

    Raises:
        ValueError: there is no pair, or a value without a partner.
    """
    pairs = list(zip(before, after, strict=True))
    if not pairs:
        raise ValueError("A paired change needs at least one pair; there is none.")
    n, lost, won = (
        len(pairs),
        sum(b and not a for b, a in pairs),
        sum(a and not b for b, a in pairs),
    )
    low, high = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    middle, half = high - low, 1.96 * ((high + low - (high - low) ** 2) / (n + 2)) ** 0.5
    p = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    return (won - lost) / n, max(middle - half, -1.0), min(middle + half, 1.0), float(p)


def harmonic(shares: Sequence[float]) -> float:
    """The harmonic mean of shares in [0, 1]; 0 where any of them is 0."""
    return 0.0 if min(shares) <= 0 else float(stats.hmean(shares))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % Student interval of independent values; the interval is infinite for a single
    one.
    """
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return mean, float("-inf"), float("inf")
    deviation = (sum((value - mean) ** 2 for value in values) / (n - 1)) ** 0.5
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / n**0.5
    return mean, mean - half, mean + half


def p_value(values: Sequence[float], null: float = 0.0) -> float:
    """The p-value of Student's test that the mean of independent values is `null`, two-sided; 1 for
    a single value, and 0 or 1 where all are equal.
    """
    if len(values) < 2:
        return 1.0
    if max(values) - min(values) < 1e-12:
        return float(abs(values[0] - null) < 1e-12)
    return float(stats.ttest_1samp(values, null).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold together, by Holm's step-down method (1979), in the same order."""
    adjusted, least = [0.0] * len(p_values), 0.0
    ascending = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, row in enumerate(ascending):
        least = max(least, min((len(p_values) - rank) * p_values[row], 1.0))
        adjusted[row] = least
    return adjusted
