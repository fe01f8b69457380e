"""Checks on a model folder before anything in it is loaded, and a view of it that holds nothing
else.
"""

import hashlib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors import safe_open

from ...common.errors import ModelError, OutputError
from ...common.json_values import json_text
from ...common.private_folder import PrivateFolder
from ...common.record_files import LARGEST_NUMBER, Record, checked, damaged, read_json, shown
from .weight_files import DENOISERS, WEIGHTED, WEIGHTLESS, plain_name, weight_files

Few = Annotated[int, Field(ge=1, le=256)]
Many = Annotated[int, Field(ge=1, le=2**20)]
Side = Annotated[int, Field(ge=1, le=1024)]
Blocks = Annotated[list[Many], Field(max_length=16)]


class _Unet(Record):
    """The checked part of a configuration: sizes that could cost any amount of time and memory
    before the weights turn out not to fit, and what tells models apart that other pipelines use.
    """

    sample_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
    in_channels: Few = 4
    out_channels: Few = 4
    layers_per_block: Few | Blocks = 2
    transformer_layers_per_block: Few | Blocks = 1
    block_out_channels: Blocks = []
    cross_attention_dim: Many | Blocks = 1
    time_cond_proj_dim: Many | None = None
    num_class_embeds: Many | None = None
    class_embed_type: str | None = None


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


class TextSizes(Record):
    """As `_Unet`, of a text encoder."""

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


INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
CONFIGS: dict[str, type[Record]] = {
    "unet/config.json": _Unet,
    "transformer/config.json": _Transformer,
    "vae/config.json": _Vae,
    "text_encoder/config.json": TextSizes,
    SCHEDULER: _Scheduler,
    "tokenizer/tokenizer_config.json": _Tokenizer,
    "tokenizer_2/tokenizer_config.json": _Tokenizer,
    "tokenizer_3/tokenizer_config.json": _Tokenizer,
}
TEXT_ENCODERS: dict[str, type[Record]] = {"t5": _T5}
"""The schema of `text_encoder_N/config.json` by its model type; that of CLIP where it is no other.
"""
REFINER = "StableDiffusionXLImg2ImgPipeline"
LIBRARIES = ("diffusers", "transformers")
"""Where the class of a part may come from; a name of any other would be imported."""
READ = (".json", ".txt", ".model")
"""What is read of a part beside its weights: configurations, vocabularies, sentencepiece models."""
NEVER_READ = "adapter_config.json"
"""transformers would load the adapter that such a file describes, even from a pickle."""
POINTER = b"version https://git-lfs"
"""How the text begins that stands for a large file in a git clone without Git LFS."""
OTHER_INPUTS = {
    5: "a depth-to-image model",
    7: "an upscaler",
    8: "an instruct-pix2pix model",
    9: "an inpainting model",
}
"""What a UNet is that reads so many channels where its latents have 4."""


def looks_like_hub_id(source: str) -> bool:
    """Whether `source` has the form owner/name and is no name of a file of weights."""
    parts = source.split("/")
    weights = source.lower().endswith((".safetensors", ".ckpt"))
    return len(parts) == 2 and all(parts) and not source.startswith((".", "~")) and not weights


