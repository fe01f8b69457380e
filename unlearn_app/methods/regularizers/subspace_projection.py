"""Subspace projection: text states in a span keep their keys and values."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.lora import layer_factors
from ...models.protocols import Params
from . import Regularizer


@dataclass(frozen=True)
class SubspaceProjection(Regularizer):
    """Keeps what keys and values make of text states in a span: dW c = 0 for every c in it.

    The semantic gradient projection of 2511.07970, on the input side of LoRA: A <- A P with P = I -
    Q Q^T after each step, which is exact for any optimizer, decay and clipping. Deviation: the
    paper projects gradients only, which Adam's elementwise step undoes; `gradients_only` does as
    the paper (with an A that begins projected). Layers that read no text states are left alone, and
    void the promise if they carry an adapter.
    """

    basis: Tensor
    """Q (in, k), orthonormal columns."""
    layers: tuple[str, ...]
    """Names of the layers that turn text states into keys and values."""
    gradients_only: bool = False

    def begin_(self, params: Params) -> None:
        """Project every A that reads text states."""
        for a in self._inputs(params):
            a.data.copy_(self._projected(a.data))

    def modify_grads_(self, params: Params) -> None:
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
        return [a for layer, (a, _) in layer_factors(params).items() if layer in self.layers]


def span_of(vectors: Tensor, energy: float = 1.0) -> Tensor:
    """An orthonormal basis (in, k), float64, of the leading directions of `vectors` (N, in).

    As many as it takes to hold `energy` of the sum of squares; all that are not rounding at 1.
    """
    _, values, right = torch.linalg.svd(vectors.double(), full_matrices=False)
    squares = values.square()
    real = values > 1e-6 * values[:1]
    before = torch.cat([squares.new_zeros(1), squares.cumsum(0)[:-1]]) / squares.sum().clamp(
        min=1e-300
    )
    return right[real & ((before < energy) | (energy >= 1))].T.contiguous()


def residual_energy(basis: Tensor, vectors: Tensor) -> Tensor:
    """The share (N,) of the squared length of `vectors` (N, in) outside the span of `basis` (in,
    k).
    """
    wide = vectors.double()
    return 1 - (wide @ basis.to(wide)).square().sum(1) / wide.square().sum(1)
