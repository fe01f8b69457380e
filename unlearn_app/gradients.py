"""Gradient rules: how the gradients of several terms become one update.

A rule maps the Gramian of the gradients to one weight per gradient; the update is `weights @ gradients`, over the
whole trainable vector (never per layer). Row 0 is the forget term, the others are retain terms.

| symbol (2412.07808) | here |
|---|---|
| g_f, g_r | rows of `gradients` |
| c = g_f . g_r | `gramian[0, 1]` |
| delta_f, delta_r | projections implied by the weights |
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .registry import register


class GradientRule(Protocol):
    """`(gramian (m, m), preference (m,)) -> weights (m,)`."""

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor: ...


@register("rule", "weighted_sum")
@dataclass(frozen=True)
class WeightedSum:
    """Adds the gradients with fixed weights, the common baseline (GradDiff when forgetting is ascent)."""

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        """Return `preference` unchanged."""
        return preference.clone()


@register("rule", "restricted")
@dataclass(frozen=True)
class Restricted:
    """Removes from each gradient what opposes the other, so that to first order neither loss rises.

    Theorem 4 of 2412.07808: with c = g_f . g_r < 0, u = w_f (g_f - c/|g_r|^2 g_r) + w_r (g_r - c/|g_f|^2 g_f);
    without conflict the weighted sum. For m > 2 terms each is projected against every original other gradient in
    order, as PCGrad does without its random order. Deviation: a zero gradient projects nothing (the official code
    divides by zero there and is saved by a comparison with NaN).
    """

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        """Weights of the original gradients, from a float32 or float64 Gramian."""
        count = len(gramian)
        coefficients = torch.eye(count, dtype=gramian.dtype, device=gramian.device)
        for row in range(count):
            for other in range(count):
                overlap = coefficients[row] @ gramian[:, other]
                if other != row and overlap < 0 and gramian[other, other] > 0:
                    coefficients[row, other] -= overlap / gramian[other, other]
        return preference @ coefficients


def gramian_of(gradients: Tensor) -> Tensor:
    """Inner products (m, m) in float64 of gradients (m, P).

    float32 sums over millions of entries lose the small cosines that decide between conflict and none.
    """
    wide = gradients.double()
    return wide @ wide.T


def combine(gradients: Tensor, rule: GradientRule, preference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The update (P,), its weights (m,) and the Gramian (m, m) of gradients (m, P) under `rule`."""
    gramian = gramian_of(gradients)
    weights = rule(gramian, preference.to(gramian))
    return (weights.to(gradients) @ gradients), weights, gramian


def cosine_of(gramian: Tensor) -> float | None:
    """Cosine of the angle between the first two gradients; None when there is one or either is zero."""
    if len(gramian) < 2:
        return None
    norm = (gramian[0, 0] * gramian[1, 1]).sqrt()
    return float(gramian[0, 1] / norm) if norm > 0 else None
