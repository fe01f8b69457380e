"""Fine-tuning on the retain set alone."""

from dataclasses import dataclass

from torch import Tensor

from ...common.registry import register
from ...models.protocols import Denoiser, NoisyBatch, Params
from . import Objective


@register("objective", "retain_only")
@dataclass(frozen=True)
class RetainOnly(Objective):
    """Trains on the retain pictures alone, without a forget loss.

    The baseline "Finetune" of 2412.07808, table 1. The retain loss is always the diffusion loss,
    because `Preserve` has no gradient where nothing else changes the model.
    """

    trains_on_pictures = True

    def __call__(self, model: Denoiser, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        return batch.x0.new_zeros(()).requires_grad_()
