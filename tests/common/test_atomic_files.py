"""Files that are whole or not there, whoever else writes beside."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from unlearn_app.common import atomic_files
from unlearn_app.common.atomic_files import (
    check_output,
    check_space,
    new_file,
    partial_of,
    replacement,
    whole_folder,
    write_bytes,
)
from unlearn_app.common.errors import OutputError


def test_two_processes_may_write_the_same_file_and_leftovers_of_dead_ones_go(
    tmp_path: Path,
) -> None:
    """With one name for what is half-written, the second to finish finds nothing to rename, or
    renames a mixture.
    """
    path = tmp_path / "cell.json"
    other = multiprocessing.get_context("spawn").Process(
        target=write_bytes, args=(tmp_path / "other", b"1")
    )
    other.start()
    other.join()
    dead = tmp_path / f".cell.json.{other.pid}-0a.partial"
    dead.write_bytes(b"half")
    living = partial_of(path)
    living.write_bytes(b"half")
    assert partial_of(path) != living
    assert living.exists()
    assert not dead.exists()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: write_bytes(path, bytes([row]) * 10_000), range(64)))
    content = path.read_bytes()
    assert len(content) == 10_000
    assert len(set(content)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["cell.json", "other", living.name])


def test_what_dead_processes_left_goes_whatever_it_was_for(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=print)
    other.start()
    other.join()
    dead = partial_of(tmp_path / "another").with_name(f".another.{other.pid}-0a.partial")
    elsewhere = dead.with_name(f".another.{other.pid}-0123456789abcdef.partial")
    living = partial_of(tmp_path / "third")
    for path in (dead, elsewhere, living):
        path.mkdir()
    write_bytes(tmp_path / "file", b"1")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file", elsewhere.name, living.name}, "another machine's process may be alive"


def test_what_a_container_left_goes_when_it_comes_back_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = partial_of(tmp_path / "living")
    with monkeypatch.context() as before:
        before.setattr(atomic_files, "PROCESS", "0123abcd")
        killed = partial_of(tmp_path / "killed")
    first = tmp_path / f".first.{os.getpid()}-0a.partial"
    for path in (living, killed, first):
        path.write_bytes(b"half")
    write_bytes(tmp_path / "file", b"1")
    assert {path.name for path in tmp_path.iterdir()} == {"file", living.name}


def test_what_another_machine_left_goes_after_days_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(atomic_files, "MACHINE", "0123abcd")
        left = partial_of(tmp_path / "run")
    (left / "images").mkdir(parents=True)
    (left / "images" / "a.png").write_bytes(b"half")
    write_bytes(tmp_path / "file", b"1")
    assert left.exists()
    days = atomic_files.ABANDONED + 60
    monkeypatch.setattr("time.time", lambda: (left / "images").stat().st_mtime + days)
    write_bytes(tmp_path / "file", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_leftover_that_cannot_be_removed_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user's in /tmp."""
    left = tmp_path / ".out.999999999-0a.partial"
    left.write_bytes(b"half")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == left:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    write_bytes(tmp_path / "file", b"1")
    assert left.exists()
    assert (tmp_path / "file").read_bytes() == b"1"


def test_a_disk_without_room_is_a_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: (10**9, 10**9, 2_000_000))
    check_space(tmp_path / "deep" / "out", 1_999_999)
    with pytest.raises(OutputError, match=r"needs about 3.0 MB and its disk has 2.0 MB free"):
        check_space(tmp_path / "deep" / "out", 3_000_000)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacement(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with replacement(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_with_all_that_it_held(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("1")
    with replacement(path) as partial:
        partial.mkdir()
        (partial / "new").write_text("2")
    assert [found.relative_to(tmp_path).as_posix() for found in tmp_path.rglob("*")] == [
        "model",
        "model/new",
    ]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    with pytest.raises(RuntimeError), replacement(path) as partial:
        partial.mkdir()
        (partial / "new").write_text("2")
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == [path]


def folder_of(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_kill_between_two_renames_loses_no_folder(tmp_path: Path) -> None:
    folder_of(tmp_path / ".out.previous", "before")
    with pytest.raises(KeyError), replacement(tmp_path / "out"):
        raise KeyError
    assert (tmp_path / "out" / "file").read_text() == "before"


def test_a_folder_that_cannot_be_moved_in_leaves_the_previous_one(tmp_path: Path) -> None:
    out = folder_of(tmp_path / "out", "before")
    moved = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError("no")
        return moved(path, target)

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(OSError, match="no"),
        replacement(out) as partial,
    ):
        folder_of(partial, "after")
        patch.setattr(Path, "replace", refuse)
    assert (out / "file").read_text() == "before"


@pytest.mark.parametrize("writer", [replacement, whole_folder])
def test_the_files_of_a_folder_are_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Callable[[Path], Any]
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    with writer(tmp_path / "out") as partial:
        (partial / "inner").mkdir(parents=True)
        files = [partial / "one.json", partial / "inner" / "two.png"]
        for file in files:
            file.write_text("x")
        wanted = {file.stat().st_ino for file in files}
    assert set(synced) == wanted


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_can_be_no_name_is_refused(tmp_path: Path, name: str) -> None:
    for write in (check_output, lambda out: new_file(out, b"x")):
        with pytest.raises(OutputError, match="is no name of a file"):
            write(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_file_takes_the_place_of_a_link_among_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_files, "DEVICES", tmp_path)
    (tmp_path / "opened").write_text("before")
    (tmp_path / "stdout").symlink_to("opened")
    with pytest.raises(OutputError, match="a device or a pipe"):
        write_bytes(tmp_path / "stdout", b"text")
    assert (tmp_path / "stdout").is_symlink()


def test_no_file_takes_the_place_of_a_pipe_or_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="a device or a pipe"):
        write_bytes(pipe, b"text")
    assert pipe.is_fifo()
