"""Training data: latents that a model samples of prompts, and endless streams of noised batches
over them.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.errors import ShouldStop, never
from ..common.seeds import generator, stream_seed, stream_seeds
from ..models.conditioning import Conditioning
from ..models.protocols import Denoiser, MetaBatch, Model, NoisyBatch


@dataclass(frozen=True)
class LatentDataset:
    """Latents (N, C, H, W) with the conditioning of their N prompts and of the N anchors' prompts.

    `null` is the conditioning of the empty prompt, one row.
    """

    x0: Tensor
    cond: Conditioning
    anchor: Conditioning
    null: Conditioning
    prompts: tuple[str, ...]

    def rows(self, rows: Iterable[int]) -> "LatentDataset":
        """Some of the pictures, in the order of `rows`."""
        rows = list(rows)
        cond, anchor = self.cond.rows(rows), self.anchor.rows(rows)
        prompts = tuple(self.prompts[row] for row in rows)
        return LatentDataset(self.x0[rows], cond, anchor, self.null, prompts)

    def mixed(self, other: "LatentDataset", own: Sequence[bool]) -> "LatentDataset":
        """This set and another one as one: row i is the next of this one where `own[i]`, else of
        the other.
        """
        mine, theirs = itertools.count(), itertools.count(len(self.prompts))
        return LatentDataset(
            torch.cat([self.x0, other.x0]),
            Conditioning.cat([self.cond, other.cond]),
            Conditioning.cat([self.anchor, other.anchor]),
            self.null,
            (*self.prompts, *other.prompts),
        ).rows(next(mine if turn else theirs) for turn in own)


def sample_latents(
    model: Model,
    prompts: Sequence[str],
    anchors: Sequence[str] | None,
    seeds: Sequence[int],
    *,
    sampling_steps: int,
    guidance_scale: float,
    should_stop: ShouldStop = never,
    sample_anchors: bool = False,
) -> LatentDataset:
    """Latents of `prompts` by the original model; with `sample_anchors` every second one is of the
    anchor instead.
    """
    anchors = anchors or prompts
    sampled = [
        a if sample_anchors and row % 2 else p
        for row, (p, a) in enumerate(zip(prompts, anchors, strict=True))
    ]
    with model.active():
        x0 = model.sample(
            sampled,
            seeds,
            steps=sampling_steps,
            guidance_scale=guidance_scale,
            should_stop=should_stop,
        )
    states = (model.encode_text(texts) for texts in (prompts, anchors, [""]))
    return LatentDataset(x0, *states, tuple(prompts))


class CachedSampler:
    """`sample_latents` that samples the same latents only once; `spared` are the seconds that
    repetitions would have taken.
    """

    def __init__(self) -> None:
        self.spared = 0.0
        self._known: dict[tuple[object, ...], tuple[LatentDataset, float]] = {}

    def __call__(
        self,
        model: Model,
        prompts: Sequence[str],
        anchors: Sequence[str] | None,
        seeds: Sequence[int],
        *,
        should_stop: ShouldStop = never,
        **how: Any,
    ) -> LatentDataset:
        """As `sample_latents`."""
        asked = tuple(prompts), tuple(anchors or ()), tuple(seeds)
        key = (model.base_hash, *asked, *sorted(how.items()))
        if key in self._known:
            self.spared += self._known[key][1]
        else:
            started = time.perf_counter()
            found = sample_latents(model, prompts, anchors, seeds, should_stop=should_stop, **how)
            self._known[key] = found, time.perf_counter() - started
        return self._known[key][0]


def encoded(
    model: Model, pictures: Tensor, prompts: Sequence[str], anchors: Sequence[str] | None = None
) -> LatentDataset:
    """Given pictures (N, 3, H, W) in [-1, 1] with their prompts and those of the anchor."""
    cond = model.encode_text(prompts)
    anchor = model.encode_text(anchors) if anchors else cond
    return LatentDataset(
        model.encode_pictures(pictures), cond, anchor, model.encode_text([""]), tuple(prompts)
    )


def noisy_batches(
    model: Denoiser, data: LatentDataset, batch_size: int, seed: int
) -> Iterator[NoisyBatch]:
    """An endless stream over `data` in shuffled passes, with a generator of its own."""
    source = generator(seed)
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(data.x0), generator=source)])
        rows, order = order[:batch_size].to(data.x0.device), order[batch_size:]
        x0 = data.x0[rows]
        noise = torch.randn(x0.shape, generator=source).to(x0)
        t = model.parameterization.draw_timesteps(batch_size, source).to(x0.device)
        yield NoisyBatch(
            x0=x0,
            noise=noise,
            t=t,
            x_t=model.parameterization.add_noise(x0, noise, t),
            cond=data.cond.rows(rows),
            null=data.null.expand(batch_size),
            anchor=data.anchor.rows(rows),
        )


def pooled(batches: Iterator[NoisyBatch], size: int, seed: int) -> Iterator[NoisyBatch]:
    """The first `size` of `batches` over and over, each time in another order; all batches in
    their own order where `size` is 0.
    """
    if not size:
        yield from batches
        return
    pool = []
    for batch in itertools.islice(batches, size):
        pool.append(batch)
        yield batch
    source = generator(seed)
    while True:
        yield from (pool[row] for row in torch.randperm(size, generator=source).tolist())


def meta_batches(
    model: Denoiser,
    forget: LatentDataset,
    retain: LatentDataset,
    near: int,
    *,
    batch_size: int,
    steps: int,
    seed: int,
) -> Iterator[MetaBatch]:
    """An endless stream of simulated attacks of `steps` batches; the first `near` pictures of
    `retain` are related.

    Every second picture of the concept is for the attack, the others measure the attacked model.
    `seed` is the run's.
    """
    held, kept = range(len(forget.x0)), range(len(retain.x0))
    sets = (
        forget.rows(held[::2]),
        forget.rows(held[1::2]),
        retain.rows(kept[:near]),
        retain.rows(kept[near:] or kept),
    )
    seeds = stream_seeds("meta batches", seed, len(sets))
    support, query, related, unrelated = (
        noisy_batches(model, data, min(batch_size, len(data.x0)), own)
        for data, own in zip(sets, seeds, strict=True)
    )
    for draw in itertools.count(stream_seed("meta adversary", seed)):
        attack = tuple(itertools.islice(support, steps))
        yield MetaBatch(attack, next(query), next(related), next(unrelated), draw)
