"""Verdicts on claims: known p-values, Holm's correction, and what is too little to decide."""

import math

import pytest
from scipy import stats

from unlearn_app.experiments.decisions import (
    Estimate,
    holm,
    mean_difference,
    p_value,
    paired_mean,
    verdicts,
)

LESS = (-math.inf, 0.0)


def test_a_paired_mean_is_that_of_a_t_test() -> None:
    values = [-3.0, -1.0, -4.0, 1.0, -5.0]
    found = paired_mean(values)
    known = stats.ttest_1samp(values, 0.0)
    p, inside = p_value(found, *LESS)
    assert p == pytest.approx(known.pvalue)
    assert inside
    assert found.interval == pytest.approx((-2.4, *known.confidence_interval(0.95)), abs=1e-5)
    assert p_value(found, 0.0, math.inf) == (pytest.approx(known.pvalue), False)


def test_two_groups_are_compared_as_welch_does() -> None:
    one, two = [3.0, 5.0, 4.0, 8.0, 1.0], [10.0, 30.0, 12.0]
    found, known = mean_difference(one, two), stats.ttest_ind(one, two, equal_var=False)
    assert p_value(found, *LESS)[0] == pytest.approx(known.pvalue)
    assert found.freedom == pytest.approx(known.df)
    assert found.freedom < len(one) + len(two) - 2, "else it would be Student's, for equal spreads"


def test_a_range_needs_both_sides() -> None:
    """The p-value of an equality is the larger of its two sides, so a wide one shows nothing."""
    near, wide = paired_mean([0.1, -0.2, 0.0, 0.3]), paired_mean([9.0, -9.0, 8.0, -8.0])
    assert p_value(near, -5, 5)[0] < 0.001
    assert p_value(wide, -5, 5)[0] > 0.05
    outside = p_value(paired_mean([9.0, 9.1, 8.9]), -5, 5)
    assert outside[0] < 0.01
    assert not outside[1]


def test_holm_steps_down() -> None:
    """0.01 x 3, 0.02 x 2, 0.04 x 1; Bonferroni would take all times 3."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.02]) == pytest.approx([0.5, 0.04])
    assert holm([0.03, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([]) == []


def test_more_claims_make_the_same_numbers_decide_less() -> None:
    just = Estimate(-2.4, 1.0, 30)  # p = 0.023
    unclear = (Estimate(0.0, 1.0, 30), *LESS)
    assert verdicts([(just, *LESS)]) == ["held"]
    assert verdicts([(just, *LESS), unclear, unclear])[0] == "undecided"
    assert verdicts([(just, *LESS), (None, *LESS), (None, *LESS)]) == [
        "held",
        "not tested",
        "not tested",
    ], "what is not tested does not count"
    assert verdicts([(Estimate(2.4, 1.0, 30), *LESS)]) == ["not held"]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([-5.0], "undecided"), ([-5.0, -5.0], "held"), ([5.0, 5.0], "not held"), ([0.0] * 4,
     "undecided")],
)  # fmt: skip
def test_a_single_target_decides_nothing_and_no_difference_is_not_less(values, verdict) -> None:
    assert verdicts([(paired_mean(values), *LESS)]) == [verdict]
