"""Events of a sequence of requests, besides those of a run."""

from dataclasses import dataclass

from .ledger import Request

TRAINED = 0.4
"""The share of a request's work that is done when it is trained."""


@dataclass(frozen=True)
class Added:
    """A row was added to the ledger."""

    request: Request
