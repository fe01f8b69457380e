"""Merging adapters that were trained apart, on their dense updates: the split of an update into
factors means nothing.

A merge is one file. Its fields declared with `setting()` are settings `sequence.FIELD`; merges that
share a field share its setting. `suggested` replaces defaults where requests are trained apart and
the user says nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...common import registry
from ...models.lora import Adapter, Updates, as_adapter, dense, shaped
from ...settings.groups import setting


class Merge(ABC):
    """A frozen dataclass that makes one update of several."""

    suggested: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def __call__(self, updates: Sequence[Updates]) -> Updates:
        """One dense update (out, in) by layer."""


@dataclass(frozen=True)
class WeightedMerge(Merge):
    """A merge that scales every update."""

    weight: float = setting(
        1.0, "weight of each merged adapter, 2.5 with TIES; unused by the mean", 0.0, 10.0
    )


def merge(
    states: Sequence[Mapping[str, Tensor]],
    plan: Any,
    restrict: Callable[[Updates], Updates] = lambda updates: updates,
) -> Adapter:
    """Adapters that were trained apart as one of rank `plan.rank`, merged as the settings `plan` of
    a sequence say.

    `restrict` is applied to the merged update before its truncation: what reads nothing of a span
    reads nothing of it when truncated either.
    """
    method = registry.build("merge", plan.merge, plan)
    merged = restrict(method([dense(state) for state in states]))
    return shaped(as_adapter(merged, plan.rank), states)


def stacked(updates: Sequence[Updates]) -> Updates:
    """By layer, all updates (N, out, in); zero where an adapter has no such layer."""
    shapes = {layer: part for update in updates for layer, part in update.items()}
    return {
        layer: torch.stack([update.get(layer, torch.zeros_like(like)) for update in updates])
        for layer, like in shapes.items()
    }
