"""Gradient rules: how the gradients of several terms become one update.

A rule maps the Gramian of the gradients to one weight per gradient; the update is `weights @ gradients`, over the
whole trainable vector (never per layer). Row 0 is the forget term, the others are retain terms.

| symbol (2412.07808) | here |
|---|---|
| g_f, g_r | rows of `gradients` |
| c = g_f . g_r | `gramian[0, 1]` |
| delta_f, delta_r | projections implied by the weights |
"""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .registry import register


class GradientRule(Protocol):
    """`(gramian (m, m), preference (m,)) -> weights (m,)`.

    A class attribute `preconditioned = True` asks for a Gramian in the metric of the optimizer's diagonal.
    """

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


@register("rule", "one_sided")
@dataclass(frozen=True)
class OneSided:
    """Removes from the forget gradient what opposes the retain gradient, and nothing else.

    The ablation arm of 2412.07808 between the sum and the restricted gradient: the retain loss does not rise to
    first order, the forget loss may.
    """

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        """Weights of the original gradients; retain terms keep their preference."""
        weights = preference.clone()
        for other in range(1, len(gramian)):
            if gramian[0, other] < 0 and gramian[other, other] > 0:
                weights[other] -= preference[0] * gramian[0, other] / gramian[other, other]
        return weights


@register("rule", "restricted_adam")
@dataclass(frozen=True)
class RestrictedAdam(Restricted):
    """The restricted gradient in the metric of Adam's step, so that its promise holds for what Adam really does.

    Adam walks along D u with D = 1 / (sqrt(v) + eps), and g . D u may be negative although g . u is not. Here conflict
    and projection use inner products g^T D h, and the step is D u without momentum, whose past gradients nothing
    projects. Not in 2412.07808, whose guarantee is for the plain gradient step.
    """

    preconditioned: ClassVar[bool] = True


@register("rule", "barrier")
@dataclass(frozen=True)
class Barrier:
    """Descends on the retain terms and makes the forget loss fall at a rate of its own, EraseDiff's solver.

    2401.05779, algorithm 1 (the dynamic barrier of 2203.01543): u = w_r g_r + lambda g_f with
    lambda = max(0, (eta |g_f|^2 - w_r g_r . g_f) / |g_f|^2). Deviations: the inner problem is one gradient, its
    optimum taken as zero; the forget preference scales the rate.
    """

    eta: float = field(
        default=1.0, metadata={"help": "rate at which the forget loss must fall", "range": (0.01, 100.0)}
    )

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        """Weights of the original gradients."""
        weights = preference.clone()
        if len(gramian) > 1 and gramian[0, 0] > 0:
            opposed = preference[1:] @ gramian[1:, 0] / gramian[0, 0]
            weights[0] = (self.eta * preference[0] - opposed).clamp(min=0)
        return weights


class Preconditioner:
    """Adam's diagonal 1 / (sqrt(v) + eps), from the squares of the preferred sum of the gradients."""

    def __init__(self, beta: float = 0.999, eps: float = 1e-8) -> None:
        self._beta, self._eps, self._count = beta, eps, 0
        self._square: Tensor | float = 0.0

    def __call__(self, gradients: Tensor, preference: Tensor) -> Tensor:
        """The diagonal (P,) after seeing gradients (m, P)."""
        self._count += 1
        self._square = self._beta * self._square + (1 - self._beta) * (preference.to(gradients) @ gradients).square()
        return 1 / ((self._square / (1 - self._beta**self._count)).sqrt() + self._eps)


def gramian_of(gradients: Tensor, diagonal: Tensor | None = None) -> Tensor:
    """Inner products (m, m) in float64 of gradients (m, P), in the metric of a positive `diagonal` (P,) if given.

    float32 sums over millions of entries lose the small cosines that decide between conflict and none.
    """
    wide = gradients.double()
    return wide @ (wide if diagonal is None else wide * diagonal.double()).T


def combine(
    gradients: Tensor, rule: GradientRule, preference: Tensor, diagonal: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The update (P,), its weights (m,) and the Gramian (m, m) of gradients (m, P) under `rule`.

    With a `diagonal` D both the Gramian and the update are those of the preconditioned step D u.
    """
    gramian = gramian_of(gradients, diagonal)
    weights = rule(gramian, preference.to(gramian))
    update = weights.to(gradients) @ gradients
    return (update if diagonal is None else update * diagonal), weights, gramian


def cosine_of(gramian: Tensor) -> float | None:
    """Cosine of the angle between the first two gradients; None when there is one or either is zero."""
    if len(gramian) < 2:
        return None
    norm = (gramian[0, 0] * gramian[1, 1]).sqrt()
    return float(gramian[0, 1] / norm) if norm > 0 else None
