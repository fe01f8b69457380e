"""The engine: one worker thread owns torch and the model; visitors queue jobs, read their events
and may stop them.
"""

import errno
import hashlib
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from ..common.errors import OutOfMemory, UnlearnError, enough_memory
from ..common.private_folder import PrivateFolder
from ..common.registry import DEFAULT_MODEL
from ..settings.events import Event
from ..settings.run_config import RunConfig
from .jobs import (
    AttackRequest,
    AuditRequest,
    Job,
    JobRequest,
    LedgerRequest,
    RunStore,
    check_request,
    folder_size,
)
from .pace import Pace, Schedule
from .visitors import GRACE, Visitors, visitor_of

logger = logging.getLogger(__name__)

UNHEARD = 15.0
"""Seconds that a job may wait or run while its client has not connected."""
UNHEARD_SAID = "Nobody connected to hear of this, so it was dropped."
SWEEP_EVERY = 1.0
"""Seconds between two calls of `Engine.sweep`."""


class EngineBusy(UnlearnError):
    """The engine does not accept this for now; the message says why and what to do."""


class RunGone(UnlearnError):
    """A run was deleted, or never belonged to this visitor."""

    def __init__(self) -> None:
        super().__init__("That run is no longer kept; run it again.")


class Runner(Protocol):
    """What runs the jobs."""

    def warm(self) -> None:
        """Load the default model."""

    def __call__(self, request: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Run one job, write into `out` and yield its events, until soon after `cancel` is set."""


class InProcess:
    """Runs jobs with one resident model, loaded on first use and kept until another model is
    asked for.
    """

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self._model = model
        self._loaded: tuple[str, Any] | None = None

    def warm(self) -> None:
        """Load the default model."""
        self._resident(self._model)

    def __call__(self, request: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Run one job on the resident model: write into `out` and yield its events, until soon
        after `cancel` is set. Running out of memory unloads the model; the next job loads it again.
        """
        try:
            with enough_memory("This", "the batch size, the rank or the number of pictures"):
                yield from self._events(request, out, cancel)
        except OutOfMemory:
            self._free()
            raise

    def _events(self, request: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        # These import torch, which takes seconds and must not delay the page.
        from ..continual import sequence
        from ..runs import attack_run, audit, workflow
        from ..runs.folder import Run
        from ..runs.published import Published

        if isinstance(request, RunConfig):
            model = self._resident(request.model)
            yield from workflow.run(request, out, cancel=cancel, model=model)
            return
        model, stop = self._resident(request.config.model), cancel.is_set
        if isinstance(request, AuditRequest):
            asked = request.config, Published(request.source), request.kinds
            yield from audit.audit_run(*asked, out, cancel=cancel, model=model)
        elif isinstance(request, LedgerRequest):
            yield from sequence.run_request(request.config, request.plan, out, model, stop)
        else:
            run, kinds = Run.open(out), request.kinds
            yield from attack_run.run_attacks(run, kinds, model=model, should_stop=stop)

    def _free(self) -> None:
        from ..models.device import free_memory

        self._loaded = None
        free_memory()

    def _resident(self, model: str) -> Any:
        from ..models.catalog import load_model

        if self._loaded is None or self._loaded[0] != model:
            self._free()  # first, so that the next model can use the memory
            self._loaded = (model, load_model(model))
        return self._loaded[1]


class Engine:
    """A bounded queue of jobs and the single thread that runs them one after another.

    `waiting` bounds the queue; `keep_runs` and `keep_bytes` bound the finished run folders of all
    visitors together, and `own_runs` and `own_bytes` those of one visitor. The folders are in a
    private folder, which is deleted at shutdown. A visitor's data is kept for `grace` seconds, on
    `clock`, after their last page was closed. The model is loaded when the first visitor arrives,
    or after `patience` seconds, because loading it would delay the first page.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        waiting: int = 8,
        keep_runs: int = 64,
        keep_bytes: int = 2 * 1024**3,
        own_runs: int = 16,
        own_bytes: int = 512 * 1024**2,
        patience: float = 5.0,
        grace: float = GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._private = PrivateFolder("unlearn-runs-")
        self.root = self._private.path
        self.ready = threading.Event()
        self.load_error = ""
        """Why the model could not be loaded, as a sentence."""
        self.pace = Pace()
        """How long runs take here."""
        self.visitors = Visitors(grace, clock)
        self.runs = RunStore(
            keep_runs,
            keep_bytes,
            own_runs,
            own_bytes,
            self._delete,
            self.visitors.here,
            self._size,
        )
        self.keep_bytes = keep_bytes
        self.on_delete: Callable[[str], None] = lambda name: None
        """Called with the name of every deleted folder, to delete copies of its files too."""
        self.copied: Callable[[str], int] = lambda name: 0
        """Returns the bytes of such copies of a folder; they count as the folder's own."""
        self._runner, self._capacity, self._patience = runner, waiting, patience
        self._clock = clock
        self._arrived = threading.Event()
        self._jobs: list[Job] = []
        """In the order in which they run; only the first one has begun."""
        self._not_kept: dict[str, Path] = {}
        """The deleted folder of each visitor's last run that was not kept. Copies of its files stay
        until the visitor's next job, because the page may still show them.
        """
        self._closed = threading.Event()
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> "Engine":
        """Start the worker thread, which loads the model first."""
        self._thread.start()
        threading.Thread(target=self._keep_sweeping, name="sweeper", daemon=True).start()
        return self

    def arrive(self) -> None:
        """Load the model now, because somebody has opened the page."""
        self._arrived.set()

    def visitor(self, session: str, key: object = "") -> str:
        """The visitor of this session, with the key of their browser if they have one; marks them
        as active.
        """
        visitor = visitor_of(session, key)
        self.visitors.seen(visitor, session)
        return visitor

    def home(self, visitor: str) -> Path:
        """The folder for a visitor's ledger and other files, deleted when they leave."""
        return self.root / f"visitor-{hashlib.sha256(visitor.encode()).hexdigest()[:32]}"

    def sent(self, visitor: str) -> Path:
        """The folder for the files that a visitor sends in."""
        return self.home(visitor) / "sent"

    def ledger(self, visitor: str) -> Path:
        """The folder of a visitor's ledger, if they have one."""
        return self.home(visitor) / "ledger"

    def submit(self, request: JobRequest, visitor: str, address: str = "") -> Job:
        """Queue a run, a request for the visitor's ledger, or attacks on one of the visitor's runs.

        `address` is the visitor's network address where a trusted proxy names it; one address may
        fill half of the queue.

        Raises:
            ConfigError: it costs more than the page accepts.
            EngineBusy: the queue is full, the visitor has a job already, or the engine is shutting
            down.
            RunGone: the visitor has no such run.
        """
        check_request(request)
        with self._change:
            self.visitors.seen(visitor)
            if self._closed.is_set() or not self._thread.is_alive():
                raise EngineBusy("The engine is not running; start the app again.")
            if any(not job.cancel.is_set() for job in self._jobs_of(visitor)):
                raise EngineBusy(
                    "What you started before is still going; stop it first. A page that does not"
                    " show it does once it is reloaded."
                )
            folder = self._folder(request, visitor)
            shared = sum(job.address == address for job in self._jobs)
            if address and 2 * shared >= self._capacity:
                raise EngineBusy(
                    "Your network fills half of the queue already; try again in a few minutes."
                )
            self._make_room(visitor)
            job = Job(request, folder, visitor, address, self._clock())
            self._forget_not_kept(visitor)
            self._jobs.append(job)
            self._arrived.set()
            self._change.notify_all()
            return job

    def _make_room(self, visitor: str) -> None:
        """Raise `EngineBusy` when the queue is full. A visitor who has connected replaces the last
        waiting job of one who never has.
        """
        waiting = [job for job in self._jobs if job.begun is None]
        if len(waiting) < self._capacity:
            return
        unmet = [job for job in waiting if not self.visitors.met(job.visitor)]
        if not unmet or not self.visitors.met(visitor):
            raise EngineBusy(
                f"{len(waiting)} runs are waiting already; try again in a few minutes."
            )
        self._end(unmet[-1:], UNHEARD_SAID)

    def _folder(self, request: JobRequest, visitor: str) -> Path:
        if isinstance(request, LedgerRequest):
            return self.ledger(visitor)
        if isinstance(request, RunConfig | AuditRequest):
            return self.root / uuid.uuid4().hex
        if self.runs.get(request.folder.name, visitor) != request.folder:
            raise RunGone
        return request.folder

    def delete(self, run_id: str, visitor: str) -> None:
        """Delete a visitor's own run with all findings about it.

        Raises:
            EngineBusy: it is under attack.
            RunGone: the visitor has no such run.
        """
        with self._change:
            if any(job.id == run_id for job in self._jobs_of(visitor)):
                raise EngineBusy(
                    "An attack on this run is still going; stop it before you delete the run."
                )
            if not self.runs.drop(run_id, visitor):
                raise RunGone

    def job_of(self, visitor: str) -> Job | None:
        """The latest job of a visitor that is waiting or running, if any."""
        with self._change:
            return next(reversed(self._jobs_of(visitor)), None)

    def position(self, job: Job) -> int:
        """How many jobs come before this one: 0 when it is running or over."""
        with self._change:
            return self._jobs.index(job) if job in self._jobs else 0

    def stop(self, visitor: str) -> bool:
        """Ask all jobs of a visitor to end and keep their results so far; True if there was one."""
        with self._change:
            jobs = self._jobs_of(visitor)
            self._end(jobs)
            return bool(jobs)

    def leave(self, visitor: str) -> None:
        """End the jobs of a visitor who has left, and delete their data."""
        with self._change:
            for job in self._jobs_of(visitor):
                job.abandoned = True
            self.stop(visitor)
            if not self._jobs_of(visitor):
                self._delete(self.home(visitor))
            self._forget_not_kept(visitor)
            for run in self.runs.of(visitor):
                self.runs.drop(run.id, visitor)

    def sweep(self) -> None:
        """End jobs whose clients never connected, and delete the data of visitors who have left."""
        with self._change:
            late = self._clock() - UNHEARD
            unheard = [
                job
                for job in self._jobs
                if job.asked <= late and not self.visitors.met(job.visitor)
            ]
            self._end(unheard, UNHEARD_SAID)
            for visitor in self.visitors.gone():  # named once, so each must have its turn
                self._error_of(lambda visitor=visitor: self.leave(visitor), "leave")

    def _keep_sweeping(self) -> None:
        while not self._closed.wait(SWEEP_EVERY):
            self._error_of(self.sweep, "sweep")

    def shutdown(self, timeout: float = 5.0) -> None:
        """End every job, wait for the thread and delete all run folders."""
        with self._change:
            self._closed.set()
            self._end(list(self._jobs))
            self._arrived.set()
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        for folder in self.root.glob("*"):
            self._delete(folder)
        self._private.remove()

    def _jobs_of(self, visitor: str) -> list[Job]:
        return [job for job in self._jobs if job.visitor == visitor]

    def _end(self, jobs: list[Job], error: str = "") -> None:
        for job in jobs:
            job.cancel.set()
            if job.begun is None:
                self._jobs.remove(job)
                self._delete_sent(job)
                job.end(error)
            else:
                job.error = error

    def _delete_sent(self, job: Job) -> None:
        """Delete the file that was sent in for a job that is over."""
        if isinstance(job.request, AuditRequest) and job.request.sent:
            self._error_of(lambda: Path(job.request.source).unlink(missing_ok=True), job.id)

    def _delete(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._error_of(lambda: self.on_delete(folder.name), folder.name)

    def _size(self, folder: Path) -> int:
        return folder_size(folder) + self.copied(folder.name)

    def _forget_not_kept(self, visitor: str) -> None:
        if folder := self._not_kept.pop(visitor, None):
            self._delete(folder)

    def _work(self) -> None:
        self._arrived.wait(self._patience)
        if not self._closed.is_set():
            self.load_error = self._error_of(self._runner.warm, "start-up")
        self.ready.set()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed.is_set() or self._jobs)
                if self._closed.is_set():
                    return
                job = self._jobs[0]
                job.begun = time.monotonic()
                if isinstance(job.request, RunConfig):
                    job.schedule = Schedule(job.request, self.pace)
            error = self._error_of(lambda job=job: self._run(job), job.id)
            with self._change:
                unkept = self._error_of(lambda job=job: self._keep_or_delete(job), job.id)
                self._jobs.remove(job)
                self._delete_sent(job)
            # Last, so that a visitor who sees the end can submit again at once.
            job.end(error or unkept or job.error)

    def _run(self, job: Job) -> None:
        if isinstance(job.request, AttackRequest) and self.runs.get(job.id, job.visitor) is None:
            raise RunGone  # deleted to make room while this waited
        for event in self._runner(job.request, job.folder, job.cancel):
            job.add(event)

    def _keep_or_delete(self, job: Job) -> None:
        """Keep the folder of a finished job if it has a result; delete it with all other data of a
        visitor who has left meanwhile.
        """
        if job.abandoned:
            self._delete(job.folder)
            self._delete(self.home(job.visitor))
        elif isinstance(job.request, RunConfig | AuditRequest):
            if job.folder.is_dir() and job.has_result:
                self.runs.add(job)
            else:
                shutil.rmtree(job.folder, ignore_errors=True)
                self._not_kept[job.visitor] = job.folder
        elif isinstance(job.request, AttackRequest):
            if self.runs.get(job.id, job.visitor):
                self.runs.trim()
            else:
                self._delete(job.folder)

    def _error_of(self, work: Callable[[], None], name: str) -> str:
        """Do the work and return the error message for the visitor, "" if it succeeded. No
        exception may end a thread of the engine.
        """
        try:
            with enough_memory("This", "the batch size, the rank or the number of pictures"):
                work()
        except UnlearnError as error:
            return str(error)
        except OSError as error:
            logger.exception("job %s", name)
            if error.errno == errno.ENOSPC:
                return "The disk is full; free some space and try again."
            reason = error.strerror or type(error).__name__
            return f"A file could not be read or written ({reason})."
        except (Exception, SystemExit):
            logger.exception("job %s", name)
            return f"Something went wrong on our side; the log has the details under {name[:8]}."
        return ""
