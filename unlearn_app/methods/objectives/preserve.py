"""The retain term: predictions on retain prompts stay those of the original model."""

from dataclasses import dataclass

from torch import Tensor

from ...models.protocols import Denoiser, NoisyBatch, Params
from . import TargetObjective


@dataclass(frozen=True)
class Preserve(TargetObjective):
    """Keeps the prediction on retain prompts at the frozen model's.

    2412.07808 retains with the diffusion loss on pictures of the original model; the frozen
    prediction is that loss's conditional mean under the original model, the same optimum with far
    less gradient noise. Its gradient is exactly zero at the first step.
    """

    def target(self, model: Denoiser, batch: NoisyBatch, params: Params | None) -> Tensor:
        return model.frozen(batch.x_t, batch.t, batch.cond)
