"""Erased Stable Diffusion."""

from dataclasses import dataclass

from torch import Tensor

from ...common.registry import register
from ...models.conditioning import Conditioning
from ...models.protocols import Denoiser, NoisyBatch, Params
from ...settings.groups import setting
from . import TargetObjective


@register("objective", "esd")
@dataclass(frozen=True)
class ESD(TargetObjective):
    """Pushes the concept's prediction away from the concept, the negative-guidance target of ESD.

    Erased Stable Diffusion, 2303.07345, equation 7: e(x_t, c) -> e*(x_t, b) - eta (e*(x_t, c) -
    e*(x_t, null)) with e* the frozen model and b = null. Deviations: b is the anchor's prompt (the
    paper's own code offers it as `erase_from`), which keeps the rest of the sentence in the
    picture; x_t is a noised picture instead of a partial denoising; for v-prediction and flows
    the same combination is taken of what they predict, which is equal because the coefficients sum
    to one and x_t is the same. By default cross-attention alone learns it, the paper's ESD-x, for
    objects too; `bench tradeoff` compares it with every layer.
    """

    eta: float = setting(1.0, "strength of the push away", 0.0, 10.0)
    mixes_anchor_pictures = True
    suggested = {"unlearn.modules": "cross", "unlearn.lr": 4e-3}

    def target(self, model: Denoiser, batch: NoisyBatch, params: Params | None) -> Tensor:
        cond = Conditioning.cat([batch.cond, batch.null, batch.anchor])
        towards, empty, base = model.frozen(
            batch.x_t.repeat(3, 1, 1, 1), batch.t.repeat(3), cond
        ).chunk(3)
        return base - self.eta * (towards - empty)
