"""Spans kept exactly, norms of dense updates, chosen rows; each with a wrong variant."""

from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam

from unlearn_app.common.errors import ConfigError
from unlearn_app.concepts.catalog import known_concepts, preview_concept
from unlearn_app.concepts.concept import Prompt, also_named
from unlearn_app.methods.gradient_rules.weighted_sum import WeightedSum
from unlearn_app.methods.objectives.diffusion import Diffusion
from unlearn_app.methods.regularizers import RegularizedRun, Regularizer, subspace_projection
from unlearn_app.methods.regularizers.gradient_clipping import GradientClipping
from unlearn_app.methods.regularizers.l1 import L1
from unlearn_app.methods.regularizers.l2 import L2
from unlearn_app.methods.regularizers.row_mask import RowMask, best_rows
from unlearn_app.methods.regularizers.subspace_projection import (
    SubspaceProjection,
    concept_vectors,
    residual_energy,
    span_of,
    unlike,
)
from unlearn_app.models.catalog import load_model
from unlearn_app.models.conditioning import Conditioning
from unlearn_app.models.protocols import NoisyBatch, Params
from unlearn_app.settings.run_config import make_config
from unlearn_app.training.loop import Term, fit

LAYER = "down.attn2.to_k"
A, B = f"{LAYER}.lora_A.unlearn.weight", f"{LAYER}.lora_B.unlearn.weight"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_layer(rank: int = 3, inside: int = 7, out: int = 5) -> Params:
    return {A: random(rank, inside).requires_grad_(), B: random(out, rank, seed=1).requires_grad_()}


class TestSpan:
    def test_the_basis_spans_the_vectors_and_nothing_else(self) -> None:
        """However the vectors are scaled, repeated, mixed or ordered."""
        vectors = random(4, 9)
        basis = span_of(vectors)
        projector = torch.eye(9, dtype=torch.float64) - basis @ basis.T
        assert basis.shape == (9, 4)
        torch.testing.assert_close(projector @ projector, projector)
        torch.testing.assert_close(
            projector @ vectors.T, torch.zeros(9, 4, dtype=torch.float64), atol=1e-12, rtol=0
        )
        for same in (
            vectors[[3, 1, 0, 2]],
            vectors * random(4, 1, seed=3),
            torch.cat([vectors, vectors[:2]]),
            random(4, 4, seed=4) @ vectors,
        ):
            other = span_of(same)
            torch.testing.assert_close(other @ other.T, basis @ basis.T)

    def test_energy_takes_the_leading_directions(self) -> None:
        vectors = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0])).double()  # squares 9, 4, 1 of 14
        assert [
            span_of(vectors, energy).shape[1]
            for energy in (0.5, 9 / 14 + 0.01, 13 / 14 + 0.01, 1.0)
        ] == [
            1,
            2,
            3,
            3,
        ]

    def test_residual_energy_is_the_share_outside(self) -> None:
        basis = torch.eye(3, dtype=torch.float64)[:, :1]
        found = residual_energy(basis, torch.tensor([[2.0, 0, 0], [0, 1, 5], [1, 1, 0]]))
        torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64))


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    return load_model(str(tiny_pipeline))


def noisy(model) -> NoisyBatch:
    x0, noise = (random(2, *model.latent_shape, seed=seed).float() for seed in (1, 2))
    t, cond = torch.tensor([100, 700]), Conditioning(random(2, 4, 32, seed=3).float())
    x_t = model.parameterization.add_noise(x0, noise, t)
    return NoisyBatch(x0, noise, t, x_t, cond, cond, cond)


def trained(
    model,
    *regularizers: Regularizer,
    modules: str = "cross",
    warm: bool = False,
    decay: float = 0.0,
) -> Params:
    """50 steps of Adam in float32 on a real UNet; `warm` begins with an update that is there
    already.
    """
    params = model.reset_adapter("unlearn", 4, 4.0, 0, modules)
    if warm:
        for row, (name, tensor) in enumerate(params.items()):
            if ".lora_B." in name:
                tensor.data = 0.1 * random(*tensor.shape, seed=row).float()
    with model.training("unlearn"):
        terms = {"forget": Term(Diffusion(), repeat(noisy(model)))}
        way = {
            "stage": "unlearn",
            "steps": 50,
            "lr": 3e-3,
            "decay": decay,
            "regularizers": regularizers,
        }
        list(fit(model, params, terms, WeightedSum(), **way))
    return {name: tensor.detach().double() for name, tensor in params.items()}


