"""Whether a run fits the memory of its device, and how, before its model is loaded."""

import json
from collections.abc import Collection
from typing import Any

import torch
from safetensors import safe_open

from ...common.errors import OutOfMemory
from ...settings.groups import EIGHT_BIT
from ...settings.run_config import RunConfig
from ..device import SMALL, available_memory, choose_device, choose_dtype, speed
from ..memory import Plan, gib
from .estimate import Shape, measured
from .pipeline import CHUNK
from .single_file import BOTH_TEXTS
from .sources import Source, opened
from .weight_files import DENOISERS

TEXTS = "cond_stage_model.", BOTH_TEXTS
"""How the names of text encoders begin in a single file."""
MOST = 64
"""Pictures that are sampled at once at most."""
SPARED = 2**29
"""Bytes that a GPU's driver and the gaps of its allocator take."""
REACHED = 0.4
"""The share of a device's speed in products of large matrices that the training of a denoiser
reaches, about.
"""
TRAINED = 4 + 4 + 8 + 12 + 8
"""Bytes per trained number: itself, its gradient, Adam's two states, its value before and after a
step and the difference, which is also held in double precision.
"""
TERM = 4 + 8
"""Bytes per trained number and term: its gradient, also in double precision."""
SAVED = {"sgd": 8, EIGHT_BIT: 6}
"""Bytes per trained number that other optimizers have less than Adam."""
FULL, LOOK_AHEAD, EXACT = "attack.weights=full", "resist.on=yes", "resist.order=second"
INSTEAD = {
    FULL: "attack.weights=lora",
    LOOK_AHEAD: "resist.on=no or resist.weights=lora",
    EXACT: "resist.order=first or fewer resist.steps",
}
"""What takes less memory than a setting that trains or simulates all weights."""
LOOKAHEAD, LOOKAHEAD_STEP = 24, 16
"""Bytes per weight of a simulated attack on all weights, in float32: before, after, update,
gradient and Adam's states; and those of each step that an exact gradient goes back through.
"""


def plan_of(config: RunConfig, kinds: Collection[str]) -> Plan | None:
    """How a run uses memory; None where its model is so small that it does not matter.

    Raises:
        ModelError: the model is missing, damaged or of a kind we refuse; `kinds` are accepted.
        OutOfMemory: the run does not fit; the message names what to lower.
    """
    device = choose_device()
    with opened(config.model, kinds) as source:
        if source.size <= SMALL:
            return None
        dtype = choose_dtype(device, source.size)
        shape = shape_of(source, dtype, config.unlearn, config.compare.resolution)
    rate = REACHED * speed(device, dtype)
    return fitted(shape, config, device.type, available_memory(device), rate)


def shape_of(source: Source, dtype: torch.dtype, unlearn: Any, resolution: int = 0) -> Shape:
    """What the parts of a model take that are held as `dtype`, with what `unlearn`, a group of
    settings, trains, for pictures of that resolution.
    """
    places = [source.folder / part / "config.json" for part in (*DENOISERS, "vae")]
    denoiser, vae = (json.loads(path.read_text()) for path in places if path.is_file())
    return measured(denoiser, vae, _text_numbers(source), dtype, unlearn, resolution)


def _text_numbers(source: Source) -> int:
    """The numbers in the text encoders of a model."""
    found = 0
    for name in (name for name in source.files if name.endswith(".safetensors")):
        with safe_open(source.home / name, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118, no mapping
                if name.startswith("text_encoder") or key.startswith(TEXTS):
                    found += torch.Size(tensors.get_slice(key).get_shape()).numel()
    return found


def fitted(shape: Shape, config: RunConfig, device: str, available: int, rate: float) -> Plan:
    """The plan with the least effort that fits `available` bytes: a whole batch at once with all
    activations kept, else with gradient checkpointing, else fewer rows at once. `rate` is how many
    operations the device does per second.

    Raises:
        OutOfMemory: none fits.
    """
    # Parked text encoders leave a card, and nothing moves on a CPU.
    held = shape.held + (shape.text if device == "cpu" else SPARED)
    state = shape.trained * (TRAINED + 2 * TERM)
    beside = max(state, shape.decoding, shape.text)
    whole = max(config.unlearn.batch_size, config.attack.batch_size if config.attack.steps else 1)
    room = available - held - state
    checkpointed = room < whole * shape.kept.peak
    row = shape.checkpointed if checkpointed else shape.kept
    rows = max(0, min(whole, room // row.peak))
    need = held + max(beside, state + max(rows, 1) * row.peak)
    others = _other_needs(shape, config, held)
    largest = max(others, key=lambda name: others[name], default="")
    if largest and others[largest] > available:
        raise OutOfMemory(
            f"A run with {largest} needs about {gib(others[largest])} of memory, and there is"
            f" {gib(available)}; {INSTEAD[largest]} is accepted."
        )
    if need > available or not rows:
        raise OutOfMemory(
            f"A run on this model needs about {gib(need)} of memory, and there is"
            f" {gib(available)}; {_smaller(config)} or a smaller model is accepted."
        )
    free = (available - held) // shape.picture.peak
    return Plan(
        max(need, *others.values()) if others else need,
        available,
        None if rows == whole else rows,
        CHUNK if device == "cpu" else max(1, min(free, MOST)),
        checkpointed,
        2 * config.unlearn.batch_size * row.flops / rate,
    )


def _smaller(config: RunConfig) -> str:
    """The setting that makes what is trained smaller."""
    full = config.unlearn.weights == "full"
    return "unlearn.weights=lora" if full else "a lower unlearn.rank"


def _other_needs(shape: Shape, config: RunConfig, held: int) -> dict[str, int]:
    """The bytes of what trains or simulates all weights, by the settings to change instead."""
    found, weights, row = {}, shape.weights, 4 * shape.kept.peak // shape.itemsize
    if config.attack.steps and config.attack.weights == "full":
        each = TRAINED + TERM - SAVED.get(config.attack.optimizer, 0)
        found[FULL] = held + weights * each + row
    if config.resist.on and config.resist.weights == "full":
        steps = config.resist.steps if config.resist.order == "second" else 1
        each = LOOKAHEAD + LOOKAHEAD_STEP * (steps - 1)
        activations = steps * config.resist.batch_size * row
        name = EXACT if config.resist.order == "second" else LOOK_AHEAD
        found[name] = held + weights * each + activations
    return found
