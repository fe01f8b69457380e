"""Requests in a row as HTML and tables: the grid of concept by step, and how the model stands."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ..continual.ledger import ConceptScore, Ledger, Request
from ..continual.metrics import ContinualMetrics, kept_names, request_metrics
from .pictures import address
from .render import esc, failed, percent

LINES = {"erased": "#d96a10", "kept, same kind": "#2a86d1", "kept, other kind": "#7a8494"}
FIRST_KEPT = 8
WELCOME = (
    "Real requests come one at a time. Forget something here, then something else, and watch what"
    " was erased, what should stay, and how far the weights drift. Every picture keeps its prompt"
    " and seed."
)


def curve_table(ledger: Ledger | None) -> pd.DataFrame:
    """Shares in percent after every request, as the plot wants them; first a point without a share
    per line.

    Requests are words, since there is nothing between two of them, with a blank where that keeps
    them in order.
    """
    table = {
        "request": [f"{0:2d}"] * len(LINES),
        "share": [None] * len(LINES),
        "group": list(LINES),
    }
    for number, found in enumerate(
        _from_the_original(ledger.rows) if ledger and ledger.requests else []
    ):
        for group, share in zip(LINES, (found.ua, found.ra_i, found.ra_c), strict=True):
            if share is not None:
                table["request"].append(f"{number:2d}")
                table["share"].append(100 * share)
                table["group"].append(group)
    return pd.DataFrame(table).astype({"request": "str", "share": "float64", "group": "str"})


def _from_the_original(rows: Sequence[Request]) -> list[ContinualMetrics]:
    """How the model stood before the first request, as if that had changed nothing, and after
    each.
    """
    kept, asked = kept_names(rows), {row.concept for row in rows[1:]}
    untouched = replace(rows[1], panel=rows[0].panel)
    return [*request_metrics([rows[0], untouched], kept, asked), *request_metrics(rows, kept)]


def status(
    ledger: Ledger | None, doing: str = "", fraction: float | None = None, error: str = ""
) -> str:
    """What is going on, or how the model stands now."""
    if error:
        return failed(error)
    if doing:
        bar = f'<div class="u-bar"><i style="width:{100 * (fraction or 0):.0f}%"></i></div>'
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


def grid(ledger: Ledger | None) -> str:
    """One row per concept, one column per step; what was erased comes first, in the order of the
    requests.
    """
    if not ledger or not ledger.rows:
        return ""
    erased = [row.concept for row in ledger.requests]
    kept = [name for name in ledger.names if name not in erased]
    more = ""
    if len(kept) > FIRST_KEPT:
        rest = _table(ledger, kept[FIRST_KEPT:])
        more = (
            f"<details><summary>{len(kept) - FIRST_KEPT} more that should"
            f" stay</summary>{rest}</details>"
        )
    return (
        f'<section class="u-ledger" style="--n:{len(ledger.rows)}" aria-label="Concepts after every'
        f' request">{_table(ledger, [*erased, *kept[:FIRST_KEPT]])}{more}</section>'
    )


def _table(ledger: Ledger, names: Sequence[str]) -> str:
    heads = "".join(
        f'<th scope="col">{esc(_head(number, row))}</th>' for number, row in enumerate(ledger.rows)
    )
    body = "".join(_row(ledger, name) for name in names)
    return (
        "<div"
        f' class="u-wide"><table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _head(number: int, row: Request) -> str:
    return f"{number} · {row.concept}" if number else "Original"


def _row(ledger: Ledger, name: str) -> str:
    asked = next((number for number, row in enumerate(ledger.rows) if row.concept == name), None)
    cells = "".join(
        _cell(ledger, number, row.panel[name], name, asked)
        for number, row in enumerate(ledger.rows)
    )
    note = f"erased by request {asked}" if asked else "should stay"
    return f'<tr><th scope="row">{esc(name)}<small>{note}</small></th>{cells}</tr>'


def _cell(ledger: Ledger, number: int, seen: ConceptScore, name: str, asked: int | None) -> str:
    gone = asked is not None and number >= asked
    mark = ""
    if seen.accuracy is not None:
        state = "u-yes" if (seen.accuracy <= 0.25) == gone else "u-no"
        mark = f'<span class="{state}">{sum(seen.right)}/{len(seen.right)}</span>'
    alt = f"{name} after {_head(number, ledger.rows[number])}"
    state = ' class="u-gone"' if gone else ""
    picture = (
        f'<img loading="lazy" src="{esc(address(ledger.picture(number, name)))}" alt="{esc(alt)}">'
    )
    return f"<td{state}>{picture}{mark}</td>"
