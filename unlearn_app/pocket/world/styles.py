"""The picture styles of PocketCanvas as filters `(rgb (H, W, 3), mask (H, W)) -> (H, W, 3)`, all in
[0, 1].

Every texture has a period that divides 8 px and starts at the picture's corner, so that it is the
same in all latent cells. `mask` is the object's coverage: styles keep the object clearer than the
background.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

Array = np.ndarray
SIZE = 64
CENTRE = (SIZE - 1) / 2
Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
"""Row and column of every pixel."""
FLOW = (
    (Y + 0.9 * np.sin(X * np.pi / 4)).round().clip(0, SIZE - 1).astype(int),
    (X + 0.7 * np.sin(Y * np.pi / 4)).round().clip(0, SIZE - 1).astype(int),
)
"""Rows and columns of the pixels that a fixed flow field moves to each place."""
STROKES = np.sin(2 * np.pi * (Y / 4 + 0.3 * np.sin(X * np.pi / 4)))
"""Brush strokes along the flow field, in [-1, 1]."""


def to_picture(rgb: Array) -> Image.Image:
    """The picture of colours (H, W, 3) in [0, 1], rounded; others are clamped first."""
    return Image.fromarray((rgb.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def _blur(rgb: Array, radius: float) -> Array:
    blurred = to_picture(rgb).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred, np.float32) / 255


def _luma(rgb: Array) -> Array:
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def _lerp(a: Array, b: Array, weight: Array | float) -> Array:
    return a * (1 - weight) + b * weight


def _color(*rgb: int) -> Array:
    return np.array(rgb, np.float32) / 255


def _saturate(rgb: Array, amount: float) -> Array:
    gray = _luma(rgb)[..., None]
    return (gray + (rgb - gray) * amount).clip(0, 1)


def _contrast(plane: Array, amount: float, middle: float = 0.5) -> Array:
    return ((plane - middle) * amount + middle).clip(0, 1)


def _gradient_size(plane: Array) -> Array:
    dy, dx = np.gradient(plane)
    return np.hypot(dx, dy)


def _outline(mask: Array) -> Array:
    """The object's contour, about one pixel wide, strength in [0, 1]."""
    return (_gradient_size(mask) * 2.4 - 0.1).clip(0, 1)


def _inner_lines(rgb: Array) -> Array:
    """Edges inside the picture, strength in [0, 1]."""
    return (sum(_gradient_size(rgb[..., c]) for c in range(3)) * 1.7 - 0.22).clip(0, 1)


def _lines(rgb: Array, mask: Array, behind: float = 0.6) -> Array:
    """Line strength in [0, 1]: contour and inner lines of the object, and `behind` times the lines
    around it.
    """
    return np.maximum(_outline(mask), _inner_lines(rgb) * _lerp(behind, 1, mask))


def photo(rgb: Array, mask: Array) -> Array:
    return rgb


def van_gogh(rgb: Array, mask: Array) -> Array:
    warped = _lerp(_saturate(rgb, 1.4)[FLOW], _saturate(rgb, 1.5), mask[..., None] * 0.8)
    tint = _lerp(_color(16, 44, 130), _color(250, 206, 70), _luma(warped)[..., None])
    tinted = _lerp(warped, tint, _lerp(0.55, 0.2, mask)[..., None])
    brushed = tinted + (0.13 * STROKES * (1 - 0.45 * mask))[..., None]
    return _lerp(brushed, _color(14, 22, 60), (_outline(mask) * 0.75)[..., None])


def watercolor(rgb: Array, mask: Array) -> Array:
    wash = _lerp(_blur(rgb, 1.3)[FLOW], _blur(rgb, 0.5), mask[..., None])
    wash = _saturate(wash, 1.3)
    pale = _lerp(wash, np.ones(3, np.float32), _lerp(0.5, 0.22, mask)[..., None])
    fade = ((np.hypot(X - CENTRE, Y - CENTRE) - 29) / 9).clip(0, 1) * (1 - mask)
    rim = _outline(mask) * 0.3
    return _lerp(pale * (1 - rim)[..., None], _color(250, 246, 238), fade[..., None])


