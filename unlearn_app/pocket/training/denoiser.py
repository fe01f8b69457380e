"""Training of the PocketCanvas denoiser on rendered scenes."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..world import grammar
from ..world.rendering import Scene
from .tower import tokenize

WARM_UP = 300
EMA_DECAY, EMA_EVERY = 0.9995, 5
FINAL_RATE = 0.03
EMPTY_CAPTIONS = 0.1


@dataclass(frozen=True)
class Phase:
    """`steps` updates on batches of `batch` pictures."""

    steps: int
    batch: int


@dataclass
class DenoiserState:
    """Everything a resumed training needs."""

    unet: nn.Module
    ema: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def new_state(unet: nn.Module, lr: float) -> DenoiserState:
    """A fresh training state around `unet`."""
    ema = {name: value.detach().clone() for name, value in unet.state_dict().items()}
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    return DenoiserState(unet, ema, optimizer)


def learning_rate(step: int, steps: int, fall: int, peak: float) -> float:
    """Warm-up, plateau, then a linear fall to `FINAL_RATE` of `peak` over the last `fall` steps."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    return peak * max(FINAL_RATE, min(1.0, (steps - step) / max(1, fall)))


def batch_at(step: int, phases: Sequence[Phase]) -> int:
    """The batch size of `step`; the last phase goes on for ever."""
    for phase in phases:
        if step < phase.steps:
            return phase.batch
        step -= phase.steps
    return phases[-1].batch


@torch.no_grad()
def _update_ema(state: DenoiserState) -> None:
    """Move the average every `EMA_EVERY` steps by what as many single steps would."""
    if state.step % EMA_EVERY:
        return
    decay = min(EMA_DECAY, (1 + state.step) / (10 + state.step)) ** EMA_EVERY
    current = state.unet.state_dict()
    torch._foreach_lerp_(list(state.ema.values()), [current[name] for name in state.ema], 1 - decay)


def train_denoiser(
    state: DenoiserState,
    text_model: nn.Module,
    tokenizer: object,
    latents: Tensor,
    scenes: Sequence[Scene],
    alphas_cumprod: Tensor,
    *,
    phases: Sequence[Phase],
    fall: int,
    lr: float,
    seed: int,
    autocast: bool,
) -> Iterator[float]:
    """Run through `phases`, yielding the loss of each step; the v-prediction target is diffusers'
    own definition.

    One caption in ten is empty (classifier-free guidance). The rate falls over the last `fall`
    steps. The draws of a step depend on `seed` and the step alone, so a resumed training sees what
    an unbroken one would have seen.
    """
    device, steps = latents.device, sum(phase.steps for phase in phases)
    state.unet.train()
    while state.step < steps:
        rng = random.Random(seed * 1_000_003 + state.step)
        generator = torch.Generator().manual_seed(rng.randrange(2**62))
        rows = torch.randint(len(latents), (batch_at(state.step, phases),), generator=generator)
        captions = [_caption(scenes[row], rng) for row in rows.tolist()]
        with torch.no_grad():
            cond = text_model(tokenize(tokenizer, captions).to(device)).last_hidden_state
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = v_loss(state.unet, latents[rows].float(), cond, alphas_cumprod, generator).mean()
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, steps, fall, lr)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.unet.parameters(), 1.0)
        state.optimizer.step()
        state.step += 1
        _update_ema(state)
        yield loss.item()


def v_loss(
    unet: nn.Module,
    x0: Tensor,
    cond: Tensor,
    alphas_cumprod: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Squared error (B,) of predicted v at random timesteps, spread evenly over the batch."""
    count = len(x0)
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    places = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    t = (places * len(alphas_cumprod)).long().to(x0.device)
    alpha = alphas_cumprod.to(x0.device)[t].view(-1, 1, 1, 1)
    signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
    predicted = unet(signal * x0 + sigma * noise, t, cond).sample.float()
    return (predicted - (signal * noise - sigma * x0)).square().mean((1, 2, 3))


def _caption(scene: Scene, rng: random.Random) -> str:
    if rng.random() < EMPTY_CAPTIONS:
        return ""
    return grammar.training_caption(scene.object, scene.style, scene.setting, rng)
