"""The engine: one thread owns torch, the model and its adapters; visitors queue jobs, read their
events and may stop them.
"""

import errno
import hashlib
import logging
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..common.errors import OutOfMemory, UnlearnError, enough_memory
from ..common.private_folder import PrivateFolder
from ..common.registry import DEFAULT_MODEL
from ..settings.events import Event
from ..settings.run_config import RunConfig
from .jobs import AttackRequest, Job, JobRequest, LedgerRequest, RunStore, check_request

logger = logging.getLogger(__name__)


class EngineBusy(UnlearnError):
    """The engine takes no more jobs for now; the message says why and what to do."""


class RunGone(UnlearnError):
    """A run is no longer kept, or was never this visitor's."""

    def __init__(self) -> None:
        super().__init__("That run is no longer kept; run it again.")


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
        """Do one job on the resident model, writing into `out` and yielding its events; ends soon
        after `cancel` is set. What fails for want of memory leaves no model, and the next job loads
        it anew.
        """
        try:
            with enough_memory("This", "the batch size, the rank or the number of pictures"):
                yield from self._done(request, out, cancel)
        except OutOfMemory:
            self._free()
            raise

    def _done(self, request: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        # torch comes with these, seconds that must not delay the page.
        from ..continual import sequence
        from ..runs import attack_run, workflow
        from ..runs.folder import Run

        if isinstance(request, RunConfig):
            model = self._resident(request.model)
            yield from workflow.run(request, out, cancel=cancel, model=model)
            return
        model, stop = self._resident(request.config.model), cancel.is_set
        if isinstance(request, LedgerRequest):
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
            self._free()  # the previous model, before the next one needs its memory
            self._loaded = (model, load_model(model))
        return self._loaded[1]


class Engine:
    """A bounded queue of jobs and the single thread that runs them one after another.

    `waiting` bounds the queue; `keep_runs` and `keep_bytes` bound the finished run folders, which
    live in a private folder that goes when the engine shuts down. The model is loaded when somebody
    arrives, or after `patience` seconds, because loading it would slow the first page down.
    """

    def __init__(
        self,
        runner: InProcess,
        *,
        waiting: int = 8,
        keep_runs: int = 64,
        keep_bytes: int = 2 * 1024**3,
        patience: float = 5.0,
    ) -> None:
        self.root = Path()
        self._private: PrivateFolder | None = None
        self.ready = threading.Event()
        self.load_error = ""
        """Why the model could not be loaded, as a sentence."""
        self.runs = RunStore(keep_runs, keep_bytes)
        self._runner, self._capacity, self._patience = runner, waiting, patience
        self._arrived = threading.Event()
        self._jobs: list[Job] = []
        """In the order in which they are done, the running one first."""
        self._running: Job | None = None
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> "Engine":
        """Make the private folder for runs and start the thread, which loads the model first."""
        self._private = PrivateFolder("unlearn-runs-")
        self.root = self._private.path
        self._thread.start()
        return self

    def arrive(self) -> None:
        """Somebody has the page on screen: load the model now."""
        self._arrived.set()

    def home(self, session: str) -> Path:
        """The folder for a visitor's ledger and other files, which goes when they leave."""
        return self.root / f"visitor-{hashlib.sha256(session.encode()).hexdigest()[:32]}"

    def ledger(self, session: str) -> Path:
        """The folder of a visitor's ledger, if they have one."""
        return self.home(session) / "ledger"

    def submit(self, request: JobRequest, session: str, address: str = "") -> Job:
        """Queue a run, a request for the visitor's ledger, or attacks on one of the visitor's runs.

        `address` is the visitor's, where somebody trusted names it; it gets half of the queue.

        Raises:
            ConfigError: it costs more than the page accepts.
            EngineBusy: the queue is full, the visitor has a job already, or the engine is shutting
            down.
            RunGone: the visitor has no such run.
        """
        check_request(request)
        with self._change:
            if self._closed or not self._thread.is_alive():
                raise EngineBusy("The engine is not running; start the app again.")
            if any(not job.cancel.is_set() for job in self._jobs_of(session)):
                raise EngineBusy("What you started before is still going; stop it first.")
            waiting = len(self._jobs) - (self._running is not None)
            if waiting >= self._capacity:
                raise EngineBusy(f"{waiting} runs are waiting already; try again in a few minutes.")
            shared = sum(job.address == address for job in self._jobs)
            if address and 2 * shared >= self._capacity:
                raise EngineBusy(
                    "Your network fills half of the queue already; try again in a few minutes."
                )
            job = Job(request, self._folder(request, session), session, address)
            self._jobs.append(job)
            self._arrived.set()
            self._change.notify_all()
            return job

    def _folder(self, request: JobRequest, session: str) -> Path:
        if isinstance(request, LedgerRequest):
            return self.ledger(session)
        if isinstance(request, RunConfig):
            return self.root / uuid.uuid4().hex
        if self.runs.get(request.folder.name, session) != request.folder:
            raise RunGone
        return request.folder

    def delete(self, run_id: str, session: str) -> None:
        """Delete a visitor's own run with everything that was found out about it.

        Raises:
            EngineBusy: it is under attack.
            RunGone: the visitor has no such run.
        """
        with self._change:
            if any(job.id == run_id for job in self._jobs_of(session)):
                raise EngineBusy(
                    "An attack on this run is still going; stop it before you delete the run."
                )
            if not self.runs.drop(run_id, session):
                raise RunGone

    def busy(self, session: str) -> bool:
        """Whether a visitor's job is waiting or running."""
        with self._change:
            return bool(self._jobs_of(session))

    def position(self, job: Job) -> int:
        """How many jobs come before this one: 0 when it is running or over."""
        with self._change:
            return self._jobs.index(job) if job in self._jobs else 0

    def stop(self, session: str) -> bool:
        """Ask all jobs of a visitor to end; True when there was one. What they made so far is
        kept.
        """
        with self._change:
            jobs = self._jobs_of(session)
            self._end(jobs)
            return bool(jobs)

    def leave(self, session: str) -> None:
        """The visitor has gone: end their jobs and delete their runs."""
        with self._change:
            for job in self._jobs_of(session):
                job.abandoned = True
            self.stop(session)
            if not self.busy(session):
                shutil.rmtree(self.home(session), ignore_errors=True)
            for job in self.runs.of(session):
                self.runs.drop(job.id, session)

    def shutdown(self, timeout: float = 5.0) -> None:
        """End every job, wait for the thread and delete all run folders."""
        with self._change:
            self._closed = True
            self._end(list(self._jobs))
            self._arrived.set()
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if self._private:
            self._private.remove()

    def _jobs_of(self, session: str) -> list[Job]:
        return [job for job in self._jobs if job.session == session]

    def _end(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.cancel.set()
            if job is not self._running:
                self._jobs.remove(job)
                job.end()

    def _work(self) -> None:
        self._arrived.wait(self._patience)
        if not self._closed:
            self.load_error = self._error_of(self._runner.warm, "start-up")
        self.ready.set()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._jobs)
                if self._closed:
                    return
                job = self._running = self._jobs[0]
            error = self._error_of(lambda job=job: self._run(job), job.id)
            with self._change:
                self._keep_or_delete(job)
                self._jobs.remove(job)
                self._running = None
            # Last, so that a visitor who sees the end may submit again at once.
            job.end(error)

    def _run(self, job: Job) -> None:
        if isinstance(job.request, AttackRequest) and self.runs.get(job.id, job.session) is None:
            raise RunGone  # dropped for others while this waited
        for event in self._runner(job.request, job.folder, job.cancel):
            job.events.put(event)

    def _keep_or_delete(self, job: Job) -> None:
        """Keep the folder of a finished run, or delete what a visitor who has left meanwhile has
        here.
        """
        if job.abandoned:
            shutil.rmtree(job.folder, ignore_errors=True)
            shutil.rmtree(self.home(job.session), ignore_errors=True)
        elif isinstance(job.request, RunConfig):
            if job.folder.is_dir():
                self.runs.add(job)
        elif isinstance(job.request, AttackRequest):
            if self.runs.get(job.id, job.session):
                self.runs.trim()
            else:
                shutil.rmtree(job.folder, ignore_errors=True)

    def _error_of(self, work: Callable[[], None], name: str) -> str:
        """Do the work, and return the sentence to show when it failed, else "". No failure may end
        the engine's thread.
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
        except Exception:
            logger.exception("job %s", name)
            return f"Something went wrong on our side; the log has the details under {name[:8]}."
        return ""
