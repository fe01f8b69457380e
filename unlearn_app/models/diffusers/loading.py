"""Pipelines from folders and Hugging Face ids, their untrained parts, and pipelines to folders."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from ...common.errors import ModelError, UnlearnError, enough_memory
from ...common.record_files import shown
from ..device import choose_device, choose_dtype
from .flux import Flux
from .layer_names import TEXT_MODEL, TEXT_PREFIXES
from .model_folder import first_line, parts_in, read_index
from .pipeline import PipelineModel
from .sources import Source, opened
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL

FAMILIES: dict[str, type[PipelineModel]] = {
    family.pipeline.__name__: family
    for family in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux)
}
"""The family of a pipeline by the class that its index names."""
NEW: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "transformer": StableDiffusion3.parts["transformer"],
    "vae": StableDiffusion.parts["vae"],
    "scheduler": DPMSolverMultistepScheduler,
    "flow_scheduler": FlowMatchEulerDiscreteScheduler,
}
"""The classes of the bundled models' parts."""
LESS = "what else is in memory, or choose a smaller model"


def load_pipeline(
    source: str | Path,
    name: str,
    vae: Path | None = None,
    texts: Mapping[str, Any] | None = None,
) -> PipelineModel:
    """A model of one of `FAMILIES` from a folder in diffusers format, a .safetensors file, or a
    Hugging Face id; `vae` is the folder of its autoencoder, and `texts` are tokenizers and text
    encoders in single precision, where the model has none of its own.

    Raises:
        ModelError: it is missing, damaged, of another architecture, makes no picture, or has
            weights only in pickles, which can run code.
    """
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity(logging.CRITICAL)  # our own sentence says what cannot be loaded
        library.disable_progress_bar()
    said = f"The model {str(source)!r}"
    with opened(str(source), FAMILIES) as files:
        try:
            with warnings.catch_warnings(), enough_memory(said, LESS):
                warnings.simplefilter("ignore")
                dtype = choose_dtype(choose_device(), files.size)
                index = read_index(files.folder)
                family = FAMILIES[index["_class_name"]]
                pipe = _read(
                    files, family, index, f"{said} cannot be loaded: its", dtype, vae, texts
                )
                for part, own in pipe.components.items():
                    if part.startswith("tokenizer") and own is not None:
                        own.name_or_path = str(files.home / part)  # not the folder made meanwhile
                model = family(pipe, name, files.base_hash())
                model.try_out()
        except UnlearnError:
            raise
        except Exception as error:  # a configuration can make the libraries raise anything
            reason = first_line(error).replace(str(files.folder), str(source))
            raise ModelError(f"{said} cannot be loaded: {reason}") from error
    return model


def load_flow(folder: Path, name: str, vae: Path, texts: Mapping[str, Any]) -> PipelineModel:
    """The bundled flow transformer in `folder`, with the autoencoder of the folder `vae`, and what
    of its `texts` it shares with the UNet.

    In T5's place it reads as many zeros as CLIP has states, which is quicker than the 256 that
    diffusers puts there unless it is told `max_sequence_length`.

    Raises:
        ModelError: as `load_pipeline`.
    """
    model: Any = load_pipeline(folder, name, vae, texts)
    model.words = model.pipe.tokenizer_max_length
    return model


def _read(
    files: Source,
    family: type[PipelineModel],
    index: Mapping[str, Any],
    said: str,
    dtype: torch.dtype,
    vae: Path | None,
    texts: Mapping[str, Any] | None,
) -> Any:
    """The pipeline of a model, all of whose weights come from its files, those of `vae` and
    `texts`; error messages begin with `said`.

    Raises:
        ModelError: weights are missing there.
    """
    folder, how = str(files.folder), {"torch_dtype": dtype}
    if files.checkpoint:
        lacking = f"{said} file lacks weights; one with every weight is accepted."
        try:
            pipe = family.pipeline.from_single_file(
                str(files.checkpoint),
                config=folder,
                local_files_only=True,
                **family.unused | how,
            )
        except NotImplementedError as error:  # torch: a weight that no file holds cannot be moved
            raise ModelError(lacking) from error
        weights = (weight for part in family.parts for weight in getattr(pipe, part).parameters())
        if any(weight.is_meta for weight in weights):
            raise ModelError(lacking)
        return pipe
    how["use_safetensors"] = True
    absent = {*family.optional} - {*parts_in(index, family.optional)}
    given = {name: _of_precision(part, dtype) for name, part in (texts or {}).items()}
    parts = dict.fromkeys(absent) | given
    parts |= {
        part: load_whole(kind, folder, f"{said} {part}", subfolder=part, **how)
        for part, kind in family.parts.items()
        if part not in parts and not (part == "vae" and vae)
    }
    if vae:
        parts["vae"] = load_whole(family.parts["vae"], str(vae), f"{said} vae", **how)
    return family.pipeline.from_pretrained(folder, **family.unused | parts | how)


def _of_precision(part: Any, dtype: torch.dtype) -> Any:
    return part.to(dtype) if isinstance(part, torch.nn.Module) else part


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


def new_part(kind: str, **config: Any) -> Any:
    """An untrained part of a pipeline from its diffusers configuration; `kind` is one of `NEW`."""
    return NEW[kind](**config)


def load_unet(folder: str | Path) -> Any:
    """The denoiser of a pipeline from its own folder, in single precision.

    Raises:
        ModelError: weights are missing there.
    """
    said = f"The denoiser in {str(folder)!r} cannot be loaded: it"
    return load_whole(UNet2DConditionModel, str(folder), said, torch_dtype=torch.float32)


def save_pipeline(
    folder: str | Path,
    family: type[PipelineModel] = StableDiffusion,
    texts: torch.dtype = torch.float32,
    **parts: Any,
) -> None:
    """Write the parts of a pipeline, named as diffusers does; weights in half precision, files cut
    into at most 14 MB.

    The configurations of the text encoders say single precision, in which transformers then loads
    them as diffusers does the rest, whatever `texts`, the precision on disk, is.
    """
    pipe = family.pipeline(**parts, **family.unused)
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            part.to(torch.float32 if name in TEXT_PREFIXES else torch.float16)
    pipe.save_pretrained(str(folder), safe_serialization=True, max_shard_size="14MB")
    with_text_prefix(Path(folder), texts)


def with_text_prefix(folder: Path, texts: torch.dtype | None = None) -> None:
    """Let the tensors of CLIP text encoders in a pipeline folder begin with `text_model.`, and be
    of the precision `texts` if one is named.

    transformers 5.6 and later reads names with or without it; earlier versions read them only with
    it, and otherwise leave the weights at random without an error.
    """
    for file in sorted(folder.glob("text_encoder*/model.safetensors")):
        tensors = load_file(file)
        prefix = TEXT_MODEL if "embeddings.position_embedding.weight" in tensors else ""
        if prefix or texts:
            bare = {"text_projection.weight"}
            named = {n if n in bare else f"{prefix}{n}": t for n, t in tensors.items()}
            stored = {name: tensor.to(texts or tensor.dtype) for name, tensor in named.items()}
            save_file(stored, file, metadata={"format": "pt"})
