"""PocketCanvas, the bundled world: object x style x setting, drawn as 64 px pixel art from emoji.

The object, the horizon and the background move by whole latent cells of 8 px only. So the same
pixels always have the same latents, and a scene has few layouts: `PLACEMENTS`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ...common.images import open_png
from ...common.paths import POCKET
from .styles import SIZE, STYLE_FILTERS, to_picture

CELL = 8
"""Side of a latent cell in pixels."""
SUPERSAMPLING = 2
CANVAS = SIZE * SUPERSAMPLING
"""Side of the canvas on which a scene is composed before it is averaged down, which smooths edges.
"""
GLYPHS = POCKET / "glyphs"
"""An RGBA PNG of every object, cut from Noto Color Emoji; its longer side is 92 canvas pixels."""


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


def render(scene: Scene, with_object: bool = True) -> Image.Image:
    """Draw `scene`, or its setting alone, as a `SIZE` x `SIZE` RGB picture; equal scenes give equal
    pixels.
    """
    name = scene.object if with_object else None
    rgb, mask = compose(name, scene.setting, scene.placement)
    return to_picture(STYLE_FILTERS[scene.style](rgb, mask))


def compose(
    object_name: str | None, setting: str, placement: Placement
) -> tuple[np.ndarray, np.ndarray]:
    """The unstyled picture (SIZE, SIZE, 3) and the object's coverage (SIZE, SIZE), both float32 in
    [0, 1]; without an object where the name is None.
    """
    background = _background(setting, placement.horizon, placement.drift)
    if object_name is None:
        return _reduced(background), np.zeros((SIZE, SIZE), np.float32)
    sprite = _sprite(object_name, placement)
    alpha = sprite.getchannel("A")
    shadow = ImageChops.offset(alpha.filter(ImageFilter.GaussianBlur(4)), 2, 4)
    dark = Image.new("RGB", background.size, (20, 16, 30))
    composed = Image.composite(dark, background, shadow.point(lambda v: v * 0.45))
    composed.paste(sprite, mask=alpha)
    return _reduced(composed), _reduced(alpha)


def _reduced(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.reduce(SUPERSAMPLING), np.float32) / 255


@cache
def _sprite(name: str, placement: Placement) -> Image.Image:
    glyph = open_png(GLYPHS / f"{name}.png").convert("RGBA")
    if placement.mirrored:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    left = (CANVAS - glyph.width) // 2 + CELL * SUPERSAMPLING * placement.right
    top = (CANVAS - glyph.height) // 2 - 4 + CELL * SUPERSAMPLING * placement.down
    sprite = Image.new("RGBA", (CANVAS, CANVAS))
    sprite.paste(glyph, (left, top), glyph)
    return sprite


# ---- settings ----
# All sizes are canvas pixels; `horizon` and `drift` are multiples of a cell.

Color = tuple[int, int, int]
Pen = ImageDraw.ImageDraw


@dataclass(frozen=True)
class Setting:
    """The colours of sky and ground, each from top to bottom, how far below the horizon the ground
    begins, and what else is drawn.
    """

    sky: tuple[Color, Color]
    ground: tuple[Color, Color]
    draw: Callable[[Pen, int, int], None]
    below: int = 0


@cache
def _background(name: str, horizon_cells: int, drift_cells: int) -> Image.Image:
    setting = BACKGROUNDS[name]
    horizon = CELL * SUPERSAMPLING * (5 + horizon_cells)
    top = horizon + setting.below
    picture = _gradient(setting.sky, CANVAS)
    picture.paste(_gradient(setting.ground, CANVAS - top), (0, top))
    setting.draw(ImageDraw.Draw(picture), horizon, CELL * SUPERSAMPLING * drift_cells)
    return picture


def _gradient(colors: tuple[Color, Color], height: int) -> Image.Image:
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = np.array(colors[0]) * (1 - ramp) + np.array(colors[1]) * ramp
    return Image.fromarray(np.repeat(column, CANVAS, axis=1).astype(np.uint8))


def _beach(draw: Pen, horizon: int, drift: int) -> None:
    draw.rectangle((0, horizon - 4, CANVAS, horizon + 15), fill=(40, 120, 200))
    draw.rectangle((0, horizon + 14, CANVAS, horizon + 17), fill=(250, 250, 250))
    draw.ellipse((98 + drift, 8, 119 + drift, 29), fill=(255, 236, 120))


def _forest(draw: Pen, horizon: int, drift: int) -> None:
    for x in range(drift - 28, drift + CANVAS + 32, 32):
        draw.rectangle((x, 0, x + 9, horizon + 11), fill=(72, 50, 34))


def _field(draw: Pen, horizon: int, drift: int) -> None:
    for left, y in ((-28, 18), (14, 12), (92, 18), (138, 12)):
        x = left + drift
        draw.ellipse((x, y, x + 25, y + 11), fill=(250, 250, 252))
        draw.ellipse((x + 6, y - 6, x + 19, y + 9), fill=(250, 250, 252))


def _snow(draw: Pen, horizon: int, drift: int) -> None:
    for left, top, shade in ((-46, 34, 140), (68, 26, 150), (-10, 40, 128), (122, 40, 128)):
        x = left + drift
        mountain = ((x, horizon), (x + 36, top), (x + 72, horizon))
        draw.polygon(mountain, fill=(shade, shade + 18, shade + 44))
        deep = (horizon - top) // 4
        side = 36 * deep // (horizon - top)
        peak = ((x + 36 - side, top + deep), (x + 36, top), (x + 36 + side, top + deep))
        draw.polygon(peak, fill=(250, 252, 255))


def _desert(draw: Pen, horizon: int, drift: int) -> None:
    draw.ellipse((24 + drift, 6, 49 + drift, 31), fill=(255, 246, 206))
    for x in (drift - 20, drift + 108):
        draw.rectangle((x, 40, x + 7, horizon + 7), fill=(70, 130, 70))
        draw.rectangle((x - 10, 50, x - 5, 65), fill=(70, 130, 70))
        draw.rectangle((x - 10, 60, x, 65), fill=(70, 130, 70))


STARS = (
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
)


def _night(draw: Pen, horizon: int, drift: int) -> None:
    draw.ellipse((96 + drift, 8, 119 + drift, 31), fill=(250, 246, 214))
    draw.ellipse((89 + drift, 5, 110 + drift, 26), fill=(12, 17, 50))
    for x, y in STARS:
        draw.rectangle((x + drift, y, x + drift + 1, y + 1), fill=(255, 255, 240))


def _city(draw: Pen, horizon: int, drift: int) -> None:
    buildings = itertools.cycle(((30, 118), (12, 96), (40, 128), (22, 104), (8, 120), (36, 98)))
    for x, (top, shade) in zip(range(drift - 32, drift + CANVAS + 16, 24), buildings, strict=False):
        draw.rectangle((x, top, x + 21, horizon + 8), fill=(shade, shade + 6, shade + 24))
        for wx, wy in itertools.product((x + 4, x + 14), range(top + 6, horizon, 12)):
            draw.rectangle((wx, wy, wx + 3, wy + 5), fill=(250, 226, 140))


def _room(draw: Pen, horizon: int, drift: int) -> None:
    draw.rectangle((0, horizon - 4, CANVAS, horizon - 1), fill=(250, 246, 240))
    for x in (drift - 42, drift + 6, drift + 102):
        draw.rectangle((x, 8, x + 35, 47), fill=(250, 250, 250))
        draw.rectangle((x + 4, 12, x + 31, 43), fill=(150, 206, 246))
        draw.rectangle((x + 16, 10, x + 19, 45), fill=(250, 250, 250))
        draw.rectangle((x + 2, 26, x + 33, 29), fill=(250, 250, 250))


BACKGROUNDS = {
    "beach": Setting(
        ((110, 190, 245), (200, 232, 250)), ((240, 214, 150), (226, 190, 120)), _beach, below=16
    ),
    "forest": Setting(
        ((46, 92, 58), (70, 120, 74)), ((44, 84, 40), (30, 60, 30)), _forest, below=8
    ),
    "field": Setting(((96, 176, 240), (190, 224, 248)), ((112, 186, 70), (70, 146, 46)), _field),
    "snow": Setting(((150, 176, 208), (206, 220, 236)), ((246, 249, 253), (228, 236, 246)), _snow),
    "desert": Setting(((250, 176, 96), (252, 214, 150)), ((222, 160, 84), (190, 124, 60)), _desert),
    "night": Setting(((10, 14, 44), (34, 40, 92)), ((22, 26, 48), (12, 14, 28)), _night),
    "city": Setting(
        ((196, 204, 216), (226, 216, 206)), ((96, 98, 104), (70, 72, 78)), _city, below=8
    ),
    "room": Setting(((232, 206, 190), (222, 192, 174)), ((150, 96, 58), (122, 74, 42)), _room),
}
