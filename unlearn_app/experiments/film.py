"""README's moving picture: the timeline of a recorded run, the same prompts and seeds at every
moment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..common.images import BLUE, FAINT, GREEN, INK, ORANGE, open_png
from ..runs.folder import Run
from ..settings.events import GroupScore, Picture

WIDTH, HEIGHT, SIDE, EDGE, GAP = 760, 396, 232, 16, 16
SHOWN = (("forget", 0), ("forget", 1), ("near", 0))
"""The pictures of a moment: two that ask for what is forgotten, and one that should stay."""
BACK = (255, 255, 255)
COLORS = {"original": BLUE, "forgetting": ORANGE, "attacked": GREEN}
MOMENT_MS, PAUSE_MS = 700, 2200
"""How long a moment is shown, and the last one of the original, of forgetting and of the attack."""


@dataclass(frozen=True)
class Moment:
    """The model at one point: its pictures, and how many of all that ask for it show it."""

    phase: str
    title: str
    pictures: Mapping[tuple[str, int], Picture]
    count: str = ""


def write_film(run: Run, path: Path) -> str:
    """Write the moving picture of a run to `path`, as WebP; returns a line that says so."""
    moments = timeline(run)
    frames = [_frame(run.config.concept, moments, at) for at in range(len(moments))]
    ends = {max(n for n, one in enumerate(moments) if one.phase == phase) for phase in COLORS}
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        duration=[PAUSE_MS if at in ends else MOMENT_MS for at in range(len(frames))],
        loop=0,
        quality=80,
        method=6,
    )
    return f"{path.name}, {path.stat().st_size:,} bytes"


def timeline(run: Run) -> list[Moment]:
    """The original, the model while it forgot and after it, and after some steps of the attack."""
    columns = {column: list(found) for column, found in groupby(run.pictures, lambda p: p.column)}
    scores = run.scores
    moments = [
        Moment("original", "The original", _placed(columns["original"]), _count(scores["original"]))
    ]
    for step, found in groupby(run.previews, lambda picture: picture.step):
        moments.append(Moment("forgetting", f"Forgetting, step {step}", _placed(list(found))))
    for step, groups, pictures in run.curve:
        title = f"Attacked, {step} steps" if step else "After forgetting"
        phase = "attacked" if step else "forgetting"
        moments.append(Moment(phase, title, _placed(pictures), _count(groups)))
    return moments


def _placed(pictures: Sequence[Picture]) -> dict[tuple[str, int], Picture]:
    return {(picture.group, picture.index): picture for picture in pictures}


def _count(scores: Mapping[str, GroupScore]) -> str:
    found = scores.get("forget")
    if found is None or found.accuracy is None:
        return ""
    return f"{found.hits}/{found.n}"


def _frame(concept: str, moments: Sequence[Moment], at: int) -> Image.Image:
    moment, font = moments[at], ImageFont.load_default
    frame = Image.new("RGB", (WIDTH, HEIGHT), BACK)
    draw = ImageDraw.Draw(frame)
    color = COLORS[moment.phase]
    draw.text((EDGE, 12), moment.title, color, font(30))
    if moment.count:
        said = f"{moment.count} pictures show {concept}"
        draw.text((WIDTH - EDGE, 18), said, INK, font(24), anchor="ra")
    there = [slot for slot in SHOWN if all(slot in one.pictures for one in moments)]
    for place, slot in enumerate(there):
        left, top = EDGE + place * (SIDE + GAP), 56
        picture = moment.pictures[slot]
        shown = open_png(picture.file).convert("RGB")
        frame.paste(shown.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
        draw.rectangle((left, top + SIDE, left + SIDE - 1, top + SIDE + 5), fill=color)
        note = " (should stay)" if slot[0] != "forget" else ""
        text = f"{moments[0].pictures[slot].prompt}{note}"
        draw.text((left, top + SIDE + 12), _cut(text, font(14), SIDE), FAINT, font(14))
    step = (WIDTH - 2 * EDGE) / max(len(moments) - 1, 1)
    draw.line((EDGE, HEIGHT - 26, WIDTH - EDGE, HEIGHT - 26), fill=(208, 213, 221), width=4)
    for place, one in enumerate(moments):
        x, r = EDGE + place * step, 12 if place == at else 6
        x = min(max(x, EDGE + r), WIDTH - EDGE - r)
        draw.ellipse((x - r, HEIGHT - 26 - r, x + r, HEIGHT - 26 + r), fill=COLORS[one.phase])
    return frame


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text in at most two lines of this width."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:2])
