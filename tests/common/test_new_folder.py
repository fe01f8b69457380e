"""New folders that take long to fill: reserved names, and results that are never lost."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_app.common.errors import OutputError
from unlearn_app.common.new_folder import NewFolder

HOLD = """
import sys, time
from pathlib import Path
from unlearn_app.common.new_folder import NewFolder
with NewFolder(Path(sys.argv[1])) as new:
    (new.partial / "half").write_text("x")
    print("held", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_gets_its_name_at_the_end_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    with NewFolder(tmp_path / "deep" / "out") as new:
        (new.partial / "file").write_text("x")
        assert new.settle() == tmp_path / "deep" / "out"
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["out", "file"]


def test_a_folder_that_is_not_finished_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), NewFolder(tmp_path / "out"):
        raise KeyError
    assert names(tmp_path) == []


def test_of_two_that_begin_together_one_is_refused_at_once(tmp_path: Path) -> None:
    with (
        NewFolder(tmp_path / "out"),
        pytest.raises(OutputError, match=r"out' is being written by process \d+; a new folder"),
    ):
        NewFolder(tmp_path / "out").__enter__()


@pytest.mark.parametrize("taken", ["file", "folder", "empty", "link"])
def test_a_name_that_was_taken_meanwhile_loses_nothing(tmp_path: Path, taken: str) -> None:
    out = tmp_path / "out"
    (tmp_path / "out-2").mkdir()
    with NewFolder(out) as new:
        (new.partial / "mine").write_text("x")
        if taken == "file":
            out.write_text("theirs")
        elif taken == "link":
            out.symlink_to(tmp_path / "nowhere")
        else:
            out.mkdir()
            if taken == "folder":
                (out / "theirs").write_text("x")
        assert new.settle() == tmp_path / "out-3"
    assert names(tmp_path / "out-3") == ["mine"]
    assert names(tmp_path) == ["out", "out-2", "out-3"]


def test_a_killed_process_holds_no_name_and_its_half_is_swept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"being written by process {process.pid};"):
            NewFolder(tmp_path / "out").__enter__()
        process.send_signal(signal.SIGKILL)
    assert len(names(tmp_path)) == 2
    with NewFolder(tmp_path / "other"):
        assert not [name for name in names(tmp_path) if name.startswith(".out.")]
    with NewFolder(tmp_path / "out") as new:
        new.settle()
    assert names(tmp_path) == ["out"]
