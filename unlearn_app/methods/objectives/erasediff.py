"""EraseDiff's forgetting loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.registry import register
from ...models.protocols import Denoiser, NoisyBatch, Params
from . import TargetObjective


@register("objective", "erasediff")
@dataclass(frozen=True)
class EraseDiff(TargetObjective):
    """Makes the concept's prompt predict uniform noise, so that it shows no picture at all.

    EraseDiff, 2401.05779, equation 5: e(x_t, c) -> u with u uniform on [0, 1]. Its bilevel problem
    is solved to first order by the rule `barrier`; with another rule this is its one-level variant.
    Deviations: u is the normal distribution function of the batch's own noise read backwards,
    uniform and independent of the noise at the same place, so that no second generator is needed;
    with v-prediction it is v that goes to u (with a flow, the velocity), because the v that belongs
    to a noise of u still holds the picture and is learned without forgetting it.
    """

    advice = {
        "style": (
            "EraseDiff suits an object better: with one style it cost others in our measurements."
        ),
    }
    suggested = {
        "rule": "barrier",
        "barrier.eta": 0.5,
        "unlearn.lr": 3e-3,
        "unlearn.retain_weight": 5.0,
    }

    def target(self, model: Denoiser, batch: NoisyBatch, params: Params | None) -> Tensor:
        return torch.special.ndtr(batch.noise.float().flip(1, 2, 3))
