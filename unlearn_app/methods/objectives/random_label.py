"""Random relabelling with saliency."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.registry import register
from ...models.protocols import Denoiser, NoisyBatch, Params
from ...settings.groups import setting
from . import TargetObjective


@register("objective", "random_label")
@dataclass(frozen=True)
class RandomLabel(TargetObjective):
    """Makes the concept's prompt generate what other prompts, drawn at random, describe.

    SalUn, 2310.12508, equation 6: e(x_t, c) -> stop-gradient of e(x_t, c') with c' another class,
    moving only the weights whose forget gradient is large (equation 4). Deviations: c' is a retain
    prompt; the saliency is scored on the dense weights, because a fresh LoRA has zero gradient on
    A, and by output unit rather than by single weight, because a row of B is an output unit while a
    single weight has no factor of its own.
    """

    salient: float = setting(
        0.5, "share of output units that may move; 1 is no saliency", 0.01, 1.0
    )
    random_labels = True
    advice = {
        "style": (
            "Random relabelling suits an object better: some styles stayed in our measurements."
        ),
    }
    suggested = {"unlearn.lr": 6e-3, "unlearn.retain_weight": 1.0}

    @torch.no_grad()
    def target(self, model: Denoiser, batch: NoisyBatch, params: Params | None) -> Tensor:
        return model.predict(batch.x_t, batch.t, batch.anchor, params)
