"""Checks on a model folder before anything in it is loaded."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ...common.errors import ModelError, OutputError
from ...common.record_files import LARGEST_NUMBER, Record, checked, damaged, read_json, shown

Few = Annotated[int, Field(ge=1, le=256)]
Many = Annotated[int, Field(ge=1, le=2**20)]
Blocks = Annotated[list[Many], Field(max_length=16)]
Side = Annotated[int, Field(ge=1, le=1024)]


class _Unet(Record):
    """The checked part of a configuration: sizes that could cost any amount of time and memory
    before the weights turn out not to fit.
    """

    sample_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
    in_channels: Few = 4
    layers_per_block: Few | Blocks = 2
    transformer_layers_per_block: Few | Blocks = 1
    block_out_channels: Blocks = []
    cross_attention_dim: Many | Blocks = 1


class _Transformer(Record):
    """As `_Unet`, of a flow transformer; FLUX has no sample size of its own."""

    sample_size: Side = 128
    patch_size: Few = 2
    in_channels: Few = 16
    num_layers: Few = 18
    num_single_layers: Annotated[int, Field(ge=0, le=256)] = 0
    num_attention_heads: Few = 18
    attention_head_dim: Many = 64
    joint_attention_dim: Many = 4096
    pooled_projection_dim: Many = 2048


class _Vae(Record):
    sample_size: Annotated[int, Field(ge=1, le=8192)] | Blocks = 512
    latent_channels: Few = 4
    layers_per_block: Few = 1
    block_out_channels: Blocks = []
    scaling_factor: Annotated[float, Field(gt=0, le=1000)] = 1.0
    shift_factor: Annotated[float, Field(ge=-1000, le=1000)] | None = None


class _TextEncoder(Record):
    num_hidden_layers: Few = 12
    num_attention_heads: Few = 8
    hidden_size: Many = 512
    intermediate_size: Many = 2048
    vocab_size: Many = 49408
    max_position_embeddings: Many = 77


class _T5(Record):
    num_layers: Few = 12
    num_heads: Few = 8
    d_model: Many = 512
    d_ff: Many = 2048
    d_kv: Many = 64
    vocab_size: Many = 32128


class _Scheduler(Record):
    num_train_timesteps: Annotated[int, Field(ge=200, le=100_000)] = 1000  # the most steps are 200


class _Tokenizer(Record):
    model_max_length: Annotated[int, Field(ge=8, le=4096)]


SCHEDULER = "scheduler/scheduler_config.json"
CONFIGS: dict[str, type[Record]] = {
    "unet/config.json": _Unet,
    "transformer/config.json": _Transformer,
    "vae/config.json": _Vae,
    "text_encoder/config.json": _TextEncoder,
    SCHEDULER: _Scheduler,
    "tokenizer/tokenizer_config.json": _Tokenizer,
    "tokenizer_2/tokenizer_config.json": _Tokenizer,
    "tokenizer_3/tokenizer_config.json": _Tokenizer,
}
TEXT_ENCODERS: dict[str, type[Record]] = {"t5": _T5}
"""The schema of `text_encoder_N/config.json` by its model type; that of CLIP where it is no other.
"""
REFINER = "StableDiffusionXLImg2ImgPipeline"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")


def looks_like_hub_id(source: str) -> bool:
    """Whether `source` has the form owner/name."""
    parts = source.split("/")
    return len(parts) == 2 and all(parts) and not source.startswith((".", "~"))


def check_kind(index: Mapping[str, Any], source: str, kinds: Collection[str]) -> None:
    """Refuse a pipeline whose `index` names no class of `kinds`, or that is no base model.

    Raises:
        ModelError: naming the class.
    """
    kind = index.get("_class_name")
    alone = index.get("text_encoder") == [None, None]
    if kind == REFINER or (kind == "StableDiffusionXLPipeline" and alone):
        raise ModelError(
            f"The model {source!r} is an SDXL refiner, which goes on from another model's pictures;"
            " the base model is accepted."
        )
    if not isinstance(kind, str) or kind not in kinds:
        *most, last = kinds
        raise ModelError(
            f"The model {source!r} holds a {kind!s:.80}; a {', '.join(most)} or {last} is accepted."
        )


def check_folder(folder: Path, kinds: Collection[str]) -> None:
    """Refuse what cannot or must not be loaded, before anything reads the weights; `kinds` are the
    accepted classes of pipelines.

    Raises:
        ModelError: no pipeline index, another architecture, or a pickle, which can run code.
    """
    try:
        index = _object(folder / "model_index.json")
    except OutputError as error:
        raise ModelError(
            f"The folder {str(folder)!r} has no readable model_index.json; a diffusers pipeline"
            " folder is accepted."
        ) from error
    check_kind(index, str(folder), kinds)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.exists() and not path.is_dir() and not path.is_file():  # opening a FIFO would wait
            raise ModelError(
                f"The model file {name!r} is no regular file; a plain file is accepted."
            )
        if path.suffix.lower() in PICKLES:
            raise ModelError(
                f"The model file {name!r} is a pickle, which can run code; safetensors are"
                " accepted."
            )
    try:
        for path in sorted(folder.rglob("*.json")):
            name = path.relative_to(folder).as_posix()
            # diffusers writes -Infinity as the bound of DPM solvers that clip nothing.
            found = _object(path, math.inf if name == SCHEDULER else LARGEST_NUMBER)
            schema = CONFIGS.get(name)
            if re.fullmatch(r"text_encoder_\d/config\.json", name):
                schema = TEXT_ENCODERS.get(str(found.get("model_type")), _TextEncoder)
            if schema:
                checked(found, schema, path, "model")
    except OutputError as error:
        raise ModelError(str(error)) from error


def _object(path: Path, largest: float = LARGEST_NUMBER) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OutputError: it cannot be read, holds something else, or a number above `largest`.
    """
    found = read_json(path, "model", largest=largest)
    if not isinstance(found, dict):
        raise damaged(path.parent, "model", f"{path.name} is no object")
    return found


def first_line(error: Exception) -> str:
    """What a library says of a file it cannot load, short enough for a sentence of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shown(lines[0])[:160]


def hash_weights(folder: Path) -> str:
    """sha256 over the denoiser's weight files in name order."""
    digest = hashlib.sha256()
    for part in ("unet", "transformer"):
        for path in sorted((folder / part).glob("*.safetensors")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
