"""Row mask: only some output units move."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...common.registry import register
from ...models.protocols import Model, NoisyBatch, Params
from ...settings.groups import setting
from . import RegularizedRun, Regularizer

IMPORTANCE_BATCHES = 4


@register("regularizer", "row_mask")
@dataclass(frozen=True)
class RowMask(Regularizer):
    """Lets only some output units move: the other rows of every B stay zero, and so do those of dW.

    Selective fine-tuning of 2511.07970 and the saliency of SalUn (2310.12508) choose single
    weights. A mask of rows of B is also one of dW = B A, whatever is done to A. Where the weights
    themselves are trained, the other rows stay as they were. `keep` holds 0 or 1 for every row
    (out,), by the name of the B factor or of the weight; `start` is what these were at first.
    """

    select: float = setting(
        1.0, "share of output units that may move, those that matter most to the concept", 0.01, 1
    )
    keep: Params = field(default_factory=dict)
    start: Params = field(default_factory=dict)

    def build(self, run: RegularizedRun) -> "RowMask | None":
        """The mask of the `select` output units with the largest |W dL/dW| per weight, over all
        layers together; None where nothing is forgotten by training.

        A first-order Taylor score of the forget loss with gradients summed over batches, as
        2511.07970. Deviations: rows instead of single weights; batches of training pictures instead
        of the steps of one sampling.
        """
        if run.loss is None or self.select >= 1:
            return None
        found = dense_gradients(run.model, run.loss, run.batches, IMPORTANCE_BATCHES)
        scores = {n: (w * g).abs().reshape(len(g), -1).mean(1) for n, (w, g) in found.items()}
        return best_rows(scores, self.select)

    def begin_(self, params: Params) -> None:
        self.start.update({name: params[name].detach().clone() for name in self.keep})

    def project_(self, params: Params) -> None:
        for name, rows in self.keep.items():
            moves = rows.view(-1, *[1] * (params[name].ndim - 1)).bool()
            params[name].data.copy_(torch.where(moves, params[name].data, self.start[name]))


def best_rows(scores: Mapping[str, Tensor], share: float) -> RowMask:
    """A mask of the `share` of all rows, over all layers together, with the largest score (out,);
    exactly that many, where scores are equal the first.

    Raises:
        ValueError: no row has a score, as with the gradients of a fresh adapter's factors.
    """
    joined = torch.cat(list(scores.values()))
    if not joined.any():
        raise ValueError(
            "Every row scores zero: importance is that of dense weights, not of a fresh adapter's"
            " factors."
        )
    chosen = torch.zeros_like(joined)
    chosen[joined.argsort(descending=True, stable=True)[: max(round(share * len(joined)), 1)]] = 1.0
    pieces = chosen.split([score.numel() for score in scores.values()])
    return RowMask(share, dict(zip(scores, pieces, strict=True)))


def dense_gradients(
    model: Model,
    loss: Callable[[Model, NoisyBatch], Tensor],
    batches: Iterator[NoisyBatch],
    count: int,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Dense weights (out, ...) under the `unlearn` slot and the sum of their gradients over `count`
    batches, by the name of the B factor, or by their own where the slot holds weights.
    """
    with model.active(), model.base_weight_grads("unlearn") as weights:
        total = [torch.zeros_like(weight) for weight in weights.values()]
        for batch in itertools.islice(batches, count):
            gradients = torch.autograd.grad(loss(model, batch), list(weights.values()))
            total = [before + gradient for before, gradient in zip(total, gradients, strict=True)]
        return {n: (w.detach(), g) for (n, w), g in zip(weights.items(), total, strict=True)}
