"""Plain HTTP requests to the app, as a program sends them that follows no rules."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

JSON = {"Content-Type": "application/json"}
HANG_S = 20.0
"""Seconds without an answer after which a request hangs."""
LARGEST = 10_000_000
"""The most bytes of an answer that are read; the largest is the configuration of the page."""


def connection(port: int) -> closing[HTTPConnection]:
    """A context with a connection to the app."""
    return closing(HTTPConnection("127.0.0.1", port, timeout=HANG_S))


def asked(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    size: int = LARGEST,
) -> tuple[int, bytes]:
    """The status and the first `size` bytes of an answer; none of a stream of events.

    Raises:
        OSError: none came in time.
    """
    with connection(port) as app:
        app.request(method, path, body, dict(headers or {}))
        answer = app.getresponse()
        streams = answer.headers.get_content_type() == "text/event-stream"
        return answer.status, b"" if streams else answer.read(size)


def page_config(port: int) -> dict[str, Any]:
    """The configuration of the page: its components and the functions that it may call."""
    _, config = asked(port, "GET", "/config")
    return json.loads(config)


def without_sentence(status: int, answer: bytes | str) -> bool:
    """Whether an answer reports a failure of the app without a sentence that says which."""
    try:
        said = json.loads(answer)
    except ValueError:
        said = None
    told = (said.get("error") or said.get("detail")) if isinstance(said, dict) else said
    return status >= 500 and not told


def events(port: int, name: str, data: Sequence[Any], session: str) -> Iterator[tuple[str, str]]:
    """Call a public endpoint and yield the events of its stream, each with its data as text;
    closing the iterator closes the connection.

    A call that is not accepted yields "status" and its number, with the text of the answer.

    Raises:
        OSError: nothing came in time.
    """
    with connection(port) as app:
        body = json.dumps({"data": data, "session_hash": session})
        app.request("POST", f"/gradio_api/call/{name}", body, JSON)
        answer = app.getresponse()
        text = answer.read().decode("utf-8", "replace")
        if answer.status != 200:
            yield f"status {answer.status}", text
            return
        app.request("GET", f"/gradio_api/call/{name}/{json.loads(text)['event_id']}")
        event = ""
        for line in app.getresponse():
            head, _, value = line.decode().rstrip("\n").partition(": ")
            if head == "event":
                event = value
            elif head == "data":
                yield event, value


def open_page(port: int, session: str) -> HTTPConnection:
    """Open the page of a session; it stays open until the returned connection is closed."""
    heartbeat = HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    heartbeat.request("GET", f"/gradio_api/heartbeat/{session}")
    heartbeat.getresponse()
    return heartbeat
