"""Pipelines from folders and Hugging Face ids, their untrained parts, and pipelines to folders."""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from ...common.errors import ModelError, UnlearnError, enough_memory
from ...common.record_files import shown
from ..device import choose_device, choose_dtype
from .flux import Flux
from .layer_names import TEXT_MODEL
from .model_folder import check_folder, check_kind, first_line, hash_weights, looks_like_hub_id
from .pipeline import PipelineModel
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL

FAMILIES: dict[str, type[PipelineModel]] = {
    family.pipeline.__name__: family
    for family in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux)
}
"""The family of a pipeline by the class that its index names."""
ABSENT = [None, None]
"""What an index holds in place of a part's library and class where the part is absent."""
LESS = "what else is in memory, or choose a smaller model"


def load_pipeline(source: str | Path, name: str) -> PipelineModel:
    """A model of one of `FAMILIES` from a folder in diffusers format, or from a Hugging Face id.

    Raises:
        ModelError: it is missing, damaged, of another architecture, makes no picture, or holds
        pickles, which can run code.
    """
    folder = Path(source)
    local = folder.is_dir()
    if local:
        check_folder(folder, FAMILIES)
    elif folder.exists() or not looks_like_hub_id(str(source)):
        raise ModelError(
            f"There is no model folder {str(source)!r}; pocket, a folder or owner/name is accepted."
        )
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity(logging.CRITICAL)  # our own sentence says what cannot be loaded
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings(), enough_memory(f"The model {str(source)!r}", LESS):
            warnings.simplefilter("ignore")
            files = folder.rglob("*.safetensors")
            size = sum(file.stat().st_size for file in files) if local else None
            dtype = choose_dtype(choose_device(), size)
            how = {"torch_dtype": dtype, "use_safetensors": True}
            said = f"The model {str(source)!r} cannot be loaded: its"
            index = DiffusionPipeline.load_config(str(source))
            check_kind(index, str(source), FAMILIES)
            family = FAMILIES[index["_class_name"]]
            absent = [part for part in family.optional if index.get(part) in (None, ABSENT)]
            parts = dict.fromkeys(absent) | {
                name: load_whole(kind, str(source), f"{said} {name}", subfolder=name, **how)
                for name, kind in family.parts.items()
                if name not in absent
            }
            pipe = family.pipeline.from_pretrained(str(source), **family.unused | parts | how)
            weights = hash_weights(folder) if local else str(source)
            model = family(pipe, name, weights)
            model.try_out()
    except UnlearnError:
        raise
    except Exception as error:  # a configuration can make the libraries raise anything
        reason = first_line(error)
        raise ModelError(f"The model {str(source)!r} cannot be loaded: {reason}") from error
    return model


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
    kinds = StableDiffusion.parts | {"scheduler": DPMSolverMultistepScheduler}
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
    diffusers loads the rest in single precision.
    """
    pipe = StableDiffusionPipeline(**parts, **StableDiffusion.unused)
    pipe.unet.to(torch.float16)
    pipe.vae.to(torch.float16)
    pipe.text_encoder.to(torch.float32)
    pipe.save_pretrained(str(folder), safe_serialization=True, max_shard_size="14MB")
    with_text_prefix(Path(folder))


def with_text_prefix(folder: Path) -> None:
    """Let the tensors of CLIP text encoders in a pipeline folder begin with `text_model.`.

    transformers 5.6 and later reads names with or without it; earlier versions read them only with
    it, and otherwise leave the weights at random without an error.
    """
    for file in sorted(folder.glob("text_encoder*/model.safetensors")):
        tensors = load_file(file)
        if "embeddings.position_embedding.weight" in tensors:
            bare = {"text_projection.weight"}
            named = {n if n in bare else f"{TEXT_MODEL}{n}": t for n, t in tensors.items()}
            save_file(named, file, metadata={"format": "pt"})
