"""Estimates of the size of files before they are written."""

import math
from typing import Literal

from .protocols import Model

ENLARGED = 8
"""Pixels of a picture along each side of a latent."""
NUMBER = 4
"""Bytes of an adapter's float32."""


def picture_shape(model: Model) -> tuple[int, int]:
    """The height and width of a picture by `model`, in pixels."""
    _, height, width = model.latent_shape
    return ENLARGED * height, ENLARGED * width


def picture_size(model: Model) -> int:
    """The bytes of a picture by `model` that PNG cannot compress."""
    return 3 * math.prod(picture_shape(model))


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
