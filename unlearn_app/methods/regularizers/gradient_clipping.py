"""Gradient clipping: a gradient that is too long is shortened."""

from dataclasses import dataclass

from torch.nn.utils import clip_grad_norm_

from ...models.protocols import Params
from . import Regularizer


@dataclass(frozen=True)
class Clip(Regularizer):
    """Scales a gradient that is longer than `norm` down to it, over all tensors together."""

    norm: float

    def modify_grads_(self, params: Params) -> None:
        """Shorten the gradients."""
        clip_grad_norm_(list(params.values()), self.norm)
