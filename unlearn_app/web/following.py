"""Showing a job of the engine while it works."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from ..service.jobs import Job
from ..settings.events import Event

PAUSE = 0.3
"""Seconds between two updates of the page, at least; without events at most twice as many."""
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
    update: Callable[[list[Event]], Updates],
) -> Iterator[Updates]:
    """What to show until `job` ends: `first`, and again and again what `update` makes of the events
    since. Leaving the generator in any way ends the job.
    """
    try:
        yield first
        while not job.over:
            yield update(job.take(PAUSE))
            time.sleep(PAUSE)
    finally:
        if not job.over:
            job.cancel.set()
