"""Training of the PocketCanvas denoiser on rendered scenes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...models.parameterization import VPrediction
from ..world import grammar
from ..world.rendering import Scene
from .checkpoints import draws_of
from .tower import tokenize

WARM_UP = 300
FINAL_RATE = 0.03
EMPTY_CAPTIONS = 0.1


@dataclass(frozen=True)
class Phase:
    """`steps` updates on batches of `batch` pictures."""

    steps: int
    batch: int


@dataclass(frozen=True)
class Weighting:
    """How much each timestep weighs in the loss: by how often it is drawn, and by a factor.

    A share u of the schedule is drawn as u ** `power`, so that a power below 1 draws more noise.
    `min_snr` caps the weight of v at small noise as min-SNR does (2303.09556); None weighs all
    alike.
    """

    power: float = 1.0
    min_snr: float | None = None

    def factors(self, alphas: Tensor) -> Tensor:
        """The factors of timesteps with `alphas` (B,), the shares of the signal's variance."""
        if self.min_snr is None:
            return torch.ones_like(alphas)
        # min(SNR, gamma) / (SNR + 1) with SNR = alpha / (1 - alpha).
        return torch.minimum(alphas, self.min_snr * (1 - alphas))


EVEN = Weighting()


def learning_rate(step: int, steps: int, fall: int, peak: float) -> float:
    """Warm-up, plateau, and a linear fall to `FINAL_RATE` of `peak` over the last `fall` steps."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    return peak * max(FINAL_RATE, min(1.0, (steps - step) / max(1, fall)))


def batch_at(step: int, phases: Sequence[Phase]) -> int:
    """The batch size of `step`; that of the last phase after the end."""
    for phase in phases:
        if step < phase.steps:
            return phase.batch
        step -= phase.steps
    return phases[-1].batch


def batch_loss(
    unet: nn.Module,
    text_model: nn.Module,
    tokenizer: object,
    latents: Tensor,
    scenes: Sequence[Scene],
    parameterization: VPrediction,
    *,
    phases: Sequence[Phase],
    seed: int,
    autocast: bool,
    step: int,
    weighting: Weighting = EVEN,
) -> Tensor:
    """Mean squared error of the v (2202.00512) that is predicted on the batch of `step`.

    `latents` (N, C, H, W) are those of the `scenes`. Timesteps are spread evenly over the batch.
    One caption in ten is empty, for classifier-free guidance. The draws depend on `seed` and `step`
    alone.
    """
    rng, generator = draws_of(seed, step)
    count = batch_at(step, phases)
    rows = torch.randint(len(latents), (count,), generator=generator)
    captions = [_caption(scenes[row], rng) for row in rows.tolist()]
    device = latents.device
    with torch.no_grad():
        cond = text_model(tokenize(tokenizer, captions).to(device)).last_hidden_state
    x0 = latents[rows].float()
    noise = torch.randn(x0.shape, generator=generator).to(device)
    places = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    places = places**weighting.power
    t = (places * len(parameterization.alphas_cumprod)).long().to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        predicted = unet(parameterization.add_noise(x0, noise, t), t, cond).sample.float()
        error = predicted - parameterization.target(x0, noise, t)
        factors = weighting.factors(parameterization.alphas_cumprod[t])
        return (factors * error.square().mean((1, 2, 3))).mean()


def _caption(scene: Scene, rng: random.Random) -> str:
    if rng.random() < EMPTY_CAPTIONS:
        return ""
    return grammar.training_caption(scene.object, scene.style, scene.setting, rng)
