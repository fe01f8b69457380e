"""Adapter files in the format that `load_lora_weights` of diffusers reads; torch loads when one is
read or written.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from ...common.errors import ModelError
from .model_folder import looks_like_hub_id

if TYPE_CHECKING:
    from torch import Tensor


ORIGINAL = "the original"
"""What an adapter's metadata says it loads on when it needs no other adapter."""


def origin(model: str, base_hash: str) -> dict[str, str]:
    """The metadata that says which model an adapter is of; a local folder is named by its last name
    only, since adapters are handed on.
    """
    on_hub = looks_like_hub_id(model) and not Path(model).is_dir()
    return {"base": model if on_hub else Path(model).resolve().name, "base_sha256": base_hash}


def read_adapter(path: Path, alone: bool = True) -> dict[str, "Tensor"]:
    """The tensors of an adapter file, without the `unet.` prefix.

    Raises:
        ModelError: the file is no safetensors file with LoRA factors, or, if it is to be loaded
            `alone`, its factors belong on another adapter's model and mean nothing on the original.
    """
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise ModelError(f"The adapter {str(path)!r} is no .safetensors file.")
    try:
        with safe_open(path, "pt") as file:
            made_for = (file.metadata() or {}).get("loads_on", ORIGINAL)
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The adapter {str(path)!r} cannot be read: {error}.") from error
    if alone and made_for != ORIGINAL:
        raise ModelError(
            f"The adapter {str(path)!r} loads on {made_for}; one that loads on {ORIGINAL} is"
            " accepted."
        )
    if not all(name.startswith("unet.") and ".lora_" in name for name in state):
        raise ModelError(
            f"The adapter {str(path)!r} holds other tensors than LoRA factors of a UNet."
        )
    return {name.removeprefix("unet."): tensor for name, tensor in state.items()}


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
