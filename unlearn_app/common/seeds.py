"""Random numbers that are the same on every device."""

import torch


def generator(seed: int) -> torch.Generator:
    """A CPU generator, so that a seed means the same noise on every device."""
    return torch.Generator().manual_seed(seed)
