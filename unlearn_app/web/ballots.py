"""Blind rounds of a presentation: a page begins a round, phones on its network vote on a tiny page
of their own, and the page that began it reveals which picture was which.
"""

import re
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import segno
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ..common.errors import UnlearnError
from ..service.engine import Engine
from ..service.visitors import Visitors
from .boundary import VOTES_AT, is_loopback
from .following import QUIET, visitor_of
from .html import alert, render

MAX_ROUNDS, MAX_VOTES, LASTS = 64, 500, 3600.0
"""Rounds at a time, votes in one of them, and the seconds that a round is kept."""
MOST_PICTURES = 4
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""What codes are made of: nothing that is read as something else."""
VOTER = re.compile(r"[0-9a-f]{64}")
NOT_SERVED = "Start the app with HOST=0.0.0.0, and phones on this network can vote too."
START = """element.addEventListener("u-round", (event) => {
  trigger("select", { value: event.detail });
});"""
"""Tells the server what `blind.js` asks for."""
CLOSED = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
VOTE_PAGE = Path(__file__).with_name("vote.html")


class BallotError(UnlearnError):
    """A round or a vote that is not taken; the message says what is."""


@dataclass
class Round:
    """The votes of one round; `answer` is the right picture once it was revealed."""

    owner: str
    pictures: int
    ends: float
    votes: dict[str, int] = field(default_factory=dict)
    """The picture that each browser has chosen, by its key."""
    answer: int | None = None

    def said(self) -> dict[str, Any]:
        """What everybody may know: until it was revealed, only how many have voted."""
        known: dict[str, Any] = {"pictures": self.pictures, "votes": len(self.votes)}
        if self.answer is not None:
            counts = Counter(self.votes.values())
            known |= {"answer": self.answer, "counts": [counts[n] for n in range(self.pictures)]}
        return known


class Ballots:
    """All rounds by their code, at most one of each of the `visitors`. Thread-safe."""

    def __init__(self, visitors: Visitors, clock: Callable[[], float] = time.monotonic) -> None:
        self._visitors, self._clock = visitors, clock
        self._rounds, self._lock = dict[str, Round](), threading.Lock()

    def begin(self, visitor: str, pictures: object) -> str:
        """Begin a round of the visitor, which ends an earlier one; returns its code. Where there
        are too many, it ends those of visitors who are not here.

        Raises:
            BallotError: the number is none, the visitor has no page, or too many who are here have
            a round.
        """
        if type(pictures) is not int or not 2 <= pictures <= MOST_PICTURES:
            raise BallotError(
                f"A round has {pictures!r:.20} pictures; 2 to {MOST_PICTURES} are accepted."
            )
        if not self._visitors.met(visitor):
            raise BallotError("A round begins on an open page; reload this one and try again.")
        with self._lock:
            now = self._clock()
            self._rounds = {
                code: one
                for code, one in self._rounds.items()
                if one.ends > now and one.owner != visitor
            }
            if len(self._rounds) >= MAX_ROUNDS:
                here = self._visitors.here
                self._rounds = {c: one for c, one in self._rounds.items() if here(one.owner)}
            if len(self._rounds) >= MAX_ROUNDS:
                raise BallotError(
                    f"{MAX_ROUNDS} rounds are open already; try again in a few minutes."
                )
            code = "".join(secrets.choice(LETTERS) for _ in range(6))
            self._rounds[code] = Round(visitor, pictures, now + LASTS)
            return code

    def vote(self, code: str, key: object, picture: object) -> dict[str, Any]:
        """Take the vote of the browser that keeps `key`, in place of an earlier one.

        Raises:
            BallotError: there is no such round or picture, it is revealed, or nobody can be added.
        """
        with self._lock:
            found = self._find(code)
            if not isinstance(key, str) or not VOTER.fullmatch(key):
                raise BallotError("The key is not one; 64 hexadecimal digits are accepted.")
            if type(picture) is not int or not 0 <= picture < found.pictures:
                raise BallotError(
                    f"The picture is {picture!r:.20}; 0 to {found.pictures - 1} are accepted."
                )
            if found.answer is not None:
                raise BallotError("It is revealed; the next round takes votes again.")
            if key not in found.votes and len(found.votes) >= MAX_VOTES:
                raise BallotError(f"{MAX_VOTES} votes are accepted; all of them are in.")
            found.votes[key] = picture
            return found.said()

    def reveal(self, code: str, visitor: str, answer: object) -> dict[str, Any]:
        """End the voting of the visitor's own round.

        Raises:
            BallotError: this is no round of the visitor's, or no picture of it.
        """
        with self._lock:
            found = self._find(code)
            if (
                found.owner != visitor
                or type(answer) is not int
                or answer not in range(found.pictures)
            ):
                raise BallotError(
                    "This is no round of yours; only the page that began a round can reveal it."
                )
            found.answer = answer
            return found.said()

    def said(self, code: str) -> dict[str, Any]:
        """What everybody may know of the round.

        Raises:
            BallotError: there is none.
        """
        with self._lock:
            return self._find(code).said()

    def _find(self, code: str) -> Round:
        found = self._rounds.get(code)
        if found is None or found.ends <= self._clock():
            raise BallotError("This round is over; the next one has a new code.")
        return found


class BlindRounds:
    """The listener of a presentation that begins and reveals rounds."""

    def __init__(self, engine: Engine, demo: gr.Blocks, key: gr.BrowserState) -> None:
        self._engine, self._demo, self._ballots = engine, demo, Ballots(engine.visitors)
        demo.ballots = self._ballots
        self.said = gr.HTML(render("round", said={}), elem_id="round", js_on_load=START)
        self.said.select(self.answer, key, self.said, **QUIET)

    def answer(self, request: gr.Request, key: str, event: gr.EventData) -> str:
        """Begin or reveal a round, as the browser asks."""
        value = event._data.get("value") if isinstance(event._data, dict) else None
        asked: Mapping[str, Any] = value if isinstance(value, dict) else {}
        visitor = visitor_of(self._engine, request, key)
        try:
            if "answer" in asked:
                code = str(asked.get("code"))
                said = self._ballots.reveal(code, visitor, asked["answer"])
                return render("round", said=said | {"code": code})
            code = self._ballots.begin(visitor, asked.get("pictures"))
        except BallotError as error:
            return alert(str(error))
        url = vote_address(request, self._demo, code)
        way = {"url": url, "qr": _qr(url) if url else "", "why": "" if url else NOT_SERVED}
        return render("round", said=self._ballots.said(code) | way | {"code": code})


def _qr(url: str) -> str:
    """The address as a picture that phones read, as a data URL."""
    return segno.make(url, error="m").svg_data_uri(scale=8, border=3, light="white")


def vote_address(request: gr.Request, demo: gr.Blocks, code: str) -> str:
    """Where phones vote: under the name by which the page was opened or, if only this machine knows
    that, under its address in the network; "" where the page is served to this machine alone.
    """
    origin = request.headers.get("origin") or ""
    if not is_loopback(urlsplit(origin).hostname or "localhost"):
        return f"{origin}/vote/{code}"
    host = str(getattr(demo, "server_name", None) or "")
    if host in ("0.0.0.0", "::"):
        host = _own_address()
    if not host or is_loopback(host):
        return ""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{demo.server_port}/vote/{code}"


def _own_address() -> str:
    """This machine's address in its network, "" if it is in none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but chooses the way out
        except OSError:
            return ""
        return str(probe.getsockname()[0])


async def _page(_: Request) -> Response:
    return HTMLResponse(VOTE_PAGE.read_text(encoding="utf-8"), headers=CLOSED)


async def _count(request: Request) -> Response:
    return _answered(request, lambda ballots, code: ballots.said(code))


async def _vote(request: Request) -> Response:
    try:
        asked = await request.json()
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise HTTPException(400, "The body is not accepted; a JSON object is.")
    return _answered(
        request, lambda ballots, code: ballots.vote(code, asked.get("key"), asked.get("picture"))
    )


def _answered(request: Request, ask: Callable[[Ballots, str], dict[str, Any]]) -> Response:
    ballots = request.app.get_blocks().ballots
    try:
        said = ask(ballots, request.path_params["code"])
    except BallotError as error:
        return JSONResponse({"detail": str(error)}, 409, headers=CLOSED)
    return JSONResponse(said, headers=CLOSED)


ROUTES = [
    Route(f"{VOTES_AT}/{{code}}", _page, methods=["GET"]),
    Route(f"{VOTES_AT}/{{code}}", _vote, methods=["POST"]),
    Route(f"{VOTES_AT}/{{code}}/count", _count, methods=["GET"]),
]
"""What phones reach of the rounds; the boundary lets a vote pass and checks its size."""
