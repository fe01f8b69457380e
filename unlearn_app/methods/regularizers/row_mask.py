"""Row mask: only some output units move."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.protocols import Params
from . import Regularizer


@dataclass(frozen=True)
class RowMask(Regularizer):
    """Lets only some output units move: the other rows of every B stay zero, and so do those of dW.

    Selective fine-tuning of 2511.07970 and the saliency of SalUn (2310.12508) choose single
    weights; a mask of rows is what survives the product B A exactly, and is indifferent to what is
    done on the input side.
    """

    keep: Params
    """0 or 1 for every row (out,), by the name of the B factor."""

    def project_(self, params: Params) -> None:
        """Zero the rows that may not move."""
        for name, rows in self.keep.items():
            params[name].data.mul_(rows.view(-1, *[1] * (params[name].ndim - 1)))


def best_rows(scores: Mapping[str, Tensor], share: float) -> RowMask:
    """The `share` of all rows, over all layers together, with the largest score (out,); exactly so
    many, first come.

    Raises:
        ValueError: no row has a score, as with the gradients of a fresh adapter's factors.
    """
    joined = torch.cat([score.flatten() for score in scores.values()])
    if not joined.any():
        raise ValueError(
            "Every row scores zero: importance is that of dense weights, not of a fresh adapter's"
            " factors."
        )
    chosen = torch.zeros(len(joined))
    chosen[joined.argsort(descending=True, stable=True)[: max(round(share * len(joined)), 1)]] = 1.0
    pieces = chosen.split([score.numel() for score in scores.values()])
    return RowMask(
        {
            name: piece.to(score.device)
            for (name, score), piece in zip(scores.items(), pieces, strict=True)
        }
    )
