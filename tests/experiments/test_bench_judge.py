"""The judges' report: its statistics by hand, and a small one measured."""

import itertools

import pytest
import torch

from unlearn_app.experiments import judge as bench
from unlearn_app.experiments.judge import BINS, auroc, calibration_error, coarse


class Says:
    """A judge whose answers are known."""

    version = "1"

    def __init__(self, name: str, rows: list[list[float]]) -> None:
        self.name, self._rows = name, torch.tensor(rows)

    def classes(self, axis: str) -> list[str]:
        return ["cat", "dog", "car"]

    def classify(self, images: torch.Tensor, axis: str) -> torch.Tensor:
        return self._rows[: len(images)]


class ConceptScore:
    """A scene that is called the same on every axis."""

    def __init__(self, name: str) -> None:
        self.object = self.style = self.setting = name


def test_answers_confusions_and_agreement_are_counted() -> None:
    first = Says("first", [[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    second = Says("second", [[0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.0, 0.6, 0.4], [0.1, 0.8, 0.1]])
    shown = [ConceptScore(name) for name in ("cat", "dog", "car", "dog")]
    found = bench.on_known((first, second), torch.zeros(4, 3, 8, 8), shown)
    mine, other = (found["judges"][name]["object"] for name in ("first", "second"))
    assert (mine["right"], other["right"], found["alike"]["object"]) == (2, 3, 1)
    assert mine["confused"] == [["dog", "cat", 2]]
    assert other["confused"] == [["car", "dog", 1]]
    assert sum(mine["bins"]) == 4
    assert sum(mine["right_bins"]) == 2
    assert mine["sum"] == pytest.approx(3.0)
    assert mine["bins"][int(0.9 * BINS)] == mine["right_bins"][int(0.9 * BINS)] == 1


def test_the_histogram_keeps_its_ends() -> None:
    assert bench.histogram(torch.tensor([0.0, 1.0, 0.999, 0.5])) == [1, *[0] * 24, 1, *[0] * 23, 2]


def test_the_calibration_error_is_that_of_1706_04599() -> None:
    """Ten answers of 0.95 with 8 right, ten of 0.55 with 5 right: 0.5 · |0.95 − 0.8| + 0.5 · |0.55
    − 0.5|.
    """
    bins, right = [0] * BINS, [0] * BINS
    bins[47], right[47], bins[27], right[27] = 10, 8, 10, 5
    assert calibration_error({"bins": bins, "right_bins": right}) == pytest.approx(
        0.5 * 0.15 + 0.5 * 0.05
    )
    assert coarse({"bins": bins, "right_bins": right})[9] == (10, pytest.approx(0.95), 0.8)
    perfect = {
        "bins": [20] * BINS,
        "right_bins": [round(20 * (row + 0.5) / BINS) for row in range(BINS)],
    }
    assert calibration_error(perfect) < 0.01


def test_auroc_is_the_share_of_pairs() -> None:
    known, strange = [0, 1, 2, 4], [3, 2, 0, 1]
    pairs = [
        (a > b) + (a == b) / 2
        for (a, n), (b, m) in itertools.product(enumerate(known), enumerate(strange))
        for _ in range(n * m)
    ]
    assert auroc(known, strange) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(known, known) == 0.5
    assert auroc([0, 1], [1, 0]) == 1.0
