"""The rendered data set: which scene stands at which index, and shards of pictures on disk."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from .vocabulary import FRESH_OBJECTS, OBJECTS, SETTINGS, STYLES
from .world import SIZE, Scene, render

SHARD = 2000
SPLITS = ("train", "valid", "fresh")
HELD_OUT_SHARE = 0.05


def is_held_out(object_name: str, style: str, setting: str) -> bool:
    """Whether this composition is kept out of the training split (about one in twenty, fixed)."""
    names = [[e.name for e in entries] for entries in (OBJECTS, STYLES, SETTINGS)]
    place = [column.index(name) for column, name in zip(names, (object_name, style, setting), strict=True)]
    return np.random.default_rng([20250, *place]).random() < HELD_OUT_SHARE


def scene_at(split: str, index: int, seed: int) -> Scene:
    """The scene at `index` of `split`: "train" skips held-out compositions, "fresh" shows only fresh objects."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    objects = FRESH_OBJECTS if split == "fresh" else OBJECTS
    while True:
        chosen = [entries[int(rng.integers(len(entries)))].name for entries in (objects, STYLES, SETTINGS)]
        if split != "train" or not is_held_out(*chosen):
            return Scene(*chosen, seed=int(rng.integers(2**62)))


def scenes(split: str, count: int, seed: int) -> list[Scene]:
    """The first `count` scenes of `split`."""
    return [scene_at(split, index, seed) for index in range(count)]


def _render_shard(path: Path, split: str, start: int, count: int, seed: int) -> None:
    pictures = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for row in range(count):
        pictures[row] = np.asarray(render(scene_at(split, start + row, seed)))
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.save(stream, pictures)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def render_split(folder: Path, split: str, count: int, seed: int, workers: int) -> Iterator[tuple[int, int]]:
    """Render `count` pictures of `split` into shards; finished shards are kept, yields (done, total) shards."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, SHARD)
    jobs = []
    with ProcessPoolExecutor(max_workers=workers) as pool:
        for start in starts:
            path = _shard_path(folder, split, start, min(SHARD, count - start), seed)
            if not path.exists():
                jobs.append(pool.submit(_render_shard, path, split, start, min(SHARD, count - start), seed))
        done = len(starts) - len(jobs)
        yield done, len(starts)
        for job in jobs:
            job.result()
            done += 1
            yield done, len(starts)


def _shard_path(folder: Path, split: str, start: int, count: int, seed: int) -> Path:
    return folder / f"{split}-seed{seed}-{start:07d}-{count}.npy"


def load_split(folder: Path, split: str, count: int, seed: int) -> list[np.ndarray]:
    """Memory-mapped shards, each (N, 128, 128, 3) uint8, of a rendered split, in index order."""
    return [
        np.load(_shard_path(folder, split, start, min(SHARD, count - start), seed), mmap_mode="r")
        for start in range(0, count, SHARD)
    ]