def leak(params: Params, vectors: Tensor, parts: tuple[str, ...] = ("to_k", "to_v")) -> float:
    """The largest |dW c| / (|dW| |c|) over layers that read text states."""
    found = []
    for name, a in params.items():
        layer = name.partition(".lora_A.")[0]
        if ".lora_A." in name and layer.endswith(tuple(f".attn2.{part}" for part in parts)):
            update = params[name.replace(".lora_A.", ".lora_B.")] @ a
            found.append(
                ((update @ vectors.T).norm(dim=0) / (update.norm() * vectors.norm(dim=1)))
                .max()
                .item()
            )
    assert found
    return max(found)


KEPT = random(5, 32, seed=9)


def readers(model) -> tuple[str, ...]:
    """The layers that read text states."""
    return tuple(model.cross_weights())


class TestSubspaceProjection:
    @pytest.mark.parametrize("warm", [False, True])
    def test_a_span_is_kept_through_adam_with_decay_and_clipping(self, model, warm) -> None:
        """Also where an update is there at the start."""
        basis = span_of(KEPT)
        inside = random(6, 5, seed=11) @ KEPT
        assert (
            leak(
                trained(
                    model,
                    SubspaceProjection("exact", basis=basis, layers=readers(model)),
                    GradientClipping(0.1),
                    warm=warm,
                    decay=0.1,
                ),
                inside,
            )
            < 1e-5
        )
        assert leak(trained(model, GradientClipping(0.1), warm=warm, decay=0.1), inside) > 1e-2

    def test_projected_gradients_alone_do_not_keep_it(self, model) -> None:
        """Adam's elementwise step leaves the subspace; the first step of a fresh adapter cannot
        tell.
        """
        found = leak(
            trained(
                model,
                SubspaceProjection("gradients", basis=span_of(KEPT), layers=readers(model)),
                GradientClipping(0.1),
                decay=0.1,
            ),
            KEPT,
        )
        assert 1e-4 < found < leak(trained(model, GradientClipping(0.1), decay=0.1), KEPT)

    def test_what_is_outside_is_learned(self, model) -> None:
        """A projection to nothing, or onto the span, would pass the tests above or fail
        here.
        """
        outside = random(3, 32, seed=12)
        outside -= outside @ span_of(KEPT) @ span_of(KEPT).T
        assert (
            leak(
                trained(
                    model,
                    SubspaceProjection("exact", basis=span_of(KEPT), layers=readers(model)),
                ),
                outside,
            )
            > 1e-2
        )

    def test_a_sentence_in_the_span_is_predicted_as_before_and_another_is_not(self, model) -> None:
        """Through the whole UNet: adapters on keys and values only, every token of the sentence
        protected.
        """
        batch, cond = noisy(model), Conditioning(KEPT[:4].float()[None]).expand(2)
        params = trained(
            model, SubspaceProjection("exact", basis=span_of(KEPT), layers=readers(model))
        )
        with torch.no_grad():
            for name, tensor in model._params("unlearn").items():
                if not name.partition(".lora_")[0].endswith(("to_k", "to_v")):
                    tensor.zero_()
            same, other = (
                [model.frozen(batch.x_t, batch.t, states), _predict(model, batch, states)]
                for states in (cond, batch.cond)
            )
        torch.testing.assert_close(*same, rtol=1e-5, atol=1e-5)
        assert (other[0] - other[1]).abs().max() > 1e-3
        assert params

    @pytest.mark.parametrize(("mover", "same"), [(SGD, True), (Adam, False)])
    def test_projecting_gradients_is_projecting_steps_without_an_elementwise_optimizer(
        self, mover, same
    ) -> None:
        """With momentum: the two variants part ways with Adam alone."""
        basis = span_of(random(2, 7, seed=3))
        reached = []
        for project in ("exact", "gradients"):
            held = SubspaceProjection(project, basis=basis, layers=(LAYER,))
            params = one_layer()
            own = mover(params.values(), lr=0.05, **({"momentum": 0.9} if mover is SGD else {}))
            held.begin_(params)
            for step in range(4):
                own.zero_grad()
                (params[B] @ params[A] @ random(7, 3, seed=step)).square().sum().backward()
                held.modify_grads_(params)
                own.step()
                held.project_(params)
            reached.append(params[A].detach())
        assert torch.allclose(*reached, atol=1e-12) is same

    def test_a_projected_gradient_is_that_of_an_input_without_the_span(self) -> None:
        """Of B A (P x) by A, and of B A x at A P by A, projected."""
        basis, x = span_of(random(2, 7, seed=3)), random(7, 4, seed=5)
        inside, outside = one_layer(), one_layer()
        held = SubspaceProjection("gradients", basis=basis, layers=(LAYER,))
        (outside[B] @ outside[A] @ (x - basis @ basis.T @ x)).sin().sum().backward()
        held.begin_(inside)
        (inside[B] @ inside[A] @ x).sin().sum().backward()
        assert not torch.allclose(inside[A].grad, outside[A].grad)
        held.modify_grads_(inside)
        torch.testing.assert_close(inside[A].grad, outside[A].grad)

    def test_rows_and_span_are_kept_together(self, model) -> None:
        """The mask is on the output side, the projection on the input side; neither undoes the
        other.
        """
        params = model.reset_adapter("unlearn", 4, 4.0, 0, "cross")
        scores = {
            n: random(len(p), seed=row).abs()
            for row, (n, p) in enumerate(params.items())
            if ".lora_B." in n
        }
        mask = best_rows(scores, 0.3)
        found = trained(
            model, mask, SubspaceProjection("exact", basis=span_of(KEPT), layers=readers(model))
        )
        assert leak(found, KEPT) < 1e-5
        assert all((found[name][rows == 0] == 0).all() for name, rows in mask.keep.items())
        assert any(found[name].any() for name in mask.keep)


