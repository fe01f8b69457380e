"""Hashes of the bundled models, recorded beside them when they are made."""

import json
from pathlib import Path

from .atomic_files import write_bytes
from .paths import POCKET
from .record_files import damaged, read_json, sha256_of

BUNDLED = ("pipeline", "judge", "second")
HASHES = "hashes.json"


def record_hashes() -> Path:
    """Write the hashes of the bundled models beside them; returns the file."""
    files = sorted(
        path for name in BUNDLED for path in (POCKET / name).rglob("*") if path.is_file()
    )
    digests = {path.relative_to(POCKET).as_posix(): sha256_of(path) for path in files}
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
        name for name, digest in recorded.items() if not _has_hash(POCKET / name, digest)
    ]


def _has_hash(path: Path, digest: str) -> bool:
    try:
        return sha256_of(path) == digest
    except OSError:
        return False
