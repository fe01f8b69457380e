"""The lock of a folder, held by another process."""

import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_app.common.errors import OutputError
from unlearn_app.common.folder_lock import LOCK, only_writer

HOLDER = """
import sys
from pathlib import Path
from unlearn_app.common.folder_lock import only_writer
with only_writer(Path(sys.argv[1]), "ledger"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_holder_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        for _ in range(2):
            with (
                pytest.raises(OutputError, match=f"is being changed by process {holder.pid};"),
                only_writer(tmp_path, "ledger"),
            ):
                pass
        holder.kill()
    with only_writer(tmp_path, "ledger"):
        assert (tmp_path / LOCK).exists()


def test_the_lock_is_no_way_to_a_linked_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / LOCK).symlink_to(tmp_path / "mine")
    with (
        pytest.raises(OutputError, match="cannot be written"),
        only_writer(tmp_path / "folder", ""),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
