"""Properties of the closed-form edits and of their factors, with the wrong variants that must not
have them.
"""

import pytest
import torch

from unlearn_app.methods.closed_form.rece import RECE, reviving_tokens
from unlearn_app.methods.closed_form.tokens import paired_positions
from unlearn_app.methods.closed_form.uce import UCE
from unlearn_app.models.lora import compact, product, to_adapter

WIDTH = 8
NONE = torch.zeros(0, WIDTH)
METHOD = UCE(erase_weight=0.7, preserve_weight=1.3, ridge=0.2)


def problem(seed: int = 0, forget: int = 3, retain: int = 4):
    """Weights of three layers, and tokens with a common mean as text states have."""
    source = torch.Generator().manual_seed(seed)
    weights = {f"layer{out}": torch.randn(out, WIDTH, generator=source) for out in (6, 5, 9)}
    tokens = 0.5 + torch.randn(2 * forget + retain, WIDTH, generator=source)
    return weights, *tokens.split([forget, forget, retain])


def paper(w, forget, anchor, retain, method=METHOD, ridge_left=1.0, ridge_right=1.0):
    """2308.14761, equation 7, summed token by token in float64."""
    w = w.double()
    left, right = (
        ridge_left * method.ridge * w,
        ridge_right * method.ridge * torch.eye(WIDTH, dtype=torch.float64),
    )
    for c, target in zip(forget.double(), anchor.double(), strict=True):
        left = left + method.erase_weight / len(forget) * torch.outer(w @ target, c)
        right = right + method.erase_weight / len(forget) * torch.outer(c, c)
    for c in retain.double():
        left = left + method.preserve_weight / len(retain) * torch.outer(w @ c, c)
        right = right + method.preserve_weight / len(retain) * torch.outer(c, c)
    return left @ right.inverse()


def objective(v, w, forget, anchor, retain, method=METHOD):
    forget, anchor, retain, w = forget.double(), anchor.double(), retain.double(), w.double()
    erased = (forget @ v.T - anchor @ w.T).square().sum(1).mean()
    kept = (retain @ v.T - retain @ w.T).square().sum(1).mean()
    near = (v - w).square().sum()
    return method.erase_weight * erased + method.preserve_weight * kept + method.ridge * near


def slope(v, *rest):
    v = v.detach().requires_grad_()
    return torch.autograd.grad(objective(v, *rest), v)[0].norm()


def edited_by(method, weights, *tokens):
    return {
        name: weights[name].double() + product(f) for name, f in method(weights, *tokens).items()
    }


def revival_cost(original, edited, tokens, ridge):
    """How far the best reviving embeddings stay from the concept, their own size counted as the
    search counts it.
    """
    found = reviving_tokens(original, edited, tokens, ridge)
    gaps = [
        found @ edited[n].double().T - tokens.double() @ w.double().T for n, w in original.items()
    ]
    return sum(gap.square().sum() for gap in gaps) + ridge * found.square().sum()


