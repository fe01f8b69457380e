"""A fused pipeline is a folder that plain diffusers loads and that makes our pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from shipped import shipped

from unlearn_app.common.errors import ModelError, OutputError
from unlearn_app.common.seeds import generator
from unlearn_app.models.diffusers.adapter_files import adapter_bytes, read_adapter
from unlearn_app.models.diffusers.fused_pipeline import export_pipeline, plain_state
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.generate import generate

RECORDED = shipped("cat") / "unlearn.safetensors"


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    return load_pipeline(tiny_pipeline, "tiny")


def strong(model) -> dict[str, torch.Tensor]:
    """An adapter of attention, a convolution and the text encoder."""
    model.reset_adapter("unlearn", 4, 4.0, seed=1)
    state, source = model.adapter_state("unlearn"), generator(5)
    model.drop_adapters()
    for name, tensor in state.items():
        if ".lora_B." in name:
            tensor.normal_(std=0.3, generator=source)
    state["conv_in.lora_A.weight"] = torch.randn(2, 4, 3, 3, generator=source) * 0.2
    state["conv_in.lora_B.weight"] = torch.randn(32, 2, 1, 1, generator=source) * 0.2
    at = "text_encoder.encoder.layers.0.mlp.fc1"
    state[f"{at}.lora_A.weight"] = torch.randn(2, 32, generator=source)
    state[f"{at}.lora_B.weight"] = torch.randn(64, 2, generator=source)
    return state


def painted(pipe: StableDiffusionPipeline, prompts: list[str], seeds: list[int]) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    draws = [generator(seed) for seed in seeds]
    made = pipe(prompts, num_inference_steps=4, guidance_scale=3.0, generator=draws)
    return np.stack([np.asarray(picture, int) for picture in made.images])


def ours(model, file: Path | None, prompts: list[str], seeds: list[int]) -> np.ndarray:
    adapters = [file] if file else []
    how = {"sampling_steps": 4, "guidance_scale": 3.0}
    made = generate(model, prompts, seeds, adapters=adapters, **how)
    return np.stack([np.asarray(picture, int) for picture in made])


def test_diffusers_and_we_load_it_and_make_the_same_pictures(model, tmp_path: Path) -> None:
    state, file = strong(model), tmp_path / "a.safetensors"
    file.write_bytes(adapter_bytes(state, {}))
    before = {name: weight.clone() for name, weight in plain_state(model.pipe.unet).items()}
    folder = export_pipeline(model, state, tmp_path / "fused")
    asked = ["a cat", "a red dragon"], [3, 4]
    expected = ours(model, file, *asked)
    assert abs(expected - ours(model, None, *asked)).max() > 20
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    assert abs(painted(pipe, *asked) - expected).max() <= 1
    assert abs(ours(load_pipeline(folder, "fused"), None, *asked) - expected).max() <= 1
    now = plain_state(model.pipe.unet)
    assert all(torch.equal(now[name], weight) for name, weight in before.items())


@pytest.mark.slow
def test_the_bundled_model_is_written_with_what_a_run_made(pocket, tmp_path: Path) -> None:
    folder = export_pipeline(pocket, read_adapter(RECORDED), tmp_path / "fused")
    asked = ["a cat in cartoon style", "a dog in photo style"], [3, 4]
    expected = ours(pocket, RECORDED, *asked)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    assert abs(painted(pipe, *asked) - expected).max() <= 1


def test_it_names_no_place_and_holds_no_pickle(model, tiny_pipeline: Path, tmp_path: Path) -> None:
    folder = export_pipeline(model, strong(model), tmp_path / "fused")
    names = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert names <= {".json", ".safetensors", ".txt"}
    for path in folder.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(tiny_pipeline) not in text
        assert "_name_or_path" not in json.loads(text)


def test_nothing_is_half_written_and_nothing_replaced(model, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        export_pipeline(model, strong(model), tmp_path / "mine")
    foreign = {"x.lora_A.weight": torch.ones(1, 2), "x.lora_B.weight": torch.ones(2, 1)}
    with pytest.raises(ModelError, match="other layers"):
        export_pipeline(model, foreign, tmp_path / "fused")

    def full(self, *arguments, **how) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StableDiffusionPipeline, "save_pretrained", full)
    with pytest.raises(OutputError, match="No space left"):
        export_pipeline(model, strong(model), tmp_path / "fused")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(KeyError):
        model.adapter_state("unlearn")
