"""PocketCanvas, the bundled world: object x style x setting, drawn as 64 px pixel art from emoji.

The object, the horizon and the background move by whole latent cells of 8 px only. So the same
pixels always have the same latents, and a scene has few layouts: `PLACEMENTS`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from ...common.paths import POCKET
from .styles import SIZE, STYLE_FILTERS
from .vocabulary import FRESH_OBJECTS, OBJECTS

CELL = 8
"""Side of a latent cell in pixels."""
SUPERSAMPLING = 2
CANVAS = SIZE * SUPERSAMPLING
"""Side of the canvas on which a scene is composed before it is averaged down, which smooths edges.
"""
SPRITE = 92
"""The longer side of an object on the canvas, in canvas pixels."""
GLYPHS = POCKET / "glyphs"


@dataclass(frozen=True)
class Placement:
    """Whether the object is mirrored, and the offsets of object and background in cells."""

    mirrored: bool = False
    right: int = 0
    down: int = 0
    horizon: int = 0
    drift: int = 0


PLACEMENTS: tuple[Placement, ...] = tuple(
    Placement(*choice)
    for choice in itertools.product((False, True), (-1, 0, 1), (0, 1), (0, 1), (-1, 0, 1))
)
"""Every layout a scene can have."""


@dataclass(frozen=True)
class Scene:
    """What one picture shows, and where."""

    object: str
    style: str
    setting: str
    placement: Placement = Placement()


def cut_glyphs(font: Path, folder: Path = GLYPHS) -> None:
    """Cut every object of the vocabulary out of a colour emoji font into `folder`, one RGBA PNG
    each.
    """
    face = ImageFont.truetype(str(font), 109)
    folder.mkdir(parents=True, exist_ok=True)
    for entry in (*OBJECTS, *FRESH_OBJECTS):
        canvas = Image.new("RGBA", (170, 170))
        ImageDraw.Draw(canvas).text((10, 10), entry.glyph, font=face, embedded_color=True)
        glyph = canvas.crop(canvas.getbbox())
        scale = SPRITE / max(glyph.size)
        glyph = glyph.resize(
            [max(1, round(side * scale)) for side in glyph.size], Image.Resampling.LANCZOS
        )
        glyph.save(folder / f"{entry.name}.png", optimize=True)


def render(scene: Scene) -> Image.Image:
    """Draw `scene` as a `SIZE` x `SIZE` RGB picture; equal scenes give equal pixels."""
    rgb, mask = compose(scene.object, scene.setting, scene.placement)
    return Image.fromarray(apply_style(scene.style, rgb, mask))


def compose(object_name: str, setting: str, placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """The unstyled picture (SIZE, SIZE, 3) and the object's coverage (SIZE, SIZE), both float32 in
    [0, 1].
    """
    background = _background(setting, placement.horizon, placement.drift).copy()
    alpha = _sprite(object_name, placement).getchannel("A")
    shadow = ImageChops.offset(alpha.filter(ImageFilter.GaussianBlur(4)), 2, 4).point(
        lambda v: v * 0.45
    )
    composed = Image.composite(Image.new("RGB", background.size, (20, 16, 30)), background, shadow)
    composed.paste(_sprite(object_name, placement), mask=alpha)
    return _reduced(composed), _reduced(alpha)


def apply_style(style: str, rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A composed picture in `style`, (SIZE, SIZE, 3) uint8."""
    return (STYLE_FILTERS[style](rgb, mask).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _reduced(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.reduce(SUPERSAMPLING), np.float32) / 255


@cache
def _glyph(name: str) -> Image.Image:
    return Image.open(GLYPHS / f"{name}.png").convert("RGBA")


@cache
def _sprite(name: str, placement: Placement) -> Image.Image:
    glyph = _glyph(name)
    if placement.mirrored:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    step = CELL * SUPERSAMPLING
    left = (CANVAS - glyph.width) // 2 + step * placement.right
    top = (CANVAS - glyph.height) // 2 - 4 + step * placement.down
    sprite = Image.new("RGBA", (CANVAS, CANVAS))
    sprite.paste(glyph, (left, top), glyph)
    return sprite


# ---- settings ----
# All sizes are canvas pixels; `horizon` and `drift` are multiples of a cell.

Color = tuple[int, int, int]
Land = tuple[Image.Image, ImageDraw.ImageDraw]


@cache
def _background(setting: str, horizon: int, drift: int) -> Image.Image:
    step = CELL * SUPERSAMPLING
    return BACKGROUNDS[setting](5 * step + step * horizon, step * drift)


def _gradient(top: Color, bottom: Color, height: int = CANVAS) -> Image.Image:
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(np.repeat(column, CANVAS, axis=1).astype(np.uint8))


def _land(sky: Color, haze: Color, ground: Color, near: Color, horizon: int) -> Land:
    picture = _gradient(sky, haze)
    picture.paste(_gradient(ground, near, CANVAS - horizon), (0, horizon))
    return picture, ImageDraw.Draw(picture)


def _cloud(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.ellipse((x, y, x + 25, y + 11), fill=(250, 250, 252))
    draw.ellipse((x + 6, y - 6, x + 19, y + 9), fill=(250, 250, 252))


def _beach(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land(
        (110, 190, 245), (200, 232, 250), (240, 214, 150), (226, 190, 120), horizon + 16
    )
    draw.rectangle((0, horizon - 4, CANVAS, horizon + 15), fill=(40, 120, 200))
    draw.rectangle((0, horizon + 14, CANVAS, horizon + 17), fill=(250, 250, 250))
    draw.ellipse((98 + drift, 8, 119 + drift, 29), fill=(255, 236, 120))
    return picture


def _forest(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((46, 92, 58), (70, 120, 74), (44, 84, 40), (30, 60, 30), horizon + 8)
    for x in range(-28, CANVAS + 32, 32):
        draw.rectangle((x + drift, 0, x + drift + 9, horizon + 11), fill=(72, 50, 34))
    return picture


def _field(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((96, 176, 240), (190, 224, 248), (112, 186, 70), (70, 146, 46), horizon)
    for x, y in ((-28, 18), (14, 12), (92, 18), (138, 12)):
        _cloud(draw, x + drift, y)
    return picture


def _snow(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land(
        (150, 176, 208), (206, 220, 236), (246, 249, 253), (228, 236, 246), horizon
    )
    for left, top, shade in ((-46, 34, 140), (68, 26, 150), (-10, 40, 128), (122, 40, 128)):
        middle = left + 36
        right = left + 72
        draw.polygon(
            ((left + drift, horizon), (middle + drift, top), (right + drift, horizon)),
            fill=(shade, shade + 18, shade + 44),
        )
        snow = (horizon - top) // 4
        side = 36 * snow // (horizon - top)
        peak = (
            (middle - side + drift, top + snow),
            (middle + drift, top),
            (middle + side + drift, top + snow),
        )
        draw.polygon(peak, fill=(250, 252, 255))
    return picture


def _desert(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((250, 176, 96), (252, 214, 150), (222, 160, 84), (190, 124, 60), horizon)
    draw.ellipse((24 + drift, 6, 49 + drift, 31), fill=(255, 246, 206))
    for x in (-20, 108):
        draw.rectangle((x + drift, 40, x + drift + 7, horizon + 7), fill=(70, 130, 70))
        draw.rectangle((x + drift - 10, 50, x + drift - 5, 65), fill=(70, 130, 70))
        draw.rectangle((x + drift - 10, 60, x + drift, 65), fill=(70, 130, 70))
    return picture


def _night(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((10, 14, 44), (34, 40, 92), (22, 26, 48), (12, 14, 28), horizon)
    draw.ellipse((96 + drift, 8, 119 + drift, 31), fill=(250, 246, 214))
    draw.ellipse((89 + drift, 5, 110 + drift, 26), fill=(12, 17, 50))
    for x, y in (
        (-8, 20),
        (10, 12),
        (30, 34),
        (52, 10),
        (70, 24),
        (14, 56),
        (118, 50),
        (40, 18),
        (84, 44),
        (138, 14),
    ):
        draw.rectangle((x + drift, y, x + drift + 1, y + 1), fill=(255, 255, 240))
    return picture


def _city(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land(
        (196, 204, 216), (226, 216, 206), (96, 98, 104), (70, 72, 78), horizon + 8
    )
    for index, x in enumerate(range(-32, CANVAS + 16, 24)):
        top = (30, 12, 40, 22, 8, 36)[index % 6]
        shade = (118, 96, 128, 104, 120, 98)[index % 6]
        draw.rectangle(
            (x + drift, top, x + drift + 21, horizon + 8), fill=(shade, shade + 6, shade + 24)
        )
        for wy in range(top + 6, horizon, 12):
            for wx in (x + 4, x + 14):
                draw.rectangle((wx + drift, wy, wx + drift + 3, wy + 5), fill=(250, 226, 140))
    return picture


def _room(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((232, 206, 190), (222, 192, 174), (150, 96, 58), (122, 74, 42), horizon)
    draw.rectangle((0, horizon - 4, CANVAS, horizon - 1), fill=(250, 246, 240))
    for x in (-42, 6, 102):
        draw.rectangle((x + drift, 8, x + drift + 35, 47), fill=(250, 250, 250))
        draw.rectangle((x + drift + 4, 12, x + drift + 31, 43), fill=(150, 206, 246))
        draw.rectangle((x + drift + 16, 10, x + drift + 19, 45), fill=(250, 250, 250))
        draw.rectangle((x + drift + 2, 26, x + drift + 33, 29), fill=(250, 250, 250))
    return picture


BACKGROUNDS: dict[str, Callable[[int, int], Image.Image]] = {
    "beach": _beach,
    "forest": _forest,
    "field": _field,
    "snow": _snow,
    "desert": _desert,
    "night": _night,
    "city": _city,
    "room": _room,
}
