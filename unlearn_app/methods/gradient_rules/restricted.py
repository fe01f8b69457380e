"""The restricted gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.registry import register


@register("rule", "restricted")
@dataclass(frozen=True)
class Restricted:
    """Removes from each gradient what opposes the other, so that to first order neither loss rises.

    Theorem 4 of 2412.07808: with c = g_f . g_r < 0, u = w_f (g_f - c/|g_r|^2 g_r) + w_r (g_r -
    c/|g_f|^2 g_f); without conflict the weighted sum. For m > 2 terms each is projected against
    every original other gradient in order, as PCGrad does without its random order. Deviation: a
    zero gradient projects nothing (the official code divides by zero there and is saved by a
    comparison with NaN).
    """

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        count = len(gramian)
        coefficients = torch.eye(count, dtype=gramian.dtype, device=gramian.device)
        for row in range(count):
            for other in range(count):
                overlap = coefficients[row] @ gramian[:, other]
                if other != row and overlap < 0 and gramian[other, other] > 0:
                    coefficients[row, other] -= overlap / gramian[other, other]
        return preference @ coefficients
