"""Task arithmetic (2212.04089): a weight times the sum of the updates."""

from collections.abc import Sequence

from ...models.lora import Updates
from . import stacked


def arithmetic(updates: Sequence[Updates], weight: float) -> Updates:
    """`weight` times the sum (task arithmetic, 2212.04089)."""
    return {layer: weight * stack.sum(0) for layer, stack in stacked(updates).items()}
