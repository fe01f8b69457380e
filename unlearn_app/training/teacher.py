"""Whose predictions are the targets of training, and a cache of them."""

from typing import Any

import torch
from torch import Tensor

from ..models.conditioning import Conditioning
from ..models.latent_store import key_of
from ..models.lora import scaled
from ..models.protocols import Denoiser, Model, Params


class OriginalTeacher:
    """A model whose weights hold the update `merged`, with the frozen predictions of the original;
    everything else is the model's.

    The slot `relearn` takes the update away again, up to rounding.
    """

    def __init__(self, model: Model, merged: Params) -> None:
        self._model = model
        model.load_adapter("relearn", scaled(merged, -1.0))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @torch.no_grad()
    def frozen(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """The prediction of the original model: both updates off, no gradient."""
        with self._model.active("relearn"):
            return self._model.predict(x_t, t, cond)


class RememberingTeacher:
    """The denoiser `model` with a cache of its frozen predictions; everything else is the model's.

    The cache keeps every prediction, so the batches must come from a pool of a limited size.
    """

    def __init__(self, model: Denoiser) -> None:
        self._model = model
        self._answers: dict[bytes, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def frozen(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """The prediction of the frozen model: adapters off, no gradient."""
        key = key_of((x_t, t, *cond.tensors()))
        if key not in self._answers:
            self._answers[key] = self._model.frozen(x_t, t, cond)
        return self._answers[key]
