"""Random training batches for tests."""

from typing import Any

import torch

from unlearn_app.models.conditioning import Conditioning
from unlearn_app.models.protocols import NoisyBatch


def noisy(model: Any, seed: int) -> NoisyBatch:
    """Two random noised latents in float64, with a random text that is cond, null and anchor."""
    source = torch.Generator().manual_seed(seed)
    x0, noise = (
        torch.randn(2, *model.latent_shape, generator=source, dtype=torch.float64) for _ in range(2)
    )
    t = model.parameterization.draw_timesteps(2, source)
    cond = Conditioning(torch.randn(2, 4, 32, generator=source, dtype=torch.float64))
    x_t = model.parameterization.add_noise(x0, noise, t)
    return NoisyBatch(x0, noise, t, x_t, cond, cond, cond)
