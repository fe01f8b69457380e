"""The loop, the objectives and the attack on a small random model: what they compute and what they
must not touch.
"""

from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

from unlearn_app.attacks.relearn import fine_tune, first_seed
from unlearn_app.attacks.runner import attack_context
from unlearn_app.common import registry
from unlearn_app.concepts.diversification import free_concept
from unlearn_app.evaluation.comparison import column_state
from unlearn_app.methods.gradient_rules.restricted import Restricted
from unlearn_app.methods.gradient_rules.restricted_adam import RestrictedAdam
from unlearn_app.methods.gradient_rules.weighted_sum import WeightedSum
from unlearn_app.methods.objectives.diffusion import Diffusion
from unlearn_app.methods.objectives.preserve import Preserve
from unlearn_app.methods.regularizers import Regularizer
from unlearn_app.models.catalog import load_backend
from unlearn_app.models.protocols import NoisyBatch
from unlearn_app.settings.run_config import make_config
from unlearn_app.training.latent_dataset import noisy_batches, sample_latents
from unlearn_app.training.loop import Term, fit
from unlearn_app.training.regularization import salient_rows


@pytest.fixture(scope="module")
def backend(tiny_pipeline: Path):
    return load_backend(str(tiny_pipeline))


@pytest.fixture
def batch(backend) -> NoisyBatch:
    source = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(2, *backend.latent_shape, generator=source) for _ in range(2))
    t = torch.tensor([100, 700])
    cond, anchor = (
        backend.encode_text(["a cat", "a dog"]),
        backend.encode_text(["a bird", "a fish"]),
    )
    null = backend.encode_text([""]).expand(2)
    x_t = backend.parameterization.add_noise(x0, noise, t)
    return NoisyBatch(x0, noise, t, x_t, cond, null, anchor)


def perturb(backend, slot: str, seed: int = 5) -> None:
    """Give the adapter in `slot` an effect."""
    source = torch.Generator().manual_seed(seed)
    for name, tensor in backend.reset_adapter(slot, 4, 4.0, seed).items():
        if "lora_B" in name:
            tensor.data.copy_(0.05 * torch.randn(tensor.shape, generator=source))


def test_fresh_adapter_changes_nothing_and_adapter_off_is_the_base_bit_for_bit(backend, batch):
    backend.drop_adapters()
    base = backend.frozen(batch.x_t, batch.t, batch.cond)
    backend.reset_adapter("unlearn", 4, 8.0, seed=0)
    with backend.active("unlearn"):
        assert torch.equal(backend.predict(batch.x_t, batch.t, batch.cond), base)
    perturb(backend, "unlearn")
    assert torch.equal(backend.frozen(batch.x_t, batch.t, batch.cond), base)
    with backend.active("unlearn"):
        assert not torch.equal(backend.predict(batch.x_t, batch.t, batch.cond), base)


def test_merged_weights_equal_the_adapter_and_are_restored_bit_for_bit(backend, batch):
    perturb(backend, "unlearn")
    base = backend.frozen(batch.x_t, batch.t, batch.cond)
    with backend.active("unlearn"), torch.no_grad():
        adapted = backend.predict(batch.x_t, batch.t, batch.cond)
    with pytest.raises(RuntimeError, match="on purpose"), backend.merged("unlearn"):
        torch.testing.assert_close(
            backend.frozen(batch.x_t, batch.t, batch.cond), adapted, rtol=1e-4, atol=1e-5
        )
        raise RuntimeError("on purpose")
    assert torch.equal(backend.frozen(batch.x_t, batch.t, batch.cond), base)


def test_only_the_trained_slot_gets_gradients(backend):
    perturb(backend, "unlearn")
    perturb(backend, "relearn")
    with backend.training("relearn") as params:
        assert all(p.requires_grad for p in params.values())
        trainable = {n for n, p in backend.network.named_parameters() if p.requires_grad}
        with backend.active():
            pass
        assert (
            trainable
            == set(params)
            == {n for n, p in backend.network.named_parameters() if p.requires_grad}
        )
    assert not any(p.requires_grad for p in backend.network.parameters())


