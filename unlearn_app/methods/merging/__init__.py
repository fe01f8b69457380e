"""Merging adapters that were trained apart, on their dense updates, because how an update is split
into factors is arbitrary.

A merge is one file. Its fields declared with `setting()` are settings `sequence.FIELD`; merges that
share a field share its setting. `suggested` replaces defaults where requests are trained apart and
the user says nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...common import registry
from ...models.lora import Adapter, Updates, as_adapter, dense, shaped


class Merge(ABC):
    """A frozen dataclass that makes one update of several."""

    suggested: Mapping[str, Any] = {}

    @abstractmethod
    def __call__(self, updates: Sequence[Updates]) -> Updates:
        """One dense update (out, in) by layer."""


def merge(
    states: Sequence[Mapping[str, Tensor]],
    plan: Any,
    restrictions: Sequence[Callable[[Updates], Updates]] = (),
) -> Adapter:
    """One adapter of rank `plan.rank` from adapters that were trained apart, merged as `plan`, the
    settings of a sequence, says.

    `restrictions` are applied to the merged update before its truncation, because truncation keeps
    what they remove at zero.
    """
    merged = registry.build("merge", plan.merge, plan)([dense(state) for state in states])
    for restrict in restrictions:
        merged = restrict(merged)
    return shaped(as_adapter(merged, plan.rank), states)


def stacked(updates: Sequence[Updates]) -> Updates:
    """By layer, all updates (N, out, in); zero where an adapter has no such layer."""
    shapes = {layer: part for update in updates for layer, part in update.items()}
    return {
        layer: torch.stack([update.get(layer, torch.zeros_like(like)) for update in updates])
        for layer, like in shapes.items()
    }
