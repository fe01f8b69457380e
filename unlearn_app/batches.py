"""Training data: latents of prompts painted by a model, and endless streams of noised batches over them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .backend import Backend, NoisyBatch, generator


@dataclass(frozen=True)
class PaintedSet:
    """Latents (N, C, H, W) with the text states (N, L, D) of their prompts and of the prompts' anchors."""

    x0: Tensor
    cond: Tensor
    anchor: Tensor
    null: Tensor


def paint(
    backend: Backend,
    prompts: Sequence[str],
    anchors: Sequence[str] | None,
    seeds: Sequence[int],
    *,
    sampling_steps: int,
    guidance_scale: float,
    should_stop: Callable[[], bool] = lambda: False,
    paint_anchors: bool = False,
) -> PaintedSet:
    """Let the original model paint `prompts`; with `paint_anchors` every second picture is the anchor's instead."""
    anchors = anchors or prompts
    painted = [a if paint_anchors and row % 2 else p for row, (p, a) in enumerate(zip(prompts, anchors, strict=True))]
    with backend.active():
        x0 = backend.sample(
            painted, seeds, steps=sampling_steps, guidance_scale=guidance_scale, should_stop=should_stop
        )
    return PaintedSet(x0, backend.encode_text(prompts), backend.encode_text(anchors), backend.encode_text([""]))


def noisy_batches(backend: Backend, data: PaintedSet, batch_size: int, seed: int) -> Iterator[NoisyBatch]:
    """An endless stream over `data` in shuffled passes, with uniform timesteps and its own generator."""
    source = generator(seed)
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(data.x0), generator=source)])
        rows, order = order[:batch_size].to(data.x0.device), order[batch_size:]
        x0 = data.x0[rows]
        noise = torch.randn(x0.shape, generator=source).to(x0)
        t = torch.randint(backend.timesteps, (batch_size,), generator=source).to(x0.device)
        yield NoisyBatch(
            x0=x0,
            noise=noise,
            t=t,
            x_t=backend.add_noise(x0, noise, t),
            cond=data.cond[rows],
            null=data.null.expand(batch_size, -1, -1),
            anchor=data.anchor[rows],
        )
