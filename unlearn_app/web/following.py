"""What all listeners share: how they are wired, who calls them, and how they follow a job."""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import gradio as gr

from ..service.engine import Engine
from ..service.jobs import Job
from ..service.visitors import is_key
from ..settings.events import Event
from .boundary import CALL, KEY

PAUSE = 0.3
"""Least seconds between two updates of the page; without events it is at most twice as long."""
VISITORS = 32
"""How many listeners of a kind run at the same time."""
Updates = dict[Any, Any]
"""What changes on the page: a value, or a component with new properties, by component."""
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
QUIET: dict[str, Any] = {"queue": False, **HIDDEN}
"""How to wire a listener that answers at once."""
LATEST: dict[str, Any] = {"trigger_mode": "always_last", **QUIET}
"""The same of a choice that may change again before its answer is here: the last one counts."""
WORKING: dict[str, Any] = {"concurrency_limit": VISITORS, **HIDDEN}
"""How to wire a listener that follows a job."""


def visitor_of(engine: Engine, request: gr.Request, key: object = "") -> str:
    """The visitor whose browser keeps `key`; a program has none, and is its session. A client of
    MCP tools is named by the key that it sends or, if it sends none, is another in each call.
    """
    call = request.headers.get(CALL)
    if call and not key:
        key = _sent_key(request) or key_of(call)
    return engine.visitor(call or request.session_hash or uuid4().hex, key)


def own_call(request: gr.Request) -> str:
    """The call of an MCP client that sends no key, by which it finds its run again; "" for
    others.
    """
    return "" if _sent_key(request) else request.headers.get(CALL, "")


def _sent_key(request: gr.Request) -> str:
    """The key in the request's header; "" where it is none."""
    key = request.headers.get(KEY, "")
    return key if is_key(key) else ""


def key_of(call: str) -> str:
    """The key of the visitor that a client is for one call."""
    return hashlib.sha256(f"call {call}".encode()).hexdigest()


def refused(sentence: str) -> gr.Error:
    """The error of a listener that cannot show a message on the page."""
    return gr.Error(sentence, print_exception=False)


def follow(
    job: Job,
    first: Updates,
    update: Callable[[list[Event]], Updates],
    last: Callable[[], Updates] = dict,
) -> Iterator[Updates]:
    """The updates of the page until `job` ends: `first`, then repeatedly `update` of the new events
    (initially of all so far), the final one merged with `last`. Closing the generator does not stop
    the job.
    """
    yield first
    seen, over = 0, False
    while not over:
        over = job.over  # read first, since the job may add events and end right after
        events = job.take(PAUSE, seen)
        seen += len(events)
        changed = update(events)
        if over:
            yield changed | last()
        else:
            yield changed
            time.sleep(PAUSE)
