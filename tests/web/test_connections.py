"""Connections of sessions are seen as they open and close, and nothing else is."""

from types import SimpleNamespace

import pytest
from asynchronous import complete

from unlearn_app.web.connections import Connections, session_of


def scope(path: str, query: str = "", method: str = "GET", visitors: object = None) -> dict:
    """What a server says of a request."""
    blocks = SimpleNamespace(visitors=visitors)
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "app": SimpleNamespace(get_blocks=lambda: blocks),
    }


@pytest.mark.parametrize(
    ("path", "query", "session"),
    [
        ("/gradio_api/heartbeat/abc", "", "abc"),
        ("/behind/a/proxy/gradio_api/heartbeat/abc", "", "abc"),
        ("/gradio_api/queue/data", "session_hash=abc", "abc"),
        ("/gradio_api/call/unlearn/abc", "", "abc"),
        ("/gradio_api/queue/data", "", ""),
        ("/gradio_api/info", "session_hash=abc", ""),
        ("/", "", ""),
    ],
)
def test_streams_name_their_session(path: str, query: str, session: str) -> None:
    assert session_of(scope(path, query)) == session


def test_what_is_sent_is_no_connection() -> None:
    assert session_of(scope("/gradio_api/call/unlearn/abc", method="POST")) == ""


@pytest.mark.parametrize("error", [None, RuntimeError("the stream broke")])
def test_a_connection_lasts_as_long_as_its_request(error: Exception | None) -> None:
    told: list[str] = []
    visitors = SimpleNamespace(
        connected=lambda session: told.append(f"+{session}"),
        disconnected=lambda session: told.append(f"-{session}"),
    )

    async def app(*_: object) -> None:
        told.append("served")
        if error:
            raise error

    request = scope("/gradio_api/heartbeat/abc", visitors=visitors)
    try:
        complete(Connections(app)(request, None, None))
    except RuntimeError as raised:
        assert raised is error
    assert told == ["+abc", "served", "-abc"]
