"""The mean of the updates."""

from collections.abc import Sequence

from ...models.lora import Updates
from .task_arithmetic import arithmetic


def uniform(updates: Sequence[Updates]) -> Updates:
    """The mean."""
    return arithmetic(updates, 1 / len(updates))
