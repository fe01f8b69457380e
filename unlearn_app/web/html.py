"""Pieces of HTML and numbers in words; all text that is not ours passes through `esc`."""

from collections.abc import Iterable, Sequence
from html import escape


def esc(value: object) -> str:
    """Text made safe for HTML content and attributes."""
    return escape(str(value), quote=True)


def percent(value: float | None) -> str:
    """A share as whole per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.0f} %"


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, using a true minus."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else f"±{abs(value):.{digits}f}"


def signed_span(interval: Sequence[float]) -> str:
    """The ends of an interval of shares, as whole points with their signs."""
    return " to ".join(signed(100 * end, 0) for end in interval)


def capitalized(text: str) -> str:
    """The text with a capital first letter; the others stay as they are."""
    return text[:1].upper() + text[1:]


def note(text: str) -> str:
    """A sentence in quiet colours; nothing for no text."""
    return f'<p class="u-hint u-ok">{esc(text)}</p>' if text else ""


def alert(message: str, concepts: Sequence[str] = ()) -> str:
    """A sentence about what was refused, with concepts to pick instead."""
    offers = f' <span class="u-offers">{chips(concepts)}</span>' if concepts else ""
    return f'<p class="u-hint" role="alert">{esc(message)}{offers}</p>'


def chips(concepts: Iterable[str]) -> str:
    """A button for each concept, which puts its name into the box."""
    return "".join(
        f'<button type="button" class="u-chip" data-concept="{esc(name)}">{esc(name)}</button>'
        for name in concepts
    )


def folded(summary: str, inside: str, style: str = "") -> str:
    """HTML that is hidden until its summary, HTML too, is clicked."""
    kind = f' class="{style}"' if style else ""
    return f"<details{kind}><summary>{summary}</summary>{inside}</details>"


def failed(error: str) -> str:
    """A box that says why something did not work."""
    text = f"<p><b>That did not work.</b> {esc(error)}</p>"
    return f'<section class="u-status u-failed" role="alert">{text}</section>'


def waiting(position: int) -> str:
    """How many runs come before a visitor's."""
    return f"Waiting: {'1 run is' if position == 1 else f'{position} runs are'} before yours."


def progress(text: str, detail: str, fraction: float, what: str) -> str:
    """A box with what is going on, and a bar of how much of it is done."""
    share = 100 * fraction
    return (
        f'<section class="u-status u-running"><p><b role="status">{esc(text)}</b>'
        f' <span>{esc(detail)}</span></p><div class="u-bar" role="progressbar" aria-label="Progress'
        f' of {esc(what)}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0f}"><i'
        f' style="width:{share:.1f}%"></i></div></section>'
    )
