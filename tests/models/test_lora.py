"""Algebra of low-rank updates."""

import torch

from unlearn_app.models.lora import squared_norm


def test_the_norm_of_a_rank_above_the_sides_is_that_of_the_update() -> None:
    source = torch.Generator().manual_seed(0)
    a = torch.randn(9, 4, generator=source, dtype=torch.float64)
    b = torch.randn(5, 9, generator=source, dtype=torch.float64)
    torch.testing.assert_close(squared_norm((a, b)), (b @ a).square().sum())
