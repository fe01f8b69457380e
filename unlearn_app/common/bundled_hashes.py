"""Hashes of the bundled models, recorded beside them when they are made."""

import hashlib
import json
from pathlib import Path

from .atomic_files import write_bytes
from .paths import POCKET
from .record_files import damaged, read_json

BUNDLED = ("pipeline", "judge", "second")
HASHES = "hashes.json"


def record_hashes() -> Path:
    """Write the hashes of the bundled models beside them; returns the file."""
    files = sorted(
        path for name in BUNDLED for path in (POCKET / name).rglob("*") if path.is_file()
    )
    digests = {path.relative_to(POCKET).as_posix(): _sha256(path) for path in files}
    record = POCKET / HASHES
    write_bytes(record, (json.dumps(digests, indent=1) + "\n").encode())
    return record


def changed_files() -> tuple[int, list[str]]:
    """How many hashes are recorded, and the names of files that are missing or have another hash.

    Raises:
        OutputError: no hashes can be read.
    """
    recorded = read_json(POCKET / HASHES, "list of hashes")
    if not isinstance(recorded, dict):
        raise damaged(POCKET, "list of hashes", f"{HASHES} is no object")
    return len(recorded), [
        name for name, digest in recorded.items() if _sha256(POCKET / name) != digest
    ]


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
