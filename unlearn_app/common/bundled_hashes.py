"""Hashes of the bundled models, recorded in their folder when they are made."""

import json
from pathlib import Path

from .atomic_files import write_bytes
from .paths import POCKET
from .record_files import damaged, read_json, sha256_of

BUNDLED = ("pipeline", "judge", "second")
HASHES = "hashes.json"


def record_hashes(folder: Path | None = None) -> Path:
    """Write the hashes of the models in `folder`, that of the bundled ones by default, to a file
    there; returns it.
    """
    folder = folder or POCKET
    files = sorted(
        path for name in BUNDLED for path in (folder / name).rglob("*") if path.is_file()
    )
    digests = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    record = folder / HASHES
    write_bytes(record, (json.dumps(digests, indent=1) + "\n").encode())
    return record


def changed_files(folder: Path | None = None) -> tuple[int, list[str]]:
    """How many hashes are recorded in `folder`, that of the bundled models by default, and the
    names of files that are missing or have another hash.

    Raises:
        OutputError: no hashes can be read.
    """
    folder = folder or POCKET
    recorded = read_json(folder / HASHES, "list of hashes")
    if not isinstance(recorded, dict):
        raise damaged(folder, "list of hashes", f"{HASHES} is no object")
    return len(recorded), [
        name for name, digest in recorded.items() if not _has_hash(folder / name, digest)
    ]


def _has_hash(path: Path, digest: str) -> bool:
    try:
        return sha256_of(path) == digest
    except OSError:
        return False
