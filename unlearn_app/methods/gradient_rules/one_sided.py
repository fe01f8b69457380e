"""The restricted gradient on one side only."""

from dataclasses import dataclass

from torch import Tensor

from ...common.registry import register


@register("rule", "one_sided")
@dataclass(frozen=True)
class OneSided:
    """Removes from the forget gradient what opposes the retain gradient, and nothing else.

    The ablation arm of 2412.07808 between the sum and the restricted gradient: the retain loss does
    not rise to first order, the forget loss may.
    """

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        weights = preference.clone()
        for other in range(1, len(gramian)):
            if gramian[0, other] < 0 and gramian[other, other] > 0:
                weights[other] -= preference[0] * gramian[0, other] / gramian[other, other]
        return weights
