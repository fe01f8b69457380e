"""HTML of the page from its templates, which escape all text; and formatted numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.templates import templates
from ..evaluation.finding import other_classes
from ..settings.events import COLUMNS, GROUPS

TITLE = "Can it really forget?"
SAYS = (
    "Make a picture model forget something, let an attacker teach it back, and see which of the"
    " two won."
)
"""What the page is called and what it does, at its head and where others link to it."""
SOON = 10
"""So many seconds before an end they are no longer counted."""
STOPPING = "Stopping… saving the results so far."


def percent(share: float | None) -> str:
    """A share as whole per cent, or a dash."""
    return "–" if share is None else f"{100 * share:.0f} %"


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, using a true minus."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else f"±{abs(value):.{digits}f}"


_TEMPLATES = templates(Path(__file__).with_name("templates"), autoescape=True, lstrip_blocks=True)
_TEMPLATES.filters |= {"percent": percent, "signed": signed}
_TEMPLATES.globals |= {"columns": COLUMNS, "groups": GROUPS, "other_classes": other_classes}
_TEMPLATES.globals |= {"page_title": TITLE, "page_says": SAYS}
_PARTS = _TEMPLATES.get_template("parts.html").module


def render(name: str, **values: Any) -> str:
    """The template with that name, filled in."""
    return _TEMPLATES.get_template(f"{name}.html").render(**values).strip()


def duration(seconds: float) -> str:
    """About how long something takes, such as "about 40 s", to a tenth of it or so: to seconds, to
    five of them from 20 s on, to half minutes from 100 s and to minutes from 10 minutes on.
    """
    if seconds < 20:
        return f"about {max(round(seconds), 1)} s"
    if seconds < 100:
        return f"about {5 * round(seconds / 5)} s"
    if seconds < 600:
        return f"about {round(seconds / 30) / 2:g} min"
    return f"about {seconds / 60:.0f} min"


def remaining(seconds: float) -> str:
    """How long something goes on, such as "about 40 s left"; its last seconds are not counted, of
    which one or two either way would be a large share.
    """
    return f"less than {SOON} s left" if seconds < SOON - 2 else f"{duration(seconds)} left"


def estimate(seconds: float | None) -> str:
    """How long a run takes, beside its button; "" where nobody knows."""
    return "" if seconds is None else f"<p>{duration(seconds)}</p>"


def note(text: str) -> str:
    """A message in a muted colour; "" for no text."""
    return _part("note", text)


def alert(message: str, concepts: Sequence[str] = (), at: str = "") -> str:
    """An error message about an input, with concepts to pick instead; `at` is the id of the field
    that the browser brings into view.
    """
    return _part("alert", message, concepts, at)


def failed(error: str) -> str:
    """A box with the reason for a failure."""
    return _part("failed", error)


def progress(
    text: str,
    details: Sequence[str],
    fraction: float,
    what: str,
    stopping: bool = False,
    position: int = 0,
) -> str:
    """A box with the progress of `what`: a line of text, and a bar for the `fraction` that is done.

    The line of a job that is `stopping`, or has `position` others before it, says only that.
    """
    if stopping:
        text, details = STOPPING, ()
    elif position:
        runs = "1 run is" if position == 1 else f"{position} runs are"
        text, details = f"Waiting: {runs} before yours.", ()
    return _part("progress", text, details, fraction, what)


def _part(name: str, *values: Any) -> str:
    return str(getattr(_PARTS, name)(*values)).strip()
