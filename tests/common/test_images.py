"""Pictures keep their 8-bit values as tensors, and hard pixels when they are enlarged."""

import ast
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_app.common.errors import OutputError
from unlearn_app.common.images import (
    LARGEST_SIDE,
    enlarged,
    open_png,
    png_bytes,
    to_pil,
    to_pixels,
    to_tensor,
)
from unlearn_app.common.paths import ROOT


@pytest.fixture
def checkered() -> Image.Image:
    return Image.fromarray((np.indices((6, 4)).sum(0) % 2 * 255).astype(np.uint8))


def test_every_pixel_becomes_a_square(checkered: Image.Image) -> None:
    shown = enlarged(checkered, 20)
    assert shown.size == (12, 18)
    assert np.array_equal(np.asarray(shown), np.asarray(checkered).repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("side", [3, 6, 11])
def test_what_fits_no_second_time_stays_as_it_is(checkered: Image.Image, side: int) -> None:
    assert enlarged(checkered, side) is checkered


def every_value() -> np.ndarray:
    """Two pictures (2, 16, 16, 3) in which every 8-bit value appears."""
    values = np.arange(2 * 16 * 16 * 3, dtype=np.uint32) % 256
    return values.astype(np.uint8).reshape(2, 16, 16, 3)


def test_pixels_survive_being_a_tensor() -> None:
    assert np.array_equal(to_pixels(to_tensor(every_value())), every_value())


def test_a_tensor_has_channels_first_and_lies_between_minus_one_and_one() -> None:
    tensor = to_tensor(every_value())
    assert tensor.shape == (2, 3, 16, 16)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert tensor[1, 2, 3, 4].item() == pytest.approx(every_value()[1, 3, 4, 2] / 127.5 - 1)


def test_images_and_their_pixels_give_the_same_tensor() -> None:
    images = [Image.fromarray(picture) for picture in every_value()]
    assert torch.equal(to_tensor(images), to_tensor(every_value()))


def test_values_outside_of_the_range_are_cut_off() -> None:
    shown = to_pil(torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    assert [picture.getpixel((0, 0)) for picture in shown] == [(0, 0, 0), (255, 255, 255)]


def test_a_png_holds_the_same_pixels() -> None:
    picture = Image.fromarray(every_value()[0])
    stored = Image.open(io.BytesIO(png_bytes(picture)))
    assert stored.format == "PNG"
    assert np.array_equal(np.asarray(stored), np.asarray(picture))


def chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it has this size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def in_format(name: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, name)
    return stream.getvalue()


HOSTILE = {
    "empty": b"",
    "text": b"no picture at all, but long enough",
    "EPS": EPS,
    "GIF": in_format("GIF"),
    "JPEG": in_format("JPEG"),
    "BMP": in_format("BMP"),
    "TIFF": in_format("TIFF"),
    "cut off": in_format("PNG")[:45],
    "too wide": png_of(LARGEST_SIDE + 1, 1),
    "a bomb": png_of(2**31 - 1, 2**31 - 1),
    "of no size": png_of(0, 8),
    "of two sizes": png_of(8, 8)[:33] + png_of(60_000, 60_000)[8:],
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.filterwarnings("error")
def test_only_a_png_of_a_limited_size_is_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(OutputError, match=r"a\.png' is no readable picture"):
        open_png(path)


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(OutputError, match="no readable picture"):
        open_png(tmp_path / "a.png")


def test_a_png_is_opened_as_it_is(checkered: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(checkered))
    assert open_png(tmp_path / "a.png").tobytes() == checkered.tobytes()


def test_no_other_place_opens_a_picture() -> None:
    def opens(file: Path) -> bool:
        return any(
            isinstance(node, ast.Attribute)
            and node.attr == "open"
            and isinstance(node.value, ast.Name)
            and node.value.id == "Image"
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        )

    files = [file for file in (ROOT / "unlearn_app").rglob("*.py") if opens(file)]
    assert [file.name for file in files] == ["images.py"]
