"""PocketCanvas, the bundled world: object x style x setting, drawn procedurally from emoji cut-outs.

Textures are locked to the pixel grid (the same strokes, tiles and dots in every picture), so that a
small autoencoder can spend its capacity on content instead of on noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from .styles import STYLE_FILTERS
from .vocabulary import FRESH_OBJECTS, OBJECTS

SIZE = 128
GLYPHS = Path(__file__).resolve().parents[2] / "assets" / "pocket" / "glyphs"


@dataclass(frozen=True)
class Scene:
    """What is in one picture; `seed` fixes every remaining detail of it."""

    object: str
    style: str
    setting: str
    seed: int


def cut_glyphs(font: Path, folder: Path = GLYPHS) -> None:
    """Cut every glyph of the vocabulary out of a colour emoji font into `folder`, one RGBA PNG each."""
    face = ImageFont.truetype(str(font), 109)
    folder.mkdir(parents=True, exist_ok=True)
    for entry in (*OBJECTS, *FRESH_OBJECTS):
        for index, glyph in enumerate(entry.glyphs):
            canvas = Image.new("RGBA", (160, 160))
            ImageDraw.Draw(canvas).text((10, 10), glyph, font=face, embedded_color=True)
            canvas.crop(canvas.getbbox()).save(folder / f"{entry.name}_{index}.png", optimize=True)


@cache
def _glyph(name: str, index: int) -> Image.Image:
    return Image.open(GLYPHS / f"{name}_{index}.png").convert("RGBA")


@cache
def _glyph_count(name: str) -> int:
    return next(len(e.glyphs) for e in (*OBJECTS, *FRESH_OBJECTS) if e.name == name)


def render(scene: Scene) -> Image.Image:
    """Draw `scene` as a `SIZE` x `SIZE` RGB picture; equal scenes give equal pixels."""
    rng = np.random.default_rng(scene.seed)
    background = _background(scene.setting, rng)
    sprite = _place(scene.object, rng)
    alpha = sprite.getchannel("A")
    shadow = ImageChops.offset(alpha.filter(ImageFilter.GaussianBlur(4)), 2, 4).point(lambda v: v * 0.45)
    composed = Image.composite(Image.new("RGB", (SIZE, SIZE), (20, 16, 30)), background, shadow)
    composed.paste(sprite, mask=alpha)
    rgb = np.asarray(composed, np.float32) / 255
    mask = np.asarray(alpha, np.float32) / 255
    styled = STYLE_FILTERS[scene.style](rgb, mask)
    return Image.fromarray((styled.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def _place(name: str, rng: np.random.Generator) -> Image.Image:
    glyph = _glyph(name, int(rng.integers(_glyph_count(name))))
    if rng.random() < 0.5:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = rng.uniform(80, 96) / max(glyph.size)
    glyph = glyph.resize([max(1, round(side * scale)) for side in glyph.size], Image.Resampling.LANCZOS)
    glyph = glyph.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, expand=True)
    sprite = Image.new("RGBA", (SIZE, SIZE))
    dx, dy = rng.integers(-7, 8), rng.integers(-4, 8)
    sprite.paste(glyph, ((SIZE - glyph.width) // 2 + int(dx), (SIZE - glyph.height) // 2 + int(dy)), glyph)
    return sprite


# ---- settings -----------------------------------------------------------------------------------


def _gradient(top: tuple[int, int, int], bottom: tuple[int, int, int], height: int = SIZE) -> Image.Image:
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(np.repeat(column, SIZE, axis=1).astype(np.uint8))


def _background(setting: str, rng: np.random.Generator) -> Image.Image:
    horizon = int(rng.integers(80, 89))
    drift = int(rng.integers(-6, 7))
    return SETTING_PAINTERS[setting](horizon, drift)


def _land(sky: tuple, haze: tuple, ground: tuple, near: tuple, horizon: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = _gradient(sky, haze)
    picture.paste(_gradient(ground, near, SIZE - horizon), (0, horizon))
    return picture, ImageDraw.Draw(picture)


def _beach(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((110, 190, 245), (200, 232, 250), (240, 214, 150), (226, 190, 120), horizon + 10)
    draw.rectangle((0, horizon - 8, SIZE, horizon + 9), fill=(40, 120, 200))
    draw.line((0, horizon + 10, SIZE, horizon + 10), fill=(250, 250, 250), width=2)
    draw.ellipse((100 + drift, 8, 120 + drift, 28), fill=(255, 236, 120))
    return picture


def _forest(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((46, 92, 58), (70, 120, 74), (44, 84, 40), (30, 60, 30), horizon + 12)
    for x in (2, 22, 44, 66, 88, 110):
        draw.rectangle((x + drift, 0, x + drift + 8, horizon + 14), fill=(72, 50, 34))
    return picture


def _field(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((96, 176, 240), (190, 224, 248), (112, 186, 70), (70, 146, 46), horizon)
    for x, y in ((14, 12), (92, 18)):
        draw.ellipse((x + drift, y, x + drift + 24, y + 10), fill=(250, 250, 252))
        draw.ellipse((x + drift + 6, y - 5, x + drift + 18, y + 9), fill=(250, 250, 252))
    return picture


def _snow(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((170, 190, 214), (214, 224, 236), (246, 249, 253), (228, 236, 246), horizon)
    draw.polygon(((-10 + drift, horizon), (26 + drift, 34), (62 + drift, horizon)), fill=(140, 158, 184))
    draw.polygon(((68 + drift, horizon), (104 + drift, 26), (140 + drift, horizon)), fill=(150, 168, 194))
    draw.polygon(((92 + drift, 46), (104 + drift, 26), (116 + drift, 46)), fill=(250, 252, 255))
    return picture


def _desert(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((250, 176, 96), (252, 214, 150), (222, 160, 84), (190, 124, 60), horizon)
    draw.ellipse((8 + drift, 8, 32 + drift, 32), fill=(255, 246, 206))
    draw.rectangle((110 + drift, 46, 117 + drift, horizon + 8), fill=(70, 130, 70))
    draw.rectangle((100 + drift, 58, 105 + drift, 74), fill=(70, 130, 70))
    draw.rectangle((100 + drift, 70, 112 + drift, 74), fill=(70, 130, 70))
    return picture


def _night(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((10, 14, 44), (34, 40, 92), (22, 26, 48), (12, 14, 28), horizon)
    draw.ellipse((96 + drift, 8, 118 + drift, 30), fill=(250, 246, 214))
    draw.ellipse((90 + drift, 5, 110 + drift, 25), fill=(12, 17, 50))
    for x, y in ((10, 12), (30, 34), (52, 10), (70, 24), (14, 56), (116, 50), (40, 18), (84, 44)):
        draw.rectangle((x, y, x + 1, y + 1), fill=(255, 255, 240))
    return picture


def _city(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((196, 204, 216), (226, 216, 206), (96, 98, 104), (70, 72, 78), horizon + 8)
    for x, top, shade in ((-6, 30, 118), (18, 12, 96), (44, 40, 128), (68, 22, 104), (94, 8, 120), (116, 36, 98)):
        draw.rectangle((x + drift, top, x + drift + 21, horizon + 8), fill=(shade, shade + 6, shade + 24))
        for wy in range(top + 5, horizon, 10):
            for wx in (x + 4, x + 13):
                draw.rectangle((wx + drift, wy, wx + drift + 3, wy + 4), fill=(250, 226, 140))
    return picture


def _room(horizon: int, drift: int) -> Image.Image:
    picture, draw = _land((232, 206, 190), (222, 192, 174), (150, 96, 58), (122, 74, 42), horizon)
    draw.rectangle((0, horizon - 4, SIZE, horizon - 1), fill=(250, 246, 240))
    draw.rectangle((6 + drift, 8, 42 + drift, 48), fill=(250, 250, 250))
    draw.rectangle((9 + drift, 11, 39 + drift, 45), fill=(150, 206, 246))
    draw.line((24 + drift, 9, 24 + drift, 47), fill=(250, 250, 250), width=3)
    draw.line((7 + drift, 28, 41 + drift, 28), fill=(250, 250, 250), width=3)
    return picture


SETTING_PAINTERS: dict[str, Callable[[int, int], Image.Image]] = {
    "beach": _beach,
    "forest": _forest,
    "field": _field,
    "snow": _snow,
    "desert": _desert,
    "night": _night,
    "city": _city,
    "room": _room,
}
