"""Who has the page open: visitors, their sessions, and how long their data outlives these."""

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable

GRACE = 600.0
"""Seconds for which a visitor's data is kept after their last page was closed."""
SHORT_GRACE = 15.0
"""The same for a program, whose data belongs to its connection."""
_KEY = re.compile(r"[0-9a-f]{64}")


def visitor_of(session: str, key: object = "") -> str:
    """The visitor's name: a hash of the browser's `key`, or of the session where there is no valid
    key, as for programs.

    The name does not reveal the key, which gives access to all data of the visitor.
    """
    identity = f"key {key}" if is_key(key) else f"session {session}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def is_key(key: object) -> bool:
    """Whether it may name a visitor, as the key of a browser does."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


class Visitors:
    """Which visitors are connected, and which have been away for longer than their grace period.
    Thread-safe.
    """

    def __init__(self, grace: float = GRACE, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace, self._clock = grace, clock
        self._until: dict[str, float] = {}
        """When the grace period of a visitor without a connection ends."""
        self._met: set[str] = set()
        """Visitors who have had a connection."""
        self._open: Counter[str] = Counter()
        """Number of open connections by session."""
        self._shows: dict[str, str] = {}
        """The visitor of each session, which is the first one it named."""
        self._lock = threading.Lock()

    def seen(self, visitor: str, session: str = "") -> None:
        """The visitor has made a call, through this session."""
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
        """Whether the visitor has had a connection since they were first seen."""
        with self._lock:
            return visitor in self._met

    def here(self, visitor: str) -> bool:
        """Whether a session of the visitor holds a connection."""
        with self._lock:
            return visitor in self._connected()

    def gone(self) -> list[str]:
        """Visitors whose grace period is over; each is returned once."""
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
        """The visitors of a session: itself as a program, and the one that it has named."""
        return {visitor_of(session), self._shows.get(session, visitor_of(session))}
