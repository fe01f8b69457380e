"""EraseDiff's forgetting loss."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ..backend import Backend, NoisyBatch, Params
from ..registry import register


@register("objective", "erasediff")
@dataclass(frozen=True)
class EraseDiff:
    """Makes the concept's prompt predict noise of the wrong law, so that it paints no picture at all.

    EraseDiff, 2401.05779, equation 5: e(x_t, c) -> u with u uniform on [0, 1]. Its bilevel problem is solved to first
    order by the rule `barrier`; with another rule this is its one-level variant. Deviations: u is the normal
    distribution function of the batch's own noise read backwards, uniform and independent of the noise at the same
    place, so that no second generator is needed; with v-prediction the target is the v that belongs to u.
    """

    def __call__(self, backend: Backend, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        """Mean squared distance to the prediction that uniform noise would ask for."""
        uniform = torch.special.ndtr(batch.noise.flip(1, 2, 3))
        target = backend.target(batch.x0, uniform, batch.t)
        return mse_loss(backend.predict(batch.x_t, batch.t, batch.cond, params).float(), target.float())
