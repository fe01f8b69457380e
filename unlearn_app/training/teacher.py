"""A cache of the frozen model's predictions, which are the targets of training."""

from typing import Any

from torch import Tensor

from ..models.conditioning import Conditioning
from ..models.latent_store import key_of
from ..models.protocols import Denoiser


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
        """The prediction of the original model: adapters off, no gradient."""
        key = key_of((x_t, t, *cond.tensors()))
        if key not in self._answers:
            self._answers[key] = self._model.frozen(x_t, t, cond)
        return self._answers[key]
