"""Training of the PocketCanvas denoiser on rendered scenes."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...models.parameterization import Parameterization, VPrediction
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

    def factors(self, parameterization: Parameterization, t: Tensor) -> Tensor:
        """The factors (B,) of the timesteps `t` (B,)."""
        if self.min_snr is None:
            return parameterization.loss_weight(t)
        alphas = parameterization.alphas_cumprod[t]
        # min(SNR, gamma) / (SNR + 1) with SNR = alpha / (1 - alpha).
        return torch.minimum(alphas, self.min_snr * (1 - alphas))


EVEN = Weighting()


@dataclass(frozen=True)
class Fall:
    """The learning rate falls over the last `steps` steps before the step `until`."""

    until: int
    steps: int


def learning_rate(step: int, falls: Sequence[Fall], peak: float) -> float:
    """Warm-up, plateau, and a linear fall to `FINAL_RATE` of `peak`; a further plateau and fall
    where the training was gone on with.
    """
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    fall = next((fall for fall in falls if step < fall.until), falls[-1])
    return peak * max(FINAL_RATE, min(1.0, (fall.until - step) / max(1, fall.steps)))


def batch_at(step: int, phases: Sequence[Phase]) -> int:
    """The batch size of `step`; that of the last phase after the end."""
    for phase in phases:
        if step < phase.steps:
            return phase.batch
        step -= phase.steps
    return phases[-1].batch


@dataclass(frozen=True)
class Learner:
    """What a denoiser learns: `encode` makes of captions what it is conditioned on, and `predict`
    takes x_t (B, C, H, W), the timesteps (B,) and that.
    """

    encode: Callable[[list[str]], Any]
    predict: Callable[[Tensor, Tensor, Any], Tensor]
    parameterization: Parameterization


def unet_learner(
    unet: Callable[..., Any],
    text_model: nn.Module,
    tokenizer: object,
    parameterization: VPrediction,
) -> Learner:
    """A UNet, called through `unet`, that reads the states of `text_model`."""

    def encode(captions: list[str]) -> Tensor:
        tokens = tokenize(tokenizer, captions).to(parameterization.alphas_cumprod.device)
        return text_model(tokens).last_hidden_state

    def predict(x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return unet(x_t, t, cond).sample

    return Learner(encode, predict, parameterization)


def batch_loss(
    learner: Learner,
    latents: Tensor,
    scenes: Sequence[Scene],
    *,
    phases: Sequence[Phase],
    seed: int,
    autocast: bool,
    step: int,
    weighting: Weighting = EVEN,
) -> Tensor:
    """Mean squared error of what is predicted on the batch of `step`: v (2202.00512), or the
    velocity of a flow.

    `latents` (N, C, H, W) are those of the `scenes`. Timesteps are spread evenly over the batch, by
    the density of the parameterization. One caption in ten is empty, for classifier-free guidance.
    The draws depend on `seed` and `step` alone.
    """
    rng, generator = draws_of(seed, step)
    parameterization = learner.parameterization
    count = batch_at(step, phases)
    rows = torch.randint(len(latents), (count,), generator=generator)
    captions = [_caption(scenes[row], rng) for row in rows.tolist()]
    device = latents.device
    with torch.no_grad():
        cond = learner.encode(captions)
    x0 = latents[rows].float()
    noise = torch.randn(x0.shape, generator=generator).to(device)
    places = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    t = parameterization.timesteps_at(places**weighting.power).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        x_t = parameterization.add_noise(x0, noise, t)
        error = learner.predict(x_t, t, cond).float() - parameterization.target(x0, noise, t)
        factors = weighting.factors(parameterization, t)
        return (factors * error.square().mean((1, 2, 3))).mean()


def _caption(scene: Scene, rng: random.Random) -> str:
    if rng.random() < EMPTY_CAPTIONS:
        return ""
    return grammar.training_caption(scene.object, scene.style, scene.setting, rng)