def _predict(model, batch: NoisyBatch, cond: Conditioning) -> Tensor:
    with model.active("unlearn"):
        return model.predict(batch.x_t, batch.t, cond)


class TestUpdateNorms:
    @pytest.mark.parametrize(
        ("norm", "size"), [(L1, lambda d: d.abs().sum()), (L2, lambda d: d.square().sum())]
    )
    def test_it_is_the_norm_of_the_dense_update(
        self, norm: type, size: Callable[[Tensor], Tensor]
    ) -> None:
        """Value and gradient; a penalty on the factors would not scale so."""
        params = one_layer()
        dense = 0.5 * params[B] @ params[A]
        norm = norm(3.0, scale=0.5)
        torch.testing.assert_close(norm.penalty(params), 3 * size(dense))
        found = torch.autograd.grad(norm.penalty(params), list(params.values()))
        wanted = torch.autograd.grad(3 * size(dense), list(params.values()))
        torch.testing.assert_close(found, wanted)
        split = {A: 4 * params[A], B: params[B] / 4}
        torch.testing.assert_close(norm.penalty(split), norm.penalty(params))

    @pytest.mark.parametrize("norm", [L1, L2])
    def test_earlier_updates_count_where_they_are_given(self, norm: type) -> None:
        params, layer = one_layer(), A.partition(".lora_")[0]
        earlier = {
            f"{layer}.lora_A.weight": random(2, 7, seed=5),
            f"{layer}.lora_B.weight": random(5, 2, seed=6),
        }
        dense = (
            params[B] @ params[A]
            + earlier[f"{layer}.lora_B.weight"] @ earlier[f"{layer}.lora_A.weight"]
        )
        size = dense.abs().sum() if norm is L1 else dense.square().sum()
        torch.testing.assert_close(norm(1.0, reference=earlier).penalty(params), size)
        back = {A: -earlier[f"{layer}.lora_A.weight"], B: earlier[f"{layer}.lora_B.weight"]}
        assert norm(1.0, reference=earlier).penalty(back).item() == pytest.approx(0, abs=1e-9)

    def test_it_shortens_the_update(self, model) -> None:
        def length(params: Params) -> float:
            return sum(
                (params[n.replace("_A.", "_B.")] @ a).norm().item()
                for n, a in params.items()
                if "lora_A" in n
            )

        free, held = (
            length(trained(model)),
            [length(trained(model, norm)) for norm in (L1(1), L2(9))],
        )
        assert max(held) < 0.7 * free


def test_regularizing_an_edit_is_refused() -> None:
    """What is trained on top of an edit is regularized."""
    held = {"objective": "uce", "regularize.select": 0.3}
    with pytest.raises(
        ConfigError, match=r"regularize\.select is 0\.3, but uce writes .* 1\.0 is accepted"
    ):
        make_config("cat", **held)
    assert make_config("cat", **held | {"resist.on": True}).regularize.select == 0.3


