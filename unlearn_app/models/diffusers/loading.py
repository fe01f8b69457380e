"""Pipelines from folders and Hugging Face ids, their untrained parts, and pipelines to folders."""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from ...common.errors import ModelError, UnlearnError, enough_memory
from ...common.record_files import shown
from ..device import choose_device, choose_dtype
from .model_folder import first_line
from .sources import Source, opened
from .unet import StableDiffusion

WEIGHTED = {
    "text_encoder": CLIPTextModel,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
}
"""The parts of a pipeline that have weights."""
PIPELINES = (StableDiffusionPipeline.__name__,)
"""The classes of pipelines that are accepted."""
LESS = "what else is in memory, or choose a smaller model"
BARE = {
    "safety_checker": None,
    "requires_safety_checker": False,
    "feature_extractor": None,
    "image_encoder": None,
}


def load_pipeline(source: str | Path, name: str) -> StableDiffusion:
    """A Stable Diffusion 1.x model from a folder in diffusers format, a .safetensors file, or a
    Hugging Face id.

    Raises:
        ModelError: it is missing, damaged, of another architecture, makes no picture, or has
            weights only in pickles, which can run code.
    """
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity(logging.CRITICAL)  # our own sentence says what cannot be loaded
        library.disable_progress_bar()
    said = f"The model {str(source)!r}"
    with opened(str(source), PIPELINES) as files:
        try:
            with warnings.catch_warnings(), enough_memory(said, LESS):
                warnings.simplefilter("ignore")
                dtype = choose_dtype(choose_device(), files.size)
                pipe = _read(files, f"{said} cannot be loaded: its", dtype)
                model = StableDiffusion(pipe, name, files.base_hash())
                model.try_out()
        except UnlearnError:
            raise
        except Exception as error:  # a configuration can make the libraries raise anything
            reason = first_line(error).replace(str(files.folder), str(source))
            raise ModelError(f"{said} cannot be loaded: {reason}") from error
    return model


def _read(files: Source, said: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The pipeline of a model, all of whose weights come from its files; error messages begin with
    `said`.

    Raises:
        ModelError: weights are missing there.
    """
    folder, how = str(files.folder), {"torch_dtype": dtype}
    if files.checkpoint:
        try:
            return StableDiffusionPipeline.from_single_file(
                str(files.checkpoint), config=folder, local_files_only=True, **how, **BARE
            )
        except NotImplementedError as error:  # a weight without numbers cannot be moved
            raise ModelError(
                f"{said} file lacks weights; one with every weight is accepted."
            ) from error
    how["use_safetensors"] = True
    parts = {
        part: load_whole(kind, folder, f"{said} {part}", subfolder=part, **how)
        for part, kind in WEIGHTED.items()
    }
    return StableDiffusionPipeline.from_pretrained(folder, **parts, **how, **BARE)


def load_whole(kind: Any, source: str, said: str, **how: Any) -> Any:
    """The network that `kind`, a class of diffusers or transformers, loads from a folder or hub id,
    all of whose weights come from the files there; error messages begin with `said`.

    Raises:
        ModelError: some are missing there; the libraries would leave them at random.
    """
    network, report = kind.from_pretrained(source, output_loading_info=True, **how)
    if missing := sorted(report["missing_keys"]):
        unknown = [shown(name)[:80] for name in sorted(report["unexpected_keys"])]
        others = f" and has others that are unknown, such as {unknown[0]}" if unknown else ""
        raise ModelError(
            f"{said} lacks weights, {len(missing)} in all, such as"
            f" {shown(missing[0])[:80]}{others}; files with every weight are accepted."
        )
    return network


def new_part(name: Literal["unet", "vae", "scheduler"], **config: Any) -> Any:
    """An untrained part of a pipeline from its diffusers configuration."""
    kinds = WEIGHTED | {"scheduler": DPMSolverMultistepScheduler}
    return kinds[name](**config)


def load_unet(folder: str | Path) -> Any:
    """The denoiser of a pipeline from its own folder, in single precision.

    Raises:
        ModelError: weights are missing there.
    """
    said = f"The denoiser in {str(folder)!r} cannot be loaded: it"
    return load_whole(UNet2DConditionModel, str(folder), said, torch_dtype=torch.float32)


def save_pipeline(folder: str | Path, **parts: Any) -> None:
    """Write the five parts, named as diffusers does; weights in half precision, files cut into at
    most 14 MB.

    The text encoder stays in single precision, since transformers loads it as it is stored while
    diffusers loads the rest in single precision. Its tensors keep the prefix `text_model.`:
    transformers 5.6 and later reads names with or without it; earlier versions read them only with
    it, and otherwise leave the weights at random without an error.
    """
    pipe = StableDiffusionPipeline(**parts, **BARE)
    pipe.unet.to(torch.float16)
    pipe.vae.to(torch.float16)
    pipe.text_encoder.to(torch.float32)
    pipe.save_pretrained(str(folder), safe_serialization=True, max_shard_size="14MB")
    file = Path(folder) / "text_encoder" / "model.safetensors"
    tensors = {
        f"text_model.{name.removeprefix('text_model.')}": value
        for name, value in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
