"""From gradients to an update: their Gramian, the weights a rule gives it, and the optimizer's
metric.
"""

from torch import Tensor

from . import GradientRule

BETA, EPS = 0.999, 1e-8
"""Adam's defaults for the mean of squares and its floor."""


class Preconditioner:
    """Adam's diagonal 1 / (sqrt(v) + eps), from the squares of the preferred sum of the
    gradients.
    """

    def __init__(self) -> None:
        self._count = 0
        self._square: Tensor | float = 0.0

    def __call__(self, gradients: Tensor, preference: Tensor) -> Tensor:
        """The diagonal (P,) after seeing gradients (m, P)."""
        self._count += 1
        square = (preference.to(gradients) @ gradients).square()
        self._square = BETA * self._square + (1 - BETA) * square
        return 1 / ((self._square / (1 - BETA**self._count)).sqrt() + EPS)


def gramian_of(gradients: Tensor, diagonal: Tensor | None = None) -> Tensor:
    """Inner products (m, m) in float64 of gradients (m, P), in the metric of a positive `diagonal`
    (P,) if given.

    float32 sums over millions of entries lose the small cosines that decide between conflict and
    none.
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
    """Cosine of the angle between the first two gradients; None when there is one or either is
    zero.
    """
    if len(gramian) < 2:
        return None
    norm = (gramian[0, 0] * gramian[1, 1]).sqrt()
    return float(gramian[0, 1] / norm) if norm > 0 else None
