"""Low-rank factors of updates: their exact smallest form, and the adapter they make."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from . import Factors


@dataclass(frozen=True)
class Adapter:
    """A LoRA state of one rank with scale 1 (alpha equal to the rank).

    `state` holds `{layer}.lora_A.weight` (rank, in) and `{layer}.lora_B.weight` (out, rank), float32; `error` is
    the Frobenius norm of what truncation lost, over all layers together, relative to that of the whole update.
    """

    state: dict[str, Tensor]
    rank: int
    error: float


def product(factors: Factors) -> Tensor:
    """The update (out, in), in float64."""
    a, b = factors
    return b.double() @ a.double()


@torch.no_grad()
def compact(factors: Factors) -> Factors:
    """Factors of the same update with its own rank, min(in, out) at most.

    The update's singular vectors, each scaled by the root of its singular value, largest first: row k of A and
    column k of B have the squared norm s_k. Singular values that rounding of the float32 factors alone can cause
    are dropped.
    """
    a, b = (factor.double() for factor in factors)
    q_in, r_in = torch.linalg.qr(a.T)
    q_out, r_out = torch.linalg.qr(b)
    left, values, right = torch.linalg.svd(r_out @ r_in.T, full_matrices=False)
    noise = torch.finfo(torch.float32).eps * a.norm() * b.norm()
    kept = values > noise
    root = values[kept].sqrt()
    return (
        (root[:, None] * (right[kept] @ q_in.T)).float().contiguous(),
        ((q_out @ left[:, kept]) * root).float().contiguous(),
    )


def to_adapter(factors_by_layer: Mapping[str, Factors], rank: int | None = None) -> Adapter:
    """The adapter whose layers all have `rank`, by default the largest rank that any of the updates has.

    A smaller update is padded with zeros, a larger one truncated to its leading singular values, which is the
    nearest update of that rank (Eckart and Young).

    Raises:
        ValueError: `rank` is below 1.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"An adapter's rank is 1 or more, got {rank}.")
    exact = {layer: compact(factors) for layer, factors in factors_by_layer.items()}
    common = rank or max([1, *(len(a) for a, _ in exact.values())])
    state, lost, whole = {}, 0.0, 0.0
    for layer, (a, b) in exact.items():
        squares = a.double().square().sum(1).square()
        lost, whole = lost + float(squares[common:].sum()), whole + float(squares.sum())
        missing = max(common - len(a), 0)
        state[f"{layer}.lora_A.weight"] = pad(a[:common], (0, 0, 0, missing)).contiguous()
        state[f"{layer}.lora_B.weight"] = pad(b[:, :common], (0, missing)).contiguous()
    return Adapter(state, common, (lost / whole) ** 0.5 if whole else 0.0)
