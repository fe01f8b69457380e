"""Adapter files in the format that `load_lora_weights` of diffusers reads. Importing this module
does not load torch; reading or writing a file does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from ...common.errors import ModelError
from ...common.record_files import shown
from ..weight_differences import check_differences, is_dense, is_difference
from .model_folder import first_line, looks_like_hub_id

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
PRECISIONS = ("float16", "bfloat16", "float32", "float64")
LARGEST_UPDATE = 65504
"""The largest number in half precision."""


def origin(model: str, base_hash: str) -> dict[str, str]:
    """The metadata that says which model an adapter belongs to; of a local folder only the last
    name, since adapters are shared.
    """
    on_hub = looks_like_hub_id(model) and not Path(model).is_dir()
    return {"base": model if on_hub else Path(model).resolve().name, "base_sha256": base_hash}


def read_adapter(path: Path, alone: bool = True) -> dict[str, "Tensor"]:
    """The tensors of an adapter file, without the `unet.` prefix.

    Raises:
        ModelError: the file is no safetensors file with LoRA factors or differences of weights, or,
            if it is to be loaded `alone`, they belong on another adapter's model and mean nothing
            on the original.
    """
    from safetensors.torch import load_file

    said = f"The adapter {str(path)!r}"
    if path.suffix != ".safetensors":
        raise ModelError(f"{said} is no .safetensors file.")
    if path.exists() and not path.is_file():  # opening a FIFO would wait
        raise ModelError(f"{said} cannot be read: it is no regular file.")
    try:
        with safe_open(path, "pt") as file:
            made_for = (file.metadata() or {}).get("loads_on", ORIGINAL)
        state = load_file(path)
    except READ_ERRORS as error:
        raise ModelError(f"{said} cannot be read: {first_line(error)}.") from error
    if alone and made_for != ORIGINAL:
        raise ModelError(
            f"{said} loads on {shown(made_for)[:80]}; one that loads on {ORIGINAL} is accepted."
        )
    if not state:
        raise ModelError(f"{said} holds no tensors; LoRA factors of a UNet are accepted.")
    if not all(
        name.startswith("unet.") and (".lora_" in name or is_difference(name)) for name in state
    ):
        raise ModelError(
            f"{said} holds other tensors than LoRA factors, or differences of weights, of a UNet."
        )
    state = {name.removeprefix("unet."): tensor for name, tensor in state.items()}
    check_factors(state, said)
    return state


def check_factors(state: Mapping[str, "Tensor"], said: str) -> None:
    """Refuse factors that make no update, or one that spoils every picture; error messages begin
    with `said`, which names the adapter.

    Raises:
        ModelError: a factor without its partner, of rank 0, of whole or complex numbers, or numbers
            that are not finite or make a weight that is not, in half precision; differences of
            weights that do.
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
        if not a.ndim == b.ndim >= 2 or a.shape[0] != b.shape[1] or not a.numel() * b.numel():
            raise ModelError(
                f"{said} holds factors of shapes {list(a.shape)} and {list(b.shape)}; (rank, in)"
                " and (out, rank) with a rank of 1 or more are accepted."
            )
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


def adapter_bytes(state: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> bytes:
    """An adapter in the format `load_lora_weights` of diffusers reads; equal adapters give equal
    bytes.
    """
    from safetensors.torch import save as safetensors_bytes

    prefixed = {f"unet.{key}": tensor.contiguous() for key, tensor in state.items()}
    content = safetensors_bytes(prefixed, {"format": "pt", **metadata})
    # The library writes metadata in random order.
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(
        json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
