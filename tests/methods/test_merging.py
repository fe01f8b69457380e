"""Merging updates: TIES as declared, and adapters that say what truncation lost."""

import pytest
import torch
from torch import Tensor

from unlearn_app.methods.merging.mean import Mean
from unlearn_app.methods.merging.task_arithmetic import TaskArithmetic
from unlearn_app.methods.merging.ties import Ties
from unlearn_app.methods.regularizers.subspace_projection import span_of
from unlearn_app.models.lora import Updates, as_adapter, dense


def update(seed: int, layer: str = "a") -> Updates:
    return {
        layer: torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    }


def same(one: Updates, other: Updates) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[n], other[n]) for n in one)


def test_ties_of_a_hand_made_entry() -> None:
    """Trim to the two largest, elect the sign of the sum, average what agrees."""
    one, two = {"a": torch.tensor([[3.0, -1.0, 0.5]])}, {"a": torch.tensor([[-1.0, -2.0, 0.1]])}
    torch.testing.assert_close(Ties(1.0, 2 / 3)([one, two])["a"], torch.tensor([[3.0, -1.5, 0.0]]))


def test_ties_of_equal_or_single_updates() -> None:
    one = update(1)
    assert same(Ties(1.0, 1.0)([one, one]), one)
    alone = Ties(1.0, 0.25)([one])["a"]
    assert (alone != 0).sum() == 6
    assert torch.equal(alone[alone != 0], one["a"][alone != 0])
    assert same(Ties(0.0, 1.0)([one]), {"a": torch.zeros(4, 6, dtype=torch.float64)})


def test_ties_does_not_depend_on_order_and_scales_with_its_inputs() -> None:
    parts = [update(seed) for seed in (1, 2, 3)]
    assert same(Ties(1.5, 0.5)(parts), Ties(1.5, 0.5)(parts[::-1]))
    doubled = [{"a": 2 * part["a"]} for part in parts]
    assert same(Ties(1.0, 0.5)(doubled), Ties(2.0, 0.5)(parts))


def test_opposites_cancel_and_nothing_is_neutral() -> None:
    one, none = update(1), {"a": torch.zeros(4, 6, dtype=torch.float64)}
    assert not Ties(1.0, 1.0)([one, {"a": -one["a"]}])["a"].any()
    assert same(Ties(1.0, 1.0)([one, none]), one)
    assert same(Ties(1.0, 1.0)([one, update(2, "b")]), one | update(2, "b"))


def test_the_plain_merges() -> None:
    parts = [update(1), update(2)]
    assert same(Mean()(parts), {"a": (parts[0]["a"] + parts[1]["a"]) / 2})
    assert same(TaskArithmetic(0.7)(parts), {"a": 0.7 * (parts[0]["a"] + parts[1]["a"])})


def factors(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    return {"x.lora_A.weight": a, "x.lora_B.weight": b}


def test_merging_sees_the_product_and_not_its_split() -> None:
    source = torch.Generator().manual_seed(0)
    a, b, mix = (
        torch.randn(*shape, generator=source, dtype=torch.float64)
        for shape in ((2, 6), (4, 2), (2, 2))
    )
    other = dense(factors(*(torch.randn(*shape, generator=source) for shape in ((2, 6), (4, 2)))))
    plain, turned = dense(factors(a, b)), dense(factors(mix.inverse() @ a, b @ mix))
    assert same(plain, turned)
    assert same(Ties(1.0, 0.5)([plain, other]), Ties(1.0, 0.5)([turned, other]))


def test_a_truncated_merge_says_what_it_lost() -> None:
    merged = Ties(1.0, 0.5)([update(1), update(2)])
    whole, cut = as_adapter(merged), as_adapter(merged, 2)
    torch.testing.assert_close(dense(whole.state)["a"], merged["a"], rtol=1e-5, atol=1e-6)
    lost = (dense(cut.state)["a"] - merged["a"]).norm() / merged["a"].norm()
    assert whole.error == 0
    assert (as_adapter(merged, 2048).rank, as_adapter(merged, 2048).error) == (
        4,
        0,
    )
    assert cut.error == pytest.approx(lost.item(), rel=1e-4)
    assert cut.rank == 2


def test_ties_breaks_a_kept_span_and_projecting_again_restores_it() -> None:
    """With the negative control: entries are trimmed one by one, which no subspace
    survives.
    """
    basis = span_of(
        torch.randn(2, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    )
    kept = [{"a": part["a"] - part["a"] @ basis @ basis.T} for part in (update(1), update(2))]
    merged = Ties(1.0, 0.5)(kept)["a"]
    assert (merged @ basis).norm() > 1e-2 * merged.norm()
    assert ((merged - merged @ basis @ basis.T) @ basis).norm() < 1e-12 * merged.norm()
