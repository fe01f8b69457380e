"""Estimates of the size of files before they are written."""

import math
from collections.abc import Sequence
from typing import Literal

from ..common.errors import ConfigError
from .protocols import Model

ENLARGED = 8
"""Pixels of a picture along each side of a latent, in all but a few models."""
NUMBER = 4
"""Bytes of an adapter's float32."""


LARGEST_SIDE = 4096
"""The longest side in pixels of a picture that is asked for."""


def picture_shape(model: Model) -> tuple[int, int]:
    """The height and width of a picture by `model`, in pixels."""
    _, height, width = model.latent_shape
    return model.enlarged * height, model.enlarged * width


def picture_size(model: Model, size: tuple[int, int] | None = None) -> int:
    """The bytes of a picture by `model` that PNG cannot compress, by default of its own size."""
    return 3 * math.prod(size or picture_shape(model))


def sides_at(
    own: Sequence[int], pixels: int, multiple: int = 1, enlarged: int = ENLARGED
) -> tuple[int, int]:
    """The height and width of latents whose pictures have `pixels` along the longer side, in the
    proportions of latents with the sides `own`; each of them is `enlarged` pixels.

    Raises:
        ConfigError: they are no multiples of `multiple`.
    """
    longer, step = max(own), enlarged * multiple
    pairs = [divmod(side * pixels, longer * step) for side in own]
    if any(rest or not count for count, rest in pairs):
        raise ConfigError(
            f"compare.resolution is {pixels}; pixels of the longer side of pictures in the"
            f" proportions {own[1]} x {own[0]} whose sides are multiples of {step} are accepted.",
            "compare.resolution",
        )
    height, width = (count * multiple for count, _ in pairs)
    return height, width


def check_size(size: tuple[int, int]) -> None:
    """Refuse a width and a height in pixels that no latents have.

    Raises:
        ConfigError: one of them is no multiple of a latent's side, or out of range.
    """
    if any(side % ENLARGED or not ENLARGED <= side <= LARGEST_SIDE for side in size):
        width, height = size
        raise ConfigError(
            f"The size is {width}x{height}; sides from {ENLARGED} to {LARGEST_SIDE} pixels in"
            f" multiples of {ENLARGED} are accepted.",
            "size",
        )


def unlearned_size(model: Model) -> int:
    """The bytes of what the slot `unlearn` holds, an adapter in two formats."""
    if found := model.replacement:
        return sum(tensor.nbytes for part in found.weights.values() for tensor in part.values())
    state = model.adapter_state("unlearn")
    return 2 * NUMBER * sum(tensor.numel() for tensor in state.values())


def adapter_size(
    model: Model, rank: int, modules: str = "all", weights: Literal["lora", "full"] = "lora"
) -> int:
    """The bytes of an adapter of that rank, or of differences of the weights themselves; both slots
    are empty afterwards.
    """
    if weights == "full":
        tensors = model.reset_weights("unlearn", modules)
    else:
        tensors = model.reset_adapter("unlearn", rank, rank, 0, modules)
    size = NUMBER * sum(tensor.numel() for tensor in tensors.values())
    model.drop_adapters()
    return size
