"""Closed-form edits, one method per file: `(weights, forget, anchor, retain) -> factors by
layer`.
"""

from typing import Protocol

from torch import Tensor

from ...models.lora import Factors


class ClosedForm(Protocol):
    """A frozen dataclass whose fields are the method's hyperparameters; one called `rank` bounds
    the adapter's.
    """

    def __call__(
        self, weights: dict[str, Tensor], forget: Tensor, anchor: Tensor, retain: Tensor
    ) -> dict[str, Factors]:
        """The update of every one of `weights`, under the same names.

        `weights` are cross-attention key and value matrices (out, D). Rows of the others are tokens
        of text states: row i of `forget` (N, D) shall map to where row i of `anchor` (N, D) maps,
        and every row of `retain` (M, D), which may be none, to where it did.
        """
