"""How the soak tells a fault of a command from a refusal."""

import pytest

from unlearn_app.experiments.soak.commands import Ended


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        (Ended(1, "Traceback (most recent call last):\n  x", 0.1, 9), "a trace"),
        (Ended(-9, "", 20.0, 9), "hangs"),
        (Ended(-11, "", 0.1, 9), "ends by signal 11"),
        (Ended(2, "error: The seed is 'x'.\n", 0.1, 9), ""),
        (Ended(0, "", 0.1, 9), ""),
    ],
)
def test_a_fault_is_told_from_a_refusal(ended: Ended, fault: str) -> None:
    assert ended.fault.startswith(fault) and bool(ended.fault) == bool(fault)


@pytest.mark.parametrize(
    ("ended", "sentence"),
    [
        (Ended(2, "error: It is damaged.\n", 0.1, 9), "It is damaged."),
        (Ended(0, "error: It is damaged.\n", 0.1, 9), ""),
        (Ended(2, "Usage: x\n", 0.1, 9), ""),
    ],
)
def test_a_refusal_is_one_sentence(ended: Ended, sentence: str) -> None:
    assert ended.sentence == sentence
