"""Pictures without a run are those of plain diffusers with the same options."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from PIL.Image import Image

from unlearn_app.common.errors import ConfigError, ModelError
from unlearn_app.common.seeds import generator
from unlearn_app.models.diffusers.adapter_files import adapter_bytes
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.pipeline import CHUNK
from unlearn_app.models.generate import generate

PROMPTS, SEEDS = ["a cat", "a red dragon"], [3, 4]
WAYS = {
    "size": {"size": (96, 40)},
    "square": {"size": (32, 32)},
    "negative": {"negative": "a blue house"},
    "steps": {"sampling_steps": 5},
    "guidance": {"guidance_scale": 7.5},
    "no guidance": {"guidance_scale": 1.0, "negative": "a blue house"},
    "all": {"size": (40, 72), "negative": "old", "sampling_steps": 3, "guidance_scale": 9.0},
}


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    return load_pipeline(tiny_pipeline, "tiny")


@pytest.fixture(scope="module")
def pipe(tiny_pipeline: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(autouse=True)
def clean(model) -> Iterator[None]:
    yield
    model.drop_adapters()


def apart(one: list[Image], other: list[Image]) -> int:
    assert [picture.size for picture in one] == [picture.size for picture in other]
    pairs = zip(one, other, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)


def theirs(pipe: StableDiffusionPipeline, **way) -> list[Image]:
    width, height = way.get("size", (None, None))
    return pipe(
        PROMPTS,
        negative_prompt=[way.get("negative", "")] * len(PROMPTS),
        num_inference_steps=way.get("sampling_steps", 4),
        guidance_scale=way.get("guidance_scale", 3.0),
        width=width,
        height=height,
        generator=[generator(seed) for seed in SEEDS],
    ).images


@pytest.mark.parametrize("name", WAYS)
def test_options_are_those_of_diffusers(model, pipe, name: str) -> None:
    way = {"sampling_steps": 4, "guidance_scale": 3.0} | WAYS[name]
    made = generate(model, PROMPTS, SEEDS, **way)
    assert apart(made, theirs(pipe, **way)) <= 1
    if name != "no guidance" and "size" not in way:
        other = {"sampling_steps": 4, "guidance_scale": 3.0}
        assert apart(made, theirs(pipe, **other)) > 1


def test_more_pictures_than_one_chunk_are_each_of_their_own_seed(model) -> None:
    large = (128, 64)
    seeds = list(range(CHUNK + 2))
    many = generate(model, ["a cat"] * len(seeds), seeds, sampling_steps=1, size=large)
    last = generate(model, ["a cat"], [seeds[-1]], sampling_steps=1, size=large)
    assert len(many) == len(seeds)
    assert apart([many[-1]], last) <= 1


@pytest.mark.parametrize("size", [(65, 64), (64, 0), (64, 8000), (-8, 64)])
def test_sizes_that_no_latents_have_are_refused(model, size) -> None:
    with pytest.raises(ConfigError, match=f"{size[0]}x{size[1]}.*multiples of 8"):
        generate(model, ["a cat"], [0], size=size)


@pytest.mark.parametrize(
    ("way", "named"),
    [
        ({"sampling_steps": 0}, "sampling_steps"),
        ({"sampling_steps": 1.5}, "sampling_steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
    ],
)
def test_numbers_out_of_range_are_refused(model, way, named) -> None:
    with pytest.raises(ConfigError, match=named):
        generate(model, ["a cat"], [0], **way)


def test_every_prompt_has_a_seed(model) -> None:
    with pytest.raises(ConfigError, match="2 prompts and 1 seeds"):
        generate(model, PROMPTS, [0])


def test_the_adapters_that_a_model_had_stay(model, tmp_path) -> None:
    params = model.reset_adapter("unlearn", 2, 2.0, seed=0)
    kept = model.adapter_state("unlearn")
    other = {n: t.clone() for n, t in kept.items()}
    for name, tensor in other.items():
        if ".lora_B." in name:
            tensor.normal_(std=0.3, generator=generator(1))
    file = tmp_path / "a.safetensors"
    file.write_bytes(adapter_bytes(other, {}))
    plain = generate(model, PROMPTS, SEEDS, sampling_steps=2)
    changed = generate(model, PROMPTS, SEEDS, adapters=[str(file)], sampling_steps=2)
    nothing = generate(model, PROMPTS, SEEDS, adapters=[(file, 0.0)], sampling_steps=2)
    assert apart(changed, plain) > 5
    assert apart(nothing, plain) == 0
    with pytest.raises(ModelError):
        generate(model, PROMPTS, SEEDS, adapters=[tmp_path / "absent.safetensors"])
    found = model.adapter_state("unlearn")
    assert found.keys() == {n.replace(".unlearn.", ".") for n in params}
    assert all((found[name] == tensor).all() for name, tensor in kept.items())
