"""The retain term: predictions on retain prompts stay those of the original model."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import mse_loss

from ...models.protocols import Denoiser, NoisyBatch, Params


@dataclass(frozen=True)
class Preserve:
    """Keeps the prediction on retain prompts at the frozen model's.

    2412.07808 retains with the diffusion loss on pictures of the original model; the frozen
    prediction is that loss's conditional mean under the original model, the same optimum with far
    less gradient noise. Its gradient is exactly zero at the first step.
    """

    def __call__(self, model: Denoiser, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        target = model.frozen(batch.x_t, batch.t, batch.cond)
        return mse_loss(model.predict(batch.x_t, batch.t, batch.cond, params), target)
