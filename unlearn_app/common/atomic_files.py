"""What is being written stands beside its place under a name that no other writer has, until it is
whole.
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
    """A hidden name beside `path` for this writer alone; what processes that are gone have left
    there is removed.
    """
    left = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})-\w+\.partial")
    for other in path.parent.glob(".*.partial"):
        found = left.fullmatch(other.name)
        if found and not _alive(int(found[1])):
            (
                shutil.rmtree(other, ignore_errors=True)
                if other.is_dir()
                else other.unlink(missing_ok=True)
            )
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside, fsync and rename, so that a reader never sees half a file."""
    partial = partial_of(path)
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the question would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that is moved there at the end, or removed when something goes wrong.

    Raises:
        OutputError: it cannot be written.
    """
    partial = partial_of(out)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output(out: Path) -> None:
    """Refuse a destination that holds something or cannot be written, before any work is done.

    Raises:
        OutputError: as said.
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
    """The error of an output that an operation of the file system refuses."""
    return OutputError(f"The output {str(out)!r} cannot be written: {error.strerror or error}.")
