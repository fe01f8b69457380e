"""Showing a job of the engine while it works, and who asks to see it."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import gradio as gr

from ..service.engine import Engine
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


def visitor_of(engine: Engine, request: gr.Request, key: object = "") -> str:
    """The visitor whose browser keeps `key`; a program has none, and is its session."""
    return engine.visitor(request.session_hash or uuid4().hex, key)


def refused(sentence: str) -> gr.Error:
    """What a listener raises that has no place on the page for a sentence."""
    return gr.Error(sentence, print_exception=False)


def follow(
    job: Job,
    first: Updates,
    update: Callable[[list[Event]], Updates],
    last: Callable[[], Updates] = dict,
) -> Iterator[Updates]:
    """What to show until `job` ends: `first`, again and again what `update` makes of the events
    since, to begin with of all so far, and `last` over the last of these. Leaving the generator
    leaves the job alone.
    """
    yield first
    seen, over = 0, False
    while not over:
        over = job.over  # asked first, since events may come before it ends
        events = job.take(PAUSE, seen)
        seen += len(events)
        changed = update(events)
        if over:
            yield changed | last()
        else:
            yield changed
            time.sleep(PAUSE)