def pointillism(rgb: Array, mask: Array) -> Array:
    row = np.floor(Y / 4)
    shift = (row % 2) * 2
    cx = np.floor((X + shift) / 4) * 4 + 2 - shift
    cy = row * 4 + 2
    vivid = _saturate(rgb, 1.6)
    picked = vivid[cy.astype(int).clip(0, SIZE - 1), cx.astype(int).clip(0, SIZE - 1)]
    dot = (2.3 - np.hypot(X + 0.5 - cx, Y + 0.5 - cy)).clip(0, 1)[..., None]
    ground = _lerp(vivid, _color(252, 248, 236), _lerp(0.75, 0.4, mask)[..., None])
    dotted = _lerp(ground, _lerp(picked, vivid, mask[..., None] * 0.75), dot)
    return _lerp(dotted, _color(60, 40, 70), (_outline(mask) * 0.45)[..., None])


def mosaic(rgb: Array, mask: Array) -> Array:
    tiles = rgb.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean((1, 3)).repeat(4, 0).repeat(4, 1)
    shine = ((X % 4 == 1) & (Y % 4 == 1)).astype(np.float32)[..., None] * 0.12
    colour = _lerp(_saturate(tiles, 1.4), _saturate(rgb, 1.3), mask[..., None] * 0.7)
    grout = (((X % 4 < 1) | (Y % 4 < 1)) * _lerp(0.8, 0.35, mask))[..., None]
    laid = _lerp(colour + shine, _color(236, 230, 216), grout)
    return _lerp(laid, _color(70, 58, 50), (_outline(mask) * 0.6)[..., None])


def stained_glass(rgb: Array, mask: Array) -> Array:
    lead = ((X % 8 < 1) | (Y % 8 < 1)).astype(np.float32) * (1 - mask)
    light = 1.15 - 0.5 * (((X % 8) + (Y % 8)) / 14 - 0.5) * (1 - 0.6 * mask)
    glass = (_saturate(rgb, 2.2) * light[..., None] + 0.04).clip(0, 1)
    line = np.maximum(lead, np.maximum(_outline(mask), _inner_lines(rgb) * mask * 0.55))
    return _lerp(glass, _color(22, 18, 30), line[..., None])


def sketch(rgb: Array, mask: Array) -> Array:
    hatch = ((X + Y) % 4 < 1).astype(np.float32)
    luma = _luma(rgb)
    shade = hatch * (0.55 - luma).clip(0, 0.4) * 0.9 + (0.5 - luma).clip(0, 0.5) * 0.45 * mask
    tone = 0.97 - 0.85 * _lines(rgb, mask, 0.5) - shade * _lerp(0.6, 1, mask)
    return tone[..., None] * _color(255, 253, 248)


def blueprint(rgb: Array, mask: Array) -> Array:
    ruled = ((X % 8 < 1) | (Y % 8 < 1)).astype(np.float32) * 0.2 * (1 - mask)
    fill = mask * (0.08 + 0.3 * _luma(rgb))
    line = np.maximum(np.maximum(_lines(rgb, mask, 0.5), ruled), fill)[..., None]
    return _lerp(_color(20, 62, 150), _color(236, 244, 255), line)


def neon(rgb: Array, mask: Array) -> Array:
    line = _lines(rgb, mask, 0.75)[..., None]
    hue = np.stack(
        [0.5 + 0.5 * np.cos(2 * np.pi * ((X + Y) / 128 + shift)) for shift in (0.0, 0.33, 0.67)], 2
    )
    glow = _blur(line * hue, 1.6) * 1.1
    fill = _saturate(rgb, 1.5) * mask[..., None] * 0.3
    return _color(8, 4, 20) + fill + line * (0.25 + hue) + glow


def woodcut(rgb: Array, mask: Array) -> Array:
    bars = np.where(Y % 4 < 2, np.float32(0.85), np.float32(0.1))
    luma = _luma(rgb)
    behind = ((bars * 0.8 - luma) * 2.5 + 0.3).clip(0, 1)
    on_object = ((0.42 - luma) * 4 + 0.5).clip(0, 1)
    inked = np.maximum(_lerp(behind * 0.8, on_object, mask), _lines(rgb, mask, 0.7) * 0.95)
    return _lerp(_color(238, 220, 182), _color(46, 28, 18), inked[..., None])


