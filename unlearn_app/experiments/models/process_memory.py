"""How much memory a process takes for a step of training and for decoding, over what it holds when
idle, as the operating system counts it.

Run as a module this is that process: it is given the name of a shape in `shapes.REDUCED` and prints
the bytes. Only Linux lets a process begin its peak anew.
"""

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...common.json_values import json_text
from ...common.paths import ROOT
from ...models.diffusers.adapters import AdaptedNetwork
from ...models.diffusers.estimate import (
    autoencoder_of,
    decoded,
    decoding_cost,
    denoiser_of,
    gradient,
    inputs_of,
    step_cost,
)
from ...models.diffusers.layers import LAYERS
from .shapes import REDUCED, Reduced

ROWS, RANK = 2, 4
"""Pictures in a batch, and the rank of the adapter that is trained."""
CLEARED, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
PROMPT = "8192"
"""Bytes above which glibc gives memory back to the system as soon as it is free, so that none of
what the idle process holds is used again unseen.
"""


def measured_here(name: str) -> dict[str, int]:
    """The bytes that a step takes with all activations `kept` and `checkpointed`, and those that
    `decoding` takes, of the shape with that name, each measured in the same process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": PROMPT},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return json.loads(done.stdout)


def _memory(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1])


def _peak_of(work: Callable[[int], Any], side: int) -> int:
    """The most bytes over those of the idle process while `work` is done, after a smaller one of
    the same kind has loaded what it needs.
    """
    work(8)
    gc.collect()
    CLEARED.write_text("5")
    idle = _memory("VmRSS")
    work(side)
    return _memory("VmHWM") - idle


def _peaks(shape: Reduced) -> dict[str, int]:
    torch.set_num_threads(1)
    side, sketch = shape.side, _sketch(shape, "cpu")
    network, trained = sketch.network, _trained(sketch)

    def step(side: int) -> None:
        gradient(network, inputs_of(network, ROWS, side, side, "cpu"), trained)

    with sketch.training("unlearn"):
        kept = _peak_of(step, side)
        network.enable_gradient_checkpointing()
        checkpointed = _peak_of(step, side)
    vae = autoencoder_of(shape.vae, torch.float32, "cpu")
    decoding = _peak_of(lambda side: decoded(vae, side, side), side)
    return {"kept": kept, "checkpointed": checkpointed, "decoding": decoding}


def counted(name: str) -> dict[str, int]:
    """The same bytes by the count on tensors without numbers, on which estimates rest."""
    shape = REDUCED[name]
    sides, sketch = (shape.side, shape.side), _sketch(shape, "meta")
    trained = _trained(sketch)
    with sketch.training("unlearn"):
        kept = step_cost(sketch.network, ROWS, *sides, trained).peak
        sketch.network.enable_gradient_checkpointing()
        checkpointed = step_cost(sketch.network, ROWS, *sides, trained).peak
    _, cost = decoding_cost(shape.vae, *sides, torch.float32)
    return {"kept": kept, "checkpointed": checkpointed, "decoding": cost.peak}


def _sketch(shape: Reduced, device: str) -> AdaptedNetwork:
    network = denoiser_of(shape.denoiser, torch.float32, device)
    return AdaptedNetwork(network, "", LAYERS[type(network).__name__])


def _trained(sketch: AdaptedNetwork) -> list[torch.Tensor]:
    return list(sketch.reset_adapter("unlearn", RANK, float(RANK), 0).values())


if __name__ == "__main__":
    sys.stdout.write(json_text(_peaks(REDUCED[sys.argv[1]])))
