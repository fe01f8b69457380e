"""What visitors request from the engine, the jobs for it, and the folders of finished runs."""

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..settings import groups
from ..settings.cost import attacks_cost, check_cost, request_cost, run_cost
from ..settings.events import AttackCheckpoint, Event, Images, Preview, Step
from ..settings.run_config import RunConfig
from .pace import Schedule


@dataclass(frozen=True)
class LedgerRequest:
    """One more concept to forget for a visitor's ledger, which holds `earlier` requests. Without a
    ledger, one is created with the settings `plan`.
    """

    config: RunConfig
    plan: "groups.SequenceConfig"
    earlier: int = 0


@dataclass(frozen=True)
class AttackRequest:
    """Attacks of these kinds on the finished run in `folder`, which had the settings `config`."""

    folder: Path
    config: RunConfig
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class AuditRequest:
    """An audit of what others published, an adapter file that the visitor sent in or, for the owner
    of the page, whatever `source` names. A file that was `sent` is deleted when the job is over.
    """

    config: RunConfig
    source: str
    kinds: tuple[str, ...]
    sent: bool = True


JobRequest = RunConfig | LedgerRequest | AttackRequest | AuditRequest


def check_request(request: JobRequest) -> None:
    """Refuse a request that would block the queue for too long.

    Raises:
        ConfigError: it costs more than the page accepts.
    """
    if isinstance(request, RunConfig):
        check_cost(run_cost(request), "run")
    elif isinstance(request, LedgerRequest):
        cost = request_cost(request.config, request.plan, request.earlier)
        check_cost(cost, "continual add")
    elif isinstance(request, AuditRequest):
        cost = run_cost(request.config) + attacks_cost(request.config, request.kinds)
        check_cost(cost, "audit")
    else:
        check_cost(attacks_cost(request.config, request.kinds), "attack")


@dataclass(eq=False)
class Job:
    """One request of a visitor and all of its events, which any thread may read.

    `cancel` asks it to end; `abandoned` says that its visitor has left. `address` is the visitor's
    network address, empty if unknown. `asked` is when it was submitted, on the engine's clock, and
    `begun` when its work began, by `time.monotonic`: None while it waits. Once it is `over`, no
    event follows.
    """

    request: JobRequest
    folder: Path
    visitor: str
    address: str = ""
    asked: float = 0.0
    begun: float | None = None
    schedule: Schedule | None = None
    """How far a run has come; None before it begins, and for other requests."""
    abandoned: bool = False
    over: bool = False
    error: str = ""
    cancel: threading.Event = field(default_factory=threading.Event)
    _events: list[Event] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def config(self) -> RunConfig:
        """The settings of the run, of the request, or of the run under attack."""
        return self.request if isinstance(self.request, RunConfig) else self.request.config

    def add(self, event: Event) -> None:
        """Add an event."""
        with self._changed:
            if self.schedule:
                self.schedule.apply(event)
            self._events.append(event)
            self._changed.notify_all()

    def end(self, error: str = "") -> None:
        """Mark the job as over; `error` is the message to show, if any."""
        with self._changed:
            self.error = error
            self.over = True
            self._changed.notify_all()

    def take(self, timeout: float, start: int = 0) -> list[Event]:
        """The events from number `start` on; waits up to `timeout` seconds for the first one."""
        with self._changed:
            self._changed.wait_for(lambda: self.over or len(self._events) > start, timeout)
            return self._events[start:]

    @property
    def has_result(self) -> bool:
        """Whether it has made anything worth keeping."""
        kinds = Step | Preview | Images | AttackCheckpoint
        return any(isinstance(event, kinds) for event in self.take(0.0))


@dataclass(frozen=True)
class KeptRun:
    """A finished run of a visitor, with its settings and when it was asked for."""

    folder: Path
    config: RunConfig
    visitor: str
    asked: float

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.folder.name


class RunStore:
    """Finished runs: at most `count` of them and `size` bytes together, `own_count` and `own_size`
    of each visitor.

    A visitor over their own limits loses their least recently used runs. Over the limits for all,
    the visitor with most loses, among those who are not `here` if there are any: a client that uses
    a new name for every run must not push out visitors who have the page open. `delete` removes a
    folder, and `measure` returns its bytes.
    """

    def __init__(
        self,
        count: int,
        size: int,
        own_count: int,
        own_size: int,
        delete: Callable[[Path], None],
        here: Callable[[str], bool],
        measure: Callable[[Path], int],
    ) -> None:
        self._count, self._size = count, size
        self._own_count, self._own_size = own_count, own_size
        self._delete, self._here, self._measure = delete, here, measure
        self._runs: OrderedDict[str, KeptRun] = OrderedDict()
        """The least recently used first."""
        self._lock = threading.RLock()

    def add(self, job: Job) -> None:
        """Keep the folder of a finished job."""
        with self._lock:
            self._runs[job.id] = KeptRun(job.folder, job.config, job.visitor, job.asked)
            self.trim()

    def trim(self) -> None:
        """Delete runs beyond the limits. A visitor's own limits never cost them their last run, and
        the last run of all is never deleted.
        """
        with self._lock:
            sizes = {run_id: self._measure(run.folder) for run_id, run in self._runs.items()}
            while lost := self._surplus(sizes):
                del sizes[lost]
                self._delete(self._runs.pop(lost).folder)

    def _surplus(self, sizes: dict[str, int]) -> str | None:
        """The run to delete next; None within the limits."""
        held: Counter[str] = Counter()
        space: Counter[str] = Counter()
        for run_id, size in sizes.items():
            held[self._runs[run_id].visitor] += 1
            space[self._runs[run_id].visitor] += size
        over = {v for v in held if held[v] > self._own_count or space[v] > self._own_size}
        losing = {v for v in over if held[v] > 1}
        if not losing and len(sizes) > 1:
            if held.total() > self._count:
                losing = self._first_to_lose(held)
            elif space.total() > self._size:
                losing = self._first_to_lose(space)
        return next((run_id for run_id in sizes if self._runs[run_id].visitor in losing), None)

    def _first_to_lose(self, holdings: Counter[str]) -> set[str]:
        """The visitors who hold most among those who are not here, or else among all."""
        away = {v: amount for v, amount in holdings.items() if not self._here(v)}
        among = away or holdings
        return {visitor for visitor in among if among[visitor] == max(among.values())}

    def get(self, run_id: str | None, visitor: str) -> Path | None:
        """The folder of a visitor's own run, None if it is gone or another's; marks it as used."""
        with self._lock:
            run = self._runs.get(run_id)
            if run is None or run.visitor != visitor:
                return None
            self._runs.move_to_end(run_id)
            return run.folder

    def of(self, visitor: str) -> list[KeptRun]:
        """A visitor's finished runs, in the order they were asked for."""
        with self._lock:
            own = [run for run in self._runs.values() if run.visitor == visitor]
        return sorted(own, key=lambda run: run.asked)

    def drop(self, run_id: str, visitor: str) -> bool:
        """Delete a visitor's own run; False if it is gone already or another's."""
        with self._lock:
            folder = self.get(run_id, visitor)
            if folder is None:
                return False
            del self._runs[run_id]
        self._delete(folder)
        return True


def folder_size(folder: Path) -> int:
    """The bytes of all files in a folder, which may change meanwhile; what cannot be read counts
    nothing.
    """
    total = 0
    for parent, _, names in os.walk(folder):  # unlike `rglob`, it passes over unreadable folders
        for name in names:
            with suppress(OSError):
                total += Path(parent, name).lstat().st_size
    return total
