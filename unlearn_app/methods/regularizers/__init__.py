"""Regularizers: what holds an update back, beside the gradient rule and whatever the optimizer
does.

Parameters are LoRA factors by name, `LAYER.lora_A.SLOT.weight` (rank, in) and
`LAYER.lora_B.SLOT.weight` (out, rank); an update is `scale * B A`. Convolutions count as matrices
(out, in * height * width).
"""

from torch import Tensor

from ...models.protocols import Params


class Regularizer:
    """Does nothing; its parts are called in the order in which they stand here."""

    def begin_(self, params: Params) -> None:
        """Move `params` in place into the allowed set, before the first step."""

    def penalty(self, params: Params, reference: Params) -> Tensor | None:
        """A scalar to add to the loss, or None; no competing task, so it never enters the gradient
        rule.
        """

    def modify_grads_(self, params: Params) -> None:
        """Change the gradients of `params` in place, before the optimizer step."""

    def project_(self, params: Params) -> None:
        """Move `params` in place back into the allowed set, after the optimizer step."""
