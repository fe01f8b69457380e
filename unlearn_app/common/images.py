"""Pictures as tensors, as images and as PNG files."""

import io
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .errors import OutputError
from .record_files import read_beginning, read_bytes

if TYPE_CHECKING:  # the page lays itself out without torch
    from torch import Tensor

LARGEST_SIDE = 4096
"""The most pixels a side of a picture that is read back; models make far smaller ones."""
INK, FAINT = (28, 28, 36), (91, 100, 114)
BLUE, ORANGE, GREEN = (11, 111, 184), (194, 87, 12), (10, 128, 98)
"""The colours, as on the page, of text and of the original, unlearned and relearned model."""


def open_png(path: Path) -> Image.Image:
    """The picture in a PNG file, loaded.

    Pillow alone would read any format by its content, even EPS, which it hands to another program,
    and pictures far larger than this limit.

    Raises:
        OutputError: it is no regular PNG file, is damaged, or has too many pixels.
    """
    try:
        content = read_bytes(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path) from error
    return decoded_png(content, path)


def pixels_of(path: Path) -> int:
    """How many pixels a PNG file says that it has.

    Raises:
        OutputError: as `open_png`, where its beginning tells.
    """
    try:
        return math.prod(_sides(read_beginning(path, 24)))
    except (OSError, ValueError) as error:
        raise _unreadable(path) from error


def _sides(content: bytes) -> tuple[int, int]:
    """The width and height in the header of a PNG file.

    Raises:
        ValueError: there is no header, or a side is too long.
    """
    if len(content) < 24:
        raise ValueError("it has no header")
    width, height = struct.unpack(">II", content[16:24])
    if max(width, height) > LARGEST_SIDE:
        raise ValueError(f"it has more than {LARGEST_SIDE} pixels a side")
    return width, height


def decoded_png(content: bytes, path: Path | str = "a file") -> Image.Image:
    """The picture in the `content` of a PNG file, loaded; `path` names it in errors.

    Raises:
        OutputError: as `open_png`.
    """
    try:
        _sides(content)  # before Pillow warns of it
        picture = Image.open(io.BytesIO(content), formats=("PNG",))
        if max(picture.size) > LARGEST_SIDE:
            raise ValueError(f"it has more than {LARGEST_SIDE} pixels a side")
        picture.load()
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them into
        raise _unreadable(path) from error
    return picture


def _unreadable(path: Path | str) -> OutputError:
    return OutputError(
        f"{str(path)!r} is no readable picture; a PNG of at most {LARGEST_SIDE} pixels a side is"
        " accepted."
    )


def to_pixels(images: "Tensor") -> np.ndarray:
    """Pictures (B, 3, H, W) in [-1, 1] as 8-bit pixels (B, H, W, 3)."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


def to_pil(images: "Tensor") -> list[Image.Image]:
    """Pictures (B, 3, H, W) in [-1, 1] as 8-bit RGB images."""
    return [Image.fromarray(picture) for picture in to_pixels(images)]


def to_tensor(pictures: Sequence[Image.Image] | np.ndarray) -> "Tensor":
    """8-bit RGB images, or their pixels (B, H, W, 3), as float32 (B, 3, H, W) in [-1, 1]."""
    import torch

    pixels = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """`picture` with hard pixels, enlarged by the largest whole factor at which no side exceeds
    `side`.

    A picture that does not fit twice is returned unchanged.
    """
    factor = side // max(picture.size)
    if factor < 2:
        return picture
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
