"""Merging by the mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...common.registry import register
from ...models.lora import Updates
from . import Merge
from .task_arithmetic import TaskArithmetic


@register("merge", "uniform")
@dataclass(frozen=True)
class Mean(Merge):
    """The mean of the updates."""

    def __call__(self, updates: Sequence[Updates]) -> Updates:
        return TaskArithmetic(1 / len(updates))(updates)
