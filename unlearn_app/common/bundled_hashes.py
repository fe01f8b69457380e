"""Hashes of the bundled models, recorded beside them when they are made."""

import hashlib
import json
from pathlib import Path

from .paths import POCKET

BUNDLED, HASHES = ("pipeline", "judge", "second"), "hashes.json"


def record_hashes() -> Path:
    """Write the hashes of the bundled models beside them, after they were made anew."""
    files = sorted(
        path for name in BUNDLED for path in (POCKET / name).rglob("*") if path.is_file()
    )
    digests = {path.relative_to(POCKET).as_posix(): _sha256(path) for path in files}
    record = POCKET / HASHES
    partial = record.with_name(f".{record.name}.partial")
    partial.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
    return partial.replace(record)


def changed_files() -> tuple[int, list[str]]:
    """How many hashes are recorded, and the names of files that are missing or differ from theirs.

    Raises:
        OSError, ValueError: no hashes can be read.
    """
    recorded = json.loads((POCKET / HASHES).read_text(encoding="utf-8"))
    return len(recorded), [
        name for name, digest in recorded.items() if _sha256(POCKET / name) != digest
    ]


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
