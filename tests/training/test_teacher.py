"""A pool of batches, and the teacher that predicts on each of them once."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch

from unlearn_app.models.catalog import load_model
from unlearn_app.models.conditioning import Conditioning
from unlearn_app.training.latent_dataset import pooled
from unlearn_app.training.teacher import OriginalTeacher, RememberingTeacher


class Counting:
    """A denoiser that says how often its frozen model was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, *_: object) -> str:
        return "predicted"

    def frozen(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        self.asked += 1
        return x_t + t.view(-1, 1, 1, 1) + cond.states.sum()


X_T, T, COND = torch.ones(2, 1, 2, 2), torch.tensor([3, 4]), Conditioning(torch.ones(2, 3, 4))


def test_the_same_question_is_asked_once() -> None:
    model = Counting()
    teacher = RememberingTeacher(model)
    first = teacher.frozen(X_T, T, COND)
    again = teacher.frozen(X_T.clone(), T.clone(), Conditioning(COND.states.clone()))
    assert model.asked == 1
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    "question",
    [
        (X_T + 1, T, COND),
        (X_T, T + 1, COND),
        (X_T, T, Conditioning(COND.states + 1)),
        (X_T, T, Conditioning(COND.states, pooled=torch.ones(2, 5))),
    ],
    ids=["x_t", "t", "states", "pooled"],
)
def test_another_question_gets_an_answer_of_its_own(question: tuple) -> None:
    model = Counting()
    teacher = RememberingTeacher(model)
    teacher.frozen(X_T, T, COND)
    answer = teacher.frozen(*question)
    assert model.asked == 2
    assert torch.equal(answer, model.frozen(*question))


def test_the_rest_is_the_models_own() -> None:
    """A protocol's methods, inherited, would answer None instead."""
    teacher = RememberingTeacher(Counting())
    assert teacher.predict(X_T, T, COND) == "predicted"
    assert teacher.name == "counting"


def test_a_pool_is_used_whole_before_anything_returns() -> None:
    drawn = list(itertools.islice(pooled(itertools.count(), 4, seed=1), 12))
    assert drawn[:4] == [0, 1, 2, 3]
    assert Counter(drawn) == dict.fromkeys(range(4), 3)
    assert drawn[4:8] != drawn[8:12]


def test_no_pool_is_what_is_drawn() -> None:
    assert list(itertools.islice(pooled(itertools.count(), 0, seed=1), 5)) == [0, 1, 2, 3, 4]


def test_the_original_teaches_where_an_update_is_merged(tiny_pipeline: Path) -> None:
    """The model that a request finds, whose weights hold the update, predicts otherwise."""
    model = load_model(str(tiny_pipeline))
    x_t = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    t, cond = torch.tensor([500]), model.encode_text(["a cat"])
    original = model.frozen(x_t, t, cond)
    for row, factor in enumerate(model.reset_adapter("unlearn", 4, 4.0, 0).values()):
        factor.data = torch.randn(factor.shape, generator=torch.Generator().manual_seed(row))
    merged = model.adapter_state("unlearn")
    with model.merged("unlearn"):
        model.reset_adapter("unlearn", 4, 4.0, 1)
        teacher = OriginalTeacher(model, merged)
        with model.training("unlearn"):
            torch.testing.assert_close(teacher.frozen(x_t, t, cond), original, atol=1e-3, rtol=1e-3)
            assert (model.frozen(x_t, t, cond) - original).abs().max() > 1e-2
    assert teacher.name == model.name
    model.drop_adapters()
