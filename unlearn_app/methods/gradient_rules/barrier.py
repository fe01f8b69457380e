"""EraseDiff's dynamic barrier."""

from dataclasses import dataclass

from torch import Tensor

from ...common.registry import register
from ...settings.groups import setting


@register("rule", "barrier")
@dataclass(frozen=True)
class Barrier:
    """Descends on the retain terms and makes the forget loss fall at a rate of its own, EraseDiff's
    solver.

    2401.05779, algorithm 1 (the dynamic barrier of 2203.01543): u = w_r g_r + lambda g_f with
    lambda = max(0, (eta |g_f|^2 - w_r g_r . g_f) / |g_f|^2). Deviations: the inner problem is one
    gradient, its optimum taken as zero; the forget preference scales the rate.
    """

    eta: float = setting(1.0, "rate at which the forget loss must fall", 0.01, 100.0)

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        weights = preference.clone()
        if len(gramian) > 1 and gramian[0, 0] > 0:
            opposed = preference[1:] @ gramian[1:, 0] / gramian[0, 0]
            weights[0] = (self.eta * preference[0] - opposed).clamp(min=0)
        return weights
