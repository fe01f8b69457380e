"""The app in a process of its own, on a free port of the loopback interface."""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import closing
from fnmatch import fnmatch
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from ..common.paths import ROOT

PATIENCE_S = 120
"""Seconds within which the app must begin to answer, and must end after SIGTERM."""

CACHES = (".ses", "torchinductor_*")
"""What onnxruntime and torch leave in the folder of temporary files when they are imported."""


def left_in(temporary: Path) -> set[str]:
    """The names in a folder of temporary files, without the caches of libraries."""
    names = {path.name for path in temporary.iterdir()}
    return {name for name in names if not any(fnmatch(name, cache) for cache in CACHES)}


class AppProcess:
    """A context in which `app.py` runs, with more environment `variables`; it ends by SIGTERM.

    `folder` gets `app.log` and, in `tmp`, the temporary files of the app.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        self.temporary, self.log = folder / "tmp", folder / "app.log"
        self.temporary.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._started = time.perf_counter()
        environment = os.environ | {
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(self.port),
            "TMPDIR": str(self.temporary),
            "NO_PROXY": "127.0.0.1,localhost",
            **variables,
        }
        environment.pop("GRADIO_TEMP_DIR", None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def wait(self) -> float:
        """Wait until the page is served; returns the seconds since the start of the process.

        Raises:
            RuntimeError: the process ended, or does not serve the page in time.
        """
        while not self.answers():
            late = time.perf_counter() - self._started > PATIENCE_S
            if late or self.process.poll() is not None:
                raise RuntimeError(f"The app does not answer:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        return time.perf_counter() - self._started

    def answers(self) -> bool:
        """Whether the page is served."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=2)) as connection:
            try:
                connection.request("GET", "/")
                return bool(connection.getresponse().read())
            except (OSError, HTTPException):
                return False

    def files(self) -> set[str]:
        """The names in the folder of temporary files, without the caches of libraries."""
        return left_in(self.temporary)

    def peak_gb(self) -> float | None:
        """The most memory that the process has held until now; None where the system does not tell
        it (only Linux does).
        """
        status = Path(f"/proc/{self.process.pid}/status")
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
        return 1024 * int(found[1]) / 1e9 if found else None

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "AppProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_S)
