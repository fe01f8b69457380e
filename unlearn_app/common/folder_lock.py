"""One writer of a folder at a time, among all processes of the machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .atomic_files import unwritable
from .errors import OutputError

LOCK = ".lock"
"""The file in the folder; it stays there, and says who holds the lock or held it last."""


@contextmanager
def only_writer(folder: Path, kind: str) -> Iterator[None]:
    """Hold the lock of `folder`; the system frees it however this process ends.

    `kind` is what the folder holds, in words.

    Raises:
        OutputError: somebody else holds it, or the folder cannot be written.
    """
    file = folder / LOCK
    lock = signed_lock(file)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"The {kind} in {str(folder)!r} is being changed by {holder(file)}; try again when"
            " that has ended."
        ) from error
    except OSError as error:
        raise unwritable(file, error) from error
    try:
        yield
    finally:
        lock.release()


def signed_lock(file: Path) -> FileLock:
    """A lock whose file says who holds it; it is not waited for."""
    # Not by thread: a generator that holds the lock may be finished by another thread.
    return FileLock(file, timeout=0, thread_local=False, on_acquired=_sign)


def _sign(file: int) -> None:
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())


def holder(file: Path) -> str:
    """Who holds the lock of `file`, in words."""
    pid = process_of(file)
    return "another process" if pid is None else f"process {pid}"


def process_of(file: Path) -> int | None:
    """The number of the process that holds the lock of `file`, or held it last."""
    try:
        said = file.read_text(encoding="ascii") if file.is_file() else ""
    except (OSError, ValueError):  # Windows lets nobody read what is locked
        return None
    return int(said) if said.isdigit() and len(said) < 10 else None
