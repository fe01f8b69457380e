"""Private temporary folders: gone with their process, and never another living one's."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from unlearn_app.common.private_folder import PrivateFolder

MAKE = """
import sys
from unlearn_app.common.private_folder import PrivateFolder
folder = PrivateFolder("unlearn-test-")
(folder.path / "file").write_text("x")
print(folder.path, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def spawn(top: Path) -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE],
        env=os.environ | {"TMPDIR": str(top)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, Path(process.stdout.readline().strip())


def test_only_its_user_may_read_it(top: Path) -> None:
    folder = PrivateFolder("unlearn-test-")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.remove()
    assert list(top.iterdir()) == []


def test_what_a_killed_process_leaves_goes_and_a_living_one_keeps_its_own(top: Path) -> None:
    killed, left = spawn(top)
    living, kept = spawn(top)
    with killed, living:
        killed.kill()
        killed.wait()
        own = PrivateFolder("unlearn-test-")
        assert sorted(path for path in top.iterdir() if path.is_dir()) == sorted([kept, own.path])
        assert (kept / "file").exists()
        assert not left.exists()
        living.communicate("\n")
    own.remove()
    assert list(top.iterdir()) == []


def test_it_goes_at_the_end_of_a_block_that_fails(top: Path) -> None:
    with pytest.raises(KeyError), PrivateFolder("unlearn-test-") as path:
        (path / "file").write_text("x")
        raise KeyError
    assert list(top.iterdir()) == []
