"""Jobs on a GPU that is lent for a call, with a stand-in for the module `spaces`."""

import importlib.util
import inspect
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
    """`spaces.GPU`: what goes in and comes out is pickled, as between processes."""

    lent: list[Any] = field(default_factory=list)
    running: bool = False

    def GPU(self, duration: int) -> Callable[[Any], Any]:
        def decorated(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            assert inspect.isgeneratorfunction(task), "events come while the job runs"

            def call(*arguments: Any) -> Iterator[Any]:
                self.lent.append((duration, arguments))
                arguments = pickle.loads(pickle.dumps(arguments))  # noqa: S301
                self.running = True
                try:
                    for event in task(*arguments):
                        yield pickle.loads(pickle.dumps(event))  # noqa: S301
                except UnlearnError as error:
                    raise pickle.loads(pickle.dumps(error)) from error  # noqa: S301
                finally:
                    self.running = False

            return call

        return decorated


class Counting:
    """A runner that takes steps until it is told to stop."""

    def __init__(self, spaces: Spaces, error: Exception | None = None) -> None:
        self.spaces, self.error, self.warmed = spaces, error, False

    def warm(self) -> None:
        assert not self.spaces.running
        self.warmed = True

    def __call__(self, request: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        assert self.spaces.running, "only a lent process has a GPU"
        yield Stage("load", request.concept, 0.0)
        if self.error:
            raise self.error
        for step in range(1, 100):
            yield Step("unlearn", step, 100)
            if cancel.is_set():
                yield Done(out, stopped=True)
                return


def test_a_job_goes_through_the_decorator_and_stops_on_request(tmp_path: Path) -> None:
    spaces, cancel = Spaces(), threading.Event()
    runner = Counting(spaces)
    lent = OnLentGpu(runner, spaces.GPU)
    lent.warm()
    assert runner.warmed
    assert spaces.lent == []
    config, found = make_config("cat"), []
    for event in lent(config, tmp_path, cancel):
        found.append(event)
        if len(found) == 5:
            cancel.set()
    assert found[0] == Stage("load", "cat", 0.0)
    assert found[-1] == Done(tmp_path, stopped=True)
    assert len(found) < 10
    ((seconds, arguments),) = spaces.lent
    assert arguments == (config, tmp_path)
    assert seconds >= 60
    again = list(lent(config, tmp_path, threading.Event()))
    assert len(again) == 100, "an earlier stop is forgotten"


@pytest.mark.parametrize("error", [ConfigError("No.", "concept"), NotFinite("the loss", "less")])
def test_what_a_job_fails_of_is_told_as_it_was(tmp_path: Path, error: UnlearnError) -> None:
    spaces = Spaces()
    lent = OnLentGpu(Counting(spaces, error), spaces.GPU)
    with pytest.raises(type(error)) as raised:
        list(lent(make_config("cat"), tmp_path, threading.Event()))
    assert str(raised.value) == str(error)
    assert vars(raised.value) == vars(error)


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
