"""Regularizers: what holds an update back, beside the gradient rule and whatever the optimizer does.

Parameters are LoRA factors by name, `LAYER.lora_A.SLOT.weight` (rank, in) and `LAYER.lora_B.SLOT.weight` (out, rank);
an update is `scale * B A`. Convolutions count as matrices (out, in * height * width).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from .backend import Params


class Regularizer:
    """Does nothing; its parts are called in the order in which they stand here."""

    def begin_(self, params: Params) -> None:
        """Move `params` in place into the allowed set, before the first step."""

    def penalty(self, params: Params, reference: Params) -> Tensor | None:
        """A scalar to add to the loss, or None; no competing task, so it never enters the gradient rule."""

    def restrict_(self, params: Params) -> None:
        """Change the gradients of `params` in place, before the optimizer step."""

    def project_(self, params: Params) -> None:
        """Move `params` in place back into the allowed set, after the optimizer step."""


def factor_pairs(params: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """A (rank, in) and B (out, rank) of every layer."""
    layers = dict.fromkeys(name.partition(".lora_")[0] for name in params)
    named = {(name.partition(".lora_")[0], name.partition(".lora_")[2][0]): name for name in params}
    return {layer: tuple(params[named[layer, part]].flatten(1) for part in "AB") for layer in layers}


@dataclass(frozen=True)
class UpdateNorm(Regularizer):
    """Keeps the update small: `weight` times the sum of |dW|^power over its entries.

    The update norms of 2511.07970 (power 1 and 2). `reference` holds the factors of updates that are merged into the
    model already and count as part of dW: nothing for a distance to the previous request, as the paper; all earlier
    ones for the distance to the original. Deviations: the norm is of the dense product, since a norm of the factors
    would be another penalty (it depends on how the product is split); the sum is not divided by the number of
    weights, so `weight` is the paper's lambda / N. The square is computed from matrices of the rank's size.
    """

    power: int
    weight: float
    scale: float = 1.0

    def penalty(self, params: Params, reference: Params) -> Tensor:
        """The penalty, a scalar."""
        own, earlier = factor_pairs(params), factor_pairs(reference)
        total = next(iter(params.values())).new_zeros(())
        for layer in own | earlier:
            parts = [(a, self.scale * b) for a, b in [own[layer]]] if layer in own else []
            parts += [tuple(f.to(total) for f in earlier[layer])] if layer in earlier else []
            a, b = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)
            total = total + ((b.T @ b) * (a @ a.T)).sum() if self.power == 2 else total + (b @ a).abs().sum()
        return self.weight * total


@dataclass(frozen=True)
class KeepSpan(Regularizer):
    """Keeps what keys and values make of text states in a span: dW c = 0 for every c in it.

    The semantic gradient projection of 2511.07970, on the input side of LoRA: A <- A P with P = I - Q Q^T after each
    step, which is exact for any optimizer, decay and clipping. Deviation: the paper projects gradients only, which
    Adam's elementwise step undoes; `gradients_only` does as the paper (with an A that begins projected). Layers that
    read no text states are left alone, and void the promise if they carry an adapter.
    """

    basis: Tensor
    """Q (in, k), orthonormal columns."""
    gradients_only: bool = False

    def begin_(self, params: Params) -> None:
        """Project every A that reads text states."""
        for a in self._inputs(params):
            a.data.copy_(self._projected(a.data))

    def restrict_(self, params: Params) -> None:
        """Project the gradients, if only they are."""
        for a in self._inputs(params) if self.gradients_only else ():
            a.grad.copy_(self._projected(a.grad))

    def project_(self, params: Params) -> None:
        """Project the factors, unless only gradients are."""
        if not self.gradients_only:
            self.begin_(params)

    def _projected(self, rows: Tensor) -> Tensor:
        wide, basis = rows.double(), self.basis.to(rows.device, torch.float64)
        return (wide - wide @ basis @ basis.T).to(rows.dtype)

    def _inputs(self, params: Params) -> Iterable[Tensor]:
        return [
            p for name, p in params.items() if name.partition(".lora_A.")[0].endswith((".attn2.to_k", ".attn2.to_v"))
        ]


@dataclass(frozen=True)
class KeepRows(Regularizer):
    """Lets only some output units move: the other rows of every B stay zero, and so do those of dW.

    Selective fine-tuning of 2511.07970 and the saliency of SalUn (2310.12508) choose single weights; a mask of rows
    is what survives the product B A exactly, and is indifferent to what is done on the input side.
    """

    keep: Params
    """0 or 1 for every row (out,), by the name of the B factor."""

    def project_(self, params: Params) -> None:
        """Zero the rows that may not move."""
        for name, rows in self.keep.items():
            params[name].data.mul_(rows.view(-1, *[1] * (params[name].ndim - 1)))


@dataclass(frozen=True)
class Clip(Regularizer):
    """Scales a gradient that is longer than `norm` down to it, over all tensors together."""

    norm: float

    def restrict_(self, params: Params) -> None:
        """Shorten the gradients."""
        clip_grad_norm_(list(params.values()), self.norm)


def best_rows(scores: Mapping[str, Tensor], share: float) -> KeepRows:
    """The `share` of all rows, over all layers together, with the largest score (out,); exactly so many, first come.

    Raises:
        ValueError: no row has a score, as with the gradients of a fresh adapter's factors.
    """
    joined = torch.cat([score.flatten() for score in scores.values()])
    if not joined.any():
        raise ValueError(
            "Every row scores zero: importance is that of dense weights, not of a fresh adapter's factors."
        )
    chosen = torch.zeros(len(joined))
    chosen[joined.argsort(descending=True, stable=True)[: max(round(share * len(joined)), 1)]] = 1.0
    pieces = chosen.split([score.numel() for score in scores.values()])
    return KeepRows({name: piece.to(score.device) for (name, score), piece in zip(scores.items(), pieces, strict=True)})


def span_of(vectors: Tensor, energy: float = 1.0) -> Tensor:
    """An orthonormal basis (in, k), float64, of the leading directions of `vectors` (N, in).

    As many as it takes to hold `energy` of the sum of squares; all that are not rounding at 1.
    """
    _, values, right = torch.linalg.svd(vectors.double(), full_matrices=False)
    squares = values.square()
    real = values > 1e-6 * values[:1]
    before = torch.cat([squares.new_zeros(1), squares.cumsum(0)[:-1]]) / squares.sum().clamp(min=1e-300)
    return right[real & ((before < energy) | (energy >= 1))].T.contiguous()


def survival(basis: Tensor, vectors: Tensor) -> Tensor:
    """The share (N,) of the squared length of `vectors` (N, in) outside the span of `basis` (in, k)."""
    wide = vectors.double()
    return 1 - (wide @ basis.to(wide)).square().sum(1) / wide.square().sum(1)
