"""What a sequence of requests reports beside the events of a run."""

from dataclasses import dataclass

from .ledger import Request

TRAINED = 0.4
"""How far a request is when it is trained."""


@dataclass(frozen=True)
class Added:
    """A row was added to the ledger."""

    request: Request
