"""Intervals and distances against values worked out by hand, by scipy, or by brute force."""

import pytest
import torch
from scipy import stats

from unlearn_app.evaluation.distances import kid, paired_kid
from unlearn_app.evaluation.relearn_curve import area_under, first_reaching
from unlearn_app.evaluation.statistics import (
    difference_interval,
    harmonic,
    holm,
    mean_interval,
    p_value,
    paired_change,
    wilson,
)


def brute_mmd(x: torch.Tensor, y: torch.Tensor) -> float:
    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within += sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_wilson_equals_scipy():
    for right, n in ((0, 10), (10, 10), (3, 7), (50, 100)):
        low, high = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_mean_interval_equals_scipy_and_a_single_value_decides_nothing():
    values = [0.1, 0.4, 0.35, 0.9]
    mean, low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean_interval([2.0]) == (2.0, float("-inf"), float("inf"))


def test_kid_is_the_unbiased_estimate_and_its_error_the_jackknife():
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64) + 0.5
    value, error = kid(x, y)
    assert value == pytest.approx(brute_mmd(x, y))
    parts = [[brute_mmd(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(6)]]
    parts += [[brute_mmd(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(5)]]
    variance = sum(
        (len(p) - 1) / len(p) * sum((v - sum(p) / len(p)) ** 2 for v in p) for p in parts
    )
    assert error == pytest.approx(variance**0.5)
    biased = (
        ((x @ x.T / 4 + 1) ** 3).mean()
        + ((y @ y.T / 4 + 1) ** 3).mean()
        - 2 * ((x @ y.T / 4 + 1) ** 3).mean()
    )
    assert value != pytest.approx(biased.item(), rel=1e-3)


def test_kid_is_zero_on_average_for_one_law_and_grows_with_the_shift():
    source = torch.Generator().manual_seed(0)

    def draw(shift: float) -> float:
        return kid(
            torch.randn(40, 8, generator=source) + shift, torch.randn(40, 8, generator=source)
        )[0]

    same = [draw(0.0) for _ in range(50)]
    _, low, high = mean_interval(same)
    assert low < 0 < high
    assert min(same) < 0
    assert draw(0.5) > max(same)
    assert draw(1.0) > draw(0.5)


def test_too_few_pictures_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        kid(torch.randn(2, 4), torch.randn(5, 4))


def test_the_area_is_the_mean_height_and_steps_are_interpolated() -> None:
    curve = [(0, 0.0), (10, 0.5), (30, 1.0)]
    assert area_under(curve) == pytest.approx((10 * 0.25 + 20 * 0.75) / 30)
    assert area_under([(7, 0.4)]) == 0.4
    assert area_under([(0, 0.3), (50, 0.3)]) == pytest.approx(0.3)
    assert first_reaching(curve, 0.25) == 5.0
    assert first_reaching(curve, 0.8) == pytest.approx(22.0)
    assert first_reaching(curve, 0.0) == 0
    assert first_reaching(curve, 1.0) == 30
    assert first_reaching(curve, 1.1) is None
    assert first_reaching([(0, 0.9), (10, 0.1)], 0.8) == 0
    with pytest.raises(ValueError, match="one point"):
        area_under([])


def test_a_paired_change_is_mcnemars():
    """Ten pairs: three lost, one won, six as before; the p-value by hand is 2 * (1 + 4) / 16."""
    before = [True] * 3 + [False] + [True] * 4 + [False] * 2
    after = [False] * 3 + [True] + [True] * 4 + [False] * 2
    change, low, high, p = paired_change(before, after)
    assert change == pytest.approx(-0.2)
    assert p == pytest.approx(0.625)
    middle, deviation = (2 - 4) / 12, ((2 + 4) / 12 - (2 / 12) ** 2) ** 0.5 / 12**0.5
    assert (low, high) == pytest.approx((middle - 1.96 * deviation, middle + 1.96 * deviation))
    _, low, high, _ = paired_change([True] * 20 + [False] * 20, [True] * 17 + [False] * 23)
    unpaired = difference_interval(17, 40, 20, 40)
    assert high - low < 0.6 * (unpaired[2] - unpaired[1]), (
        "pairs tell more than two samples of that size"
    )


def test_a_paired_change_of_equal_series_is_zero_but_not_certain():
    change, low, high, p = paired_change([True] * 10, [True] * 10)
    assert change == 0.0
    assert p == 1.0
    assert low < 0 < high
    assert high < 0.3
    assert paired_change([False] * 400, [True] * 400)[1:3] == pytest.approx((0.99, 1.0), abs=0.011)
    with pytest.raises(ValueError, match="at least one pair"):
        paired_change([], [])
    with pytest.raises(ValueError):
        paired_change([True], [True, False])


def test_intervals_of_paired_changes_cover():
    """Where 30 % of the pairs are lost and 10 % won, 95 of 100 intervals hold −0.2; one around the
    point would not.
    """
    source = torch.Generator().manual_seed(3)
    held = 0
    for _ in range(400):
        draws = torch.rand(12, generator=source)
        before, after = (draws < 0.3) | (draws > 0.6), (draws > 0.3) & (draws < 0.4) | (draws > 0.6)
        _, low, high, _ = paired_change(before.tolist(), after.tolist())
        held += low <= -0.2 <= high
    assert 0.93 <= held / 400 <= 1.0


def test_a_zero_sinks_the_harmonic_mean():
    assert harmonic([1.0, 1.0, 1.0, 0.0]) == 0.0
    assert harmonic([0.5, 1.0]) == pytest.approx(2 / 3)
    assert harmonic([0.2, 0.9, 0.9]) < (0.2 + 0.9 + 0.9) / 3


def test_a_paired_kid_leaves_partners_out_and_its_error_is_the_jackknife():
    source = torch.Generator().manual_seed(1)
    x = torch.randn(7, 4, generator=source, dtype=torch.float64)
    y = x + 0.3 * torch.randn(7, 4, generator=source, dtype=torch.float64)

    def brute(a: torch.Tensor, b: torch.Tensor) -> float:
        def k(u, v):
            return (float(u @ v) / 4 + 1) ** 3

        rows = [(i, j) for i in range(len(a)) for j in range(len(a)) if i != j]
        return sum(
            k(a[i], a[j]) + k(b[i], b[j]) - k(a[i], b[j]) - k(a[j], b[i]) for i, j in rows
        ) / len(rows)

    value, error = paired_kid(x, y)
    assert value == pytest.approx(brute(x, y))
    parts = [
        brute(torch.cat([x[:i], x[i + 1 :]]), torch.cat([y[:i], y[i + 1 :]])) for i in range(7)
    ]
    assert error == pytest.approx(
        (6 / 7 * sum((part - sum(parts) / 7) ** 2 for part in parts)) ** 0.5
    )
    assert paired_kid(x, x) == pytest.approx((0.0, 0.0), abs=1e-12), "made for independent sets"
    assert kid(x, x)[0] < -1e-3, "made for independent sets"
    with pytest.raises(ValueError, match="3 pairs"):
        paired_kid(x[:2], y[:2])
    with pytest.raises(ValueError, match="7 and 5"):
        paired_kid(x, y[:5])


def test_p_values_that_hold_together_are_holms() -> None:
    """By hand: 3 x 0.01, then 2 x 0.02, and no less after it; unadjusted all three would hold."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.04, 0.02, 0.03]) == pytest.approx([0.06, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_mean_is_tested_by_student_and_equal_values_are_certain() -> None:
    """t = 2 / (2 / 3 ** 0.5) with two degrees of freedom: p = 1 - t / (t^2 + 2) ** 0.5."""
    t = 3**0.5
    assert p_value([1.0, 3.0, 5.0], 1.0) == pytest.approx(1 - t / (t * t + 2) ** 0.5)
    assert p_value([7.0]) == 1.0
    assert p_value([2.0, 2.0]) == 0.0
    assert p_value([2.0, 2.0], 2.0) == 1.0
