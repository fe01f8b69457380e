"""The page as a process of its own: how it ends, what it leaves, and ports that it cannot have."""

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


def ended(port: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | {"GRADIO_SERVER_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def said(port: object) -> str:
    page = ended(port)
    assert page.returncode == 2
    (sentence,) = [line for line in page.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in page.stderr
    return sentence


@pytest.mark.parametrize("port", ["abc", "", "-1", "0", "99999", "7" * 5000, "1.5"])
def test_an_impossible_port_is_a_sentence(port: str) -> None:
    assert "a number from 1 to 65535 is accepted" in said(port)


@pytest.mark.slow
def test_a_taken_port_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert f"The port {taken.getsockname()[1]} of 127.0.0.1 is taken" in said(
            taken.getsockname()[1]
        )
