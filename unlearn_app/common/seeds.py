"""Random numbers that are the same on every device, and seeds that no two uses share."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the page reads seeds of stored pictures without torch
    import torch

STREAMS = (
    "adapter",
    "labels",
    "forget pictures",
    "forget batches",
    "retain pictures",
    "retain batches",
    "meta pictures",
    "meta batches",
    "meta adversary",
    "adversary pictures",
    "adversary batches",
    "adversary adapter",
    "inversion",
    "inversion batches",
    "prompt search batches",
    "ring a bell",
    "forget order",
    "retain order",
)
"""What random numbers of a run are drawn for, besides the pictures that are judged.

The place in this list is part of every seed: new streams go to the end.
"""
ROWS = 2**20
RUNS = 2**31
"""The most rows of a stream, and the most seeds of a run."""

KEPT_NOISE = 2**50
"""Added to a judged picture's seed, it seeds the noise of the part that inpainting keeps."""


def generator(seed: int) -> "torch.Generator":
    """A CPU generator, so that a seed means the same noise on every device."""
    import torch

    return torch.Generator().manual_seed(seed)


def stream_seed(stream: str, seed: int, row: int = 0) -> int:
    """The seed of row `row` of a stream of the run with `seed`.

    Stream, run and row have bits of their own, so that two seeds are equal only if all three are.
    All lie above 2**51, and the seeds of judged pictures, which are sums of small numbers, below.

    Raises:
        ValueError: an unknown stream, or a seed or a row that has too many bits.
    """
    if not (0 <= row < ROWS and 0 <= seed < RUNS):
        raise ValueError(f"Row {row} of seed {seed} is outside of {ROWS} rows and {RUNS} seeds.")
    return ((STREAMS.index(stream) + 1) * RUNS + seed) * ROWS + row


def stream_seeds(stream: str, seed: int, count: int) -> range:
    """The seeds of the first `count` rows of a stream; see `stream_seed`."""
    first = stream_seed(stream, seed)
    return range(first, first + count)


def judged_seed(seed: int, row: int, attempt: int = 0) -> int:
    """The seed of picture `row` that is judged in a run with `seed`, the same in every column.

    An attack's first attempt at a prompt has the seed of the comparison, later ones lie far away.
    """
    return 1000 * seed + 900_000 + row + 10**10 * attempt


def preview_seed(row: int) -> int:
    """The seed of picture `row` of every preview, which no run's judged pictures have."""
    return 800_000 + row
