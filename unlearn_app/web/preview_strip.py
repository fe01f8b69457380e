"""Pictures of the model in training, oldest first."""

from .html import esc, folded
from .view_state import Frame, ViewState

LATEST = 8
"""Frames shown while the model trains."""
NOTE = "<small>the same prompts and seeds each time</small>"


def preview_strip(state: ViewState) -> str:
    """The latest previews of a run that works; all of them, folded away, once it is over."""
    if not state.frames:
        return ""
    if state.over and not state.stopped:
        frames = "".join(map(_frame, state.frames))
        return folded(f"How it changed during training {NOTE}", f"<div>{frames}</div>", "u-film")
    frames = "".join(map(_frame, state.frames[-LATEST:]))
    return (
        '<section class="u-film" aria-label="Pictures while it trains">'
        f"<h3>As it trains {NOTE}</h3><div>{frames}</div></section>"
    )


def _frame(frame: Frame) -> str:
    what = "forgetting" if frame.stage == "unlearn" else "under attack"
    images = "".join(
        f'<img loading="lazy" src="{esc(src)}" alt="{esc(prompt)}, {what}, step {frame.step}"'
        f' title="{esc(prompt)}">'
        for src, prompt in zip(frame.sources, frame.prompts, strict=False)
    )
    caption = f"<figcaption>{what}<br>step {frame.step}</figcaption>"
    return f'<figure class="u-{esc(frame.stage)}">{images}{caption}</figure>'
