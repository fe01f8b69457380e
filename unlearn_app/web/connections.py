"""Which sessions are connected: told to the engine as their connections open and close."""

import re
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

_STREAMS = re.compile(r"/gradio_api/(?:heartbeat/([^/]+)|queue/data|call/[^/]+/([^/]+))/?$")
"""What a page or a program keeps open: the sign that it is there, and the progress of its calls."""


class Connections:
    """ASGI middleware inside the Gradio app, whose blocks name the `visitors` to tell."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, and count it while it lasts."""
        session = session_of(scope)
        if not session:
            await self._app(scope, receive, send)
            return
        visitors = scope["app"].get_blocks().visitors
        visitors.connected(session)
        try:
            await self._app(scope, receive, send)
        finally:
            visitors.disconnected(session)


def session_of(scope: Scope) -> str:
    """The session whose stream is asked for; empty for any other request."""
    found = scope["type"] == "http" and scope["method"] == "GET" and _STREAMS.search(scope["path"])
    if not found:
        return ""
    asked = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])
    return found[1] or found[2] or asked[0]
