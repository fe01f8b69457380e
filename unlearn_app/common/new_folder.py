"""A new folder that takes long to fill: its name is reserved at the start, and if another process
takes the name all the same, the folder gets a free name beside it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from .atomic_files import alive, check_output, hidden_folder, move_in
from .errors import OutputError
from .folder_lock import holder, process_of, signed_lock

RESERVED = "reserved"
"""The ending of the hidden file that reserves a name while its writer holds the file's lock."""
PATIENCE = 0.2
"""Seconds to wait for a lock, in which another process may look whether a mark is held."""


class NewFolder:
    """A context in which the hidden folder `partial` is filled; `settle` gives it its name, and
    without that it is removed.

    Raises:
        OutputError: `out` exists, is being written, or cannot be written.
    """

    partial: Path

    def __init__(self, out: Path) -> None:
        self.out = Path(out)

    def __enter__(self) -> "NewFolder":
        with ExitStack() as opened:
            opened.enter_context(reserved(self.out))
            self.partial = opened.enter_context(hidden_folder(self.out))
            self._opened = opened.pop_all()
        return self

    def settle(self) -> Path:
        """The folder under its name, or one beside that where the name is taken."""
        return move_in(self.partial, self.out)

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)


@contextmanager
def reserved(out: Path) -> Iterator[None]:
    """Let no other process begin `out` meanwhile; one that is killed holds nothing.

    Raises:
        OutputError: `out` exists, is being written, or cannot be written.
    """
    check_output(out)
    mark = out.with_name(f".{out.name}.{RESERVED}")
    lock = signed_lock(mark)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_marks(out.parent)
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise OutputError(
            f"The output {str(out)!r} is being written by {holder(mark)}; a new folder is accepted."
        ) from error
    except OSError:
        # Some network disks have no locks: who is the second to finish loses nothing there either.
        # A folder that refuses files is told next.
        pass
    try:
        check_output(out)  # whoever held the name until now may have finished
        yield
    finally:
        if lock.is_locked:
            mark.unlink(missing_ok=True)
        lock.release()


def _remove_marks(folder: Path) -> None:
    """Remove what dead processes have left in `folder` of their reservations."""
    for mark in folder.glob(f".*.{RESERVED}"):
        pid = process_of(mark)
        if pid is not None and not alive(pid):
            with suppress(OSError), signed_lock(mark):
                mark.unlink(missing_ok=True)
