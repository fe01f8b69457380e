"""Files and folders that are written under a hidden name beside their place and moved there when
they are complete.
"""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


def partial_of(path: Path) -> Path:
    """A hidden name beside `path` that no other writer has; removes what dead processes left
    under such names.
    """
    remove_partials(path.parent, re.escape(path.name))
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")


def remove_partials(folder: Path, name: str) -> None:
    """Remove what dead processes left half-written in `folder` under names that match the regular
    expression `name`.
    """
    pattern = re.compile(rf"\.(?:{name})\.(?P<process>\d{{1,9}})-\w+\.partial")
    for path in folder.glob(".*.partial"):
        found = pattern.fullmatch(path.name)
        if found and not _alive(int(found["process"])):
            _remove(path)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which replaces `path` at the end of the block.

    When the block raises, `path` stays as it was. A kill leaves the previous or the next file. A
    folder that is replaced is absent for the moment between two renames; a kill in it leaves the
    previous one under a hidden name, from which the next replacement takes it back.
    """
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
        _remove(partial)


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


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes the new folder `out` at the end of the block.

    Raises:
        OutputError: `out` holds something or cannot be written.
    """
    partial = partial_of(out)
    try:
        partial.mkdir(parents=True)
        yield partial
        _sync(partial)
        partial.replace(out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        _remove(partial)


def check_output(out: Path) -> None:
    """Refuse a destination that exists or cannot be written, before any work is done.

    Raises:
        OutputError: it is such a destination.
    """
    out = Path(out)
    try:
        if out.exists() or out.is_symlink():
            raise OutputError(f"The output {str(out)!r} exists already; a new folder is accepted.")
        parent = next(p for p in (out, *out.absolute().parents) if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"The output {str(out)!r} cannot be written: {str(parent)!r} is not a writable"
                " folder."
            )
    except OSError as error:
        raise unwritable(out, error) from error


def unwritable(out: Path, error: OSError) -> OutputError:
    """The error to raise when the file system refuses to write `out`."""
    return OutputError(f"The output {str(out)!r} cannot be written: {error.strerror or error}.")


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
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
        _remove(previous)
        path.replace(previous)
    try:
        new.replace(path)
    except OSError:
        if previous.exists():
            previous.replace(path)
        raise
    _remove(previous)


def _sync(path: Path) -> None:
    """Wait until the file, or every file in the folder, is on the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync(inner)
    else:
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
