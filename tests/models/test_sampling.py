"""Sampling overrides, against diffusers and what must follow from each; and text from ids."""

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from unlearn_app.common.errors import Cancelled
from unlearn_app.common.seeds import generator
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.pipeline import CHUNK
from unlearn_app.models.diffusers.sampling import StochasticFlow
from unlearn_app.models.protocols import SamplingOverrides

PROMPTS, SEEDS = ["a cat", "a red dragon"], [3, 4]
HOW = {"steps": 4, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def model(tiny_pipeline):
    return load_pipeline(tiny_pipeline, "tiny")


@pytest.fixture(autouse=True)
def clean(model):
    yield
    model.drop_adapters()


def strong(model) -> None:
    """An adapter that changes every picture."""
    for name, tensor in model.reset_adapter("unlearn", 4, 4.0, seed=1).items():
        if "lora_B" in name:
            tensor.data.normal_(std=0.3, generator=generator(5))


def pictures(model) -> torch.Tensor:
    return model.decode(model.sample(PROMPTS, [8, 9], **HOW))


@pytest.mark.parametrize(("eta", "scale"), [(0.0, 1.3), (1.0, 1.0), (0.5, 1.1)])
def test_more_noise_is_what_diffusers_makes_of_it(model, eta, scale) -> None:
    made = model.sample(
        PROMPTS, SEEDS, overrides=SamplingOverrides(eta=eta, noise_scale=scale), **HOW
    )
    pipe, draws = model.pipe, [generator(seed) for seed in SEEDS]
    own, pipe.scheduler = (
        pipe.scheduler,
        DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False),
    )
    try:
        latents = (
            torch.cat([torch.randn((1, *model.latent_shape), generator=draw) for draw in draws])
            * scale
        )
        expected = pipe(
            prompt_embeds=model.encode_text(PROMPTS).states,
            negative_prompt_embeds=model.encode_text(["", ""]).states,
            num_inference_steps=4,
            guidance_scale=3.0,
            latents=latents,
            generator=draws,
            eta=eta,
            output_type="latent",
        ).images
    finally:
        pipe.scheduler = own
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", range(5, 26))
def test_noise_from_zero_terminal_snr_stays_finite(pocket, steps) -> None:
    """Rounding makes the root of the first step negative at 6, 10, 13 and other step counts."""
    scheduler = pocket._pipeline_for(SamplingOverrides(eta=1.0)).scheduler
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 4, 2, 2, generator=generator(0))
    stepped = scheduler.step(x, scheduler.timesteps[0], x, eta=1.0, generator=generator(1))
    assert torch.isfinite(stepped.prev_sample).all()


@pytest.mark.parametrize("steps", [5, 10, 12])
def test_overrides_add_as_much_noise_as_the_models_own_scheduler(pocket, steps) -> None:
    how = {"steps": steps, "guidance_scale": 2.0}
    own = pocket.sample(PROMPTS, SEEDS, **how)
    same = pocket.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(), **how)
    less = pocket.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(eta=0.0), **how)
    assert (same - own).abs().mean() < 0.05 < (less - own).abs().mean()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_flow_draws_a_share_of_its_noise_anew(eta) -> None:
    """At 0 an Euler step of diffusers, at 1 its stochastic sampling, between them a mixture of
    unit variance.
    """
    own = StochasticFlow.from_config(FlowMatchEulerDiscreteScheduler(shift=3.0).config)
    own.eta, own.draws = eta, [generator(7), generator(8)]
    like = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=bool(eta))
    x, velocity = (torch.randn(2, 4, 8, 8, generator=generator(seed)) for seed in (1, 2))
    draws = [generator(7), generator(8)]
    for scheduler in (own, like):
        scheduler.set_timesteps(4)
    t = own.timesteps[1]
    made = own.step(velocity, t, x).prev_sample
    theirs = like.step(velocity, t, x, generator=draws).prev_sample
    if eta in (0.0, 1.0):
        torch.testing.assert_close(made, theirs, rtol=1e-5, atol=1e-5)
        return
    share, later = own.sigmas[1], own.sigmas[2]
    x0, noise = x - share * velocity, x + (1 - share) * velocity
    fresh = torch.cat([torch.randn(1, 4, 8, 8, generator=generator(seed)) for seed in (7, 8)])
    mixed = (1 - later) * x0 + later * (0.75**0.5 * noise + 0.5 * fresh)
    torch.testing.assert_close(made, mixed, rtol=1e-5, atol=1e-5)


def test_states_may_stand_for_prompts(model) -> None:
    assert torch.equal(
        model.sample(PROMPTS, SEEDS, **HOW),
        model.sample(model.encode_text(PROMPTS), SEEDS, **HOW),
    )


@pytest.mark.parametrize("own", [4, 2])
def test_the_first_steps_are_taken_by_the_original(model, own) -> None:
    with model.active():
        original = model.sample(
            PROMPTS, SEEDS, overrides=SamplingOverrides(eta=0.0, original_steps=0), **HOW
        )
    strong(model)
    with model.active("unlearn"):
        unlearned = model.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(), **HOW)
        handed = model.sample(
            PROMPTS, SEEDS, overrides=SamplingOverrides(original_steps=own), **HOW
        )
        again = model.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(), **HOW)
    assert torch.equal(unlearned, again), "the adapter must be on again afterwards"
    assert torch.equal(handed, original) == (own == 4)
    assert not torch.allclose(handed, unlearned)


