"""Training with checkpoints, which a killed process resumes from the last one."""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...common.atomic_files import replacement, write_bytes
from ...common.errors import Diverged
from ...common.json_values import json_text
from ...models.device import choose_device

EMA_DECAY = 0.9995
EMA_EVERY = 5


@dataclass(frozen=True)
class Progress:
    """How far one stage is: `done` of `total` units of its own, and a few words on the last one."""

    stage: str
    done: int
    total: int
    detail: str = ""


@dataclass
class TrainingState:
    """Everything that a resumed training needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    """Moving average of the weights; empty for trainings that keep none."""
    step: int = 0
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    """Step and mean loss since the checkpoint before, of every checkpoint."""

    def update(self, loss: Tensor, lr: float, max_norm: float) -> None:
        """One optimizer step on `loss`, whose gradient is clipped to `max_norm`.

        Every `EMA_EVERY` steps the average moves as far as that many single updates would move it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        self.optimizer.step()
        self.step += 1
        if self.ema and self.step % EMA_EVERY == 0:
            decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step)) ** EMA_EVERY
            weights = self.model.state_dict().values()
            torch._foreach_lerp_(list(self.ema.values()), list(weights), 1 - decay)

    def checkpoint(self) -> dict[str, Any]:
        """What `restore` reads."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            **({"ema": self.ema} if self.ema else {}),
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Go on from what `checkpoint` returned."""
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.step = checkpoint["step"]
        self.seconds = checkpoint["seconds"]
        self.losses = checkpoint["losses"]
        for name, value in checkpoint.get("ema", {}).items():
            self.ema[name].copy_(value)


def new_state(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    fused: bool | None = True,
    averaged: bool = False,
) -> TrainingState:
    """The state before the first step, with AdamW over the weights of `model` that are not frozen;
    `averaged` keeps a moving average of all weights.
    """
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=lr,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        fused=fused,
    )
    weights = model.state_dict() if averaged else {}
    return TrainingState(model, optimizer, {name: w.clone() for name, w in weights.items()})


def draws_of(seed: int, step: int) -> tuple[random.Random, torch.Generator]:
    """The random numbers of one step, so that a resumed training draws what an unbroken one
    would.
    """
    rng = random.Random(seed * 1_000_003 + step)
    return rng, torch.Generator().manual_seed(rng.randrange(2**62))


def train_with_checkpoints(
    work: Path,
    part: str,
    state: TrainingState,
    batch_loss: Callable[..., Tensor],
    learning_rate: Callable[..., float],
    *,
    steps: int,
    save_every: int,
    facts: dict[str, Any],
    max_norm: float = 1.0,
) -> Iterator[Progress]:
    """Train `state` from its last checkpoint to step `steps`; `batch_loss` and `learning_rate` are
    called with the `step`.

    Every `save_every` steps, and when it is closed, the state and the mean loss since the last
    checkpoint are saved; `facts` are recorded at the end.

    Raises:
        Diverged: weights or the loss are not finite; the last checkpoint is kept.
    """
    path = checkpoint_path(work, part)
    if path.exists():
        state.restore(load(path))
    started = time.monotonic() - state.seconds
    recent: list[float] = []

    try:
        yield Progress(part, state.step, steps, "resumed" if state.step else "")
        state.model.train()
        while state.step < steps:
            loss = batch_loss(step=state.step)
            state.update(loss, learning_rate(step=state.step), max_norm)
            recent.append(loss.item())
            detail = f"loss {recent[-1]:.3f}"
            if state.step % save_every == 0 or state.step == steps:
                _keep(path, part, state, recent, started)
            yield Progress(part, state.step, steps, detail)
    except GeneratorExit:
        _keep(path, part, state, recent, started)
        raise
    trained = {"steps": state.step, "seconds": round(state.seconds), "losses": state.losses}
    record(work, part, trained | facts)


def _keep(path: Path, part: str, state: TrainingState, recent: list[float], started: float) -> None:
    """Save the state and the mean of the losses `recent`, and clear these."""
    if not recent:
        return
    mean = sum(recent) / len(recent)
    weights = state.model.state_dict().values()
    if not math.isfinite(mean) or not all(weight.isfinite().all() for weight in weights):
        raise Diverged(f"The training of {part} diverged before step {state.step}.", "part")
    state.seconds = time.monotonic() - started
    state.losses.append([state.step, round(mean, 4)])
    recent.clear()
    save(path, state.checkpoint())


def checkpoint_path(work: Path, part: str) -> Path:
    """Where the checkpoint of `part` is."""
    return work / ("unet.ckpt" if part == "denoiser" else f"{part}.ckpt")


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU."""
    return torch.load(path, map_location="cpu", weights_only=True)


def save(path: Path, value: dict[str, Any] | Tensor) -> None:
    """Replace the file `path` by `value`."""
    with replacement(path) as partial, partial.open("wb") as stream:
        torch.save(value, stream)


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote to `path`; empty where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace the file `path` by `value` as JSON."""
    write_bytes(path, (json_text(value, indent=1) + "\n").encode())


def record(work: Path, part: str, facts: dict[str, Any]) -> None:
    """Merge `facts` of a finished part, and the machine, into `work`/train.json."""
    path = work / "train.json"
    facts = {**facts, "hardware": hardware(choose_device())}
    write_json(path, {**read_json(path), part: facts})


def hardware(device: torch.device) -> str:
    """The name of an accelerator, or how a CPU computes."""
    if device.type != "cpu":
        return torch.get_device_module(device).get_device_name(device)
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{torch.get_num_threads()} CPU threads ({kind})"
