"""A cache on disk of what original models sample, so that the same pictures are sampled once.

Latents are kept by batch, because rounding depends on what a picture is batched with: what comes
from the store is bit for bit what would be sampled, rounded to half precision.
"""

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from ..common.json_values import json_text

VARIABLE = "UNLEARN_STORE"
"""The environment variable that names the folder of the store, or switches it off by `OFF`."""
OFF = "off"
SHIPPED = "latents.npz"
"""The file of what ships with a bundled model: for each batch the low and the high bytes of its
numbers in half precision apart, since the high ones alone can be compressed.
"""
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, BadZipFile, zlib.error)
"""What damaged files of that kind raise."""
LARGEST = 256 * 2**20
"""Bytes of latents that are kept; the least recently used are removed first."""
FREED = 0.1
"""Share of `LARGEST` that is freed at once."""
PATIENCE = 5.0
"""Seconds to wait for the lock of another process that writes."""
TABLE = (
    "CREATE TABLE IF NOT EXISTS latents (key BLOB PRIMARY KEY, shape TEXT NOT NULL,"
    " numbers BLOB NOT NULL, used REAL NOT NULL)"
)


class Store(Protocol):
    """Something that may hold the latents of a batch."""

    def recall(self, exact: bytes, portable: str | None, sample: Callable[[], Tensor]) -> Tensor:
        """The latents of a batch: stored ones, else what `sample` returns.

        `exact` is the key of latents that agree to the last bit, `portable` the one of latents that
        agree but for rounding, the same on every machine; it is None where the prompts are unknown.
        """


@dataclass(frozen=True)
class ShippedLatents:
    """Latents in a `file` that comes with a model; the store `behind` answers for all others.

    A file that cannot be read costs only the time it would have saved.
    """

    file: Path
    behind: Store

    def recall(self, exact: bytes, portable: str | None, sample: Callable[[], Tensor]) -> Tensor:
        with suppress(*UNREADABLE), np.load(self.file) as latents:
            if portable in latents:
                return _joined(latents[portable]).float()
        return self.behind.recall(exact, portable, sample)


@dataclass(frozen=True)
class Recorder:
    """A store that answers nothing and records what is sampled, to make the file that ships."""

    latents: dict[str, Tensor] = field(default_factory=dict)

    def recall(self, exact: bytes, portable: str | None, sample: Callable[[], Tensor]) -> Tensor:
        sampled = sample()
        if portable:
            self.latents[portable] = sampled.half()
        return sampled

    def save(self, file: Path) -> None:
        """Write the file for `ShippedLatents`."""
        with file.open("wb") as stream:
            np.savez_compressed(stream, **{key: _split(one) for key, one in self.latents.items()})


def _split(halves: Tensor) -> np.ndarray:
    """The low and the high bytes of numbers in half precision, `(2, ...)`."""
    bits = halves.contiguous().numpy().view(np.uint16)
    return np.stack([bits & 0xFF, bits >> 8]).astype(np.uint8)


def _joined(planes: np.ndarray) -> Tensor:
    """What `_split` split."""
    low, high = planes.astype(np.uint16)
    return torch.from_numpy((high << 8 | low).view(np.float16))


@dataclass(frozen=True)
class LatentStore:
    """Latents in half precision by key, in an SQLite `file` that processes may share.

    A file that cannot be read or written costs only the time it would have saved.
    """

    file: Path

    def recall(self, exact: bytes, portable: str | None, sample: Callable[[], Tensor]) -> Tensor:
        latents = self.get(exact)
        if latents is None:
            latents = sample()
            self.put(exact, latents)
        return latents

    def get(self, key: bytes) -> Tensor | None:
        """The latents of `key` in float32, or None."""
        with suppress(sqlite3.Error, OSError, ValueError, RuntimeError), self._open() as base, base:
            query = "SELECT shape, numbers FROM latents WHERE key = ?"
            if found := base.execute(query, (key,)).fetchone():
                base.execute("UPDATE latents SET used = ? WHERE key = ?", (time.time(), key))
                shape, numbers = found
                halves = torch.frombuffer(bytearray(numbers), dtype=torch.float16)
                return halves.view(json.loads(shape)).float()
        return None

    def put(self, key: bytes, latents: Tensor) -> None:
        """Keep `latents`, rounded to half precision."""
        halves = latents.half().contiguous().cpu()
        row = key, json_text(list(halves.shape)), halves.numpy().tobytes(), time.time()
        with suppress(sqlite3.Error, OSError), self._open() as base, base:
            base.execute("INSERT OR REPLACE INTO latents VALUES (?, ?, ?, ?)", row)
            self._free(base)

    def _open(self) -> closing[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(self.file, timeout=PATIENCE)
        base.execute(TABLE)
        return closing(base)

    def _free(self, base: sqlite3.Connection) -> None:
        """Remove the least recently used latents when all together exceed `LARGEST`."""
        (size,) = base.execute("SELECT SUM(LENGTH(numbers)) FROM latents").fetchone()
        if size > LARGEST:
            base.execute(
                "DELETE FROM latents WHERE key IN (SELECT key FROM (SELECT key,"
                " SUM(LENGTH(numbers)) OVER (ORDER BY used DESC, key) AS held FROM latents)"
                " WHERE held > ?)",
                ((1 - FREED) * LARGEST,),
            )


def user_store() -> LatentStore | None:
    """The store of this user; None when it is switched off."""
    asked = os.environ.get(VARIABLE, "")
    if asked == OFF:
        return None
    folder = Path(asked) if asked else user_cache_path("unlearn_app", appauthor=False)
    return LatentStore(folder / "latents.sqlite")


def key_of(conditioning: Sequence[Tensor], *facts: object) -> bytes:
    """A hash of the tensors of `conditioning` and of `facts`, which are JSON values."""
    digest = hashlib.sha256(json_text(facts).encode())
    for tensor in conditioning:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
