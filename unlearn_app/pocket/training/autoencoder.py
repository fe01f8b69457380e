"""The autoencoder's decoder: trained to invert the linear patch code, and to repair codes that are
slightly wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.images import to_tensor
from .decoder import learn_quietly
from .latents import PatchBasis

LATENT_NOISE = 0.3
"""Largest standard deviation of the noise on a code; that of a picture is drawn evenly from zero to
this.
"""
WARM_UP = 100
EDGE_WEIGHT = 0.5


class Decoder(nn.Module):
    """What turns latents (B, C, 8, 8) to pictures (B, 3, 64, 64): the part of the autoencoder that
    is trained.
    """

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.entry, self.decoder = autoencoder.post_quant_conv, autoencoder.decoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(self.entry(latents))


@dataclass
class DecoderState:
    """Everything a resumed decoder training needs."""

    model: Decoder
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def new_state(autoencoder: nn.Module, lr: float) -> DecoderState:
    """A fresh training state of the decoder, which `write_decoder` wrote; only what `learn_quietly`
    names learns.
    """
    learn_quietly(autoencoder)
    model = Decoder(autoencoder)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return DecoderState(model, optimizer)


def train_decoder(
    state: DecoderState,
    basis: PatchBasis,
    shards: list[np.ndarray],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> Iterator[float]:
    """Train to `steps`, yielding each step's loss.

    Inputs are codes with noise, so that imperfect latents decode cleanly. In bfloat16 the gates
    would lose more than there is to learn. The draws of a step depend on `seed` and the step alone.
    """
    device = next(state.model.parameters()).device
    state.model.train()
    while state.step < steps:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + state.step)
        pictures = draw_pictures(shards, batch_size, generator)
        latents = basis.encode(pictures)
        strength = LATENT_NOISE * torch.rand(batch_size, 1, 1, 1, generator=generator)
        latents = latents + strength * torch.randn(latents.shape, generator=generator)
        loss = _loss(state.model(latents.to(device)), pictures.to(device))
        for group in state.optimizer.param_groups:
            group["lr"] = lr * learning_share(state.step, steps)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
        state.optimizer.step()
        state.step += 1
        yield loss.item()


def learning_share(step: int, steps: int) -> float:
    """Warm-up, then a plateau, then a linear fall over the last half."""
    return min(1.0, (step + 1) / WARM_UP) * max(0.02, min(1.0, 2 * (1 - step / steps)))


def draw_pictures(shards: list[np.ndarray], count: int, generator: torch.Generator) -> Tensor:
    """`count` random pictures of one random shard (one shard: few memory pages), (count, 3, H, W)
    in [-1, 1].
    """
    shard = shards[int(torch.randint(len(shards), (), generator=generator))]
    rows = torch.randint(len(shard), (count,), generator=generator).sort().values
    return to_tensor(shard[rows.numpy()])


def _loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    error = decoded - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return F.l1_loss(decoded, pictures) + F.mse_loss(decoded, pictures) + EDGE_WEIGHT * edges