def test_adapter_state_round_trip_folds_the_scale_in(backend, batch):
    params = backend.reset_adapter("unlearn", 4, 12.0, seed=0)
    for name, tensor in params.items():
        if "lora_B" in name:
            tensor.data.normal_(std=0.05)
    with backend.active("unlearn"), torch.no_grad():
        before = backend.predict(batch.x_t, batch.t, batch.cond)
    backend.load_adapter("unlearn", backend.adapter_state("unlearn"))
    with backend.active("unlearn"), torch.no_grad():
        torch.testing.assert_close(
            backend.predict(batch.x_t, batch.t, batch.cond), before, rtol=1e-4, atol=1e-5
        )


def test_noise_and_target_agree_with_diffusers(backend, batch):
    scheduler = backend.pipe.scheduler
    torch.testing.assert_close(batch.x_t, scheduler.add_noise(batch.x0, batch.noise, batch.t))
    target = backend.parameterization.target(batch.x0, batch.noise, batch.t)
    assert torch.equal(target, batch.noise)


def test_pictures_depend_on_their_own_seed_alone(backend):
    options = {"steps": 2, "guidance_scale": 3.0}
    three = backend.sample(["a cat", "a dog", "a tree"], [7, 8, 9], **options)
    one = backend.sample(["a dog"], [8], **options)
    torch.testing.assert_close(three[1:2], one, rtol=1e-3, atol=1e-4)


def test_half_precision_training_predicts_nearly_the_same_and_keeps_the_base_exact(
    tiny_pipeline, batch, monkeypatch
):
    monkeypatch.setattr("unlearn_app.models.diffusers.unet.fits_bfloat16", lambda device: True)
    half = load_backend(str(tiny_pipeline))
    monkeypatch.undo()
    full = load_backend(str(tiny_pipeline))
    args = (batch.x_t, batch.t, batch.cond)
    torch.testing.assert_close(half.frozen(*args), full.frozen(*args), rtol=0.05, atol=0.02)
    assert not torch.equal(half.frozen(*args), full.frozen(*args))
    assert half.frozen(*args).dtype == torch.float32
    half.reset_adapter("unlearn", 4, 4.0, seed=0)
    with half.active("unlearn"):
        assert Preserve()(half, batch).item() == 0.0


def opened(name: str):
    """The objective with its gate, if it has one, open for the large losses of a random model."""
    part = registry.get("objective", name)
    return part(limit=100.0) if name == "gradient_ascent" else part()


