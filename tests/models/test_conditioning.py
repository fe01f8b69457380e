"""Conditioning: every tensor keeps one row per prompt, whatever is done with the rows."""

import torch

from unlearn_app.models.conditioning import Conditioning


def made(rows: int, first: float = 0.0) -> Conditioning:
    numbers = first + torch.arange(rows, dtype=torch.float32)
    return Conditioning(
        numbers.view(-1, 1, 1).expand(rows, 3, 2),
        numbers.view(-1, 1).expand(rows, 4),
        numbers.view(-1, 1).expand(rows, 3),
        {"time_ids": numbers.view(-1, 1).expand(rows, 6)},
    )


def numbers_of(cond: Conditioning) -> list[float]:
    """The number of each row, the same in all tensors."""
    tensors = [cond.states, cond.pooled, cond.mask, *cond.extras.values()]
    found = [[row.unique().item() for row in tensor] for tensor in tensors]
    assert all(numbers == found[0] for numbers in found)
    return found[0]


def test_rows_are_chosen_as_in_a_tensor() -> None:
    assert numbers_of(made(4).rows(slice(1, 3))) == [1, 2]
    assert numbers_of(made(4).rows([3, 0, 3])) == [3, 0, 3]
    assert numbers_of(made(4).rows(torch.tensor([2, 1]))) == [2, 1]


def test_parts_are_joined_in_order() -> None:
    joined = Conditioning.cat([made(2), made(1, 5.0), made(2, 7.0)])
    assert numbers_of(joined) == [0, 1, 5, 7, 8]
    assert len(joined) == 5


def test_rows_are_repeated_as_a_whole() -> None:
    assert numbers_of(made(2).repeat(2)) == [0, 1, 0, 1]


def test_one_row_expands_without_a_copy() -> None:
    one = made(1, 3.0)
    assert numbers_of(one.expand(3)) == [3, 3, 3]
    assert one.expand(3).states.data_ptr() == one.states.data_ptr()


def test_what_a_model_does_not_read_stays_away() -> None:
    bare = Conditioning(torch.zeros(2, 3, 4))
    for cond in (bare.repeat(2), bare.rows([0]), Conditioning.cat([bare, bare]), bare.expand(2)):
        assert cond.pooled is None
        assert cond.mask is None
        assert cond.extras == {}
