"""What saves memory on a card, tried where the card is a second kind of device."""

from pathlib import Path

import pytest
import torch

from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.offloading import follow, park
from unlearn_app.models.memory import Plan

PLAN = Plan(1, 2, 2, 3, True, 1.0)
META = torch.device("meta")


@pytest.fixture
def model(tiny_pipeline: Path):
    return load_pipeline(tiny_pipeline, "tiny")


def test_a_plan_is_followed_and_can_be_replaced(model) -> None:
    follow(model, PLAN)
    assert (model.rows_at_once, model.chunk) == (2, 3)
    assert model.network.is_gradient_checkpointing
    follow(model, Plan(1, 2, None, 18, False, 1.0))
    assert (model.rows_at_once, model.chunk) == (None, 18)
    assert not model.network.is_gradient_checkpointing


def test_a_smaller_chunk_makes_the_same_pictures(model) -> None:
    how = {"steps": 2, "guidance_scale": 2.0}
    whole = model.sample(["a"] * 5, range(5), **how)
    model.chunk = 2
    parts = model.sample(["a"] * 5, range(5), **how)
    torch.testing.assert_close(parts, whole, rtol=1e-2, atol=2e-3)
    torch.testing.assert_close(model.decode(parts), model.decode(whole), rtol=1e-2, atol=1e-2)


class Encoder(torch.nn.Linear):
    """Notes where its weights are while it encodes, and comes back from where numbers are lost."""

    def to(self, device: torch.device | str) -> torch.nn.Module:
        lost = torch.device(device) != META and any(each.is_meta for each in self.parameters())
        return self.to_empty(device=device) if lost else super().to(device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.while_encoding = self.weight.device.type
        return x.new_zeros(1)


def test_a_parked_encoder_is_on_the_card_only_while_it_encodes() -> None:
    encoder = Encoder(2, 2)
    park(encoder, META)
    assert encoder.weight.device.type == "cpu"
    with torch.no_grad():
        encoder(torch.zeros(1, 2))
    assert encoder.while_encoding == "meta"
    assert encoder.weight.device.type == "cpu"


def test_a_part_that_is_elsewhere_comes_along() -> None:
    """As where an attack on words swaps the table while the encoder encodes."""
    encoder = Encoder(2, 2)
    park(encoder, META)
    encoder.bias = torch.nn.Parameter(encoder.bias.detach().to(META))
    with torch.no_grad():
        encoder(torch.zeros(1, 2))
    assert {each.device.type for each in encoder.parameters()} == {"cpu"}


def test_a_parked_encoder_stays_where_gradients_go_through_it() -> None:
    encoder = Encoder(2, 2)
    park(encoder, META)
    encoder(torch.zeros(1, 2))
    assert encoder.weight.device.type == "meta"


def test_parking_twice_is_parking_once() -> None:
    encoder = Encoder(2, 2)
    park(encoder, META)
    park(encoder, META)
    assert len(encoder._forward_hooks) == 1