def test_stopping_in_steps_of_the_original_leaves_the_adapter_on(model) -> None:
    strong(model)
    with model.active("unlearn"):
        before = model.sample(PROMPTS, SEEDS, **HOW)
        with pytest.raises(Cancelled):
            model.sample(
                PROMPTS,
                SEEDS,
                overrides=SamplingOverrides(original_steps=3),
                should_stop=lambda: True,
                **HOW,
            )
        assert torch.equal(before, model.sample(PROMPTS, SEEDS, **HOW))


def test_a_mask_keeps_the_picture_and_the_rest_is_sampled(model) -> None:
    given = pictures(model)
    known = model.encode_pictures(given)
    mask = torch.zeros(2, 1, *model.latent_shape[1:])
    kept = model.sample(
        PROMPTS, SEEDS, overrides=SamplingOverrides(pictures=given, mask=mask), **HOW
    )
    torch.testing.assert_close(kept, known)
    mask[:, :, 2:6, 2:6] = 1
    half = model.sample(
        PROMPTS, SEEDS, overrides=SamplingOverrides(pictures=given, mask=mask), **HOW
    )
    inside = mask.bool().expand_as(half)
    torch.testing.assert_close(half[~inside], known[~inside])
    assert not torch.allclose(half[inside], known[inside], atol=1e-2)
    free = model.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(pictures=given), **HOW)
    whole = SamplingOverrides(pictures=given, mask=torch.ones_like(mask))
    torch.testing.assert_close(model.sample(PROMPTS, SEEDS, overrides=whole, **HOW), free)


def test_a_lower_strength_stays_nearer_to_the_picture(model) -> None:
    given = pictures(model)
    known = model.encode_pictures(given)
    away = [
        (
            model.sample(
                PROMPTS, SEEDS, overrides=SamplingOverrides(pictures=given, strength=s), **HOW
            )
            - known
        ).norm()
        for s in (0.25, 0.5, 1.0)
    ]
    assert away[0] < away[1] < away[2]


def test_every_batch_gets_its_own_pictures(model) -> None:
    count = CHUNK + 3
    given = torch.linspace(-1, 1, count).view(-1, 1, 1, 1).expand(-1, 3, 64, 64).clone()
    keep = SamplingOverrides(pictures=given, mask=torch.zeros(count, 1, *model.latent_shape[1:]))
    kept = model.sample(
        ["a cat"] * count, range(count), overrides=keep, steps=1, guidance_scale=1.0
    )
    torch.testing.assert_close(kept, model.encode_pictures(given))


def test_states_of_ids_are_those_of_the_sentence(model) -> None:
    ids = torch.tensor([model.padded(model.token_ids(prompt)[1:-1]) for prompt in PROMPTS])
    assert torch.equal(model.encode_ids(ids).states, model.encode_text(PROMPTS).states)
    assert model.words(model.token_ids("a cat")).replace(" ", "") == "acat"
    typed = model.roundtrip_token_ids.tolist()
    assert 20 < len(typed) < len(model.word_vectors()), (
        "letters can be typed, start, end and odd bytes cannot"
    )
    assert all(model.token_ids(model.words([token]))[1:-1] == [token] for token in typed[:50])
    long = model.padded(range(500))
    assert len(long) == 77
    assert long[0] == model.token_ids("")[0]
    assert long[-1] == model.token_ids("")[-1]


def test_a_vector_replaces_a_token(model) -> None:
    table = model.word_vectors()
    ids = torch.tensor([model.padded(model.token_ids(prompt)[1:-1]) for prompt in PROMPTS])
    before, token = table.clone(), int(ids[0, 2])
    extra = table[[token]].clone().requires_grad_()
    replaced = torch.where(ids == token, len(table), ids)
    states = model.encode_ids(replaced, extra).states
    torch.testing.assert_close(states, model.encode_ids(ids).states)
    states.square().sum().backward()
    assert extra.grad.abs().sum() > 0
    assert torch.equal(model.word_vectors(), before)
    assert len(model.word_vectors()) == len(before)
    moved = model.encode_ids(replaced, torch.randn(extra.shape, generator=generator(0))).states
    assert not torch.allclose(moved[:, 2:], states.detach()[:, 2:], atol=1e-3)


@pytest.fixture
def mixed(tiny_pipeline, monkeypatch):
    """The model as on a machine that samples in bfloat16."""
    monkeypatch.setattr("unlearn_app.models.diffusers.pipeline.fits_bfloat16", lambda device: True)
    return load_pipeline(tiny_pipeline, "tiny")


def test_schedulers_step_in_float32_where_the_denoiser_runs_in_bfloat16(mixed, monkeypatch) -> None:
    scheduler, seen = mixed.pipe.scheduler, set()
    step = scheduler.step

    def spy(output, *rest, **more):
        seen.add(output.dtype)
        return step(output, *rest, **more)

    monkeypatch.setattr(scheduler, "step", spy)
    mixed.sample(PROMPTS, SEEDS, **HOW)
    assert seen == {torch.float32}


def test_latents_are_decoded_in_float32_on_every_machine(model, mixed) -> None:
    latents = torch.randn(2, *model.latent_shape)
    assert torch.equal(mixed.decode(latents), model.decode(latents))
