"""One thread owns torch, the model and its adapters; visitors queue jobs, read their events and may stop them."""

import errno
import logging
import queue
import shutil
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from .config import RunConfig
from .errors import UnlearnError
from .events import Event

logger = logging.getLogger(__name__)


class EngineBusy(UnlearnError):
    """The engine takes no more jobs for now; the message says why and what to do."""


class Runner(Protocol):
    """How a job is carried out: in this process (`InProcess`), or wrapped where a GPU is lent per call."""

    def warm(self) -> None:
        """Load what the first job will need."""
        ...

    def __call__(self, config: RunConfig, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Run one job, writing into `out` and yielding its events; ends soon after `cancel` is set."""
        ...


class InProcess:
    """Runs jobs with one resident backend, loaded on first use and kept until another model is asked for."""

    def __init__(self, model: str = "pocket") -> None:
        self._model = model
        self._loaded: tuple[str, Any] | None = None

    def warm(self) -> None:
        """Load the default model."""
        self._backend(self._model)

    def __call__(self, config: RunConfig, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Run the job on the resident backend."""
        from . import workflow  # torch comes with it, seconds that must not delay the page

        yield from workflow.run(config, out, cancel=cancel, backend=self._backend(config.model))

    def _backend(self, model: str) -> Any:
        from . import workflow

        if self._loaded is None or self._loaded[0] != model:
            self._loaded = None  # frees the previous model before the next one needs its memory
            self._loaded = (model, workflow.load_backend(model))
        return self._loaded[1]


class Job:
    """One run asked for by one visitor; its events are read from any thread."""

    def __init__(self, config: RunConfig, folder: Path, session: str) -> None:
        self.id = folder.name
        self.config = config
        self.folder = folder
        self.session = session
        self.asked = time.monotonic()
        self.cancel = threading.Event()
        self.error = ""
        self._ended = threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

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
        size = sum(path.stat().st_size for path in job.folder.rglob("*") if path.is_file())
        with self._lock:
            self._runs[job.id] = (job, size)
            while len(self._runs) > 1 and (
                len(self._runs) > self._count or sum(size for _, size in self._runs.values()) > self._size
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
            return sorted((job for job, _ in self._runs.values() if job.session == session), key=lambda job: job.asked)

    def forget(self, session: str) -> None:
        """Delete all runs of a visitor who has left."""
        with self._lock:
            for run_id in [key for key, (job, _) in self._runs.items() if job.session == session]:
                shutil.rmtree(self._runs.pop(run_id)[0].folder, ignore_errors=True)


class Engine:
    """A bounded queue of jobs and the single thread that runs them one after another.

    `waiting` bounds the queue; `keep_runs` and `keep_bytes` bound the finished run folders, which live in a
    private folder that goes when the engine shuts down. The model is loaded when somebody arrives, or after
    `patience` seconds, because loading it would slow the first page down.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        waiting: int = 8,
        keep_runs: int = 64,
        keep_bytes: int = 2 * 1024**3,
        patience: float = 5.0,
    ) -> None:
        self.root = Path()
        self.ready = threading.Event()
        self.trouble = ""
        self.runs = RunStore(keep_runs, keep_bytes)
        self._runner, self._capacity, self._patience = runner, waiting, patience
        self._arrived = threading.Event()
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._closed = False
        self._gone: set[str] = set()
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> "Engine":
        """Make the private folder for runs and start the thread, which loads the model first."""
        self.root = Path(tempfile.mkdtemp(prefix="unlearn-runs-"))  # mkdtemp makes it 0700
        self._thread.start()
        return self

    def arrive(self) -> None:
        """Somebody has the page on screen: load the model now."""
        self._arrived.set()

    def submit(self, config: RunConfig, session: str) -> Job:
        """Queue a run.

        Raises:
            EngineBusy: the queue is full, the visitor has a run already, or the engine is shutting down.
        """
        with self._change:
            if self._closed or not self._thread.is_alive():
                raise EngineBusy("The engine is not running; start the app again.")
            if any(job.session == session and not job.cancel.is_set() for job in self._jobs()):
                raise EngineBusy("Your previous run is still going; stop it before you start another.")
            if len(self._waiting) >= self._capacity:
                raise EngineBusy(f"{len(self._waiting)} runs are waiting already; try again in a few minutes.")
            job = Job(config, self.root / uuid.uuid4().hex, session)
            self._gone.discard(session)
            self._waiting.append(job)
            self._arrived.set()
            self._change.notify_all()
            return job

    def position(self, job: Job) -> int:
        """How many jobs come before this one: 0 when it is running or over."""
        with self._change:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def stop(self, session: str) -> bool:
        """Ask all jobs of a visitor to end; True when there was one. What they made so far is kept."""
        with self._change:
            jobs = [job for job in self._jobs() if job.session == session]
            for job in jobs:
                job.cancel.set()
                if job in self._waiting:
                    self._waiting.remove(job)
                    job.end()
            return bool(jobs)

    def leave(self, session: str) -> None:
        """The visitor has gone: end their jobs and delete their runs."""
        with self._change:
            if any(job.session == session for job in self._jobs()):
                self._gone.add(session)
        self.stop(session)
        self.runs.forget(session)

    def shutdown(self, timeout: float = 5.0) -> None:
        """End every job, wait for the thread and delete all run folders."""
        with self._change:
            self._closed = True
            for job in self._jobs():
                job.cancel.set()
            for job in self._waiting:
                job.end()
            self._waiting.clear()
            self._arrived.set()
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
            shutil.rmtree(self.root, ignore_errors=True)

    def _jobs(self) -> list[Job]:
        return [*([self._running] if self._running else []), *self._waiting]

    def _work(self) -> None:
        self._arrived.wait(self._patience)
        if not self._closed:
            self.trouble = self._sentence(self._runner.warm, "start-up")
        self.ready.set()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                job = self._running = self._waiting.pop(0)
            error = self._sentence(lambda job=job: self._run(job), job.id)
            self._settle(job)
            with self._change:
                self._running = None
            # Last, so that a visitor who sees the end may submit again at once.
            job.end(error)

    def _run(self, job: Job) -> None:
        for event in self._runner(job.config, job.folder, job.cancel):
            job.put(event)

    def _settle(self, job: Job) -> None:
        """Store the folder of a finished job, or delete it when its visitor has left meanwhile."""
        with self._change:
            gone = job.session in self._gone
            self._gone.discard(job.session)
        if gone:
            shutil.rmtree(job.folder, ignore_errors=True)
        elif job.folder.is_dir():
            self.runs.add(job)

    def _sentence(self, work: Callable[[], None], name: str) -> str:
        """Do the work; the sentence to show when it failed, else "". No failure may end the engine's thread."""
        try:
            work()
        except UnlearnError as error:
            return str(error)
        except MemoryError:
            return "There is not enough memory for this; use a smaller batch size or close other programs."
        except OSError as error:
            logger.exception("job %s", name)
            if error.errno == errno.ENOSPC:
                return "The disk is full; free some space and try again."
            return f"A file could not be read or written ({error.strerror or type(error).__name__})."
        except Exception:
            logger.exception("job %s", name)
            return f"Something went wrong on our side; the log has the details under {name[:8]}."
        return ""
