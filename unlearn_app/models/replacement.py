"""Another model in the place of the original, as what differs: weights and tokenizers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .protocols import Params


@dataclass(frozen=True)
class Replacement:
    """What another model has in place of the original's, by part of the pipeline: `weights` by
    name, and `tokenizers`. What is alike in both is left out.
    """

    weights: Mapping[str, Params]
    tokenizers: Mapping[str, Any]

    @property
    def is_empty(self) -> bool:
        """Whether the other model is the original, byte for byte."""
        return not self.weights and not self.tokenizers

    def scaled(self, own: Mapping[str, Params], factor: float) -> "Replacement":
        """The model whose difference to the `own` weights, those of the original, is `factor` times
        this one's. A tokenizer cannot be scaled: it is the original's at 0 and below.
        """
        weights = {
            part: {name: _between(own[part][name], new, factor) for name, new in params.items()}
            for part, params in self.weights.items()
        }
        return replace(self, weights=weights, tokenizers=self.tokenizers if factor > 0 else {})


def _between(own: Tensor, new: Tensor, factor: float) -> Tensor:
    """`own` plus `factor` times the difference to `new`, computed in float32 at least."""
    wide = own.float() if own.dtype.itemsize < 4 else own
    return (wide + factor * (new.to(wide.dtype) - wide)).to(own.dtype)
