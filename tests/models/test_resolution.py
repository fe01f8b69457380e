"""The resolution of a run: training, pictures and the estimate of memory have it, the model has its
own again afterwards, and what latents do not divide is refused.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from small_clip import small_clip
from small_runs import TINY

from unlearn_app.common.errors import ConfigError, ModelError
from unlearn_app.common.json_values import to_json
from unlearn_app.continual.ledger import Ledger
from unlearn_app.continual.sequence import add_original, append
from unlearn_app.models.diffusers import pipeline
from unlearn_app.models.diffusers.estimate import measured
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.single_file import STABLE_DIFFUSION_1
from unlearn_app.models.diffusers.tiny_pipelines import flux, save, sd1, sd3, sdxl
from unlearn_app.models.latent_store import Recorder
from unlearn_app.models.sizes import picture_shape, sides_at
from unlearn_app.runs.attack_run import run_attacks
from unlearn_app.runs.findings import FOLDER
from unlearn_app.runs.folder import Run
from unlearn_app.runs.workflow import run
from unlearn_app.settings.cost import run_cost
from unlearn_app.settings.run_config import make_config, make_plan

ASKED = "compare.resolution"


@pytest.mark.slow
@pytest.mark.parametrize("made", [sd1, sdxl, sd3, flux])
def test_a_run_paints_and_trains_in_its_resolution(made: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", made)
    model = load_pipeline(folder, str(folder))
    config = make_config("cat", model=str(folder), **TINY | {ASKED: 96})
    seen = set()
    hook = model.network.register_forward_pre_hook(
        lambda _, inputs, named: seen.add(tuple(numbers(inputs, named).shape[1:])), with_kwargs=True
    )
    list(run(config, tmp_path / "out", model=model))
    hook.remove()
    stored = Run.open(tmp_path / "out")
    shown = [own.file for own in stored.pictures if own.file.exists()]
    assert {Image.open(file).size for file in shown} == {(96, 96)}
    assert seen == {(36, 16) if made is flux else (4, 12, 12)}
    assert picture_shape(model) == (64, 64)
    assert f"--set {ASKED}=96" in stored.record["command"]


@pytest.mark.slow
def test_attacks_and_ledgers_paint_in_the_resolution_of_their_run(tmp_path: Path) -> None:
    judge = tmp_path / "clip"
    for part in small_clip():
        part.save_pretrained(judge)
    folder = save(tmp_path / "model", sd1)
    model = load_pipeline(folder, str(folder))
    changes = TINY | {ASKED: 96, "judge": f"clip={judge}"}
    config = make_config("cat", model=str(folder), **changes)
    list(run(config, tmp_path / "out", model=model))
    list(run_attacks(Run.open(tmp_path / "out"), ["noise"], {"noise.tries": 1}, model=model))
    tries = [*(tmp_path / "out" / FOLDER).rglob("*.png")]
    assert tries
    assert {Image.open(file).size for file in tries} == {(96, 96)}
    assert picture_shape(model) == (64, 64)

    ledger = Ledger.create(tmp_path / "ledger", config, make_plan(pictures=1), ("cat",))
    list(add_original(ledger, model, None))
    list(append(ledger, "cat", model, None))
    panel = [ledger.picture(number, "cat") for number in (0, 1)]
    assert {Image.open(file).size for file in panel} == {(96, 96)}
    assert picture_shape(model) == (64, 64)


def test_fewer_pictures_are_painted_at_once_where_they_are_larger(tmp_path: Path) -> None:
    """Four times the pixels are a quarter of the pictures, unless the chunk is planned for them."""
    model = load_pipeline(save(tmp_path / "model", sd1), "sd1")
    seen, how = [], {"steps": 1, "guidance_scale": 1.0}
    model.network.register_forward_pre_hook(
        lambda _, inputs, named: seen.append(len(numbers(inputs, named))), with_kwargs=True
    )
    model.chunk = 4
    for planned, sizes in ((False, [1, 1, 1, 1]), (True, [4])):
        model.planned = planned
        seen.clear()
        with model.of_resolution(128):
            latents = model.sample(["a"] * 4, range(4), **how)
        assert seen == sizes
        assert latents.shape[2:] == (16, 16)
    seen.clear()
    model.planned = False
    model.sample(["a"] * 4, range(4), **how)
    assert seen == [4]


def test_an_autoencoder_on_a_card_works_on_tiles_of_large_pictures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_pipeline(save(tmp_path / "model", sd1), "sd1")
    vae, larger = model.pipe.vae, torch.zeros(1, 4, 12, 12)
    monkeypatch.setattr(pipeline, "TILED", 64)
    model.decode(larger)
    assert not vae.use_tiling, "on a CPU pictures are the same to the last bit"
    model.device = SimpleNamespace(type="cuda")
    for work in (model.decode, lambda x: model.encode_pictures(x[:, :3].repeat(1, 1, 8, 8))):
        for latents, tiled in ((larger, True), (torch.zeros(1, 4, 8, 8), False)):
            work(latents)
            assert vae.use_tiling == tiled


def test_the_pixels_of_a_latent_are_the_model_s(tmp_path: Path) -> None:
    """Here 4 along each side."""
    three = {"block_out_channels": (8, 8, 16), "down_block_types": ("DownEncoderBlock2D",) * 3}
    three["up_block_types"] = ("UpDecoderBlock2D",) * 3
    made = sd1()
    made.register_modules(vae=AutoencoderKL(**{**made.vae.config, **three}))
    made.vae_scale_factor = 4
    model = load_pipeline(save(tmp_path / "model", lambda: made), "sd1")
    assert picture_shape(model) == (32, 32)
    with model.of_resolution(64):
        assert model.latent_shape == (4, 16, 16)
        (latents,) = model.sample(["a"], [0], steps=1, guidance_scale=1.0)
        assert model.decode(latents[None]).shape[2:] == picture_shape(model) == (64, 64)
    with pytest.raises(ModelError, match="is 66 x 64; multiples of 4 are accepted"):
        model.sample(["a"], [0], steps=1, guidance_scale=1.0, size=(66, 64))


def numbers(inputs: tuple, named: dict[str, Any]) -> torch.Tensor:
    return inputs[0] if inputs else named["hidden_states"]


def test_sdxl_is_told_the_resolution(tmp_path: Path) -> None:
    model = load_pipeline(save(tmp_path / "model", sdxl), "sdxl")
    with model.of_resolution(96):
        assert model.encode_text(["a cat"]).extras["time_ids"].tolist() == [[96, 96, 0, 0, 96, 96]]
    assert model.encode_text(["a cat"]).extras["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]]


def test_stored_latents_of_another_resolution_are_not_taken(tmp_path: Path) -> None:
    model = load_pipeline(save(tmp_path / "model", sd1), "sd1")
    model.store, how = Recorder(), {"steps": 2, "guidance_scale": 1.0}
    own = model.sample(["a cat"], [0], **how)
    with model.of_resolution(96):
        larger = model.sample(["a cat"], [0], **how)
    assert [tuple(made.shape[2:]) for made in (own, larger)] == [(8, 8), (12, 12)]
    assert torch.equal(model.sample(["a cat"], [0], **how), own)


def test_an_error_leaves_the_model_its_own_size(tmp_path: Path) -> None:
    model = load_pipeline(save(tmp_path / "model", sd1), "sd1")
    with pytest.raises(KeyboardInterrupt), model.of_resolution(128):
        raise KeyboardInterrupt
    assert picture_shape(model) == (64, 64)


@pytest.mark.parametrize(
    ("own", "pixels", "multiple", "sides"),
    [((64, 64), 768, 1, (96, 96)), ((64, 96), 384, 1, (32, 48)), ((128, 128), 512, 2, (64, 64))],
)
def test_sides_keep_their_proportions(own, pixels, multiple, sides) -> None:
    assert sides_at(own, pixels, multiple) == sides


@pytest.mark.parametrize(
    ("own", "pixels", "multiple"),
    [((64, 64), 100, 1), ((64, 96), 512, 1), ((128, 128), 504, 2), ((64, 64), 4, 1)],
)
def test_what_latents_do_not_divide_is_refused(own, pixels, multiple) -> None:
    step = 8 * multiple
    with pytest.raises(ConfigError, match=f"is {pixels}; .* multiples of {step} are") as raised:
        sides_at(own, pixels, multiple)
    assert raised.value.field == ASKED


@pytest.mark.slow
def test_the_estimate_knows_the_resolution() -> None:
    """About four times the pixels take about four times the activations."""
    parts = (STABLE_DIFFUSION_1[f"{part}/config.json"] for part in ("unet", "vae"))
    denoiser, vae = parts
    small = {"block_out_channels": [32] * 4, "layers_per_block": 1, "cross_attention_dim": 32}
    unlearn = make_config("cat").unlearn
    asked = (denoiser | small, vae, 0, torch.float32, unlearn)
    half, own = measured(*asked, 256), measured(*asked)
    assert 3.5 < own.kept.peak / half.kept.peak < 4.5
    assert 3.5 < own.decoding / half.decoding < 4.5
    assert measured(*asked, 512) == own


def test_the_bundled_judges_know_one_size() -> None:
    with pytest.raises(ConfigError, match="the judges of pocket know pictures of one size; 0"):
        make_config("cat", **{ASKED: 128})


def test_records_without_it_are_as_before_and_larger_pictures_cost_more() -> None:
    assert "resolution" not in to_json(make_config("cat", model="sd").compare)
    usual, larger = (make_config("cat", model="sd", **{ASKED: pixels}) for pixels in (0, 1024))
    assert to_json(larger.compare)["resolution"] == 1024
    assert run_cost(larger) == 4 * run_cost(usual)


def test_a_family_s_own_size_costs_no_more(tmp_path: Path) -> None:
    index = {"_class_name": "StableDiffusionXLPipeline"}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    costs = [
        run_cost(make_config("cat", model=str(tmp_path), **{ASKED: pixels}))
        for pixels in (0, 1024, 2048)
    ]
    assert costs == [costs[0], costs[0], 4 * costs[0]]
