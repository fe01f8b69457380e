"""Merging adapters that were made apart: on dense updates, since the split of a product means nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .closed_form.factors import Adapter, to_adapter
from .regularizers import factor_pairs
from .settings import SequenceConfig

Updates = dict[str, Tensor]
"""Dense updates (out, in) by layer."""


def dense(state: Mapping[str, Tensor]) -> Updates:
    """The updates of an adapter's state, float64."""
    return {layer: b.double() @ a.double() for layer, (a, b) in factor_pairs(state).items()}


def uniform(updates: Sequence[Updates]) -> Updates:
    """The mean."""
    return arithmetic(updates, 1 / len(updates))


def arithmetic(updates: Sequence[Updates], weight: float) -> Updates:
    """`weight` times the sum (task arithmetic, 2212.04089)."""
    return {layer: weight * stack.sum(0) for layer, stack in _stacked(updates).items()}


def ties(updates: Sequence[Updates], weight: float, keep: float) -> Updates:
    """Trim, elect a sign, and average what agrees with it (TIES, 2306.01708), as in 2511.07970 matrix by matrix.

    Every update times `weight` keeps the share `keep` of its entries that are largest in size, exactly so many; the
    sign of an entry is that of the sum; the result is the mean of the kept values of that sign. Deviations of the
    released code, which we do not follow: it keeps an entry too many, and elects minus where a sum is zero (we: 0).
    """
    merged = {}
    for layer, stack in _stacked(updates).items():
        trimmed = torch.stack([_trimmed(weight * part, keep) for part in stack])
        sign = trimmed.sum(0).sign()
        agreeing = (trimmed.sign() == sign) & (sign != 0)
        merged[layer] = (trimmed * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)
    return merged


def _trimmed(update: Tensor, keep: float) -> Tensor:
    flat = update.flatten()
    kept = torch.zeros_like(flat)
    rows = flat.abs().argsort(descending=True, stable=True)[: round(keep * flat.numel())]
    kept[rows] = flat[rows]
    return kept.view_as(update)


def _stacked(updates: Sequence[Updates]) -> Updates:
    """By layer, all updates (N, out, in); zero where an adapter has no such layer."""
    shapes = {layer: part for update in updates for layer, part in update.items()}
    return {
        layer: torch.stack([update.get(layer, torch.zeros_like(like)) for update in updates])
        for layer, like in shapes.items()
    }


def merge(states: Sequence[Mapping[str, Tensor]], how: SequenceConfig, basis: Tensor | None = None) -> Adapter:
    """Adapters that were made apart as one of rank `how.rank`; what reads the span of `basis` (in, k) stays as it is.

    No merge keeps a span by itself, and neither does a truncation after it, so the projection comes between the two:
    the leading part of dW P reads nothing of the span either.
    """
    updates = [dense(state) for state in states]
    made = {
        "ties": lambda: ties(updates, how.weight, how.keep),
        "uniform": lambda: uniform(updates),
        "arithmetic": lambda: arithmetic(updates, how.weight),
    }[how.merge]()
    if basis is not None:
        made = {layer: update - update @ basis.to(update) @ basis.T.to(update) for layer, update in made.items()}
    return _shaped(as_adapter(made, how.rank), states)


def length(state: Mapping[str, Tensor]) -> float:
    """The Frobenius norm of an adapter's update over all layers."""
    pairs = [(a.double(), b.double()) for a, b in factor_pairs(state).values()]
    return sum(((b.T @ b) * (a @ a.T)).sum().item() for a, b in pairs) ** 0.5


def total(*states: Mapping[str, Tensor]) -> Adapter:
    """The sum of adapters as one, exact, of the rank that the sum has."""
    pairs = [factor_pairs(state) for state in states]
    layers = dict.fromkeys(layer for own in pairs for layer in own)
    joined = {layer: [own[layer] for own in pairs if layer in own] for layer in layers}
    whole = to_adapter(
        {n: (torch.cat([a for a, _ in own]), torch.cat([b for _, b in own], dim=1)) for n, own in joined.items()}
    )
    return _shaped(whole, states)


def _shaped(adapter: Adapter, states: Sequence[Mapping[str, Tensor]]) -> Adapter:
    """With the factors of 1 x 1 convolutions as the states have them: matrices with two more axes."""
    axes = {name: tensor.shape[2:] for state in states for name, tensor in state.items()}
    return replace(adapter, state={name: t.reshape(*t.shape, *axes[name]) for name, t in adapter.state.items()})


def as_adapter(merged: Updates, rank: int | None = None) -> Adapter:
    """The merged update as an adapter: of the largest layer's rank, or truncated to `rank` with the error said."""
    largest = max(min(update.shape) for update in merged.values())
    eyes = {layer: torch.eye(len(update), dtype=update.dtype) for layer, update in merged.items()}
    return to_adapter({layer: (update, eyes[layer]) for layer, update in merged.items()}, min(rank or largest, largest))
