"""Random numbers that are the same on every device."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the page reads seeds of stored pictures without torch
    import torch


def generator(seed: int) -> "torch.Generator":
    """A CPU generator, so that a seed means the same noise on every device."""
    import torch

    return torch.Generator().manual_seed(seed)