class TestObjectives:
    """Losses against values written out from the papers with plain calls of the network."""

    def raw(self, backend, batch, cond):
        with torch.no_grad():
            return backend.network(batch.x_t, batch.t, cond.states).sample

    def test_esd(self, backend, batch):
        perturb(backend, "unlearn")
        with backend.active():
            c, null, a = (
                self.raw(backend, batch, s) for s in (batch.cond, batch.null, batch.anchor)
            )
        with backend.active("unlearn"):
            mine = self.raw(backend, batch, batch.cond)
            for eta in (1.0, 3.0):
                loss = registry.get("objective", "esd")(eta=eta)(backend, batch)
                torch.testing.assert_close(
                    loss, mse_loss(mine, a - eta * (c - null)), rtol=1e-4, atol=1e-6
                )
                assert not torch.allclose(loss, mse_loss(mine, a + eta * (c - null)), rtol=1e-3)

    def test_concept_ablation(self, backend, batch):
        perturb(backend, "unlearn")
        with backend.active():
            anchor = self.raw(backend, batch, batch.anchor)
        with backend.active("unlearn"):
            loss = registry.get("objective", "concept_ablation")()(backend, batch)
            torch.testing.assert_close(
                loss, mse_loss(self.raw(backend, batch, batch.cond), anchor), rtol=1e-4, atol=1e-6
            )

    def test_gradient_ascent_and_its_gate(self, backend, batch):
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        ascent = registry.get("objective", "gradient_ascent")
        with backend.training("unlearn"):
            plain = Diffusion()(backend, batch)
            torch.testing.assert_close(ascent(limit=100.0)(backend, batch), -plain)
            closed = ascent(limit=plain.item() / 2)(backend, batch)
            torch.testing.assert_close(closed, -plain)
            up, shut, down = (
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(params.values()))])
                for loss in (ascent(limit=100.0)(backend, batch), closed, plain)
            )
        torch.testing.assert_close(up, -down)
        assert shut.abs().max() == 0.0 < up.abs().max()

    def test_sdd_learns_from_the_model_under_training(self, backend, batch):
        perturb(backend, "unlearn")
        with backend.active():
            frozen = self.raw(backend, batch, batch.null)
        with backend.active("unlearn"):
            mine, null = self.raw(backend, batch, batch.cond), self.raw(backend, batch, batch.null)
            loss = registry.get("objective", "sdd")()(backend, batch)
            torch.testing.assert_close(loss, mse_loss(mine, null), rtol=1e-4, atol=1e-6)
            assert not torch.allclose(loss, mse_loss(mine, frozen), rtol=1e-3)

    def test_erasediff_asks_for_uniform_noise_that_the_input_does_not_hold(self, backend, batch):
        perturb(backend, "unlearn")
        wide = torch.randn(64, *backend.latent_shape)
        uniform = torch.special.ndtr(wide.flip(1, 2, 3))
        assert uniform.min() >= 0 and uniform.max() <= 1 and abs(uniform.mean() - 0.5) < 0.02
        assert abs(uniform.var() - 1 / 12) < 0.005
        assert abs(torch.corrcoef(torch.stack([uniform.flatten(), wide.flatten()]))[0, 1]) < 0.05
        with backend.active("unlearn"):
            loss = registry.get("objective", "erasediff")()(backend, batch)
            target = torch.special.ndtr(batch.noise.flip(1, 2, 3))
            torch.testing.assert_close(
                loss, mse_loss(self.raw(backend, batch, batch.cond), target), rtol=1e-4, atol=1e-6
            )

    def test_random_labels_are_predicted_by_the_model_under_training(self, backend, batch):
        perturb(backend, "unlearn")
        with backend.active("unlearn"):
            loss = registry.get("objective", "random_label")()(backend, batch)
            expected = mse_loss(
                self.raw(backend, batch, batch.cond), self.raw(backend, batch, batch.anchor)
            )
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)

    def test_retain_only_has_no_forget_gradient(self, backend, batch):
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        with backend.training("unlearn"):
            terms = {
                "forget": Term(registry.get("objective", "retain_only")(), repeat(batch)),
                "retain": Term(Diffusion(), repeat(batch)),
            }
            steps = list(
                fit(backend, params, terms, Restricted(), stage="unlearn", steps=3, lr=1e-3)
            )
        assert all(not s.gate and s.norms["forget"] == 0 < s.norms["retain"] for s in steps)
        assert steps[-1].losses["retain"] < steps[0].losses["retain"]

    def test_preserve_is_zero_for_a_fresh_adapter_only(self, backend, batch):
        backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        with backend.active("unlearn"):
            assert Preserve()(backend, batch).item() == 0.0
        perturb(backend, "unlearn")
        with backend.active("unlearn"):
            assert Preserve()(backend, batch).item() > 0.0

    @pytest.mark.parametrize("name", sorted(set(registry.names("objective")) - {"retain_only"}))
    def test_gradients_are_finite_and_reach_only_the_adapter(self, backend, batch, name):
        backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        with backend.training("unlearn") as params:
            loss = opened(name)(backend, batch)
            gradients = torch.autograd.grad(loss, list(params.values()))
        assert all(g.isfinite().all() for g in gradients)
        assert any(g.abs().sum() > 0 for g in gradients)

    @pytest.mark.parametrize("name", sorted(set(registry.names("objective")) - {"retain_only"}))
    def test_params_override_the_adapter(self, backend, batch, name):
        perturb(backend, "unlearn")
        objective = opened(name)
        with backend.active("unlearn"), torch.no_grad():
            doubled = {
                n: 2 * p if "lora_B" in n else p.clone()
                for n, p in backend._params("unlearn").items()
            }
            overridden = objective(backend, batch, doubled)
            plain = objective(backend, batch)
            for name_, tensor in backend._params("unlearn").items():
                tensor.copy_(doubled[name_])
            torch.testing.assert_close(objective(backend, batch), overridden)
        assert not torch.allclose(plain, overridden)


