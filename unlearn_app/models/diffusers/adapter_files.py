"""Adapter files in the format that `load_lora_weights` of diffusers reads; torch loads when one is
read or written.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from ...common.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


ORIGINAL = "the original"
"""What an adapter's metadata says it loads on when it needs no other adapter."""


def read_adapter(path: Path) -> dict[str, "Tensor"]:
    """The tensors of an adapter file, without the `unet.` prefix.

    Raises:
        ModelError: the file is no safetensors file with LoRA factors, or its factors belong on
            another adapter's model and mean nothing on the original.
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
    if made_for != ORIGINAL:
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
