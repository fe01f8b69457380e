"""Another model in the place of the original, as what differs: weights and tokenizers."""

from collections.abc import Mapping
from dataclasses import dataclass
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


def between(own: Tensor, new: Tensor, factor: float) -> Tensor:
    """`own` plus `factor` times the difference to `new`, computed in float32 at least, in the dtype
    and on the device of `new`.
    """
    wide = own.to(new.device).float() if own.dtype.itemsize < 4 else own.to(new.device)
    return (wide + factor * (new.to(wide.dtype) - wide)).to(new.dtype)
