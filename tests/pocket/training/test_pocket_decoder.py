"""The decoder written into convolution weights: it is the linear decode, in any precision, and can
be trained.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unlearn_app.common.images import to_tensor
from unlearn_app.common.paths import POCKET
from unlearn_app.models.protocols import Model
from unlearn_app.pocket.measures import psnr
from unlearn_app.pocket.training import autoencoder, decoder
from unlearn_app.pocket.training.checkpoints import new_state
from unlearn_app.pocket.training.latents import PatchBasis, fit_basis, load_basis
from unlearn_app.pocket.training.parts import new_autoencoder
from unlearn_app.pocket.world.dataset import scene_at
from unlearn_app.pocket.world.rendering import render

MILLION = 1_000_000


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([np.asarray(render(scene_at("held_out", index, 0))) for index in range(88)])


@pytest.fixture(scope="module")
def basis(pictures: np.ndarray) -> PatchBasis:
    return fit_basis(pictures[:80], 64)


@pytest.fixture(scope="module")
def codes(pictures: np.ndarray, basis: PatchBasis) -> dict[str, Tensor]:
    """Codes (N, 64, 8, 8) of what the decoder meets, and of what it should not meet."""
    draw = torch.Generator().manual_seed(0)
    extreme = torch.randn((4, 3, 64, 64), generator=draw).sign()
    return {
        "renderings": basis.encode(to_tensor(pictures[80:])),
        "black and white": basis.encode(
            torch.cat([extreme, torch.ones(1, 3, 64, 64), -torch.ones(1, 3, 64, 64)])
        ),
        "noise": torch.randn((4, 64, 8, 8), generator=draw),
        "loud noise": 3 * torch.randn((4, 64, 8, 8), generator=draw),
    }


def _written(basis: PatchBasis) -> nn.Module:
    torch.manual_seed(0)
    model = new_autoencoder().eval()
    decoder.write_decoder(model, basis)
    return model


def _psnr(model: nn.Module, basis: PatchBasis, code: Tensor) -> float:
    """Decibels between what `model` and the basis make of `code`, both clamped to [-1, 1]."""
    with torch.no_grad():
        error = model.decode(code).sample.float().clamp(-1, 1) - basis.decode(code).clamp(-1, 1)
    return 10 * (4 / error.square().mean()).log10().item()


def test_it_is_the_linear_decode(basis: PatchBasis, codes: dict[str, Tensor]) -> None:
    model = _written(basis)
    for name, code in codes.items():
        assert _psnr(model, basis, code) > 55, name


def test_it_survives_a_file_in_half_precision(basis: PatchBasis, codes: dict[str, Tensor]) -> None:
    model = _written(basis).half().float()
    for name, code in codes.items():
        assert _psnr(model, basis, code) > 45, name


def test_it_survives_bfloat16(basis: PatchBasis, codes: dict[str, Tensor]) -> None:
    model = _written(basis)
    with torch.autocast("cpu", torch.bfloat16):
        for name, code in codes.items():
            assert _psnr(model, basis, code) > 30, name


@pytest.mark.parametrize("wrong", ["sign", "axis"])
def test_a_wrong_parity_is_noticed(
    wrong: str, basis: PatchBasis, codes: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    right: Callable[..., None] = decoder._add_parity

    def mistaken(conv, outputs, source, axis, scale, side) -> None:
        axis, scale = (1 - axis, scale) if wrong == "axis" else (axis, -1 * scale)
        right(conv, outputs, source, axis, scale, side)

    monkeypatch.setattr(decoder, "_add_parity", mistaken)
    assert _psnr(_written(basis), basis, codes["renderings"]) < 30


def test_one_cell_changes_its_own_patch_alone(basis: PatchBasis, codes: dict[str, Tensor]) -> None:
    model, code = _written(basis), codes["renderings"][:1]
    other = code.clone()
    other[:, :, 3, 5] += 1
    with torch.no_grad():
        change = (model.decode(other).sample - model.decode(code).sample).abs().amax((0, 1))
    assert change[24:32, 40:48].mean() > 0.05
    change[24:32, 40:48] = 0
    assert change.max() < 2e-3


def test_training_refines_it(pictures: np.ndarray, basis: PatchBasis) -> None:
    model = _written(basis)
    assert sum(parameter.numel() for parameter in model.parameters()) < 3.7 * MILLION
    code = basis.encode(to_tensor(pictures[80:]))
    decoder.freeze_position_and_gates(model)
    state = new_state(autoencoder.decoder_of(model), lr=1e-3, weight_decay=0.0)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for step in range(2):
        loss = autoencoder.batch_loss(
            state.model, basis, [pictures[:80]], batch_size=2, seed=0, step=step
        )
        state.update(loss, autoencoder.learning_rate(step, 2, 1e-3), max_norm=1.0)
    moved = {
        name
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert moved == {
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    for block, places in decoder._free_blocks(model.decoder):
        others = [place for place in range(block.conv2.out_channels) if place not in places]
        assert block.conv2.weight[places].abs().amax((1, 2, 3)).min() > 0
        assert block.conv2.weight[others].abs().max() == 0
    assert _psnr(model.eval(), basis, code) > 30


def test_the_bundled_decoder_repairs_codes_that_are_slightly_wrong(
    pocket: Model, pictures: np.ndarray
) -> None:
    basis, shown = load_basis(POCKET / "basis.safetensors"), to_tensor(pictures)
    code = basis.encode(shown)
    code = code + 0.3 * torch.randn(code.shape, generator=torch.Generator().manual_seed(1))
    gained = psnr(pocket.decode(code), shown) - psnr(basis.decode(code), shown)
    assert gained.mean() > 1
