"""Filters the HTTP requests to the page by host, origin, route, size and the listener that they
call, and keeps track of which sessions are connected.

Gradio itself answers any host, accepts uploads, and lets anybody call its "private" listeners. The
one file that the page takes comes in through a route of its own, as do votes of a presentation.
"""

import asyncio
import ipaddress
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from inspect import signature
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import gradio as gr
from gradio.block_function import BlockFunction
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..common.errors import UnlearnError

HOSTS = "UNLEARN_HOSTS"
"""The environment variable with names under which the owner serves the page, separated by
commas.
"""
MAX_BODY = 1_000_000
"""Bytes of a request; the longest own prompts take a quarter of it."""
MAX_WAITING = 64
"""Calls that may wait in Gradio's queue, before they are jobs."""
IDLE_SESSIONS, IDLE_SECONDS = 64, 600
"""How many sessions without an open connection keep their state, and for how long. Gradio would
keep 10,000 of them forever, 330 kB each.
"""
SEEN_SESSIONS, PATIENCE = 10_000, 2.0
"""How many sessions are remembered to have connected, and how many seconds a call waits for its
page to connect.
"""
SAFE = ("GET", "HEAD", "OPTIONS")
ROUTES = re.compile(
    r"/gradio_api/(?:(?P<call>queue/join|(?:run|api|call|call/v2)/(?P<name>[^/]+))"
    r"|cancel|reset|mcp(?:/.*)?)/?$"
)
"""The routes that accept methods outside of `SAFE`: calls of listeners, their cancellation, and MCP
tools, which Gradio serves only if the owner enables them. Its other routes upload, log in or edit.
"""
MCP = re.compile(r"/gradio_api/mcp(?:/.*)?$")
UPLOAD = "/gradio_api/send_adapter"
"""The route that takes a file as the whole body of a request, with `name` in its query and the key
of the browser in a header.
"""
KEY = "x-unlearn-key"
CALL = "x-unlearn-call"
"""The header that names a call of an MCP tool to its listener. Gradio makes all of these calls in
one session of its own; the name is ours, and lasts as long as the connection of the client.
"""
VOTES_AT = "/vote"
"""Below it are the rounds of `ballots.py`."""
VOTE = re.compile(VOTES_AT + r"/[a-z0-9]{1,16}$")
MAX_VOTE = 200
"""Bytes of a vote."""
CLOSED = re.compile(r"/gradio_api/(?:deep_link|upload_progress|stream/|proxy=|file[=/]https?:)")
"""Routes that are closed to safe methods too: they write files, fetch from other sites, or serve
components that this page does not have.
"""
STREAM = re.compile(
    r"/gradio_api/(?:heartbeat/(?P<page>[^/]+)|queue/data|call/(?:v2/)?[^/]+/(?P<event>[^/]+))/?$"
)
"""The streams that a page or a program keeps open: its heartbeat, and the answers to all calls of
its session or to one call.
"""
FILE = b'"_type": "gradio.FileData"'
"""What marks a file in the body of a call. Gradio opens such files before any listener runs."""
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)


class Boundary:
    """ASGI middleware in the Gradio app. It refuses requests that the page never sends, and tells
    `blocks.visitors` which sessions are connected.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: Counter[str] = Counter()
        """Open connections by session."""
        self._seen: dict[str, None] = {}
        """Sessions that have had a connection, the latest last, as an ordered set."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or answer with an error message."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        blocks, session = scope["app"].get_blocks(), ""
        try:
            check_site(scope, blocks)
            if scope["method"] in SAFE:
                check_safe(scope, blocks)
            elif scope["method"] == "POST" and scope["path"].endswith(UPLOAD):
                said = {"file": await _received(Request(scope, receive), blocks)}
                await JSONResponse(said)(scope, receive, send)
                return
            elif scope["method"] == "POST" and VOTE.search(scope["path"]):
                receive = _again(await _body(Request(scope, receive), MAX_VOTE), receive)
            else:
                receive = await self._checked(scope, receive, blocks)
                if MCP.search(scope["path"]):
                    session = uuid4().hex
            scope = self._named(scope, session)
        except HTTPException as error:
            message = {"detail": error.detail, "error": error.detail}
            await JSONResponse(message, error.status_code)(scope, receive, send)
            return
        with self._connected(session or called_session(scope, blocks), blocks):
            await self._app(scope, receive, send)

    @contextmanager
    def _connected(self, session: str, blocks: gr.Blocks) -> Iterator[None]:
        """Count a connection of the session while the block runs; "" is no session."""
        if not session:
            yield
            return
        self._open[session] += 1
        self._seen.pop(session, None)
        self._seen[session] = None
        if len(self._seen) > SEEN_SESSIONS:
            del self._seen[next(iter(self._seen))]
        blocks.visitors.connected(session)
        try:
            yield
        finally:
            blocks.visitors.disconnected(session)
            self._open[session] -= 1
            self._open = +self._open  # drops the zeros
            drop_idle_sessions(blocks, self._open)

    def _named(self, scope: Scope, call: str) -> Scope:
        """The request with the name of the MCP `call` that it is, in place of one that the client
        gave; "" is none, and leaves the name of a call that goes on, which Gradio passes along.
        """
        name, own = CALL.encode(), scope["headers"]
        known = [] if call else [one.encode() for one in self._open]
        kept = [(key, value) for key, value in own if key.lower() != name or value in known]
        return {**scope, "headers": [*kept, (name, call.encode())] if call else kept}

    async def _checked(self, scope: Scope, receive: Receive, blocks: gr.Blocks) -> Receive:
        """Check a request whose method is not safe, and return what the app may receive of it."""
        path = scope["path"]
        route = ROUTES.search(path)
        if not route:
            raise HTTPException(
                404, f"Nothing is sent to {path[:80]!r}; the page takes no uploads there."
            )
        body = await _body(Request(scope, receive))
        if route["call"]:
            asked = _json(body)
            body = json.dumps(asked).encode()  # the app must parse it exactly as checked here
            if FILE in body:
                raise HTTPException(422, "Files are not accepted; nothing here takes one.")
            if asked.get("session_hash") is not None:
                _check_session(asked["session_hash"])
            listener = called_listener(route, asked, blocks)
            in_browser = "origin" in Headers(scope=scope)
            if not is_public(listener) and not (in_browser and await self._has_page(asked)):
                raise HTTPException(404, _for_programs(blocks))
            check_call(route, asked, listener, blocks)
            drop_idle_sessions(blocks, self._open)
        return _again(body, receive)

    async def _has_page(self, asked: Mapping[str, Any]) -> bool:
        """Whether the session of a call has connected; a page may make its first call just before
        that.
        """
        session, deadline = asked.get("session_hash"), time.monotonic() + PATIENCE
        while session not in self._open and session not in self._seen:
            if session is None or time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True