@pytest.mark.parametrize("seed", range(3))
def test_uce_equals_the_paper_formula(seed):
    weights, *tokens = problem(seed)
    for name, edited in edited_by(METHOD, weights, *tokens).items():
        w = weights[name]
        torch.testing.assert_close(edited, paper(w, *tokens), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(edited, paper(w, *tokens, ridge_left=0.0), rtol=1e-3, atol=1e-3)
        assert not torch.allclose(edited, paper(w, *tokens, ridge_right=0.0), rtol=1e-3, atol=1e-3)
        forget, anchor, retain = tokens
        assert not torch.allclose(edited, paper(w, anchor, forget, retain), rtol=1e-3, atol=1e-3)


def test_uce_minimises_its_objective():
    weights, forget, anchor, retain = problem()
    w, tokens = weights["layer6"], (forget, anchor, retain)
    a, b = METHOD(weights, *tokens)["layer6"]
    best = w.double() + product((a, b))
    scale = slope(w.double(), w, *tokens)
    assert slope(best, w, *tokens) < 1e-5 * scale
    source = torch.Generator().manual_seed(1)
    for _ in range(20):
        other = best + 1e-2 * torch.randn(best.shape, generator=source, dtype=torch.float64)
        assert objective(other, w, *tokens) > objective(best, w, *tokens)
    difference = (anchor - forget).double()
    unsolved = w.double() + METHOD.erase_weight * w.double() @ difference.T @ forget.double() / len(
        forget
    )
    transposed = w.double() + w.double() @ (torch.linalg.pinv(w.double()) @ product((a, b))).T
    for wrong in (unsolved, transposed, w.double() - product((a, b))):
        assert slope(wrong, w, *tokens) > 1e-2 * scale


def test_uce_of_two_dimensions_by_hand():
    # c = (1, 0), c* = (0, 1): the denominator is 1 + ridge = 2 along c, and W (c* - c) = (1, 1).
    w, c, target = (
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[0.0, 1.0]]),
    )
    a, b = UCE(ridge=1.0)({"w": w}, c, target, torch.zeros(0, 2))["w"]
    assert a.tolist() == [[0.5, 0.0]]
    assert b.tolist() == [[1.0], [1.0]]
    # A retain token 2c weighted 0.5 adds 0.5 * 4 to the denominator: 4 in all.
    method = UCE(preserve_weight=0.5, ridge=1.0)
    assert product(method({"w": w}, c, target, 2 * c)["w"]).tolist() == [[0.25, 0.0], [0.25, 0.0]]
    # With the erase weight 2 as well, 2 / (2 + 2 + 1).
    method = UCE(erase_weight=2.0, preserve_weight=0.5, ridge=1.0)
    expected = torch.tensor([[0.4, 0.0], [0.4, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(
        product(method({"w": w}, c, target, 2 * c)["w"]), expected, rtol=0, atol=1e-7
    )


def test_the_update_has_no_more_rank_than_forget_tokens():
    weights, *tokens = problem(forget=2)
    for name, (a, b) in METHOD(weights, *tokens).items():
        assert a.shape == (2, WIDTH)
        assert b.shape == (len(weights[name]), 2)
        assert a.dtype == b.dtype == torch.float32
        assert torch.linalg.matrix_rank(product((a, b))) == 2


def test_without_ridge_or_retain_forget_tokens_map_exactly_onto_the_anchor():
    weights, forget, anchor, _ = problem()
    for ridge, exact in ((1e-9, True), (1.0, False)):
        for name, edited in edited_by(UCE(ridge=ridge), weights, forget, anchor, NONE).items():
            reached, wanted = forget.double() @ edited.T, anchor.double() @ weights[name].double().T
            assert torch.allclose(reached, wanted, rtol=1e-4, atol=1e-4) is exact


def test_retain_tokens_orthogonal_to_the_forget_tokens_are_untouched():
    weights, forget, anchor, retain = problem()
    forget, retain = forget.clone(), retain.clone()
    forget[:, 4:], retain[:, :4] = 0, 0
    for name, edited in edited_by(METHOD, weights, forget, anchor, retain).items():
        assert torch.equal(retain.double() @ edited.T, retain.double() @ weights[name].double().T)
        assert not torch.allclose(
            forget.double() @ edited.T, forget.double() @ weights[name].double().T
        )


def test_more_preserve_weight_keeps_overlapping_retain_tokens_better():
    weights, forget, anchor, retain = problem()
    moved = [
        (
            retain.double()
            @ product(UCE(preserve_weight=p)(weights, forget, anchor, retain)["layer9"]).T
        ).norm()
        for p in (0.0, 1.0, 100.0)
    ]
    assert moved[0] > 2 * moved[1] > 4 * moved[2] > 0


def test_repeating_tokens_changes_nothing():
    weights, forget, anchor, retain = problem()
    once = edited_by(METHOD, weights, forget, anchor, retain)
    for again in (
        (forget, anchor, retain.repeat(5, 1)),
        (forget.repeat(4, 1), anchor.repeat(4, 1), retain),
    ):
        for name, edited in edited_by(METHOD, weights, *again).items():
            torch.testing.assert_close(edited, once[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [METHOD, RECE(preserve_weight=1.0)])
def test_empty_token_sets(method):
    weights, forget, anchor, retain = problem()
    unkept = method(weights, forget, anchor, NONE)
    assert all(product(f).isfinite().all() and product(f).norm() > 0 for f in unkept.values())
    for name, factors in method(weights, NONE, NONE, retain).items():
        assert torch.equal(product(factors), torch.zeros(weights[name].shape, dtype=torch.float64))


def test_an_anchor_equal_to_the_concept_changes_nothing():
    weights, forget, _, retain = problem()
    assert all(
        product(f).norm() == 0 for f in RECE(epochs=0)(weights, forget, forget, retain).values()
    )


@pytest.mark.parametrize("method", [METHOD, RECE(preserve_weight=1.0)])
def test_tokens_without_partner_are_refused_and_weights_left_alone(method):
    weights, forget, anchor, retain = problem()
    copies = {name: torch.nn.Parameter(w.clone()) for name, w in weights.items()}
    factors = method(copies, forget, anchor, retain)
    assert all(torch.equal(copies[name], w) for name, w in weights.items())
    assert not any(part.requires_grad for pair in factors.values() for part in pair)
    with pytest.raises(ValueError, match=r"needs its anchor token"):
        method(weights, forget, anchor[:1], retain)


def test_rece_of_one_dimension_by_hand():
    # UCE: w' = 1 - 1/2. Search: c' = w'w / (w'^2 + 0.75) = 0.5 / 1.
    # Again: w'' = 0.5 (1 - 0.25 / 1.25) = 0.4.
    one, zero, none = torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(0, 1)
    a, b = RECE(ridge=1.0, epochs=1, search_ridge=0.75)({"w": one}, one, zero, none)["w"]
    assert a.shape == (2, 1)
    assert b.shape == (1, 2)
    assert 1 + product((a, b)).item() == pytest.approx(0.4, abs=1e-6)
    repeated_uce, from_the_original_weights = 0.25, 0.3
    assert abs(0.4 - repeated_uce) > 0.1 - 1e-9
    assert abs(0.4 - from_the_original_weights) > 0.1 - 1e-9


def test_rece_without_epochs_is_uce():
    weights, *tokens = problem()
    uce = METHOD(weights, *tokens)
    rece = RECE(METHOD.erase_weight, METHOD.preserve_weight, METHOD.ridge, epochs=0)(
        weights, *tokens
    )
    assert all(
        torch.equal(x, y) for name in weights for x, y in zip(uce[name], rece[name], strict=True)
    )


def test_rece_is_the_chain_of_its_edits():
    weights, forget, anchor, retain = problem()
    method = RECE(preserve_weight=1.0, epochs=2, search_ridge=0.01)
    current = edited_by(UCE(), weights, forget, anchor, retain)
    for _ in range(2):
        current = edited_by(
            UCE(), current, reviving_tokens(weights, current, forget, 0.01), anchor, retain
        )
    for name, edited in edited_by(method, weights, forget, anchor, retain).items():
        torch.testing.assert_close(edited, current[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_reviving_tokens_are_the_best_there_are(ridge):
    weights, *tokens = problem()
    forget, edited = tokens[0].double(), edited_by(METHOD, weights, *tokens)

    def cost(c):
        gaps = sum(
            (c @ edited[n].T - forget @ w.double().T).square().sum() for n, w in weights.items()
        )
        return gaps + ridge * c.square().sum()

    def steepness(c):
        c = c.detach().requires_grad_()
        return torch.autograd.grad(cost(c), c)[0].norm()

    found = reviving_tokens(weights, edited, forget, ridge)
    assert steepness(found) < 1e-9 * steepness(forget)
    swapped = reviving_tokens(edited, {n: w.double() for n, w in weights.items()}, forget, ridge)
    other_ridge = reviving_tokens(weights, edited, forget, ridge + 1)
    for wrong in (swapped, other_ridge):
        assert steepness(wrong) > 1e-3 * steepness(forget)
    assert cost(found) < cost(other_ridge) < cost(torch.zeros_like(forget))


@pytest.mark.parametrize("seed", range(8))
def test_rece_makes_the_concept_harder_to_revive_than_uce(seed):
    weights, *tokens = problem(seed)

    def cost(edited):
        return revival_cost(weights, edited, tokens[0], 0.1)

    uce = edited_by(UCE(), weights, *tokens)
    uce_again = edited_by(UCE(), uce, *tokens)
    assert cost(weights) < cost(uce) < cost(uce_again)
    for epochs in (1, 2):
        assert cost(
            edited_by(RECE(preserve_weight=1.0, epochs=epochs, search_ridge=0.1), weights, *tokens)
        ) > cost(uce_again)


def lowrank(out: int, width: int, rank: int, seed: int = 0, scale: float = 1.0):
    source = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rank, width, generator=source), torch.randn(
        out, rank, generator=source
    )


@pytest.mark.parametrize("shape", [(5, 9, 3), (9, 5, 20), (6, 6, 6), (4, 7, 1)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_compact_is_exact_and_as_small_as_the_update(shape, scale):
    out, width, rank = shape
    factors = lowrank(out, width, rank, scale=scale)
    a, b = compact(factors)
    assert len(a) == b.shape[1] == min(shape)
    assert (product((a, b)) - product(factors)).norm() < 1e-6 * product(factors).norm()
    torch.testing.assert_close(a.norm(dim=1), b.norm(dim=0))
    assert (a.norm(dim=1).diff() <= 0).all()


def test_compact_drops_what_is_only_rounding():
    a, b = lowrank(30, 40, 4)
    mixing = torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    doubled = (torch.cat([a, a]), torch.cat([b, 2 * b], dim=1))
    dependent = ((torch.linalg.pinv(mixing) @ a), b @ mixing)
    for factors in (doubled, dependent):
        small = compact(factors)
        assert len(small[0]) == 4
        assert (product(small) - product(factors)).norm() < 1e-6 * product(factors).norm()
    weak = (torch.diag(torch.tensor([1.0, 1e-5])), torch.eye(2))
    assert len(compact(weak)[0]) == 2


@pytest.mark.parametrize("rank", [0, 3])
def test_compact_of_nothing_has_no_rank(rank):
    a, b = compact((torch.zeros(rank, 4), torch.zeros(6, rank)))
    assert a.shape == (0, 4)
    assert b.shape == (6, 0)


def test_to_adapter_pads_to_one_rank_without_changing_the_updates():
    updates = {
        "deep.to_k": lowrank(5, 9, 2),
        "deep.to_v": lowrank(12, 9, 30),
        "none": lowrank(3, 4, 2, scale=0.0),
    }
    for rank, common in ((None, 9), (11, 11)):
        adapter = to_adapter(updates, rank)
        assert adapter.rank == common
        assert adapter.error == 0.0
        assert len(adapter.state) == 6
        for layer, factors in updates.items():
            a, b = adapter.state[f"{layer}.lora_A.weight"], adapter.state[f"{layer}.lora_B.weight"]
            assert len(a) == b.shape[1] == common
            assert a.is_contiguous()
            assert b.is_contiguous()
            assert a.dtype == b.dtype == torch.float32
            torch.testing.assert_close(product((a, b)), product(factors), rtol=1e-5, atol=1e-5)


def test_the_reported_error_is_that_of_the_nearest_truncation():
    updates = {"small": lowrank(5, 9, 4), "large": lowrank(12, 9, 6, seed=1, scale=10.0)}
    adapter = to_adapter(updates, 2)
    lost, naive, whole, per_layer = 0.0, 0.0, 0.0, []
    for layer, (a, b) in updates.items():
        exact = product((a, b))
        kept = product(
            (adapter.state[f"{layer}.lora_A.weight"], adapter.state[f"{layer}.lora_B.weight"])
        )
        assert torch.linalg.matrix_rank(kept) == 2
        lost += (exact - kept).square().sum().item()
        naive += (exact - product((a[:2], b[:, :2]))).square().sum().item()
        whole += exact.square().sum().item()
        per_layer.append(((exact - kept).norm() / exact.norm()).item())
    assert adapter.error == pytest.approx((lost / whole) ** 0.5, rel=1e-5)
    assert adapter.error < (naive / whole) ** 0.5
    assert adapter.error != pytest.approx(sum(per_layer) / 2, rel=1e-3)
    errors = [to_adapter(updates, rank).error for rank in range(1, 7)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0.0


def test_to_adapter_without_an_update_or_with_an_impossible_rank():
    adapter = to_adapter({"layer": (torch.zeros(3, 4), torch.zeros(6, 3))})
    assert adapter.rank == 1
    assert adapter.error == 0.0
    assert [tuple(tensor.shape) for tensor in adapter.state.values()] == [(1, 4), (6, 1)]
    with pytest.raises(ValueError, match="1 or more, got 0"):
        to_adapter({}, 0)


START, END = 1, 2
A, CAT, DOG, VAN, GOGH, SITS = 10, 11, 12, 13, 14, 15


def ids(*words: int) -> list[int]:
    return [START, *words, END]


@pytest.mark.parametrize(
    ("forget", "anchor", "length", "pairs"),
    [
        pytest.param(
            ids(A, CAT, SITS), ids(A, DOG, SITS), 5, [(2, 2), (3, 3), (4, 4)], id="equal lengths"
        ),
        pytest.param(
            ids(A, CAT),
            ids(A, DOG),
            7,
            [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6)],
            id="padding maps to padding",
        ),
        pytest.param(
            ids(A, VAN, GOGH, SITS),
            ids(A, DOG, SITS),
            6,
            [(2, 2), (3, 2), (4, 3), (5, 4)],
            id="longer concept",
        ),
        pytest.param(
            ids(A, VAN, GOGH),
            ids(A, DOG),
            7,
            [(2, 2), (3, 2), (4, 3), (5, 4), (6, 5)],
            id="longer concept, padding",
        ),
        pytest.param(
            ids(A, CAT, SITS),
            ids(A, VAN, GOGH, SITS),
            7,
            [(2, 3), (3, 4), (4, 5), (5, 6)],
            id="longer anchor",
        ),
        pytest.param(
            ids(A, CAT, SITS),
            ids(A, SITS),
            6,
            [(2, 1), (3, 2), (4, 3), (5, 4)],
            id="no anchor tokens",
        ),
        pytest.param(
            ids(A, SITS), ids(A, DOG, SITS), 6, [(2, 3), (3, 4), (4, 5)], id="no concept tokens"
        ),
        pytest.param(
            ids(A, CAT, CAT), ids(A, CAT), 6, [(3, 2), (4, 3), (5, 4)], id="repeated word"
        ),
        pytest.param(
            ids(A, CAT), ids(A, CAT, CAT), 6, [(3, 4), (4, 5)], id="repeated word in the anchor"
        ),
        pytest.param(ids(CAT, DOG), ids(CAT, DOG), 6, [], id="identical"),
        pytest.param(
            ids(A, CAT, SITS, SITS), ids(A, DOG, SITS, SITS), 4, [(2, 2), (3, 3)], id="clipped"
        ),
        pytest.param(
            ids(A, CAT), ids(A, VAN, GOGH, SITS), 4, [], id="clipped before the anchor ends"
        ),
        pytest.param(
            ids(A, VAN, GOGH), ids(A, DOG), 3, [(2, 2)], id="clipped before the concept ends"
        ),
    ],
)
def test_paired_positions(forget, anchor, length, pairs):
    assert paired_positions(forget, anchor, length) == pairs


def test_paired_positions_need_a_common_start():
    with pytest.raises(ValueError, match="same start token"):
        paired_positions([CAT], [DOG], 4)
