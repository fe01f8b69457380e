"""The autoencoder's decoder: trained to invert the linear patch code, and to repair codes that are
slightly wrong.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.images import to_tensor
from .latents import PatchBasis

LATENT_NOISE = 0.3
"""The standard deviation of the noise on a code is drawn for each picture from zero to this."""
WARM_UP = 100
EDGE_WEIGHT = 0.5
SQUARED_WEIGHT = 5.0
"""Weight of the squared error, in which the worst pictures count most."""


def decoder_of(autoencoder: nn.Module) -> nn.Sequential:
    """The trained part of the autoencoder: latents (B, C, 8, 8) to pictures (B, 3, 64, 64)."""
    parts = {"entry": autoencoder.post_quant_conv, "decoder": autoencoder.decoder}
    return nn.Sequential(OrderedDict(parts))


def batch_loss(
    model: nn.Module,
    basis: PatchBasis,
    shards: Sequence[np.ndarray],
    *,
    batch_size: int,
    seed: int,
    step: int,
) -> Tensor:
    """The loss of decoding a batch of codes with noise, so that imperfect latents decode cleanly.

    In float32, because rounding the gates to bfloat16 costs more than training gains. The draws
    depend on `seed` and `step` alone; all pictures are of one random shard, which means few reads
    of the memory-mapped files.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    shard = shards[int(torch.randint(len(shards), (), generator=generator))]
    rows = torch.randint(len(shard), (batch_size,), generator=generator).sort().values
    pictures = to_tensor(shard[rows.numpy()])
    latents = basis.encode(pictures)
    strength = LATENT_NOISE * torch.rand(batch_size, 1, 1, 1, generator=generator)
    latents = latents + strength * torch.randn(latents.shape, generator=generator)
    device = next(model.parameters()).device
    decoded, target = model(latents.to(device)), pictures.to(device)
    error = decoded - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    squared = SQUARED_WEIGHT * F.mse_loss(decoded, target)
    return F.l1_loss(decoded, target) + squared + EDGE_WEIGHT * edges


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up, plateau, and a linear fall from `peak` over the last half."""
    return peak * (min(1.0, (step + 1) / WARM_UP) * max(0.02, min(1.0, 2 * (1 - step / steps))))
