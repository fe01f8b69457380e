"""A ledger of requests as HTML: how the model stands, and a picture of every concept after every
request.
"""

from ..continual.ledger import Ledger
from ..continual.metrics import request_metrics
from .html import render
from .pictures import address

FIRST_KEPT = 8
"""Concepts that should stay and are not folded away."""


def status(ledger: Ledger | None) -> str:
    """How the model stands after the last request; what the tab is for when there is none."""
    if not ledger or not ledger.requests:
        return render("ledger_status", count=0)
    found, row = request_metrics(ledger.rows)[-1], ledger.rows[-1]
    return render("ledger_status", count=len(ledger.requests), found=found, row=row)


def sequence_table(ledger: Ledger | None) -> str:
    """One row per concept, one column per request; what was erased comes first, in the order of the
    requests.
    """
    if not ledger or not ledger.rows:
        return ""
    erased: dict[str, int] = {}
    for number, row in enumerate(ledger.requests, 1):
        erased.setdefault(row.concept, number)
    kept = [name for name in ledger.names if name not in erased]
    return render(
        "ledger",
        ledger=ledger,
        erased=erased,
        shown=[*erased, *kept[:FIRST_KEPT]],
        rest=kept[FIRST_KEPT:],
        address=address,
    )
