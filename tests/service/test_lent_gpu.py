"""Jobs on a GPU that is lent for a call, with a stand-in for the module `spaces`."""

import importlib.util
import inspect
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from unlearn_app.common import errors
from unlearn_app.common.errors import ConfigError, NotFinite, UnlearnError
from unlearn_app.service.engine import InProcess
from unlearn_app.service.jobs import JobRequest
from unlearn_app.service.lent_gpu import OnLentGpu
from unlearn_app.settings.events import Done, Event, Stage, Step
from unlearn_app.settings.run_config import make_config

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Spaces:
    """`spaces.GPU`: the task runs in a process that is forked for the call, and what goes in and
    comes out is pickled.
    """

    lent: list[Any] = field(default_factory=list)

    def GPU(self, duration: int) -> Callable[[Any], Any]:
        def decorated(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            assert inspect.isgeneratorfunction(task), "events come while the job runs"

            def call(*arguments: Any) -> Iterator[Any]:
                self.lent.append((duration, arguments))
                yield from in_a_process(task, pickle.dumps(arguments))

            return call

        return decorated


def in_a_process(task: Callable[..., Iterator[Any]], arguments: bytes) -> Iterator[Any]:
    """What `task` yields in a forked process; raises what it raises there."""
    forked = multiprocessing.get_context("fork")
    here, there = forked.Pipe(duplex=False)

    def work() -> None:
        here.close()
        try:
            for event in task(*pickle.loads(arguments)):  # noqa: S301
                there.send((event, None))
        except UnlearnError as error:
            there.send((None, error))
        there.close()

    process = forked.Process(target=work)
    process.start()
    there.close()
    try:
        while True:
            event, error = here.recv()
            if error:
                raise error
            yield event
    except EOFError:
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join(60)


class Counting:
    """A runner that takes steps until it is told to stop."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.warmed, self.ran, self.home = error, False, False, os.getpid()

    def warm(self) -> None:
        assert os.getpid() == self.home
        self.warmed = True

    def __call__(self, request: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        assert os.getpid() != self.home, "only a lent process has a GPU"
        self.ran = True
        yield Stage("load", f"{request.concept}, warm: {self.warmed}", 0.0)
        if self.error:
            raise self.error
        for step in range(1, 100):
            yield Step("unlearn", step, 100)
            if cancel.wait(0.01):
                yield Done(out, stopped=True)
                return


def test_a_job_goes_through_the_decorator_and_stops_on_request(tmp_path: Path) -> None:
    spaces, cancel = Spaces(), threading.Event()
    runner = Counting()
    lent = OnLentGpu(runner, spaces.GPU)
    lent.warm()
    assert spaces.lent == []
    config, found = make_config("cat"), []
    for event in lent(config, tmp_path, cancel):
        found.append(event)
        if len(found) == 5:
            cancel.set()
    assert found[0] == Stage("load", "cat, warm: True", 0.0)
    assert found[-1] == Done(tmp_path, stopped=True)
    assert len(found) < 100
    assert not runner.ran, "what a process changes is lost"
    ((seconds, arguments),) = spaces.lent
    assert arguments == (config, tmp_path)
    assert seconds >= 60
    again = list(lent(config, tmp_path, threading.Event()))
    assert len(again) == 100, "an earlier stop is forgotten"


@pytest.mark.parametrize("error", [ConfigError("No.", "concept"), NotFinite("the loss", "less")])
def test_what_a_job_fails_of_is_told_as_it_was(tmp_path: Path, error: UnlearnError) -> None:
    spaces = Spaces()
    lent = OnLentGpu(Counting(error), spaces.GPU)
    with pytest.raises(type(error)) as raised:
        list(lent(make_config("cat"), tmp_path, threading.Event()))
    assert str(raised.value) == str(error)
    assert vars(raised.value) == vars(error)


def test_the_event_of_a_thread_would_stay_behind(tmp_path: Path) -> None:
    """The stand-in is a process: a job that is told by such an event never hears of it."""
    lent = OnLentGpu(Counting(), Spaces().GPU)
    lent._stop = cancel = threading.Event()
    cancel.set()
    assert len(list(lent(make_config("cat"), tmp_path, cancel))) == 100


def test_every_error_can_be_handed_on_by_a_process() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, UnlearnError)]
    assert len(kinds) > 5
    for kind in kinds:
        error = kind("one", "two") if kind in (NotFinite, ConfigError) else kind("one")
        back = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(back), str(back), vars(back)) == (kind, str(error), vars(error))


@pytest.mark.parametrize("lends", [True, False])
def test_the_page_uses_it_where_there_is_a_module_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lends: bool
) -> None:
    spaces = Spaces()
    module = ModuleType("spaces")
    module.GPU = spaces.GPU
    monkeypatch.setitem(sys.modules, "spaces", module if lends else None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    spec = importlib.util.spec_from_file_location("page_under_test", ROOT / "app.py")
    page = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(page)
        assert isinstance(page.engine._runner, OnLentGpu if lends else InProcess)
    finally:
        page.engine.shutdown()
        page.demo.close()
