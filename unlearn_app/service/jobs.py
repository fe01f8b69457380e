"""What visitors ask the engine for, the jobs that come of it, and the folders of finished runs."""

import queue
import shutil
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..settings import groups
from ..settings.cost import attacks_cost, check_cost, request_cost, run_cost
from ..settings.events import Event
from ..settings.run_config import RunConfig


@dataclass(frozen=True)
class LedgerRequest:
    """One more concept to forget for a visitor's ledger, which `plan` begins when there is none and
    which holds `earlier` requests.
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


JobRequest = RunConfig | LedgerRequest | AttackRequest


def check_request(request: JobRequest) -> None:
    """Refuse what would keep everybody else waiting.

    Raises:
        ConfigError: it costs more than the page accepts.
    """
    if isinstance(request, RunConfig):
        check_cost(run_cost(request), "run")
    elif isinstance(request, LedgerRequest):
        cost = request_cost(request.config, request.plan, request.earlier)
        check_cost(cost, "continual add")
    else:
        check_cost(attacks_cost(request.config, request.kinds), "attack")


class Job:
    """What one visitor asked for, with its events, which any thread may read.

    `cancel` asks it to end; `abandoned` says that its visitor has left. `address` is the visitor's,
    empty where nobody trusted names it.
    """

    def __init__(self, request: JobRequest, folder: Path, session: str, address: str = "") -> None:
        self.id = folder.name
        self.request = request
        self.folder = folder
        self.session = session
        self.address = address
        self.asked = time.monotonic()
        self.cancel = threading.Event()
        self.abandoned = False
        self.error = ""
        self._ended = threading.Event()
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    @property
    def config(self) -> RunConfig:
        """The settings of the run, of the request, or of the run under attack."""
        return self.request if isinstance(self.request, RunConfig) else self.request.config

    def end(self, error: str = "") -> None:
        """No event follows; `error` is the sentence to show, if any."""
        self.error = error
        self._ended.set()

    def take(self, timeout: float) -> list[Event]:
        """All events at hand, waiting at most `timeout` seconds for the first."""
        deadline = time.monotonic() + timeout
        while self.events.empty() and not self.over and time.monotonic() < deadline:
            self._ended.wait(0.02)
        events: list[Event] = []
        while not self.events.empty():
            events.append(self.events.get())
        return events

    @property
    def over(self) -> bool:
        """It has ended and every event was taken."""
        return self._ended.is_set() and self.events.empty()


class RunStore:
    """Finished runs of all visitors, at most `count` of them and `size` bytes together; the least
    recently used go first.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._runs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.RLock()

    def add(self, job: Job) -> None:
        """Keep the folder of a finished job."""
        with self._lock:
            self._runs[job.id] = job
            self.trim()

    def trim(self) -> None:
        """Delete runs beyond the caps, but never the last one."""
        with self._lock:
            sizes = {run_id: _size(job.folder) for run_id, job in self._runs.items()}
            while len(sizes) > 1 and (len(sizes) > self._count or sum(sizes.values()) > self._size):
                run_id, job = self._runs.popitem(last=False)
                del sizes[run_id]
                shutil.rmtree(job.folder, ignore_errors=True)

    def get(self, run_id: str, session: str) -> Path | None:
        """The folder of a visitor's own run, or None when it is gone or another's."""
        with self._lock:
            job = self._runs.get(run_id)
            if job is None or job.session != session:
                return None
            self._runs.move_to_end(run_id)
            return job.folder

    def of(self, session: str) -> list[Job]:
        """A visitor's finished runs, in the order they were asked for."""
        with self._lock:
            own = [job for job in self._runs.values() if job.session == session]
        return sorted(own, key=lambda job: job.asked)

    def drop(self, run_id: str, session: str) -> bool:
        """Delete a visitor's own run; False when it is gone already or another's."""
        with self._lock:
            folder = self.get(run_id, session)
            if folder is None:
                return False
            del self._runs[run_id]
        shutil.rmtree(folder, ignore_errors=True)
        return True


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a file that is being written moves away
            total += path.stat().st_size if path.is_file() else 0
    return total