class TestFit:
    def test_loss_falls_and_the_forget_term_wins_nothing_from_frozen_weights(self, backend, batch):
        before = {n: p.clone() for n, p in backend.network.named_parameters() if ".lora_" not in n}
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        terms = {
            "forget": Term(registry.get("objective", "concept_ablation")(), repeat(batch)),
            "retain": Term(Preserve(), repeat(replace(batch, cond=batch.null)), 1.0),
        }
        with backend.training("unlearn"):
            steps = list(
                fit(backend, params, terms, Restricted(), stage="unlearn", steps=25, lr=5e-3)
            )
        assert steps[-1].losses["forget"] < 0.7 * steps[0].losses["forget"]
        assert [s.step for s in steps] == list(range(1, 26)) and steps[0].total == 25
        assert steps[0].cosine is None and steps[5].cosine is not None
        assert all(s.conflict == (s.cosine is not None and s.cosine < 0) for s in steps)
        after = dict(backend.network.named_parameters())
        assert all(torch.equal(p, after[n]) for n, p in before.items())

    @pytest.mark.parametrize("rule", registry.names("rule"))
    def test_the_first_step_moves_only_b_because_b_is_zero(self, backend, batch, rule):
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        before = {n: p.clone() for n, p in params.items()}
        other = replace(batch, cond=batch.anchor, noise=batch.noise.flip(0))
        terms = {
            "forget": Term(opened("gradient_ascent"), repeat(batch)),
            "retain": Term(Diffusion(), repeat(other)),
        }
        with backend.training("unlearn"):
            next(
                fit(
                    backend,
                    params,
                    terms,
                    registry.get("rule", rule)(),
                    stage="unlearn",
                    steps=9,
                    lr=1e-3,
                )
            )
        assert all(torch.equal(p, before[n]) for n, p in params.items() if "lora_A" in n)
        assert any(not torch.equal(p, before[n]) for n, p in params.items() if "lora_B" in n)

    def test_no_steps_do_nothing(self, backend, batch):
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        terms = {"relearn": Term(Diffusion(), repeat(batch))}
        with backend.training("unlearn"):
            assert (
                list(fit(backend, params, terms, WeightedSum(), stage="attack", steps=0, lr=1e-3))
                == []
            )

    def test_gradients_of_terms_are_taken_apart(self, backend, batch):
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        forget = registry.get("objective", "concept_ablation")()
        with backend.training("unlearn"):
            alone = torch.autograd.grad(forget(backend, batch), list(params.values()))
            terms = {
                "forget": Term(forget, repeat(batch)),
                "retain": Term(Diffusion(), repeat(batch), 2.0),
            }
            step = next(
                fit(backend, params, terms, WeightedSum(), stage="unlearn", steps=5, lr=1e-12)
            )
        norm = torch.cat([g.flatten() for g in alone]).norm().item()
        assert step.norms["forget"] == pytest.approx(norm, rel=1e-4)
        assert step.weights == {"forget": 1.0, "retain": 2.0}

    def test_a_non_finite_loss_stops_before_the_weights_change(self, backend, batch):
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        before = {n: p.clone() for n, p in params.items()}
        broken = replace(batch, x0=batch.x0 * float("nan"), x_t=batch.x_t * float("nan"))
        with (
            backend.training("unlearn"),
            pytest.raises(FloatingPointError, match="lower the learning rate"),
        ):
            next(
                fit(
                    backend,
                    params,
                    {"relearn": Term(Diffusion(), repeat(broken))},
                    WeightedSum(),
                    stage="attack",
                    steps=2,
                    lr=1.0,
                )
            )
        assert all(torch.equal(before[n], p) for n, p in params.items())

    def test_projection_runs_after_the_step_and_penalties_after_the_rule(self, backend, batch):
        class Clamp(Regularizer):
            def penalty(self, params, reference):
                return 1e6 * sum(p.square().sum() for n, p in params.items() if "lora_B" in n)

            def project_(self, params):
                for name, tensor in params.items():
                    if "lora_A" in name:
                        tensor.data.zero_()

        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        with backend.training("unlearn"):
            terms = {"forget": Term(Diffusion(), repeat(batch))}
            list(
                fit(
                    backend,
                    params,
                    terms,
                    WeightedSum(),
                    stage="unlearn",
                    steps=2,
                    lr=1e-3,
                    regularizers=(Clamp(),),
                )
            )
        assert all(p.abs().sum() == 0 for n, p in params.items() if "lora_A" in n)


