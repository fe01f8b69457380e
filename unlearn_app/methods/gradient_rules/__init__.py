"""Gradient rules: how the gradients of several terms become one update.

A rule maps the Gramian of the gradients to one weight per gradient; the update is `weights @
gradients`, over the whole trainable vector (never per layer). Row 0 is the forget term, the others
are retain terms.

| symbol (2412.07808) | here |
|---|---|
| g_f, g_r | rows of `gradients` |
| c = g_f . g_r | `gramian[0, 1]` |
| delta_f, delta_r | projections implied by the weights |
"""

from typing import Protocol

from torch import Tensor


class GradientRule(Protocol):
    """A frozen dataclass whose fields are the rule's hyperparameters.

    A class attribute `preconditioned = True` asks for a Gramian in the metric of the optimizer's
    diagonal.
    """

    def __call__(self, gramian: Tensor, preference: Tensor) -> Tensor:
        """The weights (m,) of the original gradients, from their Gramian (m, m) in float32 or
        float64 and the preference (m,) between them.
        """
