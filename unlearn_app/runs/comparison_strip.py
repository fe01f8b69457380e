"""comparison.png: a labelled strip of the three columns, fit for a slide."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..common.images import enlarged
from ..settings.events import COLUMNS, GROUPS, Picture
from ..settings.run_config import RunConfig

CELL = 128
GAP = 12
INK = (28, 28, 36)
FAINT = (104, 104, 118)
_font = ImageFont.load_default
COLORS = {"original": (46, 96, 190), "unlearned": (200, 92, 16), "relearned": (22, 128, 92)}


def heading(config: RunConfig, name: str, label: str) -> tuple[str, str]:
    """Title and subtitle of the strip of a run that forgot `name` and was judged `label`; of a
    model folder only the last name, since pictures are shared.
    """
    model = Path(config.model).name if Path(config.model).is_dir() else config.model
    return (
        f"Forgetting “{name}”: {label}",
        f"{made_by(config)} · seed {config.seed} · {model}",
    )


def made_by(config: RunConfig) -> str:
    """How the unlearned model was made, in words."""
    return f"audit of {config.audited}" if config.audited else f"{config.objective} · {config.rule}"


def comparison_strip(title: str, subtitle: str, pictures: Sequence[Picture]) -> Image.Image:
    """Rows are columns of the comparison, cells are prompts: three that forget, two near, two
    far.
    """
    columns = [c for c in COLUMNS if any(p.column == c for p in pictures)]
    by_place = {(p.column, p.group, p.index): p for p in pictures}
    places = [
        (group, index)
        for group, count in zip(GROUPS, (3, 2, 2), strict=True)
        for index in range(count)
        if columns and (columns[0], group, index) in by_place
    ]
    label_width, head, foot = 132, 108, 48
    width = label_width + len(places) * (CELL + GAP) + GAP
    strip = Image.new(
        "RGB", (max(width, 760), head + len(columns) * (CELL + 30 + GAP) + foot), "white"
    )
    draw = ImageDraw.Draw(strip)
    draw.text((GAP, GAP), title, INK, _font(30))
    draw.text((GAP, GAP + 40), subtitle, FAINT, _font(17))
    for row, column in enumerate(columns):
        top = head + row * (CELL + 30 + GAP)
        draw.text((GAP, top + CELL // 2 - 10), column, COLORS[column], _font(20))
        for cell, (group, index) in enumerate(places):
            left, picture = label_width + cell * (CELL + GAP), by_place[column, group, index]
            shown = enlarged(picture.image, CELL).resize((CELL, CELL), Image.Resampling.LANCZOS)
            strip.paste(shown, (left, top))
            if picture.alignment is not None:
                said = f"{picture.alignment:.2f} {picture.predicted}"
                draw.text((left, top + CELL + 5), said, INK, _font(15))
    for cell, (group, index) in enumerate(places):
        left = label_width + cell * (CELL + GAP)
        words = _fitted(by_place[columns[0], group, index].prompt, _font(13), CELL)
        draw.multiline_text((left, strip.height - foot), f"{group}: {words}", FAINT, _font(13))
    return strip


def _fitted(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width - 44:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line][:2])