def test_the_attack_never_changes_the_unlearn_adapter_and_starts_at_the_unlearned_model(
    backend, batch
):
    perturb(backend, "unlearn")
    before = {n: p.clone() for n, p in backend._params("unlearn").items()}
    with backend.active("unlearn"), torch.no_grad():
        unlearned = backend.predict(batch.x_t, batch.t, batch.cond)
    concept = free_concept("a red dragon", None)
    small = {"attack.steps": 3, "attack.batch_size": 2, "attack.pictures": 2, "attack.lr": 1e-2}
    config = make_config("a red dragon", **small, **{"compare.sampling_steps": 2})
    data = attack_context(backend, concept, config).data
    steps = fine_tune(backend, data, config.attack, first_seed(config.seed))
    first = next(steps)
    assert first.stage == "attack" and set(first.losses) == {"relearn"}
    list(steps)
    assert all(torch.equal(before[n], p) for n, p in backend._params("unlearn").items())
    with column_state(backend, "relearned"), torch.no_grad():
        relearned = backend.predict(batch.x_t, batch.t, batch.cond)
    assert not torch.allclose(relearned, unlearned)
    backend.reset_adapter("relearn", 4, 4.0, seed=0)
    with column_state(backend, "relearned"), torch.no_grad():
        torch.testing.assert_close(
            backend.predict(batch.x_t, batch.t, batch.cond), unlearned, rtol=1e-4, atol=1e-5
        )


def test_batches_are_reproducible_and_cover_the_set(backend):
    data = sample_latents(
        backend, ["a", "b", "c"], None, [1, 2, 3], sampling_steps=1, guidance_scale=1.0
    )
    first, again, other = (noisy_batches(backend, data, 3, seed) for seed in (0, 0, 1))
    one, two, three = next(first), next(again), next(other)
    assert torch.equal(one.x_t, two.x_t) and not torch.equal(one.noise, three.noise)
    assert {x.sum().item() for x in one.x0} == {x.sum().item() for x in data.x0}


def conflicting(backend, seed: int) -> dict[str, Term]:
    """Ascent against descent on overlapping pictures: the two gradients nearly oppose each
    other.
    """
    prompts = ["a cat", "a dog", "a bird", "a fish"]
    data = sample_latents(backend, prompts, None, range(4), sampling_steps=2, guidance_scale=3.0)
    ascent = registry.get("objective", "gradient_ascent")(limit=100.0)
    batches = (noisy_batches(backend, data, 1, seed + row) for row in range(2))
    return {"forget": Term(ascent, next(batches)), "retain": Term(Diffusion(), next(batches), 3.0)}


def test_the_step_really_taken_keeps_the_promise_under_the_adam_variant_only(backend):
    rises = {}
    for rule in (RestrictedAdam(), Restricted(), WeightedSum()):
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        with backend.training("unlearn"):
            steps = list(
                fit(
                    backend,
                    params,
                    conflicting(backend, 7),
                    rule,
                    stage="unlearn",
                    steps=40,
                    lr=1e-3,
                )
            )
        assert any(step.conflict for step in steps)
        rises[type(rule)] = sum(change > 1e-9 for step in steps for change in step.changes.values())
    assert rises[RestrictedAdam] == 0
    assert rises[Restricted] > 0 and rises[WeightedSum] > 0


