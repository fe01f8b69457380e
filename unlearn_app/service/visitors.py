"""Who has the page open: visitors, the sessions through which they look at it, and how long they
may be away.
"""

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable

GRACE = 600.0
"""Seconds for which a visitor's things are kept once no page of theirs is open."""
SHORT_GRACE = 15.0
"""The same for a program, which belongs to its connection."""
_KEY = re.compile(r"[0-9a-f]{64}")


def visitor_of(session: str, key: object = "") -> str:
    """The name of whoever asks: of the browser that keeps `key`, or of the session itself where
    there is no proper key, as with programs.

    The name does not tell the key, which opens everything that its visitor has.
    """
    proper = isinstance(key, str) and _KEY.fullmatch(key)
    told = f"key {key}" if proper else f"session {session}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


class Visitors:
    """Who is here. A visitor is here while one of their sessions holds a connection, and for a
    while after that; any thread may tell and ask.
    """

    def __init__(self, grace: float = GRACE, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace, self._clock = grace, clock
        self._until: dict[str, float] = {}
        """When a visitor without a connection is gone."""
        self._met: set[str] = set()
        """Visitors who have had a connection."""
        self._open: Counter[str] = Counter()
        """Connections by session."""
        self._shows: dict[str, str] = {}
        """The visitor that a session belongs to, which is the first one it named."""
        self._lock = threading.Lock()

    def seen(self, visitor: str, session: str = "") -> None:
        """The visitor has asked for something, through this session."""
        with self._lock:
            self._until[visitor] = self._clock() + self._grace
            if not session:
                return
            own = self._shows.setdefault(session, visitor) == visitor
            if own and session in self._open:
                self._met.add(visitor)

    def connected(self, session: str) -> None:
        """A connection of the session has opened."""
        with self._lock:
            self._open[session] += 1
            for visitor in self._of(session):
                self._met.add(visitor)
                self._until.setdefault(visitor, self._clock() + SHORT_GRACE)

    def disconnected(self, session: str) -> None:
        """A connection of the session has closed."""
        with self._lock:
            self._open[session] -= 1
            if self._open[session] > 0:
                return
            del self._open[session]
            named = self._shows.pop(session, None)
            self._until[visitor_of(session)] = self._clock() + SHORT_GRACE
            if named and named != visitor_of(session):
                self._until[named] = self._clock() + self._grace

    def met(self, visitor: str) -> bool:
        """Whether the visitor has had a connection since they first asked for something."""
        with self._lock:
            return visitor in self._met

    def here(self, visitor: str) -> bool:
        """Whether a session of the visitor holds a connection."""
        with self._lock:
            return visitor in self._connected()

    def gone(self) -> list[str]:
        """Visitors who have been away for too long; each is told once."""
        with self._lock:
            here = self._connected()
            now = self._clock()
            late = {v for v, until in self._until.items() if until <= now and v not in here}
            for visitor in late:
                del self._until[visitor]
            self._met -= late
            if late:
                self._shows = {s: v for s, v in self._shows.items() if v not in late}
            return sorted(late)

    def _connected(self) -> set[str]:
        return {visitor for session in self._open for visitor in self._of(session)}

    def _of(self, session: str) -> set[str]:
        """The session as a program, and the visitor that it has named."""
        return {visitor_of(session), self._shows.get(session, visitor_of(session))}
