"""Adapter files: those of others are read, ours are written in the format that `load_lora_weights`
of diffusers reads, and in those of ComfyUI and A1111. Importing this module does not load torch;
reading or writing a file does.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ...common.errors import ModelError, OutputError
from ...common.record_files import read_json, shown
from ..weight_differences import BIAS, check_differences, is_dense, is_difference
from .model_folder import first_line, public_name

if TYPE_CHECKING:
    from torch import Tensor


ORIGINAL = "the original"
"""The value of `loads_on` in the metadata of an adapter that needs no other adapter."""
READ_ERRORS = (
    OSError,
    SafetensorError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
)
"""What safetensors raises for files that are damaged or hold a dtype that torch does not know."""
FORMATS = ("diffusers", "kohya", "dense")
"""The formats of adapter files that we write: diffusers' own; LoRA with the keys of kohya, for
ComfyUI and A1111; and whole updates with such keys, for what is no small LoRA.
"""
PRECISIONS = ("float16", "bfloat16", "float32", "float64")
LARGEST_UPDATE = 65504
"""The largest number in half precision."""
LARGEST_RANK = 16_384
"""More than the smaller side of any layer that we train, which is the rank of any update of it."""


def origin(model: str, base_hash: str) -> dict[str, str]:
    """The metadata that says which model an adapter belongs to; of a local folder only the last
    name, since adapters are shared.
    """
    return {"base": public_name(model), "base_sha256": base_hash}


def read_adapter(path: Path, alone: bool = True) -> dict[str, "Tensor"]:
    """The factors of an adapter file of diffusers, peft, kohya's trainers or our own, with scale 1:
    `LAYER.lora_A.weight` and `LAYER.lora_B.weight`, where the denoiser's layers have no prefix.

    Of a run that trained the weights themselves they are differences of weights, `LAYER.diff` and
    `LAYER.diff_b`. Layers have the names that the file gives them, which `load_adapter` of a model
    knows.

    Raises:
        ModelError: the file is no safetensors file with LoRA factors or differences of weights, or,
            if it is to be loaded `alone`, they belong on another adapter's model and mean nothing
            on the original.
    """
    from .adapter_formats import from_any, without_denoiser

    said = f"The adapter {str(path)!r}"
    tensors, metadata = _read(path, said)
    made_for = metadata.get("loads_on", ORIGINAL)
    if alone and made_for != ORIGINAL:
        raise ModelError(
            f"{said} loads on {shown(made_for)[:80]}; one that loads on {ORIGINAL} is accepted."
        )
    if not tensors:
        raise ModelError(f"{said} holds no tensors; LoRA factors are accepted.")
    if _is_ours(tensors):
        state = {without_denoiser(name): tensor for name, tensor in tensors.items()}
        check_factors(state, said)
        return state
    state = from_any(tensors, metadata, said, _peft_config(path, said))
    if not any(".lora_" in name for name in state):
        raise ModelError(f"{said} holds other tensors than LoRA factors.")
    check_factors(state, said)
    return state


def _is_ours(names: Collection[str]) -> bool:
    """Whether tensors are differences of weights as we write them: others have no biases among
    them, and no names of diffusers.
    """
    from .adapter_formats import PREFIXES

    return all(map(is_difference, names)) and any(
        name.startswith(PREFIXES) or name.endswith(BIAS) for name in names
    )


def _read(path: Path, said: str) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    from safetensors.torch import load_file

    metadata = _metadata(path, said)
    try:
        return load_file(path), metadata
    except READ_ERRORS as error:
        raise ModelError(f"{said} cannot be read: {first_line(error)}.") from error


def _metadata(path: Path, said: str) -> dict[str, str]:
    if path.suffix != ".safetensors":
        raise ModelError(f"{said} is no .safetensors file.")
    if path.exists() and not path.is_file():  # opening a FIFO would wait
        raise ModelError(f"{said} cannot be read: it is no regular file.")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except READ_ERRORS as error:
        raise ModelError(f"{said} cannot be read: {first_line(error)}.") from error


def _peft_config(path: Path, said: str) -> dict[str, Any] | None:
    """The settings that peft keeps beside an adapter, such as its alpha; None for other files."""
    beside = path.with_name("adapter_config.json")
    if path.name != "adapter_model.safetensors" or not beside.is_file():
        return None
    try:
        found = read_json(beside, "adapter")
    except OutputError as error:
        raise ModelError(str(error)) from error
    if not isinstance(found, dict):
        raise ModelError(f"{said} has settings beside it that are no JSON object.")
    return found


def check_factors(state: Mapping[str, "Tensor"], said: str) -> None:
    """Refuse factors that make no update, or one that spoils every picture; error messages begin
    with `said`, which names the adapter.

    Raises:
        ModelError: a factor without its partner, of rank 0 or above `LARGEST_RANK`, of whole or
            complex numbers, or numbers that are not finite or make a weight that is not, in half
            precision; differences of weights that do.
    """
    if is_dense(state):
        check_differences(state, said, PRECISIONS, LARGEST_UPDATE)
        return
    for name in state:
        layer, _, part = name.partition(".lora_")
        a, b = (state.get(f"{layer}.lora_{side}.weight") for side in "AB")
        if part not in ("A.weight", "B.weight") or a is None or b is None:
            raise ModelError(
                f"{said} holds {shown(name)[:80]!r} alone; pairs of lora_A.weight and lora_B.weight"
                " are accepted."
            )
        if part == "B.weight":  # checked with its A
            continue
        if not a.ndim == b.ndim >= 2 or a.shape[0] != b.shape[1] or not a.numel() * b.numel():
            raise ModelError(
                f"{said} holds factors of shapes {list(a.shape)} and {list(b.shape)}; (rank, in)"
                " and (out, rank) with a rank of 1 or more are accepted."
            )
        if len(a) > LARGEST_RANK:
            raise ModelError(f"{said} has rank {len(a):,}; up to {LARGEST_RANK:,} is accepted.")
        kinds = {str(factor.dtype).removeprefix("torch.") for factor in (a, b)}
        if odd := kinds - {*PRECISIONS}:
            raise ModelError(
                f"{said} holds {min(odd)} numbers; {', '.join(PRECISIONS)} are accepted."
            )
        if not float(a.abs().max()) * float(b.abs().max()) * len(a) <= LARGEST_UPDATE:
            raise ModelError(
                f"{said} holds numbers that are not finite, or too large: updates of a weight up to"
                f" {LARGEST_UPDATE} are accepted."
            )


def adapter_bytes(
    state: Mapping[str, "Tensor"], metadata: Mapping[str, str], form: str = "diffusers"
) -> bytes:
    """An adapter as a file in one of `FORMATS`; equal adapters give equal bytes.

    All but that of diffusers have the metadata that trainers write as well.
    """
    from .adapter_formats import to_dense, to_kohya, trainers_metadata
    from .layer_names import denoiser_part, file_name, kohya_name

    if is_dense(state) or form == "diffusers":
        layers = {name: re.sub(r"\.(lora_[AB]\.weight|diff|diff_b)$", "", name) for name in state}
        part = denoiser_part(layers.values())
        called = file_name if form == "diffusers" else kohya_name
        tensors = {
            called(layer, part) + name.removeprefix(layer): state[name]
            for name, layer in layers.items()
        }
        return _file_bytes(tensors, metadata)
    written = to_kohya(state) if form == "kohya" else to_dense(state)
    return _file_bytes(written, trainers_metadata(state, metadata))


def smaller_for_others(state: Mapping[str, "Tensor"]) -> str:
    """Whether the file for ComfyUI and A1111 is smaller with factors, kohya, or dense."""
    from ..lora import layer_factors

    if is_dense(state):
        return "dense"
    pairs = layer_factors(state).values()
    factors = sum(a.numel() + b.numel() for a, b in pairs)
    return "dense" if sum(len(b) * a.shape[1] for a, b in pairs) < factors else "kohya"


def converted(path: Path, form: str) -> bytes:
    """The adapter file `path`, as we write it, in another of `FORMATS`.

    Raises:
        ModelError: it is no adapter file.
    """
    if form == "diffusers":
        return path.read_bytes()
    said = _metadata(path, f"The adapter {str(path)!r}")
    metadata = {name: text for name, text in said.items() if name != "format"}
    return adapter_bytes(read_adapter(path, alone=False), metadata, form)


def _file_bytes(tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> bytes:
    from safetensors.torch import save as safetensors_bytes

    stored = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = safetensors_bytes(stored, {"format": "pt", **metadata})
    # The library writes metadata in random order.
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(
        json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
