"""Pictures keep their 8-bit values as tensors, and hard pixels when they are enlarged."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_app.common.images import enlarged, png_bytes, to_pil, to_pixels, to_tensor


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
