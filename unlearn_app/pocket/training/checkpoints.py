"""The state of a training, its update, and checkpoints from which it goes on after a kill."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...common.atomic_files import replacement, write_bytes
from ...models.device import choose_device


@dataclass(frozen=True)
class Progress:
    """How far one stage is: `done` of `total` of its own units, and a few words on the last."""

    stage: str
    done: int
    total: int
    detail: str = ""


@dataclass
class TrainingState:
    """Everything that a resumed training needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor] | None = None
    """Moving average of the weights, for trainings that keep one."""
    step: int = 0
    seconds: float = 0.0

    def update(self, loss: Tensor, lr: float, max_norm: float) -> None:
        """One optimizer step on `loss`, whose gradient is clipped to `max_norm`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        self.optimizer.step()
        self.step += 1


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
    losses: Iterator[float],
    total: int,
    save_every: int,
    facts: dict[str, Any],
) -> Iterator[Progress]:
    """Run the training `losses` of `state` from its last checkpoint to step `total`.

    Every `save_every` steps the state and the mean loss since the last checkpoint are saved;
    `facts` are recorded at the end.
    """
    path = checkpoint_path(work, part)
    log = _restore(path, state) if path.exists() else []
    seconds_before = state.seconds
    started = time.monotonic()
    recent = []
    yield Progress(part, state.step, total, "resumed" if state.step else "")
    for loss in losses:
        recent.append(loss)
        if state.step % save_every == 0 or state.step == total:
            state.seconds = seconds_before + time.monotonic() - started
            log.append([state.step, round(sum(recent) / len(recent), 4)])
            recent = []
            save(path, _checkpoint(state, log))
        yield Progress(part, state.step, total, f"loss {loss:.3f}")
    trained = {"steps": state.step, "seconds": round(state.seconds), "losses": log}
    record(work, part, trained | facts)


def checkpoint_path(work: Path, part: str) -> Path:
    """Where the checkpoint of `part` is."""
    return work / ("unet.ckpt" if part == "denoiser" else f"{part}.ckpt")


def _checkpoint(state: TrainingState, log: list[list[float]]) -> dict[str, Any]:
    average = {} if state.ema is None else {"ema": state.ema}
    return {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
        "losses": log,
        **average,
    }


def _restore(path: Path, state: TrainingState) -> list[list[float]]:
    held = load(path)
    state.model.load_state_dict(held["model"])
    state.optimizer.load_state_dict(held["optimizer"])
    state.step = held["step"]
    state.seconds = held["seconds"]
    for name, value in held.get("ema", {}).items():
        state.ema[name].copy_(value)
    return held["losses"]


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU."""
    return torch.load(path, map_location="cpu", weights_only=True)


def save(path: Path, value: dict[str, Any] | Tensor) -> None:
    """Replace the file `path` by `value`."""
    with replacement(path) as partial, partial.open("wb") as stream:
        torch.save(value, stream)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace the file `path` by `value` as JSON."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def record(work: Path, part: str, facts: dict[str, Any]) -> None:
    """Merge `facts` of a finished part into `work`/train.json."""
    path = work / "train.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**known, part: {**facts, "hardware": hardware()}})


def hardware() -> str:
    """The machine that trains, in a few words."""
    device = choose_device()
    if device.type == "cpu":
        return f"{torch.get_num_threads()} CPU threads"
    return torch.get_device_module(device).get_device_name(device)
