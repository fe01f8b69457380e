"""Private temporary folders, which are removed after their process, even one that is killed."""

import atexit
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from .folder_lock import signed_lock

PATIENCE = 1.0
"""Seconds to wait for the own lock, which another process may try just then."""


class PrivateFolder:
    """A new folder whose name begins with `prefix` and that only this user may read.

    It is removed by `remove`, at the end of a `with` block, which is given its path, or when the
    process exits. The folder of a killed process is removed
    when the next one is made: the lock of a file beside it tells whether its process is alive.
    """

    def __init__(self, prefix: str) -> None:
        top = Path(tempfile.gettempdir())
        _remove_dead(top, prefix)
        self.path = top / f"{prefix}{uuid.uuid4().hex}"
        self._lock = _lock_of(self.path)
        with suppress(OSError):  # some disks have no locks
            self._lock.acquire(timeout=PATIENCE)
        self.path.mkdir(mode=0o700)
        atexit.register(self.remove)

    def remove(self) -> None:
        """Remove the folder with all that it holds."""
        _remove(self.path, self._lock)
        if not self.path.exists():
            atexit.unregister(self.remove)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: Any) -> None:
        self.remove()


def _lock_of(folder: Path) -> FileLock:
    return signed_lock(folder.with_name(f"{folder.name}.lock"))


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    if not folder.exists():  # else a thread still writes into it; the next process removes it
        Path(lock.lock_file).unlink(missing_ok=True)


def _remove_dead(top: Path, prefix: str) -> None:
    """Remove this user's folders of that prefix whose process is dead."""
    for file in top.glob(f"{prefix}*.lock"):
        folder, lock = file.with_suffix(""), _lock_of(file.with_suffix(""))
        with suppress(OSError):  # Timeout among them: its process is alive
            if not hasattr(os, "getuid") or file.lstat().st_uid == os.getuid():
                lock.acquire()
                _remove(folder, lock)
