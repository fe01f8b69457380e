"""The soak at its smallest: a crowd, kills, nonsense and hostile files, and nothing gives way."""

import functools
import json
import threading
from contextlib import ExitStack, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from unlearn_app.experiments.app_process import AppProcess
from unlearn_app.experiments.cells import Extent, bench, read_cells
from unlearn_app.experiments.soak import inputs
from unlearn_app.experiments.soak.commands import Ended
from unlearn_app.experiments.soak.kills import KINDS, LEFT, WORDS, killed_command
from unlearn_app.experiments.soak.measure import PARTS, Soak
from unlearn_app.experiments.soak.session import Refused, Session
from unlearn_app.experiments.soak.visitors import BUSY


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What each part found, by its name. Inputs of all kinds go to one app, which starts once."""
    soak = Soak(Extent(tmp_path_factory.mktemp("soak"), smoke=True))
    with ExitStack() as running, pytest.MonkeyPatch.context() as patch:

        @functools.cache
        def app() -> AppProcess:
            return running.enter_context(AppProcess(tmp_path_factory.mktemp("app")))

        patch.setattr(inputs, "AppProcess", lambda _: nullcontext(app()))
        assert "| measured |" in list(bench(soak))[-1]
    return {config["part"]: values for config, values in read_cells(soak.folder).values()}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_nothing_gives_way(cells: dict[str, dict], part: str) -> None:
    assert [row for row in cells[part]["rows"] if row["met"] is False] == [], cells[part]["faults"]


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        (Ended(1, "Traceback (most recent call last):\n  x", 0.1, 9), "a trace"),
        (Ended(-9, "", 20.0, 9), "hangs"),
        (Ended(-11, "", 0.1, 9), "ends by signal 11"),
        (Ended(2, "error: The seed is 'x'.\n", 0.1, 9), ""),
        (Ended(0, "", 0.1, 9), ""),
    ],
)
def test_a_fault_is_told_from_a_refusal(ended: Ended, fault: str) -> None:
    assert ended.fault.startswith(fault)
    assert bool(ended.fault) == bool(fault)


@pytest.mark.parametrize(
    ("ended", "sentence"),
    [
        (Ended(2, "error: It is damaged.\n", 0.1, 9), "It is damaged."),
        (Ended(0, "error: It is damaged.\n", 0.1, 9), ""),
        (Ended(2, "Usage: x\n", 0.1, 9), ""),
    ],
)
def test_a_refusal_is_one_sentence(ended: Ended, sentence: str) -> None:
    assert ended.sentence == sentence


@pytest.mark.parametrize("kind", ["run", "attack", "audit"])
def test_what_a_killed_command_left_among_temporary_files_is_counted(
    tmp_path: Path, kind: str
) -> None:
    for name in ("unlearn-model-1", "torchinductor_root"):
        (tmp_path / name).mkdir()
    commands = SimpleNamespace(run=lambda *_, **__: Ended(0, "", 0.1, 9), temporary=tmp_path)
    material = SimpleNamespace(renew=lambda: tmp_path / "here", commands=commands)
    told = list(killed_command(kind, material, 1.0))
    assert told == [f"{LEFT} unlearn-model-1 among the temporary files"]


def test_every_command_that_is_killed_is_one_that_was_timed() -> None:
    assert {*WORDS} == {*KINDS} - {"page"}


class FullQueue(BaseHTTPRequestHandler):
    """A page whose queue takes no call."""

    def do_GET(self) -> None:
        known = {"dependencies": [{"id": 3, "api_name": "unlearn"}]}
        self._answer(200, known if self.path == "/config" else {})

    def do_POST(self) -> None:
        self._answer(503, {"detail": "Queue is full. Max size is 64 and size is 64."})

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_call_that_the_queue_does_not_take_is_refused_with_its_sentence() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), FullQueue) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        session = Session(server.server_port)
        call = session.submit("unlearn", [])
        session.cancel(call)
        session.close()
        server.shutdown()
    with pytest.raises(Refused, match="Queue is full") as refused:
        call.answer.result(0)
    assert any(said in str(refused.value) for said in BUSY)
