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
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..common.json_values import json_text

VARIABLE = "UNLEARN_STORE"
"""The environment variable that names the folder of the store, or switches it off by `OFF`."""
OFF = "off"
SHIPPED = "latents.safetensors"
"""The file of what ships with a bundled model."""
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


@dataclass(frozen=True)
class Asked:
    """A batch that is asked of an original model.

    `prompts` is None where only their `conditioning` is known. `facts` is what the latents depend
    on besides, and `machine` what only their rounding does; JSON can hold both.
    """

    conditioning: tuple[Tensor, ...]
    prompts: tuple[str, ...] | None
    facts: Sequence[object]
    machine: Sequence[object]

    @property
    def exact(self) -> bytes:
        """A key of the latents to the last bit."""
        return key_of(self.conditioning, self.facts, self.machine)

    @property
    def portable(self) -> str | None:
        """A key of the latents but for their rounding, the same on every machine."""
        return None if self.prompts is None else key_of((), self.prompts, self.facts).hex()


class Store(Protocol):
    """What may know the latents of a batch."""

    def recall(self, asked: Asked, sample: Callable[[], Tensor]) -> Tensor:
        """The latents that are asked for, or else those that `sample` makes."""


class ShippedLatents:
    """Latents in a file that comes with a model; for others it asks the store behind it, if any.

    A file that cannot be read costs the time it would have saved.
    """

    def __init__(self, file: Path, behind: Store | None) -> None:
        self._file, self._behind = file, behind

    def recall(self, asked: Asked, sample: Callable[[], Tensor]) -> Tensor:
        key = asked.portable
        with suppress(OSError, SafetensorError), safe_open(self._file, "pt") as latents:
            if key in latents.keys():  # noqa: SIM118, no mapping
                return latents.get_tensor(key).float()
        return self._behind.recall(asked, sample) if self._behind else sample()


class Recorder:
    """A store that knows nothing, and notes what it sees for a file that ships."""

    def __init__(self) -> None:
        self.latents: dict[str, Tensor] = {}

    def recall(self, asked: Asked, sample: Callable[[], Tensor]) -> Tensor:
        sampled = sample()
        if key := asked.portable:
            self.latents[key] = sampled.half()
        return sampled

    def save(self, file: Path) -> None:
        """Write the file for `ShippedLatents`."""
        save_file(self.latents, file)


class LatentStore:
    """Latents in half precision by key, in an SQLite file that processes may share.

    A file that cannot be read or written costs the time it would have saved, and no more.
    """

    def __init__(self, file: Path, largest: int = LARGEST) -> None:
        self.file, self._largest = file, largest

    def recall(self, asked: Asked, sample: Callable[[], Tensor]) -> Tensor:
        key = asked.exact
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
    digest = hashlib.sha256(json_text(facts).encode())
    for tensor in conditioning:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
