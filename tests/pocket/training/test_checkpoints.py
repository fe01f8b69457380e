"""A training that saves checkpoints, however it ends."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unlearn_app.common.errors import Diverged
from unlearn_app.pocket.training.checkpoints import (
    checkpoint_path,
    load,
    new_state,
    train_with_checkpoints,
)


def training(work: Path, explodes_at: int = 100):
    """Ten steps of a small training, which saves after five."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)

    def loss(step: int) -> Tensor:
        return (model(torch.full((1, 2), 1.0 + step)) - 1).square().sum()

    def rate(step: int) -> float:
        return math.inf if step == explodes_at else 0.1

    state = new_state(model, lr=0.1, weight_decay=0.0)
    return train_with_checkpoints(
        work, "judge", state, loss, rate, steps=10, save_every=5, facts={}
    )


def test_closing_it_keeps_the_last_step(tmp_path: Path) -> None:
    events = training(tmp_path)
    for event in events:
        if event.done == 7:
            break
    events.close()
    assert load(checkpoint_path(tmp_path, "judge"))["step"] == 7


def test_going_on_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for work in (whole, broken):
        work.mkdir()
    list(training(whole))
    events = training(broken)
    for event in events:
        if event.done == 3:
            break
    events.close()
    list(training(broken))
    one, other = (load(checkpoint_path(work, "judge"))["model"] for work in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("step", [6, 9])
def test_one_that_diverges_keeps_the_checkpoint_before(tmp_path: Path, step: int) -> None:
    with pytest.raises(Diverged, match="judge diverged"):
        list(training(tmp_path, explodes_at=step))
    assert load(checkpoint_path(tmp_path, "judge"))["step"] == 5
