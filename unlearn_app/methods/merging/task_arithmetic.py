"""Task arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...common.registry import register
from ...models.lora import Updates
from ...settings.groups import setting
from . import Merge, stacked


@register("merge", "arithmetic")
@dataclass(frozen=True)
class TaskArithmetic(Merge):
    """A weight times the sum of the updates: task arithmetic, 2212.04089."""

    weight: float = setting(
        1.0, "weight of each merged adapter, 2.5 with TIES; unused by the mean", 0.0, 10.0
    )

    def __call__(self, updates: Sequence[Updates]) -> Updates:
        return {layer: self.weight * stack.sum(0) for layer, stack in stacked(updates).items()}
