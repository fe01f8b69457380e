"""The verdict on hand-made scores, one for every path through it."""

import pytest

from unlearn_app.events import GroupScore
from unlearn_app.verdict import Thresholds, judge_run


def scores(original=(0.9, 0.9, 0.9), unlearned=(0.0, 0.9, 0.9), relearned=(0.0, 0.9, 0.9)):
    columns = {"original": original, "unlearned": unlearned, "relearned": relearned}
    return {
        column: {g: GroupScore(a, 0.3, 12) for g, a in zip(("forget", "near", "far"), values, strict=True)}
        for column, values in columns.items()
        if values
    }


@pytest.mark.parametrize(
    ("given", "steps", "label", "word"),
    [
        (scores(), 60, "removed", "attack"),
        (scores(relearned=(0.8, 0.9, 0.9)), 60, "concealed", "back"),
        (scores(unlearned=(0.0, 0.5, 0.9)), 60, "damaged", "near"),
        (scores(unlearned=(0.0, 0.9, 0.2), relearned=(0.8, 0.9, 0.9)), 60, "damaged", "far"),
        (scores(original=(0.2, 0.9, 0.9)), 60, "inconclusive", "too little"),
        (scores(unlearned=(0.5, 0.9, 0.9)), 60, "inconclusive", "not forgotten"),
        (scores(relearned=None), 60, "inconclusive", "No attack"),
        (scores(), 0, "inconclusive", "No attack"),
        ({}, 60, "inconclusive", "stopped"),
        ({c: {g: GroupScore(None, None, 3) for g in v} for c, v in scores().items()}, 60, "inconclusive", "no judge"),
    ],
)
def test_label_and_reason(given, steps, label, word):
    verdict = judge_run(given, steps)
    assert verdict.label == label
    assert any(word in reason for reason in verdict.reasons)


def test_the_original_itself_is_never_removed():
    same = (0.9, 0.9, 0.9)
    assert judge_run(scores(same, same, same), 60).label == "inconclusive"


def test_limits_are_inclusive_where_they_say_so():
    limit = Thresholds()
    at = scores(unlearned=(limit.forgotten, 0.9, 0.9), relearned=(limit.forgotten + limit.back, 0.9, 0.9))
    assert judge_run(at, 60).label == "removed"
