"""The autoencoder's decoder: trained to invert the linear patch code, and to repair codes that are
slightly wrong.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.images import to_tensor
from .checkpoints import TrainingState
from .decoder import freeze_position_and_gates
from .latents import PatchBasis

LATENT_NOISE = 0.3
"""The standard deviation of the noise on a code is drawn for each picture from zero to this."""
WARM_UP = 100
EDGE_WEIGHT = 0.5


class Decoder(nn.Module):
    """The trained part of the autoencoder: latents (B, C, 8, 8) to pictures (B, 3, 64, 64)."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.entry = autoencoder.post_quant_conv
        self.decoder = autoencoder.decoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(self.entry(latents))


def new_state(autoencoder: nn.Module, lr: float) -> TrainingState:
    """The state before the first step, of a decoder that `write_decoder` wrote.

    Only the weights that `freeze_position_and_gates` names are trained.
    """
    freeze_position_and_gates(autoencoder)
    model = Decoder(autoencoder)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return TrainingState(model, optimizer)


def train_decoder(
    state: TrainingState,
    basis: PatchBasis,
    shards: list[np.ndarray],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> Iterator[float]:
    """Train until `steps` and yield the loss of each step.

    Inputs are codes with noise, so that imperfect latents decode cleanly. It runs in float32,
    because rounding the gates to bfloat16 costs more than training gains. The draws of a step
    depend on `seed` and the step alone.
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
        state.update(loss, lr * learning_share(state.step, steps), max_norm=1.0)
        yield loss.item()


def learning_share(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: warm-up, plateau, and a linear fall over the last
    half.
    """
    return min(1.0, (step + 1) / WARM_UP) * max(0.02, min(1.0, 2 * (1 - step / steps)))


def draw_pictures(shards: list[np.ndarray], count: int, generator: torch.Generator) -> Tensor:
    """`count` random pictures (count, 3, H, W) in [-1, 1], all of one random shard.

    One shard means few reads of the memory-mapped files.
    """
    shard = shards[int(torch.randint(len(shards), (), generator=generator))]
    rows = torch.randint(len(shard), (count,), generator=generator).sort().values
    return to_tensor(shard[rows.numpy()])


def _loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    error = decoded - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return F.l1_loss(decoded, pictures) + F.mse_loss(decoded, pictures) + EDGE_WEIGHT * edges
