"""Gradient ascent on the concept's own loss."""

from dataclasses import dataclass

from torch import Tensor

from ...common.registry import register
from ...models.protocols import Denoiser, NoisyBatch, Params
from ...settings.groups import setting
from . import Objective
from .diffusion import Diffusion


@register("objective", "gradient_ascent")
@dataclass(frozen=True)
class GradientAscent(Objective):
    """Raises the diffusion loss on pictures of the concept until it passes a limit.

    2412.07808, section 3: L_f = -l on the forget set, with the loss truncated at m. Deviation: the
    truncation is an explicit gate. The official code divides the scalar loss by its own norm above
    m, whose gradient is exactly zero; so do we, without the division, and the step is then
    retain-only.
    """

    suggested = {"unlearn.retain_weight": 1.6}

    limit: float = setting(1.0, "ascend while the loss is at most this", 0.01, 100.0)

    def __call__(self, model: Denoiser, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        loss = Diffusion()(model, batch, params)
        return -loss if loss <= self.limit else 0.0 * loss - loss.detach()
