"""Checks on a model folder before anything in it is loaded."""

import hashlib
import json
from pathlib import Path

from ...common.errors import ModelError

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")


def looks_like_hub_id(source: str) -> bool:
    """Whether `source` has the form owner/name."""
    parts = source.split("/")
    return len(parts) == 2 and all(parts) and not source.startswith((".", "~"))


def check_folder(folder: Path) -> None:
    """Refuse what cannot or must not be loaded, before anything reads the weights.

    Raises:
        ModelError: no pipeline index, another architecture, or a pickle, which can run code.
    """
    index = folder / "model_index.json"
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"The folder {str(folder)!r} has no readable model_index.json; a diffusers pipeline"
            " folder is accepted."
        ) from error
    if kind != "StableDiffusionPipeline":
        raise ModelError(
            f"The folder {str(folder)!r} holds a {kind}; a StableDiffusionPipeline is accepted."
        )
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLES:
            name = str(path.relative_to(folder))
            raise ModelError(
                f"The model file {name!r} is a pickle, which can run code; safetensors are"
                " accepted."
            )


def hash_weights(folder: Path) -> str:
    """sha256 over the denoiser's weight files in name order."""
    digest = hashlib.sha256()
    for path in sorted((folder / "unet").glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