def check_site(scope: Scope, blocks: gr.Blocks) -> None:
    """Refuse a request for another host, or from another site's page.

    Any site's page can send requests to 127.0.0.1; DNS rebinding even makes them look like this
    page's own. Programs send no origin.

    Raises:
        HTTPException: the request is refused.
    """
    headers, known = Headers(scope=scope), _served_names(blocks)
    host = _hostname("//" + headers.get("host", ""))
    here = _address((scope["server"] or ("",))[0])  # of this machine, on this connection
    if not (is_loopback(host) or host in known or (here and _address(host) == here)):
        raise HTTPException(
            403,
            f"The host {host!r} is not served here; localhost, the address of this server and names"
            f" in {HOSTS} are accepted.",
        )
    origin = headers.get("origin")
    if scope["method"] in SAFE or origin is None:
        return
    site = _hostname(origin) if origin.startswith(("http://", "https://")) else ""
    if not (is_loopback(site) or site in known or site == host):
        raise HTTPException(
            403,
            f"Requests from {origin!r} are not accepted; those of the page itself and of names in"
            f" {HOSTS} are.",
        )


def _served_names(blocks: gr.Blocks) -> set[str]:
    """Host names that the owner or the platform gave to the page."""
    listed = [os.environ.get("SPACE_HOST", ""), os.environ.get(HOSTS, "")]
    names = [name for names in listed for name in names.split(",") if name.strip()]
    names += [getattr(blocks, "server_name", None) or "", blocks.root_path or ""]
    return {_hostname(name if "//" in name else f"//{name.strip()}") for name in names} - {""}