def public_name(source: str) -> str:
    """What records call a model or an adapter: a Hub id whole, and of what lies on this machine the
    last name, since records are shared.
    """
    path = Path(source)
    try:
        return source if looks_like_hub_id(source) and not path.exists() else path.resolve().name
    except (OSError, ValueError):  # no name of a file
        return path.name


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a pipeline.

    Raises:
        ModelError: there is none that can be read.
    """
    try:
        return _object(folder / INDEX)
    except OutputError as error:
        raise ModelError(
            f"The folder {str(folder)!r} has no readable {INDEX}; a diffusers pipeline folder is"
            " accepted."
        ) from error


def check_kind(index: Mapping[str, Any], source: str, kinds: Collection[str]) -> None:
    """Refuse a pipeline whose `index` names no class of `kinds`, that is no base model, or whose
    parts are made by libraries of others.

    Raises:
        ModelError: naming the class.
    """
    said, kind = f"The model {source!r}", index.get("_class_name")
    refines = kind == "StableDiffusionXLPipeline" and index.get("text_encoder") == [None, None]
    if kind == REFINER or refines:
        raise ModelError(
            f"{said} is an SDXL refiner, which goes on from another model's pictures; the base"
            " model is accepted."
        )
    if not isinstance(kind, str) or kind not in kinds:
        *most, last = kinds
        accepted = f"{', '.join(most)} or {last}" if most else last
        raise ModelError(f"{said} holds a {shown(str(kind))[:80]}; a {accepted} is accepted.")
    for part in (*WEIGHTED, *WEIGHTLESS):
        made_by = index.get(part, [None, None])
        if made_by != [None, None] and not (
            isinstance(made_by, list)
            and len(made_by) == 2
            and made_by[0] in LIBRARIES
            and isinstance(made_by[1], str)
        ):
            raise ModelError(
                f"{said} names {shown(str(made_by))[:80]} as its {part} in {INDEX}; classes of"
                f" {' and '.join(LIBRARIES)} are accepted."
            )


def parts_in(index: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Those of the `known` parts that an index of a pipeline has."""
    return [part for part in known if index.get(part, [None, None]) != [None, None]]


def is_read(name: str, index: Mapping[str, Any]) -> bool:
    """Whether a file, a path below the folder of a model, is a text that loading it reads."""
    path = Path(name)
    parts = parts_in(index, (*WEIGHTED, *WEIGHTLESS))
    within = str(path.parent) in parts and path.name != NEVER_READ
    return name == INDEX or (within and path.suffix in READ and ".index." not in path.name)


def files_to_read(names: Iterable[str], index: Mapping[str, Any]) -> list[str]:
    """The files among `names`, paths below the folder of a model, from which it is loaded.

    Raises:
        ModelError: a part has no safetensors, or not all shards.
    """
    names = sorted(names)
    weights = [weight_files(part, names) for part in parts_in(index, WEIGHTED)]
    return [name for name in names if is_read(name, index)] + [n for own in weights for n in own]


def check_folder(folder: Path, kinds: Collection[str]) -> list[str]:
    """Refuse what cannot or must not be loaded, before anything reads the weights; `kinds` are the
    accepted classes of pipelines. The files from which the model is loaded, as paths below
    `folder`.

    Raises:
        ModelError: no pipeline index, another architecture, or a part without safetensors.
    """
    index = read_index(folder)
    check_kind(index, str(folder), kinds)
    files = files_to_read(_names(folder), index)
    found = {}
    try:
        for name in (name for name in files if name.endswith(".json")):
            # diffusers writes -Infinity as the bound of DPM solvers that clip nothing.
            found[name] = _object(folder / name, math.inf if name == SCHEDULER else LARGEST_NUMBER)
            schema = CONFIGS.get(name)
            if re.fullmatch(r"text_encoder_\d/config\.json", name):
                schema = TEXT_ENCODERS.get(str(found[name].get("model_type")), TextSizes)
            if schema:
                found[name] = checked(found[name], schema, folder / name, "model")
    except OutputError as error:
        raise ModelError(str(error)) from error
    for name in files:
        if name.endswith(".safetensors"):
            _check_pulled(folder, name)
    if unet := found.get("unet/config.json"):
        vae = found.get("vae/config.json") or _Vae().model_dump()
        check_unet(unet, vae, f"The model {str(folder)!r}")
    return files


