"""A model that counts what is asked of it, in forward passes of the denoiser on one picture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.conditioning import Conditioning
from ..models.protocols import Model, Params
from ..settings.cost import GRADIENT


class CountedModel:
    """The model `model`, with a count of its `forwards`; a prediction that a gradient is taken of
    counts as three, and pictures count as if none were stored.
    """

    def __init__(self, model: Model) -> None:
        self._model, self.forwards = model, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(
        self, x_t: Tensor, t: Tensor, cond: Conditioning, params: Params | None = None
    ) -> Tensor:
        """As the model's."""
        self.forwards += len(x_t) * (GRADIENT if torch.is_grad_enabled() else 1)
        return self._model.predict(x_t, t, cond, params)

    def frozen(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """As the model's."""
        self.forwards += len(x_t)
        return self._model.frozen(x_t, t, cond)

    def sample(
        self,
        prompts: Sequence[str] | Conditioning,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        **how: Any,
    ) -> Tensor:
        """As the model's."""
        self.forwards += len(seeds) * steps * (2 if guidance_scale != 1 else 1)
        return self._model.sample(prompts, seeds, steps=steps, guidance_scale=guidance_scale, **how)
