"""What training takes of a card for every model that people own, by the estimate that a run is
planned with, at the family's own settings.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from ...common.errors import OutOfMemory
from ...common.json_values import json_text
from ...models.diffusers.estimate import measured, sides_of
from ...models.diffusers.plan import fitted
from ...settings.run_config import RunConfig, make_config
from .shapes import OWNED, Owned

CONCEPT, CARD = "Van Gogh style", "card"
CARDS = (6, 8, 12, 16, 24, 32, 48, 80)
"""Gigabytes of the cards that people own."""
RATE = 1e14
"""Operations per second; only seconds depend on it, which are not reported."""


def settings_of(owned: Owned, **changes: Any) -> RunConfig:
    """The settings of a run of the family in the preset fast."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"_class_name": owned.pipeline}
        (Path(folder) / "model_index.json").write_text(json_text(index))
        return make_config(CONCEPT, model=folder, **changes)


def estimated(name: str) -> dict[str, Any]:
    """The sizes of a model and what a run on it takes, in bytes, and the smallest of `CARDS` on
    which one fits.
    """
    owned = OWNED[name]
    config = settings_of(owned)
    found = measured(owned.denoiser, owned.vae, owned.text, torch.bfloat16, config.unlearn)
    fits = {}
    for card in CARDS:
        try:
            fits[card] = fitted(found, config, CARD, card * 10**9, RATE)
        except OutOfMemory:
            continue
    least = min(fits)
    plan = fits[least]
    return {
        "millions": found.weights // 10**6,
        "weights": found.held,
        "text": found.text,
        "sides": [8 * side for side in sides_of(owned.denoiser)],
        "batch": config.unlearn.batch_size,
        "kept": found.kept.peak,
        "checkpointed": found.checkpointed.peak,
        "picture": found.picture.peak,
        "decoding": found.decoding,
        "card": least,
        "need": plan.need,
        "how": plan.how(),
        "bar": owned.card,
    }
