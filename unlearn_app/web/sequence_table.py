"""A ledger of requests as HTML: how the model stands, and a picture of every concept after every
request.
"""

from collections.abc import Sequence

from ..continual.ledger import ConceptScore, Ledger, Request
from ..continual.metrics import request_metrics
from .html import esc, failed, folded, percent
from .pictures import address

FIRST_KEPT = 8
"""Concepts that should stay and are not folded away."""
WELCOME = (
    "Real requests come one at a time. Forget something here, then something else, and watch what"
    " was erased, what should stay, and how far the weights drift. Every picture keeps its prompt"
    " and seed."
)


def status(ledger: Ledger | None, doing: str = "", fraction: float = 0.0, error: str = "") -> str:
    """What went wrong or is going on, else how the model stands now."""
    if error:
        return failed(error)
    if doing:
        bar = f'<div class="u-bar"><i style="width:{100 * fraction:.0f}%"></i></div>'
        return (
            '<section class="u-status u-running"'
            f' role="status"><p><b>{esc(doing)}</b></p>{bar}</section>'
        )
    if not ledger or not ledger.requests:
        return f'<section class="u-status"><p>{WELCOME}</p></section>'
    found, row = request_metrics(ledger.rows)[-1], ledger.rows[-1]
    count = len(ledger.requests)
    said = [
        f"<b>{count} request{'s' if count > 1 else ''}</b>, the last one in {row.seconds:.0f} s",
        f"erased {percent(found.ua)}",
        f"kept {percent(found.ra_i)} of its own kind and {percent(found.ra_c)} of the other",
        f"drift {found.drift:.1f}",
    ]
    if found.relapse:
        said.append(f"worst relapse {percent(found.relapse)}")
    notes = "".join(f"<p>{esc(note)}</p>" for note in row.notes)
    return f'<section class="u-status" role="status"><p>{" · ".join(said)}</p>{notes}</section>'


def sequence_table(ledger: Ledger | None) -> str:
    """One row per concept, one column per request; what was erased comes first, in the order of the
    requests.
    """
    if not ledger or not ledger.rows:
        return ""
    erased = [row.concept for row in ledger.requests]
    kept = [name for name in ledger.names if name not in erased]
    rest = kept[FIRST_KEPT:]
    more = folded(f"{len(rest)} more that should stay", _table(ledger, rest)) if rest else ""
    return (
        f'<section class="u-ledger" style="--n:{len(ledger.rows)}" aria-label="Concepts after every'
        f' request">{_table(ledger, [*erased, *kept[:FIRST_KEPT]])}{more}</section>'
    )


def _table(ledger: Ledger, names: Sequence[str]) -> str:
    heads = "".join(
        f'<th scope="col">{esc(_head(number, row))}</th>' for number, row in enumerate(ledger.rows)
    )
    head = f"<thead><tr><th></th>{heads}</tr></thead>"
    body = "".join(_row(ledger, name) for name in names)
    return f'<div class="u-wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _head(number: int, row: Request) -> str:
    return f"{number} · {row.concept}" if number else "Original"


def _row(ledger: Ledger, name: str) -> str:
    asked = next((number for number, row in enumerate(ledger.rows) if row.concept == name), None)
    cells = ""
    for number, row in enumerate(ledger.rows):
        alt = f"{name} after {_head(number, row)}"
        picture = (
            f'<img loading="lazy" src="{esc(address(ledger.picture(number, name)))}"'
            f' alt="{esc(alt)}">'
        )
        erased = asked is not None and number >= asked
        style = ' class="u-gone"' if erased else ""
        cells += f"<td{style}>{picture}{_count(row.panel[name], erased)}</td>"
    note = f"erased by request {asked}" if asked else "should stay"
    return f'<tr><th scope="row">{esc(name)}<small>{note}</small></th>{cells}</tr>'


def _count(score: ConceptScore, erased: bool) -> str:
    """On how many of the pictures the judge sees the concept, in the colour of success or not."""
    if score.accuracy is None:
        return ""
    style = "u-yes" if (score.accuracy <= 0.25) == erased else "u-no"
    return f'<span class="{style}">{sum(score.right)}/{len(score.right)}</span>'