def test_recorded_changes_are_those_of_the_losses(backend, batch):
    """A small step of plain descent changes the loss on its own batch by the recorded amount."""
    backend.reset_adapter("unlearn", 4, 4.0, seed=0)
    perturb(backend, "unlearn")
    with backend.training("unlearn") as params:
        terms = {"relearn": Term(Diffusion(), repeat(batch))}
        first, second = list(
            fit(backend, params, terms, WeightedSum(), stage="attack", steps=2, lr=1e-6)
        )
    assert first.changes["relearn"] < 0
    assert second.losses["relearn"] - first.losses["relearn"] == pytest.approx(
        first.changes["relearn"], rel=0.1
    )


@pytest.mark.parametrize(("modules", "inside"), [("cross", True), ("not_cross", False)])
def test_lora_sits_only_where_it_was_asked_for(backend, modules, inside):
    everywhere = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
    some = backend.reset_adapter("unlearn", 4, 4.0, seed=0, modules=modules)
    assert set(some) == {name for name in everywhere if (".attn2." in name) == inside}
    perturb_some = backend.adapter_state("unlearn")
    backend.drop_adapters()
    backend.load_adapter("unlearn", perturb_some)
    assert set(backend.adapter_state("unlearn")) == set(perturb_some)


def test_slots_may_cover_different_layers(backend, batch):
    perturb(backend, "unlearn")
    state = {
        n: t
        for n, t in backend.adapter_state("unlearn").items()
        if ".attn2.to_k" in n or ".attn2.to_v" in n
    }
    backend.load_adapter("unlearn", state)
    perturb(backend, "relearn", seed=6)
    with backend.active("unlearn"):
        unlearned = backend.predict(batch.x_t, batch.t, batch.cond)
    with backend.merged("unlearn"), backend.active():
        torch.testing.assert_close(
            backend.predict(batch.x_t, batch.t, batch.cond), unlearned, rtol=1e-4, atol=1e-5
        )
    with column_state(backend, "relearned"):
        assert not torch.allclose(backend.predict(batch.x_t, batch.t, batch.cond), unlearned)


class TestSaliency:
    def test_rows_are_ranked_by_the_dense_gradient_and_the_others_never_move(self, backend, batch):
        params = backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        mask = salient_rows(backend, repeat(batch), 0.3)
        total = sum(rows.numel() for rows in mask.keep.values())
        assert sum(rows.sum().item() for rows in mask.keep.values()) == pytest.approx(
            0.3 * total, abs=1
        )
        assert not any(
            p.requires_grad for n, p in backend.network.named_parameters() if ".lora_" not in n
        )
        with backend.training("unlearn"):
            terms = {"forget": Term(Diffusion(), repeat(batch))}
            rule = WeightedSum()
            list(
                fit(
                    backend,
                    params,
                    terms,
                    rule,
                    stage="unlearn",
                    steps=3,
                    lr=1e-2,
                    regularizers=[mask],
                )
            )
        for name, rows in mask.keep.items():
            still = params[name][rows == 0]
            assert still.numel() == 0 or still.abs().max() == 0.0
        assert any(params[name].abs().max() > 0 for name in mask.keep)

    def test_the_most_salient_row_is_the_one_with_the_largest_gradient(self, backend, batch):
        backend.reset_adapter("unlearn", 4, 4.0, seed=0)
        mask = salient_rows(backend, repeat(batch), 1e-9)
        (name,) = [name for name, rows in mask.keep.items() if rows.any()]
        layer = backend.network.get_submodule(name.partition(".lora_B.")[0]).get_base_layer()
        layer.weight.requires_grad_(True)
        with backend.active():
            (gradient,) = torch.autograd.grad(Diffusion()(backend, batch), [layer.weight])
        layer.weight.requires_grad_(False)
        row = gradient.flatten(1).square().mean(1).argmax()
        assert mask.keep[name][row] == 1