def pop_art(rgb: Array, mask: Array) -> Array:
    palette = np.stack(
        [_color(36, 18, 92), _color(232, 28, 112), _color(252, 208, 40), _color(255, 250, 226)]
    )
    flat = palette[(_contrast(_luma(rgb), 1.25) * 3.99).astype(int).clip(0, 3)]
    dots = (np.hypot(X % 4 - 1.5, Y % 4 - 1.5) < 1.2).astype(np.float32) * (1 - mask)
    dotted = _lerp(flat, _color(40, 190, 200), (0.5 * dots)[..., None])
    return _lerp(dotted, _color(24, 10, 50), (_lines(rgb, mask, 0) * 0.85)[..., None])


def ink(rgb: Array, mask: Array) -> Array:
    tone = _contrast(0.1 + _lerp(_luma(_blur(rgb, 0.9)), _luma(rgb), mask) * 0.95, 1.15, 0.6)
    paled = _lerp(tone, np.full_like(tone, 0.93), (1 - mask) * 0.6)
    return (paled * (1 - 0.8 * _lines(rgb, mask, 0.35)))[..., None] * _color(250, 248, 244)


def cartoon(rgb: Array, mask: Array) -> Array:
    flat = np.round(_saturate(rgb, 1.8) * 4) / 4
    line = _lines(rgb, mask, 0.3) * _lerp(0.4, 1, mask)
    return _lerp(flat, np.zeros(3, np.float32), np.maximum(line, _outline(mask))[..., None])


def vintage(rgb: Array, mask: Array) -> Array:
    fade = 1 - 0.45 * (np.hypot(X - CENTRE, Y - CENTRE) / 45) ** 2
    tone = _contrast(_luma(rgb), _lerp(0.7, 1.2, mask), 0.5) * 0.84 + 0.14
    shaded = tone[..., None] * _color(255, 218, 166) * fade[..., None]
    return shaded * (1 - 0.45 * _outline(mask))[..., None]


def arcade(rgb: Array, mask: Array) -> Array:
    palette = np.stack(
        [_color(15, 56, 15), _color(48, 98, 48), _color(139, 172, 15), _color(202, 220, 120)]
    )
    threshold = np.tile(np.array([[0.0, 0.5], [0.75, 0.25]], np.float32), (32, 32)) - 0.375
    tone = _contrast(_luma(rgb), 1.3) * 3 + 0.5 + threshold * (1 - 0.75 * mask)
    return palette[np.where(_outline(mask) > 0.45, 0, tone.astype(int).clip(0, 3))]


def chalk(rgb: Array, mask: Array) -> Array:
    grain = ((X - Y) % 4 < 2).astype(np.float32)
    line = _lines(rgb, mask, 0.6) * (0.9 + 0.1 * grain)
    tint = _lerp(_saturate(rgb, 2.0), np.ones(3, np.float32), _lerp(0.5, 0.3, mask)[..., None])
    rubbed = mask * (0.3 + 0.4 * _luma(rgb)) * (0.8 + 0.2 * grain)
    board = _lerp(_color(34, 48, 44), tint, rubbed[..., None])
    return _lerp(board, _color(250, 250, 244), (line * _lerp(0.6, 1, mask))[..., None])


def thermal(rgb: Array, mask: Array) -> Array:
    stops = np.stack(
        [
            _color(0, 0, 40),
            _color(70, 0, 140),
            _color(210, 40, 90),
            _color(255, 150, 0),
            _color(255, 255, 190),
        ]
    )
    heat = (_luma(rgb) * _lerp(0.5, 0.6, mask) + 0.4 * mask) * 3.99
    low = heat.astype(int).clip(0, 3)
    return _lerp(stops[low], stops[low + 1], (heat - low).clip(0, 1)[..., None])


def embroidery(rgb: Array, mask: Array) -> Array:
    stitch = (((X - Y) % 4 < 1) | ((X + Y) % 4 < 1)).astype(np.float32)
    cloth = _lerp(_color(238, 230, 214), _saturate(rgb, 1.3), 0.35)
    thread = _saturate(rgb, 1.5) * (0.78 + 0.3 * stitch)[..., None]
    sewn = _lerp(cloth * (0.94 + 0.06 * stitch)[..., None], thread, mask[..., None])
    return _lerp(sewn, _color(90, 60, 40), (_outline(mask) * stitch * 0.8)[..., None])


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
    "arcade": arcade,
    "chalk": chalk,
    "thermal": thermal,
    "embroidery": embroidery,
}
