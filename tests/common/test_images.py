"""Small pictures keep hard pixels when they are enlarged."""

import numpy as np
import pytest
from PIL import Image

from unlearn_app.common.images import enlarged


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
