"""Merging adapters that were made apart: on dense updates, since the split of a product means
nothing.
"""

from collections.abc import Sequence

import torch

from ...models.lora import Updates


def stacked(updates: Sequence[Updates]) -> Updates:
    """By layer, all updates (N, out, in); zero where an adapter has no such layer."""
    shapes = {layer: part for update in updates for layer, part in update.items()}
    return {
        layer: torch.stack([update.get(layer, torch.zeros_like(like)) for update in updates])
        for layer, like in shapes.items()
    }
