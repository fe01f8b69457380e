"""Training of the PocketCanvas denoiser on rendered scenes."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...models.parameterization import VPrediction
from ..world import grammar
from ..world.rendering import Scene
from .checkpoints import TrainingState, draws_of
from .tower import tokenize

WARM_UP = 300
EMA_DECAY = 0.9995
EMA_EVERY = 5
FINAL_RATE = 0.03
EMPTY_CAPTIONS = 0.1


@dataclass(frozen=True)
class Phase:
    """`steps` updates on batches of `batch` pictures."""

    steps: int
    batch: int


def new_state(unet: nn.Module, lr: float) -> TrainingState:
    """The state before the first step; `lr` is the peak learning rate."""
    ema = {name: value.detach().clone() for name, value in unet.state_dict().items()}
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    return TrainingState(unet, optimizer, ema)


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


@torch.no_grad()
def _update_ema(state: TrainingState) -> None:
    """Every `EMA_EVERY` steps, move the average as far as that many single updates would."""
    if state.step % EMA_EVERY:
        return
    decay = min(EMA_DECAY, (1 + state.step) / (10 + state.step)) ** EMA_EVERY
    current = state.model.state_dict()
    torch._foreach_lerp_(list(state.ema.values()), [current[name] for name in state.ema], 1 - decay)


def train_denoiser(
    state: TrainingState,
    text_model: nn.Module,
    tokenizer: object,
    latents: Tensor,
    scenes: Sequence[Scene],
    parameterization: VPrediction,
    *,
    phases: Sequence[Phase],
    fall: int,
    lr: float,
    seed: int,
    autocast: bool,
) -> Iterator[float]:
    """Train through `phases` and yield the loss of each step.

    The target is v as in Salimans & Ho (2202.00512) and diffusers. One caption in ten is empty, for
    classifier-free guidance. The learning rate falls over the last `fall` steps. A resumed training
    draws what an unbroken one would.
    """
    device = latents.device
    steps = sum(phase.steps for phase in phases)
    state.model.train()
    while state.step < steps:
        rng, generator = draws_of(seed, state.step)
        rows = torch.randint(len(latents), (batch_at(state.step, phases),), generator=generator)
        captions = [_caption(scenes[row], rng) for row in rows.tolist()]
        with torch.no_grad():
            cond = text_model(tokenize(tokenizer, captions).to(device)).last_hidden_state
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = v_loss(
                state.model, latents[rows].float(), cond, parameterization, generator
            ).mean()
        state.update(loss, learning_rate(state.step, steps, fall, lr), max_norm=1.0)
        _update_ema(state)
        yield loss.item()


def v_loss(
    unet: nn.Module,
    x0: Tensor,
    cond: Tensor,
    parameterization: VPrediction,
    generator: torch.Generator,
) -> Tensor:
    """Squared error (B,) of the predicted v at random timesteps, spread evenly over the batch."""
    count = len(x0)
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    places = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    t = (places * len(parameterization.alphas_cumprod)).long().to(x0.device)
    predicted = unet(parameterization.add_noise(x0, noise, t), t, cond).sample.float()
    return (predicted - parameterization.target(x0, noise, t)).square().mean((1, 2, 3))


def _caption(scene: Scene, rng: random.Random) -> str:
    if rng.random() < EMPTY_CAPTIONS:
        return ""
    return grammar.training_caption(scene.object, scene.style, scene.setting, rng)
