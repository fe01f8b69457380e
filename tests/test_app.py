"""The page as a process of its own: how it ends, and what it leaves."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def started(top: Path) -> subprocess.Popen:
    """The page, once it answers, with `top` for temporary files."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ
        | {"TMPDIR": str(top), "GRADIO_SERVER_PORT": str(port), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if "Running on" in line:
            return process
    raise AssertionError("the page did not start")


@pytest.mark.slow
def test_what_a_killed_page_leaves_goes_at_the_next_start_and_a_signal_leaves_nothing(
    tmp_path: Path,
) -> None:
    with started(tmp_path) as killed:
        killed.kill()
    left = {path.name for path in tmp_path.glob("unlearn-page-*")}
    assert left
    with started(tmp_path) as page:
        assert not left & {path.name for path in tmp_path.iterdir()}
        page.send_signal(signal.SIGHUP)
        page.communicate(timeout=60)
    assert page.returncode == 129
    assert list(tmp_path.glob("unlearn-*")) == []
