"""The restricted gradient in the metric of Adam's step."""

from dataclasses import dataclass

from ...common.registry import register
from .restricted import Restricted


@register("rule", "restricted_adam")
@dataclass(frozen=True)
class RestrictedAdam(Restricted):
    """The restricted gradient in the metric of Adam's step, so that its guarantee holds for what
    Adam does.

    Adam moves along D u with D = 1 / (sqrt(v) + eps), and g . D u may be negative although g . u is
    not. Here conflict and projection use inner products g^T D h, and the step is D u without
    momentum, whose past gradients nothing projects. Not in 2412.07808, whose guarantee is for the
    plain gradient step.
    """

    preconditioned = True
