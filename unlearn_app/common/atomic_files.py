"""Files and folders that are written under a hidden name beside their place and moved there when
they are complete.
"""

import hashlib
import itertools
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError

MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""Stands in the names of partial files: on a shared disk only the own machine knows whether the
process that writes one is alive.
"""
PROCESS = uuid.uuid4().hex[:8]
"""Stands there too: a container that comes back has the process numbers that it had before."""
ABANDONED = 7 * 24 * 3600
"""Seconds without a change after which the partial file of another machine's process goes."""
DEVICES = Path("/dev")
_NUMBERS = itertools.count()


def partial_of(path: Path) -> Path:
    """A hidden name beside `path` that no other writer has; removes what dead processes left
    under such names, whatever it was for.

    Raises:
        OutputError: `path` has no name, as "." and "/".
    """
    if not path.name:
        raise OutputError(f"The output {str(path)!r} exists already; a new name is accepted.")
    remove_partials(path.parent)
    own = f"{os.getpid()}-{MACHINE}{PROCESS}{next(_NUMBERS):x}"
    return path.with_name(f".{path.name}.{own}.partial")


def remove_partials(folder: Path, name: str = ".+") -> None:
    """Remove what dead processes left half-written in `folder` under names that match the regular
    expression `name`, as far as this user may.
    """
    writer = r"(?P<pid>\d{1,9})-(?:(?P<machine>[0-9a-f]{8})(?P<process>[0-9a-f]{8,})|\w{1,8})"
    pattern = re.compile(rf"\.(?:{name})\.{writer}\.partial", re.DOTALL)
    for path in folder.glob(".*.partial"):
        if found := pattern.fullmatch(path.name):
            with suppress(OSError):  # another user's, or gone meanwhile
                if _is_left(path, **found.groupdict()):
                    remove(path)


def _is_left(path: Path, pid: str, machine: str | None, process: str | None) -> bool:
    """Whether the process that wrote the partial file or folder `path` is dead; of another
    machine's, whether nothing there has changed for long.
    """
    if machine not in (None, MACHINE):
        states = (found.lstat() for found in itertools.chain([path], path.rglob("*")))
        since = time.time() - ABANDONED
        return all(max(state.st_mtime, state.st_ctime) < since for state in states)
    if int(pid) == os.getpid():
        return not (process or "").startswith(PROCESS)
    return not alive(int(pid))


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which replaces `path` at the end of the block.

    When the block raises, `path` stays as it was. A kill leaves the previous or the next file. A
    folder that is replaced is absent for the moment between two renames; a kill in it leaves the
    previous one under a hidden name, from which the next replacement takes it back.

    Raises:
        OutputError: `path` is a device or a pipe, in whose place a file would stand afterwards.
    """
    odd = path.exists() and not (path.is_file() or path.is_dir())
    if odd or path.absolute().parent == DEVICES:  # links there lead to what a shell has opened
        raise OutputError(f"The output {str(path)!r} is a device or a pipe; a file is accepted.")
    if not path.exists() and _previous(path).exists():
        _previous(path).replace(path)
    partial = partial_of(path)
    try:
        yield partial
        _sync(partial)
        if partial.is_dir():
            _replace_folder(path, partial)
        else:
            partial.replace(path)
    finally:
        remove(partial)


def complete(folder: Path, pattern: str) -> list[Path]:
    """What matches the glob pattern below a folder, in order, without hidden entries: those are
    still being written, or were left by a kill.
    """
    found = {path: path.relative_to(folder).parts for path in folder.glob(pattern)}
    return sorted(path for path, names in found.items() if not any(n[0] == "." for n in names))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file `path`; a reader sees the previous or the next content, never a part."""
    with replacement(path) as partial:
        partial.write_bytes(content)


def new_file(path: Path, content: bytes) -> None:
    """Write a file that somebody asked for, with the folders above it.

    Raises:
        OutputError: it cannot be written.
    """
    _check_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def hidden_folder(out: Path) -> Iterator[Path]:
    """A hidden folder to fill and to move to `out`; where it was not moved, it is removed.

    Raises:
        OutputError: something cannot be written.
    """
    partial = partial_of(out)
    try:
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        remove(partial)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes the new folder `out` at the end of the block.

    Raises:
        OutputError: `out` holds something or cannot be written.
    """
    with hidden_folder(out) as partial:
        yield partial
        _sync(partial)
        partial.replace(out)


def move_in(partial: Path, out: Path) -> Path:
    """Give a complete folder the name `out`, or, where somebody has taken that meanwhile, the first
    free name of `out-2`, `out-3` and so on; returns the folder.
    """
    _sync(partial)
    others = (out.with_name(f"{out.name}-{number}") for number in itertools.count(2))
    names = itertools.chain([out], others)
    while True:
        free = next(name for name in names if not os.path.lexists(name))
        try:
            return partial.rename(free)
        except OSError:
            if not os.path.lexists(free):
                raise


def check_space(out: Path, needed: int) -> None:
    """Refuse a destination whose disk has no room for about `needed` bytes.

    Raises:
        OutputError: naming both.
    """
    _, _, free = shutil.disk_usage(_existing(out))
    if free < needed:
        raise OutputError(
            f"The output {str(out)!r} needs about {needed / 1e6:.1f} MB and its disk has"
            f" {free / 1e6:.1f} MB free; free some space or choose another disk."
        )


def _existing(out: Path) -> Path:
    """The folder that exists and that `out` is to be made in."""
    return next(path for path in Path(out).absolute().parents if path.exists())


def check_output(out: Path) -> None:
    """Refuse a destination that exists or cannot be written, before any work is done.

    Raises:
        OutputError: it is such a destination.
    """
    out = Path(out)
    _check_name(out)
    try:
        if out.exists() or out.is_symlink():
            raise OutputError(f"The output {str(out)!r} exists already; a new folder is accepted.")
        parent = _existing(out)
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"The output {str(out)!r} cannot be written: {str(parent)!r} is not a writable"
                " folder."
            )
    except OSError as error:
        raise unwritable(out, error) from error


def _check_name(out: Path) -> None:
    """Refuse what can be no name of a file.

    Raises:
        OutputError: it holds a zero byte or half a letter.
    """
    try:
        named = b"\0" not in os.fsencode(out)
    except UnicodeEncodeError:
        named = False
    if not named:
        raise OutputError(f"The output {str(out)!r} is no name of a file; a new name is accepted.")


def unwritable(out: Path, error: OSError) -> OutputError:
    """The error to raise when the file system refuses to write `out`."""
    return OutputError(f"The output {str(out)!r} cannot be written: {error.strerror or error}.")


def alive(pid: int) -> bool:
    """Whether a process of this machine has that number."""
    if os.name != "posix":  # elsewhere signal 0 ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder with all that it holds; do nothing if there is none."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    """Where a folder stands while it is replaced; not a partial name, so nothing removes it."""
    return path.with_name(f".{path.name}.previous")


def _replace_folder(path: Path, new: Path) -> None:
    previous = _previous(path)
    if path.exists():
        remove(previous)
        path.replace(previous)
    try:
        new.replace(path)
    except OSError:
        if previous.exists():
            previous.replace(path)
        raise
    remove(previous)


def _sync(path: Path) -> None:
    """Wait until the file, or every file in the folder, is on the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync(inner)
    else:
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
