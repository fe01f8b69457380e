"""Showing a job of the engine while it works."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from ..service.jobs import Job
from ..settings.events import Event

POLL = 0.25
"""Seconds to wait for an event."""
HEARTBEAT = 0.5
"""Seconds after which something is shown although no event asks for it."""
VISITORS = 32
"""Listeners that work at the same time."""
Updates = dict[Any, Any]
"""What changes on the page: a value, or a component with new properties, by component."""
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
QUIET: dict[str, Any] = {"queue": False, **HIDDEN}
"""How a listener that answers at once is wired."""
WORKING: dict[str, Any] = {"concurrency_limit": VISITORS, **HIDDEN}
"""How a listener that shows a job is wired."""


def follow(
    job: Job,
    first: Updates,
    take_in: Callable[[list[Event]], Updates],
    tell: Callable[[], Updates],
    last: Callable[[], Updates],
) -> Iterator[Updates]:
    """What to show until `job` ends: `first`, what new events change together with what `tell` says
    of the progress, and `last`. Leaving the generator in any way ends the job.
    """
    shown = 0.0
    try:
        yield first
        while not job.over:
            changed = take_in(job.take(POLL))
            if changed or time.monotonic() - shown >= HEARTBEAT:
                shown = time.monotonic()
                yield changed | tell()
        yield last()
    finally:
        job.cancel.set()
