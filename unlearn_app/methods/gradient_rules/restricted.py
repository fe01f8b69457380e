"""The restricted gradient."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.registry import register

SLACK = 1e-9
"""The cosine by which rounding may let a direction oppose a gradient."""


@register("rule", "restricted")
@dataclass(frozen=True)
class Restricted:
    """Removes from each gradient what opposes the others, so that to first order no loss rises.

    Theorem 4 of 2412.07808: with c = g_f . g_r < 0, u = w_f (g_f - c/|g_r|^2 g_r) + w_r (g_r -
    c/|g_f|^2 g_f); without conflict the weighted sum. The paper has two terms. Of more, each is
    projected onto the cone of all directions that oppose no other one, {v: v . g_j >= 0}, which is
    the same for two; then u . g_i >= w_i |delta_i|^2 >= 0 for every i. PCGrad, which projects
    against one after the other, promises that for two terms only. Deviation: a zero gradient
    projects nothing (the official code divides by zero there and is saved by a comparison with
    NaN).
    """

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        return preference @ torch.stack([_projected(gramian, row) for row in range(len(gramian))])


def _projected(gramian: Tensor, row: int) -> Tensor:
    """The weights (m,) of all gradients in the projection of gradient `row` onto the cone.

    The projection adds to the gradient some of those it opposes, so much that it is at right angles
    to them; the first such set that leaves no conflict is it.
    """
    norms = gramian.diagonal().sqrt()
    others = [other for other in range(len(gramian)) if other != row and norms[other] > 0]
    sets = itertools.chain(*(itertools.combinations(others, n) for n in range(len(others) + 1)))
    tried = []
    for chosen in sets:
        weights = gramian.new_zeros(len(gramian))
        weights[row] = 1.0
        if chosen:
            weights[list(chosen)] = _added(gramian, norms, row, chosen)
        opposed = [-(weights @ gramian[:, other]) / norms[other] for other in others]
        negative = [-weights[other] * norms[other] for other in chosen]
        worst = max((float(value) for value in (*opposed, *negative)), default=0.0)
        # A single conflict has to be removed however small it is, as the theorem does.
        if worst <= (SLACK * float(norms[row]) if chosen else 0.0):
            return weights
        tried.append((worst, weights))
    return min(tried, key=lambda one: one[0])[1]


def _added(gramian: Tensor, norms: Tensor, row: int, chosen: tuple[int, ...]) -> Tensor:
    """How much of each `chosen` gradient makes gradient `row` orthogonal to all of them."""
    if len(chosen) == 1:
        (other,) = chosen
        return -gramian[row, other] / gramian[other, other]
    some = list(chosen)
    cosines = gramian[some][:, some] / torch.outer(norms[some], norms[some])
    wanted = -gramian[some, row] / norms[some]
    return torch.linalg.pinv(cosines, hermitian=True) @ wanted / norms[some]
