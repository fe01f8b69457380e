"""Fine-tuning on the retain set alone."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...common.registry import register
from ...models.protocols import Denoiser, NoisyBatch, Params


@register("objective", "retain_only")
@dataclass(frozen=True)
class RetainOnly:
    """Trains on the retain pictures alone and hopes that the concept fades, the baseline of the
    literature.

    The row "Finetune" of 2412.07808, table 1. The retain loss is always the diffusion loss, because
    keeping the predictions of the original model would train nothing.
    """

    trains_on_pictures: ClassVar[bool] = True

    def __call__(self, model: Denoiser, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        """Zero, without a gradient."""
        return batch.x0.new_zeros(()).requires_grad_()
