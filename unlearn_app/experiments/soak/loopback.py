"""Plain requests to the app, as a program sends them that is no browser and follows no rules."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

JSON = {"Content-Type": "application/json"}
HANG_S = 20.0
"""Seconds without an answer after which a request hangs."""


def asked(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    size: int = 1_000_000,
) -> tuple[int, bytes]:
    """The status and the first `size` bytes of an answer.

    Raises:
        OSError: none came in time.
    """
    with closing(HTTPConnection("127.0.0.1", port, timeout=HANG_S)) as connection:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        streams = answer.headers.get_content_type() == "text/event-stream"
        return answer.status, b"" if streams else answer.read(size)


def without_sentence(status: int, answer: bytes | str) -> bool:
    """Whether an answer tells of a failure of the app and does not say which."""
    try:
        said = json.loads(answer)
    except ValueError:
        said = None
    told = (said.get("error") or said.get("detail")) if isinstance(said, dict) else said
    return status >= 500 and not told


def events(port: int, name: str, data: Sequence[Any], session: str) -> Iterator[tuple[str, str]]:
    """Call a public endpoint and yield the events of its stream with their data, as they stand in
    it; leaving closes the connection.

    A call that is not taken is yielded as "status" and its number, with the text.

    Raises:
        OSError: nothing came in time.
    """
    with closing(HTTPConnection("127.0.0.1", port, timeout=HANG_S)) as connection:
        body = json.dumps({"data": data, "session_hash": session})
        connection.request("POST", f"/gradio_api/call/{name}", body, JSON)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        if answer.status != 200:
            yield f"status {answer.status}", text
            return
        connection.request("GET", f"/gradio_api/call/{name}/{json.loads(text)['event_id']}")
        event = ""
        for line in connection.getresponse():
            head, _, value = line.decode().rstrip("\n").partition(": ")
            if head == "event":
                event = value
            elif head == "data":
                yield event, value


@contextmanager
def connected(port: int, session: str) -> Iterator[None]:
    """Be a session whose page is open."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=HANG_S)) as connection:
        connection.request("GET", f"/gradio_api/heartbeat/{session}")
        connection.getresponse()
        yield
