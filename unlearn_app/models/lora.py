"""The algebra of low-rank updates: their factors, the smallest exact factors, adapters and their
sums.

The factors of a layer are `LAYER.lora_A.SLOT.weight` (rank, in) and `LAYER.lora_B.SLOT.weight`
(out, rank), in files without the slot; an update is `scale * B A`. Convolutions count as matrices
(out, in * height * width).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..common.errors import NotFinite

Factors = tuple[Tensor, Tensor]
"""`(A (r, in), B (out, r))`: the update of a weight (out, in) is `B @ A`, without any further
scale.
"""
Updates = dict[str, Tensor]
"""Dense updates (out, in) by layer."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA state of one rank with scale 1 (alpha equal to the rank).

    `state` holds `{layer}.lora_A.weight` (rank, in) and `{layer}.lora_B.weight` (out, rank),
    float32; `error` is the Frobenius norm of what truncation lost, over all layers together,
    relative to that of the whole update.
    """

    state: dict[str, Tensor]
    rank: int
    error: float


def update_of(factors: Factors) -> Tensor:
    """The update B A (out, in), in the precision of the factors and differentiable in them."""
    a, b = factors
    return b.flatten(1) @ a.flatten(1)


def product(factors: Factors) -> Tensor:
    """The update (out, in), in float64."""
    a, b = factors
    return update_of((a.double(), b.double()))


def squared_norm(factors: Factors) -> Tensor:
    """The sum of squares of the update's entries, by products of the rank's size or, where the rank
    is larger than a side of the update, by the update.
    """
    a, b = factors
    if len(a) > min(a[0].numel(), len(b)):
        return update_of(factors).square().sum()
    return ((b.T @ b) * (a @ a.T)).sum()


def scaled(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The factors of `scale` times an update, its B multiplied, its A as they are; or its
    differences of weights, multiplied.
    """
    return {
        name: tensor if ".lora_A." in name else tensor * scale for name, tensor in state.items()
    }


def layer_factors(params: Mapping[str, Tensor]) -> dict[str, Factors]:
    """A (rank, in) and B (out, rank) by layer: the tensors of `params`, those of convolutions as
    matrices.
    """
    return {
        name.partition(".lora_A.")[0]: (
            a.flatten(1),
            params[name.replace(".lora_A.", ".lora_B.")].flatten(1),
        )
        for name, a in params.items()
        if ".lora_A." in name
    }


def join_factors(parts: Sequence[Factors]) -> Factors:
    """Factors of the sum of updates; their rank is the sum of the ranks."""
    return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)


@torch.no_grad()
def compact(factors: Factors) -> Factors:
    """Float32 factors of the same update with its own rank, min(in, out) at most.

    The update's singular vectors, each scaled by the root of its singular value, largest first: row
    k of A and column k of B have the squared norm s_k. Singular values that rounding of the float32
    factors alone can cause are dropped.
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
    """The adapter whose layers all have `rank`, by default the largest rank that any of the updates
    has.

    A smaller update is padded with zeros, a larger one truncated to its leading singular values,
    which is the nearest update of that rank (Eckart and Young).

    Raises:
        ValueError: `rank` is below 1.
        NotFinite: the update is not finite.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"An adapter's rank is 1 or more, got {rank}.")
    for layer, factors in factors_by_layer.items():
        if not all(factor.isfinite().all() for factor in factors):
            raise NotFinite(f"the update of {layer} is not finite", "finite factors are accepted")
    exact = {layer: compact(factors) for layer, factors in factors_by_layer.items()}
    common = rank or max([1, *(len(a) for a, _ in exact.values())])
    state, lost, whole = {}, 0.0, 0.0
    for layer, (a, b) in exact.items():
        squares = a.double().square().sum(1).square()
        lost += float(squares[common:].sum())
        whole += float(squares.sum())
        missing = max(common - len(a), 0)
        state[f"{layer}.lora_A.weight"] = pad(a[:common], (0, 0, 0, missing)).contiguous()
        state[f"{layer}.lora_B.weight"] = pad(b[:, :common], (0, missing)).contiguous()
    return Adapter(state, common, (lost / whole) ** 0.5 if whole else 0.0)


def dense(state: Mapping[str, Tensor]) -> Updates:
    """The updates of an adapter's state, float64."""
    return {layer: product(factors) for layer, factors in layer_factors(state).items()}


def frobenius_norm(state: Mapping[str, Tensor]) -> float:
    """The Frobenius norm of an adapter's update over all layers."""
    pairs = [(a.double(), b.double()) for a, b in layer_factors(state).values()]
    return sum(squared_norm(pair).item() for pair in pairs) ** 0.5


def sum_factors(*states: Mapping[str, Tensor]) -> dict[str, Factors]:
    """Factors by layer of the sum of updates; a layer's rank is the sum of their ranks."""
    pairs = [layer_factors(state) for state in states]
    layers = dict.fromkeys(layer for own in pairs for layer in own)
    return {n: join_factors([own[n] for own in pairs if n in own]) for n in layers}


def sum_adapters(*states: Mapping[str, Tensor]) -> Adapter:
    """The sum of adapters as one, exact, of the rank that the sum has."""
    return shaped(to_adapter(sum_factors(*states)), states)


def as_adapter(merged: Updates, rank: int | None = None) -> Adapter:
    """The merged update as an adapter, of the full rank of its largest layer or truncated to
    `rank`.
    """
    largest = max(min(update.shape) for update in merged.values())
    factors = {layer: (dw, torch.eye(len(dw), dtype=dw.dtype)) for layer, dw in merged.items()}
    return to_adapter(factors, min(rank or largest, largest))


def shaped(adapter: Adapter, states: Sequence[Mapping[str, Tensor]]) -> Adapter:
    """`adapter` with the factors of convolutions shaped as in `states`: A (rank, in, height,
    width), B (out, rank, 1, 1).
    """
    known = {name: tensor.shape for state in states for name, tensor in state.items()}
    state = {
        name: tensor.reshape(
            (len(tensor), *known[name][1:])
            if ".lora_A." in name
            else (*tensor.shape, *known[name][2:])
        )
        for name, tensor in adapter.state.items()
    }
    return replace(adapter, state=state)


def stacked(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The sum of adapters as one whose factors stand beside each other, so that a layer's rank is
    the sum of their ranks; differences of weights are added.
    """
    names = dict.fromkeys(name for state in states for name in state)
    parts = {name: [state[name] for state in states if name in state] for name in names}
    return {
        name: torch.cat(own, dim=int(".lora_B." in name)) if ".lora_" in name else sum(own)
        for name, own in parts.items()
    }
