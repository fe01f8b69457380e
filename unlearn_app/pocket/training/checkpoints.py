"""Checkpoints of the recipe: written beside and renamed, so that a kill at any moment leaves the
old or the new.
"""

import json
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
    """How far one stage is: `done` of `total` of its own units, and a word on the last."""

    stage: str
    done: int
    total: int
    detail: str = ""


def follow(
    work: Path,
    part: str,
    state: Any,
    model: nn.Module,
    losses: Iterator[float],
    total: int,
    save_every: int,
    facts: dict[str, Any],
) -> Iterator[Progress]:
    """Drive `losses` from the last checkpoint to the end; a checkpoint and a loss log every
    `save_every` steps.
    """
    path = work / ("unet.ckpt" if part == "denoiser" else f"{part}.ckpt")
    log = _restore(path, state, model) if path.exists() else []
    before, started, recent = state.seconds, time.monotonic(), []
    yield Progress(part, state.step, total, "resumed" if state.step else "")
    for loss in losses:
        recent.append(loss)
        if state.step % save_every == 0 or state.step == total:
            state.seconds = before + time.monotonic() - started
            log.append([state.step, round(sum(recent) / len(recent), 4)])
            recent = []
            held = {"model": model.state_dict(), "optimizer": state.optimizer.state_dict()}
            held |= {"step": state.step, "seconds": state.seconds, "losses": log}
            save(path, held | ({"ema": state.ema} if hasattr(state, "ema") else {}))
        yield Progress(part, state.step, total, f"loss {loss:.3f}")
    record(
        work, part, {"steps": state.step, "seconds": round(state.seconds), "losses": log, **facts}
    )


def _restore(path: Path, state: Any, model: nn.Module) -> list[list[float]]:
    held = load(path)
    model.load_state_dict(held["model"])
    state.optimizer.load_state_dict(held["optimizer"])
    state.step, state.seconds = held["step"], held["seconds"]
    if "ema" in held:
        for name, value in held["ema"].items():
            state.ema[name].copy_(value)
    return held["losses"]


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU."""
    return torch.load(path, map_location="cpu", weights_only=True)


def save(path: Path, value: dict[str, Any] | Tensor) -> None:
    """Write `value` durably and at once."""
    with replacement(path) as partial, partial.open("wb") as stream:
        torch.save(value, stream)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON, at once."""
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
