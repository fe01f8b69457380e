"""A store on disk of what original models sample, so that the same pictures are sampled once.

Latents of a whole batch are kept together, because rounding depends on what a picture is batched
with: what comes from the store is bit for bit what would be sampled, rounded to half precision.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import torch
from platformdirs import user_cache_path
from torch import Tensor

VARIABLE = "UNLEARN_STORE"
"""The environment variable that names the folder of the store, or switches it off by `OFF`."""
OFF = "off"
LARGEST = 256 * 2**20
"""Bytes of latents that are kept; those that were used longest ago go first."""
FREED = 0.1
"""Share of the largest size that is freed at once."""
PATIENCE = 5.0
"""Seconds to wait for another process that writes."""
TABLE = (
    "CREATE TABLE IF NOT EXISTS latents (key BLOB PRIMARY KEY, shape TEXT NOT NULL,"
    " numbers BLOB NOT NULL, used REAL NOT NULL)"
)


class LatentStore:
    """Latents in half precision by key, in an SQLite file that processes may share.

    A file that cannot be read or written costs the time it would have saved, and no more.
    """

    def __init__(self, file: Path, largest: int = LARGEST) -> None:
        self.file, self._largest = file, largest

    def recall(self, key: bytes, sample: Callable[[], Tensor]) -> Tensor:
        """The latents of `key`; where there are none, those that `sample` makes are kept."""
        known = self.get(key)
        if known is not None:
            return known
        sampled = sample()
        self.put(key, sampled)
        return sampled

    def get(self, key: bytes) -> Tensor | None:
        """The latents of `key` in float32, or None."""
        with suppress(sqlite3.Error, OSError, ValueError, RuntimeError), self._open() as base, base:
            asked = "SELECT shape, numbers FROM latents WHERE key = ?"
            if found := base.execute(asked, (key,)).fetchone():
                base.execute("UPDATE latents SET used = ? WHERE key = ?", (time.time(), key))
                shape, numbers = found
                halves = torch.frombuffer(bytearray(numbers), dtype=torch.float16)
                return halves.view(json.loads(shape)).float()
        return None

    def put(self, key: bytes, latents: Tensor) -> None:
        """Keep `latents`, rounded to half precision."""
        halves = latents.half().contiguous().cpu()
        row = key, json.dumps(halves.shape), halves.numpy().tobytes(), time.time()
        with suppress(sqlite3.Error, OSError), self._open() as base, base:
            base.execute("INSERT OR REPLACE INTO latents VALUES (?, ?, ?, ?)", row)
            self._free(base)

    def _open(self) -> closing[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(self.file, timeout=PATIENCE)
        base.execute(TABLE)
        return closing(base)

    def _free(self, base: sqlite3.Connection) -> None:
        """Remove what was used longest ago where the latents take too much room."""
        (size,) = base.execute("SELECT SUM(LENGTH(numbers)) FROM latents").fetchone()
        if size <= self._largest:
            return
        kept = (1 - FREED) * self._largest
        base.execute(
            "DELETE FROM latents WHERE key IN (SELECT key FROM (SELECT key,"
            " SUM(LENGTH(numbers)) OVER (ORDER BY used DESC, key) AS held FROM latents)"
            " WHERE held > ?)",
            (kept,),
        )


def user_store() -> LatentStore | None:
    """The store of this user; None where it is switched off."""
    asked = os.environ.get(VARIABLE, "")
    if asked == OFF:
        return None
    folder = Path(asked) if asked else user_cache_path("unlearn_app", appauthor=False)
    return LatentStore(folder / "latents.sqlite")


def key_of(conditioning: Sequence[Tensor], *facts: object) -> bytes:
    """The key of latents that follow from `conditioning` and from `facts` that JSON can hold."""
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for tensor in conditioning:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
