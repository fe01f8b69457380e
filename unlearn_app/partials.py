"""What is being written stands beside its place under a name that no other writer has, until it is whole."""

import os
import re
import shutil
import uuid
from pathlib import Path


def partial_of(path: Path) -> Path:
    """A hidden name beside `path` for this writer alone; what processes that are gone have left there is removed."""
    left = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})-\w+\.partial")
    for other in path.parent.glob(".*.partial"):
        found = left.fullmatch(other.name)
        if found and not _alive(int(found[1])):
            shutil.rmtree(other, ignore_errors=True) if other.is_dir() else other.unlink(missing_ok=True)
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
