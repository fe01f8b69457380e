"""Safe self-distillation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.registry import register
from ...models.protocols import Denoiser, NoisyBatch, Params
from . import TargetObjective


@register("objective", "sdd")
@dataclass(frozen=True)
class SDD(TargetObjective):
    """Makes the concept's prompt generate what the empty prompt does, taught by the model itself.

    Safe self-distillation diffusion, 2307.05977, equation 6: e(x_t, c) -> stop-gradient of e(x_t,
    null), both of the model under training. Deviations: x_t is a noised picture instead of a
    partial denoising; the weights that are kept are the trained ones, not their moving average,
    because a run is short.
    """

    mixes_anchor_pictures = True
    suggested = {"unlearn.lr": 5e-3, "unlearn.retain_weight": 1.0}

    @torch.no_grad()
    def target(self, model: Denoiser, batch: NoisyBatch, params: Params | None) -> Tensor:
        return model.predict(batch.x_t, batch.t, batch.null, params)