class TestRows:
    def test_exactly_so_many_and_the_best_of_all_layers(self) -> None:
        scores = {"one": torch.tensor([0.1, 0.9, 0.3]), "two": torch.tensor([0.8, 0.2])}
        assert {n: k.tolist() for n, k in best_rows(scores, 0.4).keep.items()} == {
            "one": [0, 1, 0],
            "two": [1, 0],
        }
        swapped = best_rows({name: scores[name] for name in ("two", "one")}, 0.4).keep
        assert swapped["two"].tolist() == [1, 0]
        assert swapped["one"].tolist() == [0, 1, 0]
        equal = best_rows({"one": torch.ones(7)}, 0.5).keep["one"]
        assert equal.sum() == 4, "rows that score the same are not all taken"
        assert best_rows(scores, 1.0).keep["one"].all()

    def test_a_fresh_adapter_cannot_score(self) -> None:
        with pytest.raises(ValueError, match="dense weights"):
            best_rows({"one": torch.zeros(3)}, 0.5)

    def test_other_rows_never_move(self, model) -> None:
        names = [n for n in model.reset_adapter("unlearn", 4, 4.0, 0, "cross") if ".lora_B." in n]
        mask = RowMask(
            keep={
                n: (torch.arange(model._params("unlearn")[n].shape[0]) % 2).float() for n in names
            }
        )
        found = trained(model, mask, decay=0.1)
        assert all((found[n][::2] == 0).all() and found[n][1::2].any() for n in names)


class TestConceptVectors:
    """One vector of a sentence, as 2511.07970 protects."""

    def test_it_is_the_mean_state_of_the_tokens_that_name_the_concept(self, model) -> None:
        text = "a picture of a stained glass on the beach"
        states = model.encode_text([text]).states[0].float()
        ids = model.token_ids(text)
        (own,) = concept_vectors(model, [Prompt(text, "style", "stained glass")])
        first = ids.index(model.token_ids("stained glass")[1])
        size = len(model.token_ids("stained glass")) - 2
        torch.testing.assert_close(own, states[first : first + size].mean(0))
        assert not torch.allclose(own, states[: len(ids)].mean(0)), "not of the whole sentence"

    def test_without_its_words_it_is_the_last_word(self, model) -> None:
        text = "a picture on the beach"
        (own,) = concept_vectors(model, [Prompt(text, "object", "dog")])
        torch.testing.assert_close(own, model.encode_text([text]).states[0].float()[
            len(model.token_ids(text)) - 2
        ])  # fmt: skip

    def test_what_is_protected_is_of_both_kinds_and_never_the_concept(self, monkeypatch) -> None:
        """Prompts of objects name styles, and what names the style to forget is left to learn."""
        cat, ink = (preview_concept(make_config(name)) for name in ("cat", "ink"))
        asked: list[Prompt] = []
        monkeypatch.setattr(
            subspace_projection,
            "concept_vectors",
            lambda _, prompts: asked.extend(prompts) or torch.eye(2)[:1],
        )

        def protected(concept, erased=(), known=()) -> set[tuple[str, str]]:
            asked.clear()
            run = RegularizedRun(None, concept, lambda: torch.eye(2)[1:], erased, known=known)
            subspace_projection.protected_span(run, 1.0, "concepts")
            return {(prompt.axis, prompt.expects) for prompt in asked}

        kinds = known_concepts()
        told = {
            also_named(prompt, kinds)
            for prompt in (*cat.near.train, *cat.far.train)
        } - {None}  # fmt: skip
        added = protected(cat, known=kinds) - protected(cat)
        assert added
        assert added <= {(prompt.axis, prompt.expects) for prompt in told}
        every = [replace(prompt, text=f"{prompt.text} in ink") for prompt in cat.forget.train]
        gone = replace(cat, forget=replace(cat.forget, train=tuple(every)))
        assert ("style", "ink") not in protected(ink, [gone], kinds)

    def test_what_is_like_one_before_adds_nothing(self) -> None:
        """A cosine of 0.95 is reached by (1, 0.3), not by (1, 0.4); length does not matter."""
        vectors = torch.tensor([[1.0, 0.0], [5.0, 1.5], [1.0, 0.4], [-1.0, 0.0]])
        assert unlike(vectors).tolist() == vectors[[0, 2, 3]].tolist()
