"""Pictures as tensors and as images."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # the page lays itself out without torch
    from torch import Tensor


def to_pil(images: "Tensor") -> list[Image.Image]:
    """Pictures (B, 3, H, W) in [-1, 1] as 8-bit RGB."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in pixels]


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """`picture` with hard pixels, enlarged by the largest whole factor at which no side exceeds
    `side`.

    One that fits no second time is returned as it is.
    """
    factor = side // max(picture.size)
    if factor < 2:
        return picture
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
