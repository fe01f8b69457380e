"""What visitors ask the engine for, the jobs that come of it, and the folders of finished runs."""

import queue
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings.events import Event
from ..settings.run_config import RunConfig

if TYPE_CHECKING:
    from ..settings.groups import SequenceConfig


@dataclass(frozen=True)
class LedgerRequest:
    """One more concept to forget for a visitor's ledger, which `plan` begins when there is none."""

    config: RunConfig
    plan: "SequenceConfig"


@dataclass(frozen=True)
class AttackRequest:
    """Attacks of these kinds on the finished run in `folder`, which had the settings `config`."""

    folder: Path
    config: RunConfig
    kinds: tuple[str, ...]


JobRequest = RunConfig | LedgerRequest | AttackRequest


class Job:
    """What one visitor asked for, with the events of it, which any thread may read."""

    def __init__(self, request: JobRequest, folder: Path, session: str) -> None:
        self.id = folder.name
        self.request = request
        self.folder = folder
        self.session = session
        self.asked = time.monotonic()
        self.cancel = threading.Event()
        self.error = ""
        self._ended = threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    @property
    def config(self) -> RunConfig:
        """The settings of the run, of the request, or of the run under attack."""
        return self.request if isinstance(self.request, RunConfig) else self.request.config

    def put(self, event: Event) -> None:
        """Hand an event to the visitor."""
        self._events.put(event)

    def end(self, error: str = "") -> None:
        """No event follows; `error` is the sentence to show, if any."""
        self.error = error
        self._ended.set()

    def take(self, timeout: float) -> list[Event]:
        """All events at hand, waiting at most `timeout` seconds for the first."""
        events: list[Event] = []
        deadline = time.monotonic() + timeout
        while not events and not self.over and time.monotonic() < deadline:
            try:
                events.append(self._events.get(timeout=min(0.05, timeout)))
            except queue.Empty:
                continue
        while not self._events.empty():
            events.append(self._events.get())
        return events

    @property
    def over(self) -> bool:
        """It has ended and every event was taken."""
        return self._ended.is_set() and self._events.empty()


class RunStore:
    """Finished runs of all visitors; the least recently used go first when a cap is reached."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._runs: OrderedDict[str, tuple[Job, int]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, job: Job) -> None:
        """Keep the folder of a finished job, dropping others beyond the caps."""
        size = _size(job.folder)
        with self._lock:
            self._runs[job.id] = (job, size)
            self._trim()

    def resized(self, run_id: str) -> bool:
        """Something was added to a kept run: take its new size into account; False when it is not
        kept.
        """
        with self._lock:
            if run_id not in self._runs:
                return False
            job, _ = self._runs.pop(run_id)
            self._runs[run_id] = (job, _size(job.folder))
            self._trim()
            return True

    def _trim(self) -> None:
        while len(self._runs) > 1 and (
            len(self._runs) > self._count
            or sum(size for _, size in self._runs.values()) > self._size
        ):
            shutil.rmtree(self._runs.popitem(last=False)[1][0].folder, ignore_errors=True)

    def get(self, run_id: str, session: str) -> Path | None:
        """The folder of a visitor's own run, or None when it is gone or another's."""
        with self._lock:
            job, _ = self._runs.get(run_id, (None, 0))
            if job is None or job.session != session:
                return None
            self._runs.move_to_end(run_id)
            return job.folder

    def of(self, session: str) -> list[Job]:
        """A visitor's finished runs, in the order they were asked for."""
        with self._lock:
            return sorted(
                (job for job, _ in self._runs.values() if job.session == session),
                key=lambda job: job.asked,
            )

    def drop(self, run_id: str, session: str) -> bool:
        """Delete a visitor's own run; False when it is gone already or another's."""
        with self._lock:
            job, _ = self._runs.get(run_id, (None, 0))
            if job is None or job.session != session:
                return False
            del self._runs[run_id]
        shutil.rmtree(job.folder, ignore_errors=True)
        return True

    def forget(self, session: str) -> None:
        """Delete all runs of a visitor who has left."""
        with self._lock:
            for run_id in [key for key, (job, _) in self._runs.items() if job.session == session]:
                shutil.rmtree(self._runs.pop(run_id)[0].folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
