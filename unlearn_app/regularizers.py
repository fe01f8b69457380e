"""Regularizers: a penalty added after the gradient rule, and a projection of the weights after each step."""

from typing import Protocol

from torch import Tensor

from .backend import Params


class Regularizer(Protocol):
    """Both parts may do nothing; the penalty is no competing task and never enters the gradient rule."""

    def penalty(self, params: Params, reference: Params) -> Tensor | None:
        """A scalar to add to the loss, or None."""

    def project_(self, params: Params) -> None:
        """Move `params` in place back into the allowed set, after the optimizer step."""