def check_unet(unet: Mapping[str, Any], vae: Mapping[str, Any], said: str) -> None:
    """Refuse a UNet that a text-to-image pipeline cannot use, whatever the index calls it; error
    messages begin with `said`, which names the model.

    Raises:
        ModelError: it reads or predicts something else than latents.
    """
    latent, read, made = vae["latent_channels"], unet["in_channels"], unet["out_channels"]
    if read != latent:
        raise ModelError(
            f"{said} is {OTHER_INPUTS.get(read, 'a model for other inputs')}: its UNet reads {read}"
            f" channels; one that reads the {latent} of its latents is accepted."
        )
    if made != latent:
        raise ModelError(
            f"{said} predicts {made} channels; one that predicts the {latent} of its latents is"
            " accepted."
        )
    if unet["time_cond_proj_dim"]:
        raise ModelError(
            f"{said} is an LCM: its UNet was distilled to read the guidance scale; one that is"
            " guided from outside is accepted."
        )
    if unet["num_class_embeds"] or unet["class_embed_type"]:
        raise ModelError(
            f"{said} reads class labels or pictures beside the prompt, as upscalers and unCLIP do;"
            " one that reads prompts alone is accepted."
        )


@contextmanager
def plain_folder(folder: Path, files: Iterable[str]) -> Iterator[Path]:
    """A temporary folder with nothing but `files` of the model in `folder`, linked under the names
    they would have without variants, so that no library can open anything else.

    Raises:
        ModelError: a shard cannot be read.
    """
    with PrivateFolder("unlearn-model-") as view:
        shards: dict[Path, list[Path]] = {}
        for file in files:
            target = view / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.endswith(".safetensors"):
                target = target.with_name(plain_name(file))
                shards.setdefault(target.parent, []).append(target)
            target.symlink_to((folder / file).resolve())
        (view / INDEX).unlink()
        (view / INDEX).write_text(json_text(_cleaned(read_index(folder))))
        for own in (own for own in shards.values() if len(own) > 1):
            _write_shard_index(own)
        yield view


def _cleaned(index: Mapping[str, Any]) -> dict[str, Any]:
    """An index whose parts are those that are read, and its settings."""
    known = (*WEIGHTED, *WEIGHTLESS)
    return {
        name: value
        for name, value in index.items()
        if name in known or not isinstance(value, list | dict)
    }


def _write_shard_index(shards: list[Path]) -> None:
    """The index that libraries read, from the shards themselves: one that came with them could name
    any file.
    """
    places, size = {}, 0
    for shard in shards:
        try:
            with safe_open(shard, "pt") as tensors:
                places |= dict.fromkeys(tensors.keys(), shard.name)
        except Exception as error:  # of a class of the library's own, by version
            raise ModelError(
                f"The model file {shard.resolve().name!r} cannot be read: {first_line(error)}."
            ) from error
        size += shard.stat().st_size
    stem = shards[0].name.partition("-")[0]
    index = {"metadata": {"total_size": size}, "weight_map": places}
    shards[0].with_name(f"{stem}.safetensors.index.json").write_text(json_text(index))


def _check_pulled(folder: Path, name: str) -> None:
    with (folder / name).open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ModelError(
                f"The model file {name!r} is a pointer of Git LFS, not the weights; they are"
                " accepted after `git lfs pull`."
            )


def _names(folder: Path) -> list[str]:
    """The files in a folder and in the folders of parts below it, as paths below it.

    Raises:
        ModelError: one is neither a file nor a folder; opening a FIFO would wait.
    """
    places = [folder, *(folder / part for part in (*WEIGHTED, *WEIGHTLESS))]
    found = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
    for path in found:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise ModelError(
                f"The model file {str(path.relative_to(folder))!r} is no regular file; a plain file"
                " is accepted."
            )
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


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
    """sha256 over the files that hold the denoiser's weights, in name order."""
    digest, names = hashlib.sha256(), _names(folder)
    for part in parts_in(read_index(folder), DENOISERS):
        for name in weight_files(part, names):
            hash_into(digest, folder / name)
    return digest.hexdigest()


def hash_into(digest: "hashlib._Hash", path: Path) -> None:
    """Add the bytes of a file to a hash, a piece at a time."""
    with path.open("rb") as file:
        while piece := file.read(2**24):
            digest.update(piece)
