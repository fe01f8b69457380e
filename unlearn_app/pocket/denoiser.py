"""Training of the PocketCanvas denoiser on rendered scenes."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import grammar
from .tower import tokenize
from .world import Scene

WARM_UP = 300


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
    optimizer = torch.optim.AdamW(unet.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    return DenoiserState(unet, ema, optimizer)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up, plateau, then a linear fall to a twentieth over the last third."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    left = (steps - step) / (steps / 3)
    return peak * max(0.05, min(1.0, left))


@torch.no_grad()
def _update_ema(state: DenoiserState) -> None:
    decay = min(0.9995, (1 + state.step) / (10 + state.step))
    current = state.unet.state_dict()
    torch._foreach_lerp_(list(state.ema.values()), [current[name] for name in state.ema], 1 - decay)


def train_denoiser(
    state: DenoiserState,
    text_model: nn.Module,
    tokenizer: object,
    latents: Tensor,
    scenes: list[Scene],
    alphas_cumprod: Tensor,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    autocast: bool,
) -> Iterator[float]:
    """Run until `steps`, yielding the loss of each step; the v-prediction target is diffusers' own definition.

    One caption in ten is empty (classifier-free guidance). The draws of a step depend on `seed` and the step
    alone, so a resumed training sees what an unbroken one would have seen.
    """
    device = latents.device
    signal, noise_level = alphas_cumprod.sqrt().to(device), (1 - alphas_cumprod).sqrt().to(device)
    state.unet.train()
    while state.step < steps:
        rng = random.Random(seed * 1_000_003 + state.step)
        generator = torch.Generator().manual_seed(rng.randrange(2**62))
        rows = torch.randint(len(latents), (batch_size,), generator=generator)
        captions = [_caption(scenes[row], rng) for row in rows.tolist()]
        with torch.no_grad():
            cond = text_model(tokenize(tokenizer, captions).to(device)).last_hidden_state
        x0 = latents[rows].float()
        noise = torch.randn(x0.shape, generator=generator).to(device)
        t = torch.randint(len(alphas_cumprod), (batch_size,), generator=generator).to(device)
        a, s = signal[t, None, None, None], noise_level[t, None, None, None]
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            predicted = state.unet(a * x0 + s * noise, t, cond).sample
        loss = nn.functional.mse_loss(predicted.float(), a * noise - s * x0)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, steps, lr)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.unet.parameters(), 1.0)
        state.optimizer.step()
        state.step += 1
        _update_ema(state)
        yield loss.item()


def _caption(scene: Scene, rng: random.Random) -> str:
    return "" if rng.random() < 0.1 else grammar.training_caption(scene.object, scene.style, scene.setting, rng)
