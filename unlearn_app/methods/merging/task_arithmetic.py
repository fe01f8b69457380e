"""Task arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...common.registry import register
from ...models.lora import Updates
from . import WeightedMerge, stacked


@register("merge", "arithmetic")
@dataclass(frozen=True)
class TaskArithmetic(WeightedMerge):
    """A weight times the sum of the updates: task arithmetic, 2212.04089."""

    def __call__(self, updates: Sequence[Updates]) -> Updates:
        """See `Merge`."""
        return {layer: self.weight * stack.sum(0) for layer, stack in stacked(updates).items()}
