"""Jobs on a platform that lends a GPU for the time of a call, as ZeroGPU of Hugging Face Spaces.

There a function that is decorated with `spaces.GPU` runs in a process of its own that is forked
from this one: what it takes and yields is pickled, and what it changes is lost.
"""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..settings.events import Event
from .engine import InProcess
from .jobs import JobRequest

SECONDS = 120
"""For how long a GPU is asked for: a job with usual settings takes less."""


class OnLentGpu:
    """Runs the jobs of `runner` through `lend`, the decorator `spaces.GPU`, which elsewhere changes
    nothing.
    """

    def __init__(self, runner: InProcess, lend: Callable[..., Any]) -> None:
        self._runner = runner
        # A thread's event would stay behind; this one is shared with processes that are forked.
        self._stop = multiprocessing.Event()
        self._lent = lend(duration=SECONDS)(self._events)

    def warm(self) -> None:
        """Load the default model here, from where every lent process inherits it."""
        self._runner.warm()

    def __call__(self, request: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Run one job as `InProcess` does; it stops after the next event once `cancel` is set."""
        self._stop.clear()
        for event in self._lent(request, out):
            yield event
            if cancel.is_set():
                self._stop.set()

    def _events(self, request: JobRequest, out: Path) -> Iterator[Event]:
        yield from self._runner(request, out, self._stop)