def _hostname(url: str) -> str:
    """The host of a URL without its port, in lower case; "" if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host of that name."""
    return host == "localhost" or (_address(host) is not None and _address(host).is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def check_safe(scope: Scope, blocks: gr.Blocks) -> None:
    """Refuse a closed route, and a stream without a valid session or without a call to answer.

    Raises:
        HTTPException: the request is refused.
    """
    if CLOSED.search(scope["path"]):
        raise HTTPException(404, f"Nothing is served at {scope['path'][:80]!r}.")
    stream = STREAM.search(scope["path"])
    if not stream:
        return
    session = session_of(scope)
    _check_session(session)
    if stream["page"]:
        return
    if called_session(scope, blocks) not in blocks._queue.pending_messages_per_session:
        raise HTTPException(404, "There is no answer, because no such call was made.")


def session_of(scope: Scope) -> str:
    """The session whose stream is read, or the call if that of one call is; "" for any other
    request.
    """
    found = scope["method"] in SAFE and STREAM.search(scope["path"])
    if not found:
        return ""
    asked = HTTPConnection(scope).query_params.get("session_hash", "")
    return found["page"] or found["event"] or asked


def called_session(scope: Scope, blocks: gr.Blocks) -> str:
    """The session whose stream is read, also where the request names one of its calls; a call that
    was made without a session is its own. "" for any other request.
    """
    named = session_of(scope)
    calls = blocks._queue.pending_event_ids_session.items() if named else ()
    return next((session for session, events in calls if named in events), named)


def _check_session(session: Any) -> None:
    if not (isinstance(session, str) and SESSION.fullmatch(session)):
        raise HTTPException(
            400, "The session_hash is not one; 1 to 64 letters and digits are accepted."
        )


def called_listener(
    route: re.Match[str], asked: Mapping[str, Any], blocks: gr.Blocks
) -> BlockFunction:
    """The listener that is called: a public one by name, or any by number.

    Raises:
        HTTPException: there is none that may be called like this.
    """
    number = asked.get("fn_index")
    direct = route["call"].startswith(("run/", "api/"))
    if route["name"] and not (direct and number is not None):
        found = [fn for fn in blocks.fns.values() if fn.api_name == route["name"] and is_public(fn)]
    else:
        found = [fn for fn in blocks.fns.values() if type(number) is int and fn._id == number]
    # A queued listener starts a job; without the queue nobody would follow that.
    if not found or (direct and found[0].queue):
        raise HTTPException(404, _for_programs(blocks))
    return found[0]


def check_call(
    route: re.Match[str], asked: Mapping[str, Any], listener: BlockFunction, blocks: gr.Blocks
) -> None:
    """Refuse a call of `listener` with too few values or unknown names, or while the queue is full.

    Raises:
        HTTPException: the call is refused.
    """
    if route["call"].startswith("call/v2/"):
        parameters = signature(listener.fn).parameters.values()
        taken = {item.name: item for item in parameters if item.annotation is not gr.Request}
        needed = {name for name, item in taken.items() if item.default is item.empty}
        if not needed <= asked.keys() <= taken.keys():
            raise HTTPException(422, f"The names are not accepted; {', '.join(taken)} are.")
    else:
        given, wanted = asked.get("data"), len(listener.inputs)
        if not isinstance(given, list) or len(given) < wanted:
            raise HTTPException(422, f"The data are not accepted; a list of {wanted} values is.")
    if listener.queue and len(blocks._queue) >= MAX_WAITING:
        raise HTTPException(
            503, f"{MAX_WAITING} calls are waiting already; try again in a few minutes."
        )


def is_public(listener: BlockFunction) -> bool:
    """Whether programs may call a listener of the page."""
    return listener.api_visibility == "public"


def _for_programs(blocks: gr.Blocks) -> str:
    names = [f"/{fn.api_name}" for fn in blocks.fns.values() if is_public(fn)]
    return f"Programs cannot call this; {' and '.join(names)} are for them, through the queue."


def drop_idle_sessions(blocks: gr.Blocks, connected: Iterable[str]) -> None:
    """Drop Gradio's state of idle sessions, which are not `connected` and have no call running,
    except for the latest ones of the last minutes.
    """
    states, queue = blocks.state_holder, blocks._queue
    busy = {*connected, *(event.session_hash for event in queue.event_ids_to_events.values())}
    since = datetime.now() - timedelta(seconds=IDLE_SECONDS)
    last_used = [(s, used) for s, used in states.time_last_used.items() if s not in busy]
    idle = [s for s, used in sorted(last_used, key=itemgetter(1)) if used > since]
    kept = busy.union(idle[-IDLE_SESSIONS:])
    for held in (
        states.session_data,
        states.time_last_used,
        queue.pending_event_ids_session,
        queue.pending_messages_per_session,
    ):
        for session in held.keys() - kept:
            held.pop(session, None)


def is_owner(request: gr.Request) -> bool:
    """Whether the page's owner asks: from this machine, under a loopback name, and where no proxy
    or name of the page says that others come in the same way.
    """
    passed_on = {"x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip", "via"}
    served = any(os.environ.get(name, "").strip() for name in (HOSTS, "SPACE_HOST", "SPACE_ID"))
    if served or passed_on & {name.lower() for name in request.headers.keys()}:  # noqa: SIM118
        return False
    here = getattr(request.client, "host", "")
    return is_loopback(here) and is_loopback(_hostname("//" + request.headers.get("host", "")))


async def _received(request: Request, blocks: gr.Blocks) -> str:
    """Store the file that is the body of a request, and return its token.

    Raises:
        HTTPException: it is not taken.
    """
    try:
        name, key = request.query_params.get("name", ""), request.headers.get(KEY, "")
        return await blocks.receive(key, name, request.stream())
    except ClientDisconnect:
        raise HTTPException(400, "The file ended early.") from None
    except UnlearnError as error:
        raise HTTPException(422, str(error)) from error


def visitor_address(request: gr.Request) -> str:
    """The address of a visitor as the proxy of a Space reports it, for IPv6 its /64 network; ""
    outside of Spaces, where many share an address and anybody can claim another.
    """
    named = request.headers.getlist("x-forwarded-for") if os.environ.get("SPACE_HOST") else []
    # Proxies append to what the visitor claims, so the last global address is the true one.
    for text in reversed(",".join(named).split(",")):
        found = _address(text.strip())
        if found and found.is_global:
            return str(found if found.version == 4 else ipaddress.ip_network((found, 64), False))
    return ""


async def _body(request: Request, most: int = MAX_BODY) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise HTTPException(
                    413, f"The request is too long; at most {most:,} bytes are accepted."
                )
    except ClientDisconnect:
        raise HTTPException(400, "The request ended early.") from None
    return bytes(body)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "The body is not accepted; a JSON object is.")
    return found


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns `body`, which was read already, and then what follows."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
