"""TIES (2306.01708): trim, elect a sign, and average what agrees with it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...models.lora import Updates
from . import stacked


def ties(updates: Sequence[Updates], weight: float, keep: float) -> Updates:
    """Trim, elect a sign, and average what agrees with it (TIES, 2306.01708), as in 2511.07970
    matrix by matrix.

    Every update times `weight` keeps the share `keep` of its entries that are largest in size,
    exactly so many; the sign of an entry is that of the sum; the result is the mean of the kept
    values of that sign. Deviations of the released code, which we do not follow: it keeps an entry
    too many, and elects minus where a sum is zero (we: 0).
    """
    merged = {}
    for layer, stack in stacked(updates).items():
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
