"""Gradient clipping."""

from dataclasses import dataclass

from torch.nn.utils import clip_grad_norm_

from ...common.registry import register
from ...models.protocols import Params
from ...settings.groups import setting
from . import RegularizedRun, Regularizer


@register("regularizer", "gradient_clipping")
@dataclass(frozen=True)
class GradientClipping(Regularizer):
    """Scales a gradient whose Frobenius norm, over all tensors together, is above `clip` down to
    it.
    """

    clip: float = setting(0.0, "longest gradient, by its norm; 0 is any", 0.0, 1e3)
    # after everything else that changes gradients
    registry_order = 1

    def build(self, run: RegularizedRun) -> "GradientClipping | None":
        return self if self.clip else None

    def modify_grads_(self, params: Params) -> None:
        clip_grad_norm_(list(params.values()), self.clip)
