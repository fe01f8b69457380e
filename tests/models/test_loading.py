"""Loading of pipelines: every weight comes from the files."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from unlearn_app.common.errors import ModelError
from unlearn_app.models.diffusers.loading import load_pipeline, load_unet, load_whole

FILES = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


def changed(pipeline: Path, folder: Path, part: str, rename: dict[str, str]) -> Path:
    """A copy of the pipeline with tensors of a part renamed; a new name of "" removes one."""
    shutil.copytree(pipeline, folder)
    file = folder / part / FILES[part]
    tensors = {rename.get(name, name): tensor for name, tensor in load_file(file).items()}
    tensors.pop("", None)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("part", FILES)
def test_a_missing_weight_is_an_error_and_never_left_at_random(
    tiny_pipeline, tmp_path, part
) -> None:
    first = min(load_file(tiny_pipeline / part / FILES[part]))
    folder = changed(tiny_pipeline, tmp_path / "model", part, {first: ""})
    with pytest.raises(ModelError, match=f"its {part} lacks weights, 1 in all, such as"):
        load_pipeline(folder, "tiny")


def test_a_denoiser_alone_lacks_no_weight_either(tiny_pipeline, tmp_path) -> None:
    first = min(load_file(tiny_pipeline / "unet" / FILES["unet"]))
    folder = changed(tiny_pipeline, tmp_path / "model", "unet", {first: ""})
    with pytest.raises(ModelError, match="it lacks weights, 1 in all, such as"):
        load_unet(folder / "unet")


def test_names_of_tensors_hide_nothing_in_messages() -> None:
    class Named:
        @classmethod
        def from_pretrained(cls, source: str, **how: Any) -> tuple[None, dict[str, list[str]]]:
            return None, {"missing_keys": ["\x1b[2J"], "unexpected_keys": ["\u202eweight"]}

    with pytest.raises(ModelError) as raised:
        load_whole(Named, "x", "The judge x cannot be loaded: it")
    assert str(raised.value).isprintable()
    assert r"\x1b[2J" in str(raised.value)


def test_weights_under_unknown_names_are_named(tiny_pipeline, tmp_path) -> None:
    """As transformers 5.0 to 5.5 read a text encoder whose names lack their prefix."""
    names = load_file(tiny_pipeline / "text_encoder" / FILES["text_encoder"])
    folder = changed(
        tiny_pipeline, tmp_path / "model", "text_encoder", {name: f"x.{name}" for name in names}
    )
    with pytest.raises(ModelError, match="has others that are unknown, such as x"):
        load_pipeline(folder, "tiny")
