"""The fourteen picture styles of PocketCanvas as filters `(rgb (H, W, 3), mask (H, W)) -> (H, W, 3)` in [0, 1]."""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

Array = np.ndarray
SIZE = 128


def _blur(rgb: Array, radius: float) -> Array:
    picture = Image.fromarray((rgb.clip(0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def _luma(rgb: Array) -> Array:
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def _lerp(a: Array, b: Array, weight: Array | float) -> Array:
    return a * (1 - weight) + b * weight


def _color(*rgb: int) -> Array:
    return np.array(rgb, np.float32) / 255


def _saturate(rgb: Array, amount: float) -> Array:
    gray = _luma(rgb)[..., None]
    return (gray + (rgb - gray) * amount).clip(0, 1)


def _slope(plane: Array) -> Array:
    dy, dx = np.gradient(plane)
    return np.hypot(dx, dy)


def _edges(rgb: Array, mask: Array) -> Array:
    """Line strength in [0, 1], the object's outline always among the lines."""
    smooth = _blur(rgb, 1.0)
    inside = sum(_slope(smooth[..., c]) for c in range(3))
    outline = _slope(_blur(np.repeat(mask[..., None], 3, 2), 1.0)[..., 0])
    return np.maximum((inside * 4.5 - 0.15).clip(0, 1), (outline * 4.5 - 0.1).clip(0, 1))


@cache
def _grid() -> tuple[Array, Array]:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    return y, x


@cache
def _swirl() -> tuple[Array, Array, Array]:
    """Sampling rows and columns of a fixed flow field, and its stroke texture in [-1, 1]."""
    y, x = _grid()
    turn = 2 * np.pi / 32
    rows = (y + 2.4 * np.sin(x * turn) * np.cos(y * turn / 2)).round().clip(0, SIZE - 1).astype(int)
    columns = (x + 2.4 * np.sin(y * turn) * np.cos(x * turn / 2)).round().clip(0, SIZE - 1).astype(int)
    strokes = np.sin(2 * np.pi * (y / 8 + 0.35 * np.sin(x * turn)))
    return rows, columns, strokes


@cache
def _lead() -> Array:
    """The diamond lattice of a leaded window: line strength in [0, 1]."""
    y, x = _grid()
    offset = np.minimum(np.abs((x + y) % 32 - 16), np.abs((x - y) % 32 - 16))
    return (2.0 - offset).clip(0, 1)


def photo(rgb: Array, mask: Array) -> Array:
    return rgb


def van_gogh(rgb: Array, mask: Array) -> Array:
    rows, columns, strokes = _swirl()
    warped = _saturate(_blur(rgb, 1.0), 1.5)[rows, columns]
    light = _luma(warped)[..., None]
    tint = _lerp(_color(16, 44, 130), _color(250, 206, 70), light)
    return _lerp(warped, tint, 0.38) + 0.11 * strokes[..., None]


def watercolor(rgb: Array, mask: Array) -> Array:
    rows, columns, _ = _swirl()
    wash = _saturate(_blur(rgb, 2.2), 1.25)[rows, columns]
    pale = _lerp(wash, np.ones(3, np.float32), 0.42)
    y, x = _grid()
    paper = np.hypot(x - 63.5, y - 63.5)
    fade = ((paper - 56) / 20).clip(0, 1)[..., None]
    rim = (_slope(_luma(wash)) * 3).clip(0, 0.35)[..., None]
    return _lerp(pale * (1 - rim), _color(250, 246, 238), fade)


def pointillism(rgb: Array, mask: Array) -> Array:
    y, x = _grid()
    row = np.floor(y / 4)
    cx = np.floor((x + (row % 2) * 2) / 4) * 4 + 2 - (row % 2) * 2
    cy = row * 4 + 2
    picked = _saturate(_blur(rgb, 1.2), 1.7)[cy.astype(int).clip(0, SIZE - 1), cx.astype(int).clip(0, SIZE - 1)]
    dot = (2.35 - np.hypot(x + 0.5 - cx, y + 0.5 - cy)).clip(0, 1)[..., None]
    return _lerp(np.broadcast_to(_color(252, 248, 236), rgb.shape), picked, dot)


def mosaic(rgb: Array, mask: Array) -> Array:
    tile = rgb.reshape(SIZE // 8, 8, SIZE // 8, 8, 3).mean((1, 3)).repeat(8, 0).repeat(8, 1)
    y, x = _grid()
    grout = ((x % 8 < 1) | (y % 8 < 1)).astype(np.float32)[..., None]
    shine = ((x % 8 < 3) & (y % 8 < 3)).astype(np.float32)[..., None] * 0.1
    colour = _lerp(_saturate(tile, 1.4), _saturate(rgb, 1.2), 0.35)
    return _lerp(colour + shine, np.broadcast_to(_color(232, 226, 212), rgb.shape), grout)


def stained_glass(rgb: Array, mask: Array) -> Array:
    y, x = _grid()
    pane = ((np.floor((x + y + 16) / 32) + np.floor((x - y + 16) / 32)) % 2)[..., None]
    glass = _saturate(_blur(rgb, 1.5), 2.2) * (0.82 + 0.3 * pane)
    line = np.maximum(_lead() * 0.9, _edges(rgb, mask) * mask * 0.7)[..., None]
    return _lerp(glass, np.broadcast_to(_color(26, 22, 34), rgb.shape), line)


def sketch(rgb: Array, mask: Array) -> Array:
    y, x = _grid()
    hatch = ((x + y) % 8 < 2).astype(np.float32)
    shade = hatch * (0.62 - _luma(rgb)).clip(0, 0.5)
    tone = 0.96 - 0.72 * _edges(rgb, mask) - 0.5 * shade
    return np.repeat(tone[..., None], 3, 2)


def blueprint(rgb: Array, mask: Array) -> Array:
    y, x = _grid()
    ruled = ((x % 16 < 1) | (y % 16 < 1)).astype(np.float32) * 0.22
    line = np.maximum(_edges(rgb, mask), ruled)[..., None]
    return _lerp(
        np.broadcast_to(_color(22, 66, 150), rgb.shape), np.broadcast_to(_color(236, 244, 255), rgb.shape), line
    )


def neon(rgb: Array, mask: Array) -> Array:
    line = _edges(rgb, mask)[..., None]
    y, x = _grid()
    hue = np.stack([0.5 + 0.5 * np.cos(2 * np.pi * ((x + y) / 256 + shift)) for shift in (0.0, 0.33, 0.67)], 2)
    glow = _blur(line * hue, 3.0) * 1.3
    return _color(8, 4, 20) + line * (0.25 + hue) + glow


def woodcut(rgb: Array, mask: Array) -> Array:
    y, _ = _grid()
    wave = 0.5 + 0.5 * np.sin(y * 2 * np.pi / 8)
    ink = ((wave * 0.8 - _luma(_blur(rgb, 1.2))) * 2.5 + 0.3).clip(0, 1)
    ink = np.maximum(ink, _edges(rgb, mask) * 0.85)[..., None]
    return _lerp(np.broadcast_to(_color(236, 218, 180), rgb.shape), np.broadcast_to(_color(48, 30, 20), rgb.shape), ink)


def pop_art(rgb: Array, mask: Array) -> Array:
    palette = np.stack([_color(36, 18, 92), _color(232, 28, 112), _color(252, 208, 40), _color(255, 250, 226)])
    level = (_luma(_blur(rgb, 1.0)) * 3.99).astype(int).clip(0, 3)
    flat = _blur(palette[level], 0.7)
    y, x = _grid()
    dots = (np.hypot(x % 8 - 3.5, y % 8 - 3.5) < 2.2).astype(np.float32) * (1 - mask)
    dotted = _lerp(flat, np.broadcast_to(_color(40, 190, 200), rgb.shape), 0.45 * dots[..., None])
    line = _edges(rgb, mask)[..., None] * mask[..., None] * 0.8
    return _lerp(dotted, np.broadcast_to(_color(24, 10, 50), rgb.shape), line)


def ink(rgb: Array, mask: Array) -> Array:
    wash = _luma(_blur(rgb, 1.6))
    tone = (0.12 + wash * 1.05).clip(0, 1)
    paled = _lerp(tone, np.full_like(tone, 0.93), (1 - mask) * 0.55)
    line = _edges(rgb, mask) * 0.6
    return (paled - line)[..., None] * _color(250, 248, 244)


def cartoon(rgb: Array, mask: Array) -> Array:
    flat = np.round(_saturate(_blur(rgb, 0.8), 1.9) * 4) / 4
    line = (_edges(rgb, mask) * (0.4 + 0.6 * mask))[..., None]
    return _lerp(_blur(flat, 0.6), np.zeros(3, np.float32), line)


def vintage(rgb: Array, mask: Array) -> Array:
    y, x = _grid()
    fade = 1 - (np.hypot(x - 63.5, y - 63.5) / 120) ** 2
    tone = (0.14 + 0.74 * _luma(_blur(rgb, 0.7)))[..., None]
    return tone * _color(255, 214, 158) * fade[..., None] * 1.1


STYLE_FILTERS: dict[str, Callable[[Array, Array], Array]] = {
    "photo": photo,
    "van gogh": van_gogh,
    "watercolor": watercolor,
    "pointillism": pointillism,
    "mosaic": mosaic,
    "stained glass": stained_glass,
    "sketch": sketch,
    "blueprint": blueprint,
    "neon": neon,
    "woodcut": woodcut,
    "pop art": pop_art,
    "ink": ink,
    "cartoon": cartoon,
    "vintage": vintage,
}
