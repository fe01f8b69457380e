"""The rendered data set: the scenes of each split in order, and their pictures in shards."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from ...common.atomic_files import replacement
from ...common.images import to_tensor
from .rendering import PLACEMENTS, Scene, render
from .vocabulary import FRESH_OBJECTS, FRESH_STYLES, OBJECTS, SETTINGS, STYLES

SHARD = 2000
SPLITS = ("train", "held_out", "fresh")
HELD_OUT_SHARE = 0.05
KNOWN = tuple([entry.name for entry in entries] for entries in (OBJECTS, STYLES, SETTINGS))
"""The names on every axis of what the denoiser is shown."""
JUDGED_FRESH = 32_000
"""How many of the "fresh" scenes, in the order of seed 0, the judges learn from."""


def is_held_out(object_name: str, style: str, setting: str) -> bool:
    """Whether this composition is kept out of the training split (about one in twenty, fixed)."""
    place = [
        names.index(name) for names, name in zip(KNOWN, (object_name, style, setting), strict=True)
    ]
    return np.random.default_rng([20250, *place]).random() < HELD_OUT_SHARE


@cache
def compositions(split: str) -> tuple[tuple[str, str, str], ...]:
    """Object, style and setting of everything that `split` shows.

    "train" and "held_out" divide the known compositions; those of "fresh" have an object or a style
    that the denoiser never sees.
    """
    if split == "fresh":
        pairs = [
            *itertools.product(FRESH_OBJECTS, (*STYLES, *FRESH_STYLES)),
            *itertools.product(OBJECTS, FRESH_STYLES),
        ]
        return tuple((o.name, s.name, place.name) for o, s in pairs for place in SETTINGS)
    held_out = split == "held_out"
    return tuple(known for known in itertools.product(*KNOWN) if is_held_out(*known) == held_out)


def world_size(split: str) -> int:
    """How many different scenes `split` has: its compositions in every placement."""
    return len(compositions(split)) * len(PLACEMENTS)


@cache
def _order(split: str, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, SPLITS.index(split)]).permutation(world_size(split))


def scene_at(split: str, index: int, seed: int) -> Scene:
    """The scene at `index` of `split` in the order of `seed`, which repeats after the last one."""
    place = _order(split, seed)[index % world_size(split)]
    composition, placement = divmod(place, len(PLACEMENTS))
    return Scene(*compositions(split)[composition], PLACEMENTS[placement])


def scenes(split: str, count: int, seed: int) -> list[Scene]:
    """The first `count` scenes of `split`."""
    return [scene_at(split, index, seed) for index in range(count)]


def unjudged_scenes(count: int) -> list[Scene]:
    """`count` scenes that neither the denoiser nor a judge is trained on."""
    return [scene_at("fresh", JUDGED_FRESH + index, 0) for index in range(count)]


def rendered(shown: Sequence[Scene]) -> Tensor:
    """Pictures (N, 3, 64, 64) in [-1, 1] of the scenes `shown`."""
    return to_tensor([render(scene) for scene in shown])


def _render_shard(path: Path, split: str, rows: range, seed: int) -> None:
    pictures = [np.asarray(render(scene_at(split, row, seed))) for row in rows]
    with replacement(path) as partial, partial.open("wb") as stream:
        np.save(stream, np.stack(pictures))


def render_split(
    folder: Path, split: str, count: int, seed: int, workers: int | None
) -> Iterator[tuple[int, int]]:
    """Render the first `count` pictures of `split` into shards with `workers` processes (None: one
    per core), and keep finished shards; yields (done, total) shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = _shards(folder, split, count, seed)
    missing = {path: rows for path, rows in shards.items() if not path.exists()}
    with ProcessPoolExecutor(max_workers=workers) as pool:
        jobs = [
            pool.submit(_render_shard, path, split, rows, seed) for path, rows in missing.items()
        ]
        kept = len(shards) - len(missing)
        try:
            yield kept, len(shards)
            for done, job in enumerate(jobs, start=kept + 1):
                job.result()
                yield done, len(shards)
        finally:
            pool.shutdown(cancel_futures=True)


def _shards(folder: Path, split: str, count: int, seed: int) -> dict[Path, range]:
    """The indices in every shard, by its file."""
    shards = {}
    for start in range(0, count, SHARD):
        rows = range(start, min(start + SHARD, count))
        shards[folder / f"{split}-seed{seed}-{start:07d}-{len(rows)}.npy"] = rows
    return shards


def load_split(folder: Path, split: str, count: int, seed: int) -> list[np.ndarray]:
    """Memory-mapped shards, each (N, 64, 64, 3) uint8, of a rendered split, in index order."""
    return [np.load(path, mmap_mode="r") for path in _shards(folder, split, count, seed)]
