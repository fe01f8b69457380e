"""A second model family, written here in a few lines, under everything that methods and attacks do:
a transformer with pooled conditioning that predicts the velocity of a flow.
"""

import zlib
from collections.abc import Iterator
from itertools import repeat
from statistics import mean

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unlearn_app.attacks.runner import attack_context, attack_of
from unlearn_app.common import registry
from unlearn_app.common.errors import ConfigError
from unlearn_app.common.seeds import generator
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.methods.gradient_rules.weighted_sum import WeightedSum
from unlearn_app.methods.objectives.diffusion import Diffusion
from unlearn_app.methods.objectives.meta_unlearning import MetaUnlearning
from unlearn_app.methods.objectives.preserve import Preserve
from unlearn_app.methods.regularizers.gradient_clipping import GradientClipping
from unlearn_app.methods.regularizers.l1 import L1
from unlearn_app.methods.regularizers.l2 import L2
from unlearn_app.methods.regularizers.subspace_projection import SubspaceProjection, span_of
from unlearn_app.models.conditioning import Conditioning
from unlearn_app.models.diffusers.adapters import AdaptedNetwork
from unlearn_app.models.lora import frobenius_norm, layer_factors, update_of
from unlearn_app.models.parameterization import Flow
from unlearn_app.models.protocols import NO_OVERRIDES, MetaBatch, NoisyBatch, Params
from unlearn_app.settings.events import Step
from unlearn_app.settings.run_config import RunConfig, make_config
from unlearn_app.training.latent_dataset import meta_batches, noisy_batches, sample_latents
from unlearn_app.training.loop import Term, fit
from unlearn_app.training.regularization import build_regularizers, salient_rows
from unlearn_app.training.unlearning import edit, forget

CHANNELS, SIDE, WIDTH, TEXT, LENGTH = 4, 4, 32, 8, 6
SMALL = {
    "unlearn.steps": 3,
    "unlearn.batch_size": 4,
    "unlearn.train_pictures": 8,
    "unlearn.rank": 4,
    "attack.steps": 30,
    "attack.pictures": 8,
    "attack.batch_size": 8,
    "attack.lr": 1e-2,
    "compare.sampling_steps": 2,
    "compare.forget": 2,
}


RATES = {"sdd": 1e-2}
"""Learning rates of objectives whose target moves with the model, where 1e-3 is too slow."""


