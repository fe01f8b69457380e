"""Gradients in every precision that can be chosen, and with what saves memory."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unlearn_app.common.seeds import generator
from unlearn_app.methods.gradient_rules.weighted_sum import WeightedSum
from unlearn_app.methods.objectives.diffusion import Diffusion
from unlearn_app.models.conditioning import Conditioning
from unlearn_app.models.diffusers import loading, pipeline
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.pipeline import PipelineModel
from unlearn_app.models.protocols import NoisyBatch
from unlearn_app.training.loop import Term, fit

RESIDUALS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NUMBERS = 8 * 4 * 64 * 64
"""Numbers in the latents of a batch of 8 at 512 px, over which a loss is a mean."""


@pytest.fixture
def policy(tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Loads the small model as a device with other units would hold and compute with it."""

    def load(weights: torch.dtype, mixes: bool = False) -> PipelineModel:
        monkeypatch.setattr(loading, "choose_dtype", lambda *_: weights)
        monkeypatch.setattr(pipeline, "fits_bfloat16", lambda _: mixes)
        model = load_pipeline(tiny_pipeline, "tiny")
        for name, tensor in model.reset_adapter("unlearn", 4, 4.0, seed=1).items():
            if "lora_B" in name:
                tensor.data.normal_(std=0.05, generator=generator(len(name)))
        return model

    return load


def batch_of(model: PipelineModel, rows: int = 2) -> NoisyBatch:
    source = generator(3)
    x0, noise = (torch.randn(rows, *model.latent_shape, generator=source) for _ in range(2))
    cond = Conditioning(torch.randn(rows, 77, 32, generator=source))
    t = torch.randint(1000, (rows,), generator=source)
    return NoisyBatch(x0, noise, t, noise, cond, cond, cond)


def gradient(model: PipelineModel, residual: float) -> Tensor:
    """The gradient of a mean over as many numbers as real latents have, whose prediction is off by
    `residual`.
    """
    batch = batch_of(model)
    with model.training("unlearn") as params:
        prediction = model.predict(batch.x_t, batch.t, batch.cond)
        off = residual * batch.noise.sign()
        loss = (prediction - (prediction.detach() - off)).square().sum() / NUMBERS
        parts = torch.autograd.grad(loss, list(params.values()))
    return torch.cat([part.flatten().double() for part in parts])


@pytest.fixture
def exact(policy: Callable) -> Mapping[float, Tensor]:
    model = policy(torch.float32)
    return {residual: gradient(model, residual) for residual in RESIDUALS}


@pytest.mark.parametrize(
    ("weights", "mixes"), [(torch.bfloat16, False), (torch.float32, True), (torch.float32, False)]
)
def test_gradients_point_where_those_in_float32_do(
    policy: Callable, exact: Mapping[float, Tensor], weights: torch.dtype, mixes: bool
) -> None:
    model = policy(weights, mixes)
    for residual, own in exact.items():
        assert cosine_similarity(gradient(model, residual), own, dim=0) >= 0.999, residual


def test_in_float16_they_vanish(policy: Callable, exact: Mapping[float, Tensor]) -> None:
    """The wrong variant: why `choose_dtype` never answers float16."""
    small = gradient(policy(torch.float16), 0.003)
    assert cosine_similarity(small, exact[0.003], dim=0) < 0.999


@pytest.mark.parametrize("mixes", [False, True])
def test_checkpointing_changes_no_bit_of_a_gradient(policy: Callable, mixes: bool) -> None:
    model = policy(torch.float32, mixes)
    kept = gradient(model, 0.1)
    model.network.enable_gradient_checkpointing()
    assert torch.equal(gradient(model, 0.1), kept)


def test_checkpointing_leaves_replaced_weights_alone(policy: Callable) -> None:
    """As in meta-unlearning; computed again with the own weights, gradients would be others."""
    model = policy(torch.float32)

    def through_replaced() -> tuple[Tensor, ...]:
        batch = batch_of(model)
        weights = {name: (w * 1.1).requires_grad_() for name, w in model.weights().items()}
        with model.active():
            loss = model.predict(batch.x_t, batch.t, batch.cond, weights).square().mean()
        return torch.autograd.grad(loss, list(weights.values()))

    kept = through_replaced()
    model.network.enable_gradient_checkpointing()
    assert all(torch.equal(a, b) for a, b in zip(through_replaced(), kept, strict=True))
    assert model.network.is_gradient_checkpointing


def trained(model: PipelineModel, rows_at_once: int | None) -> tuple[float, Tensor]:
    """The loss of a first step on 5 rows, and the adapter after it."""
    model.rows_at_once = rows_at_once

    def batches() -> Iterator[NoisyBatch]:
        while True:
            yield batch_of(model, 5)

    params = model.reset_adapter("unlearn", 4, 4.0, seed=1)
    with model.training("unlearn"):
        terms = {"forget": Term(Diffusion(), batches())}
        how = {"stage": "unlearn", "steps": 1, "lr": 1e-2, "optimizer": "sgd"}
        (step,) = fit(model, params, terms, WeightedSum(), **how)
    moved = torch.cat([tensor.detach().flatten() for tensor in params.values()])
    return step.losses["forget"], moved


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(policy: Callable, rows: int) -> None:
    """Also where the last part is smaller than the others."""
    model = policy(torch.float32)
    loss, whole = trained(model, None)
    own_loss, own = trained(model, rows)
    assert own_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(own, whole, rtol=1e-4, atol=1e-7)


def test_parts_of_a_batch_hold_every_row_once(policy: Callable) -> None:
    batch = batch_of(policy(torch.float32), 5)
    shares, parts = zip(*batch.split(2), strict=True)
    assert shares == (0.4, 0.4, 0.2)
    assert torch.equal(torch.cat([part.t for part in parts]), batch.t)
    assert [len(part.cond) for part in parts] == [2, 2, 1]
    assert len(list(batch.split(None))) == 1
