"""Runs commands of the package, each in a fork of one process that has imported it, so that a
command begins within milliseconds.

Run as a module this is that process: it reads one request per line and answers each with two lines,
the id of the forked process and how it ended.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ...common.paths import ROOT

PATIENCE_S = 20.0
"""Seconds after which a command that need not compute, or was told to stop, counts as hanging."""
TRACE = "Traceback (most recent call last)"
PRELOADED = (
    "cli.main",
    "continual.sequence",
    "evaluation.judges.loading",
    "models.diffusers.loading",
    "runs.attack_run",
    "runs.report",
    "runs.workflow",
)
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "NO_COLOR": "1",
    "COLUMNS": "500",
    "TERM": "dumb",
    "UNLEARN_STORE": "off",
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """The exit code, or the negative number of the signal that ended it."""
    said: str
    """What it wrote to standard error."""
    seconds: float
    megabytes: float
    """The most memory that it held."""

    @property
    def fault(self) -> str:
        """A failure that no input may cause; empty where it worked or refused the input."""
        if self.code == -signal.SIGKILL:
            return f"hangs, and was killed after {self.seconds:.0f} s"
        if self.code < 0 and self.code != -signal.SIGTERM:
            return f"ends by signal {-self.code}: {self.said[-300:]}"
        return f"a trace: {self.said[-300:]}" if TRACE in self.said else ""

    @property
    def sentence(self) -> str:
        """The sentence of a refusal; empty where the command ended in another way."""
        last = self.said.strip().rpartition("\n")[2]
        one = self.code == 2 and last.startswith("error: ") and TRACE not in self.said
        return last.removeprefix("error: ") if one else ""


class Commands:
    """Runs commands in the folder `here`, one at a time, until this process ends; their temporary
    files are in `temporary`, beside it.
    """

    def __init__(self, here: Path) -> None:
        self.here, self.temporary = here, here.with_name(f"{here.name}.tmp")
        self.temporary.mkdir(exist_ok=True)
        self._log = here.with_name(f"{here.name}.log")
        self._host = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=os.environ | OFFLINE | {"TMPDIR": str(self.temporary)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.known: dict[str, dict[str, Any]] = self._answer()
        """By command its arguments and options, and whether they take a value."""

    def run(
        self, words: Sequence[str], stop_after: float = 0.0, kill_after: float = 600.0
    ) -> Ended:
        """Run a command. SIGTERM stops it after `stop_after` seconds, never where that is 0, and
        SIGKILL ends it after `kill_after`.
        """
        asked = {"words": words, "here": str(self.here), "log": str(self._log)}
        started = time.perf_counter()
        self._host.stdin.write(json.dumps(asked) + "\n")
        self._host.stdin.flush()
        pid = self._answer()
        with ExitStack() as timers:
            for seconds, number in ((stop_after, signal.SIGTERM), (kill_after, signal.SIGKILL)):
                if seconds:
                    timer = threading.Timer(seconds, _send, (pid, number))
                    timer.start()
                    timers.callback(timer.cancel)
            code, kilobytes = self._answer()
        spent = time.perf_counter() - started
        return Ended(code, self._log.read_text("utf-8", "replace"), spent, kilobytes / 1000)

    def _answer(self) -> Any:
        return json.loads(self._host.stdout.readline())


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _serve() -> None:
    loaded = [importlib.import_module(f"unlearn_app.{name}") for name in PRELOADED]
    _tell(_known(loaded[0].app))
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            _become(asked, loaded[0].main)
        _tell(pid)
        _, status, used = os.wait4(pid, 0)
        _tell([os.waitstatus_to_exitcode(status), used.ru_maxrss])


def _tell(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _become(asked: dict[str, Any], main: Callable[[], None]) -> NoReturn:
    """Turn this process into one that runs the command, with its words, folder and streams, and end
    it without the teardown of imported modules, which takes seconds.
    """
    os.chdir(asked["here"])
    sys.argv = ["unlearn_app", *asked["words"]]
    log = os.open(asked["log"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for number, stream in enumerate((null, null, log)):
        os.dup2(stream, number)
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else bool(code))


def _known(app: Any) -> dict[str, dict[str, bool]]:
    """By command its arguments and options, and whether they take a value."""
    get_command = importlib.import_module("typer.main").get_command
    found, waiting = {}, [("", get_command(app))]
    while waiting:
        name, command = waiting.pop()
        for part, child in getattr(command, "commands", {}).items():
            waiting.append((f"{name} {part}".strip(), child))
        if name:
            params = [p for p in command.params if p.name != "help"]
            found[name] = {max(p.opts, key=len): not getattr(p, "is_flag", False) for p in params}
    return found


if __name__ == "__main__":
    _serve()