class Transformer(nn.Module):
    """One block of joint attention over latent places and text, steered by time and pooled text."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.steer = nn.Linear(TEXT + 1, 2 * WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.text_k, self.text_v = nn.Linear(TEXT, WIDTH), nn.Linear(TEXT, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, t: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        places = self.inside(x.flatten(2).transpose(1, 2))
        steer = self.steer(torch.cat([pooled, t[:, None] / 1000], 1))[:, None]
        scale, shift = steer.chunk(2, -1)
        seen = layer_norm(places, (WIDTH,)) * (1 + scale) + shift
        keys = torch.cat([self.k(seen), self.text_k(states)], 1)
        values = torch.cat([self.v(seen), self.text_v(states)], 1)
        attention = (self.q(seen) @ keys.transpose(1, 2) / WIDTH**0.5).softmax(-1)
        places = places + attention @ values
        places = places + self.down(torch.tanh(self.up(places)))
        return self.outside(places).transpose(1, 2).view(x.shape)


class TinyFlow(AdaptedNetwork):
    """The transformer as a `Model` without access to tokens."""

    base_hash, device = "tiny", torch.device("cpu")
    scheduler = "Euler"
    latent_shape, enlarged = (CHANNELS, SIDE, SIDE), 1
    parameterization = Flow(1000)

    def __init__(self) -> None:
        readers = r"^text_[kv]$"
        everywhere = r"^(q|k|v|text_k|text_v|up|down)$"
        layers = dict.fromkeys(["cross", "keys_values", "text_readers"], readers)
        layers |= {"all": everywhere, "not_cross": r"^(q|k|v|up|down)$"}
        torch.manual_seed(0)
        super().__init__(Transformer(), "tiny-flow", layers)

    def predict(
        self, x_t: Tensor, t: Tensor, cond: Conditioning, params: Params | None = None
    ) -> Tensor:
        arguments = (x_t, t, cond.states, cond.pooled)
        return torch.func.functional_call(self.network, params or {}, arguments)

    def encode_text(self, prompts) -> Conditioning:
        words = [(prompt.split() + [""] * LENGTH)[:LENGTH] for prompt in prompts]
        states = torch.stack([torch.stack([word_vector(word) for word in row]) for row in words])
        return Conditioning(states, states.mean(1))

    @torch.no_grad()
    def sample(self, prompts, seeds, *, steps, guidance_scale, overrides=NO_OVERRIDES, **how):
        cond = prompts if isinstance(prompts, Conditioning) else self.encode_text(prompts)
        null = self.encode_text([""]).expand(len(cond))
        x = torch.stack([torch.randn(self.latent_shape, generator=generator(s)) for s in seeds])
        for step in range(steps):
            t = torch.full((len(cond),), 1000 * (1 - step / steps))
            named, plain = self.predict(x, t, cond), self.predict(x, t, null)
            x = x - (plain + guidance_scale * (named - plain)) / steps
        return x

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :3].clamp(-1, 1)


def word_vector(word: str) -> Tensor:
    return torch.randn(TEXT, generator=generator(zlib.crc32(word.encode())))


@pytest.fixture(scope="module")
def model() -> TinyFlow:
    return TinyFlow()


@pytest.fixture(autouse=True)
def untouched(model: TinyFlow) -> Iterator[None]:
    """Every test leaves the base weights as they were, bit for bit."""
    model.drop_adapters()
    before = base_of(model)
    yield
    after = base_of(model)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def base_of(model: TinyFlow) -> Params:
    return {n.replace(".base_layer", ""): w.clone() for n, w in model.weights().items()}


@pytest.fixture
def batch(model: TinyFlow) -> NoisyBatch:
    return next(noisy_batches(model, pictures(model), 8, seed=1))


def pictures(model: TinyFlow, count: int = 8):
    prompts = [f"a cat in place {row}" for row in range(count)]
    anchors = [f"a dog in place {row}" for row in range(count)]
    how = {"sampling_steps": 3, "guidance_scale": 2.0}
    return sample_latents(model, prompts, anchors, range(count), **how)


def trained(model, terms, rule=None, steps=30, lr=1e-2, regularizers=()):
    params = model.reset_adapter("unlearn", 4, 4.0, seed=0)
    how = {"stage": "unlearn", "steps": steps, "lr": lr, "regularizers": regularizers}
    with model.training("unlearn"):
        told = list(fit(model, params, terms, rule or WeightedSum(), **how))
    return told, {name: tensor.detach() for name, tensor in params.items()}


@pytest.mark.parametrize("name", sorted(set(registry.names("objective")) - {"retain_only"}))
def test_every_objective_falls(model, batch, name) -> None:
    part = registry.get("objective", name)
    objective = part(limit=100.0) if name == "gradient_ascent" else part()
    lr = RATES.get(name, 1e-3)
    told, _ = trained(model, {"forget": Term(objective, repeat(batch))}, steps=100, lr=lr)
    assert told[-1].losses["forget"] < told[0].losses["forget"]


def test_retaining_alone_trains_on_the_retain_term(model, batch) -> None:
    terms = {
        "forget": Term(registry.get("objective", "retain_only")(), repeat(batch)),
        "retain": Term(Diffusion(), repeat(batch)),
    }
    told, _ = trained(model, terms)
    assert told[-1].losses["retain"] < told[0].losses["retain"]


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("weights", ["full", "lora"])
def test_meta_unlearning_falls(model, order, weights) -> None:
    data = pictures(model)
    batches = meta_batches(model, data, data, 4, batch_size=4, steps=2, seed=3)
    objective = MetaUnlearning(Diffusion(), order=order, weights=weights, lr=1e-2, cap=100.0)
    one: MetaBatch = next(batches)
    told, _ = trained(model, {"resist": Term(objective, repeat(one))})
    assert told[-1].losses["resist"] < told[0].losses["resist"]


@pytest.mark.parametrize("name", registry.names("rule"))
def test_every_rule_lets_the_model_forget(model, batch, name) -> None:
    terms = {
        "forget": Term(registry.get("objective", "concept_ablation")(), repeat(batch)),
        "retain": Term(Preserve(), noisy_batches(model, pictures(model), 8, seed=5)),
    }
    told, _ = trained(model, terms, registry.get("rule", name)())
    assert told[-1].losses["forget"] < told[0].losses["forget"]


@pytest.mark.parametrize("regularizer", [L1(1.0), L2(1.0)])
def test_a_norm_shortens_the_update(model, batch, regularizer) -> None:
    terms = {"forget": Term(Diffusion(), repeat(batch))}
    _, free = trained(model, terms)
    _, held = trained(model, terms, regularizers=[regularizer])
    assert frobenius_norm(held) < 0.7 * frobenius_norm(free)


def test_a_projection_keeps_what_reads_the_text(model, batch) -> None:
    kept = batch.cond.states[0]
    layers = tuple(model.cross_weights())
    held = SubspaceProjection("exact", basis=span_of(kept), layers=layers)
    terms = {"forget": Term(Diffusion(), repeat(batch))}
    for regularizers, small in (([held, GradientClipping(1.0)], True), ([], False)):
        _, params = trained(model, terms, regularizers=regularizers)
        factors = layer_factors(params)
        moved = max((update_of(factors[name]) @ kept.T).abs().max().item() for name in layers)
        assert (moved < 1e-5) == small
    assert set(layers) == {"text_k", "text_v"}


def test_a_mask_of_rows_is_kept(model, batch) -> None:
    model.reset_adapter("unlearn", 4, 4.0, 0)
    mask = salient_rows(model, repeat(batch), 0.3)
    _, params = trained(model, {"forget": Term(Diffusion(), repeat(batch))}, regularizers=[mask])
    assert all((params[name][rows == 0] == 0).all() for name, rows in mask.keep.items())
    assert any(params[name].any() for name in mask.keep)


def test_the_regularizers_of_a_run_are_built_and_kept(model, batch) -> None:
    held = {"regularize.select": 0.3, "regularize.l2": 1e-3, "regularize.clip": 1.0}
    config = make_config("cat", objective="random_label", **held)
    model.reset_adapter("unlearn", 4, 4.0, 0)
    term = Term(config.build("objective"), repeat(batch))
    built = build_regularizers(model, preview_concept(config), config, forget=term)
    names = [type(regularizer).__name__ for regularizer in built]
    assert names == ["RowMask", "L2", "RowMask", "GradientClipping"]
    assert [round(mean_of(mask.keep), 2) for mask in built[::2]] == [0.5, 0.3]
    _, params = trained(model, {"forget": term}, regularizers=built)
    for mask in built[::2]:
        assert all((params[name][rows == 0] == 0).all() for name, rows in mask.keep.items())
    assert any(params[name].any() for name in built[0].keep)


def mean_of(tensors: Params) -> float:
    return torch.cat([tensor.flatten() for tensor in tensors.values()]).mean().item()


def test_a_projection_that_needs_tokens_says_so(model) -> None:
    asked = {"unlearn.modules": "keys_values", "regularize.project": "exact"}
    config = make_config("cat", **asked)
    with pytest.raises(ConfigError, match="the model tiny-flow does not offer"):
        build_regularizers(model, preview_concept(config), config)


def test_forgetting_as_a_whole_with_resistance(model) -> None:
    config = make_config("cat", **SMALL, **{"resist.on": True, "resist.batch_size": 2})
    told = list(forget(model, preview_concept(config), config))
    assert [set(step.losses) for step in told] == [{"forget", "retain", "resist"}] * 3
    assert frobenius_norm(model.adapter_state("unlearn")) > 0


def attacked(model: TinyFlow, kind: str, config: RunConfig) -> list[Step]:
    context = attack_context(model, preview_concept(config), config)
    with model.active("unlearn"):
        return list(attack_of(config, kind)(model, context))


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_the_relearning_attack_learns_and_leaves_no_trace(model, batch, weights) -> None:
    _, before = trained(model, {"forget": Term(Diffusion(), repeat(batch))}, steps=5)
    kept = {name: tensor.clone() for name, tensor in before.items()}
    config = make_config("cat", **SMALL, **{"attack.weights": weights})
    told = attacked(model, "relearn", config)
    losses = [step.losses["relearn"] for step in told]
    assert mean(losses[-5:]) < mean(losses[:5])
    after = model.reset_adapter("relearn", 4, 4.0, 0) and model.adapter_state("unlearn")
    assert all(
        torch.equal(after[name.replace(".unlearn.", ".")], tensor) for name, tensor in kept.items()
    )


@pytest.mark.parametrize("kind", ["scale", "prompts"])
def test_an_attack_without_tokens_runs(model, batch, kind) -> None:
    trained(model, {"forget": Term(Diffusion(), repeat(batch))}, steps=2)
    assert attacked(model, kind, make_config("cat", **SMALL))


@pytest.mark.parametrize("kind", ["inversion", "prompt_search", "ring_a_bell"])
def test_an_attack_that_needs_tokens_says_so(model, kind) -> None:
    with pytest.raises(ConfigError, match="the model tiny-flow does not offer"):
        attacked(model, kind, make_config("cat", **SMALL))


def test_an_edit_that_needs_tokens_says_so(model) -> None:
    config = make_config("cat", objective="uce")
    with pytest.raises(ConfigError, match="the model tiny-flow does not offer"):
        list(edit(model, preview_concept(config), config))
