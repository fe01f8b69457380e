"""Every family of models on small random pipelines of its real classes: what it samples is what
plain diffusers does, and everything that the program does to a model works on it.
"""

import json
import shutil
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from small_runs import TINY

from unlearn_app.attacks.runner import attack_context, attack_of
from unlearn_app.common.errors import ConfigError, ModelError
from unlearn_app.common.seeds import generator
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.models.diffusers import replaced_parts
from unlearn_app.models.diffusers.adapter_files import adapter_bytes, read_adapter
from unlearn_app.models.diffusers.flux import WORDS_DISTILLED
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.model_folder import hash_weights
from unlearn_app.models.diffusers.plain_calls import (
    plain_latents,
    plain_pipeline,
)
from unlearn_app.models.diffusers.plain_weights import plain_weights
from unlearn_app.models.diffusers.tiny_pipelines import (
    FAMILIES,
    flux,
    save,
    sd3,
    sdxl,
    strong_adapter,
)
from unlearn_app.models.lora import frobenius_norm
from unlearn_app.models.protocols import SamplingOverrides
from unlearn_app.settings.run_config import make_config
from unlearn_app.training.latent_dataset import noisy_batches, sample_latents
from unlearn_app.training.unlearning import edit, forget

pytestmark = pytest.mark.slow

PROMPTS, SEEDS = ["a cat", "a red dragon"], [3, 4]
HOW = {"steps": 4, "guidance_scale": 3.0}
WITH_TOKENS = ("sd1", "sd2", "sdxl")
FLOWS = ("sd3", "sd3-without-t5", "flux-dev", "flux-schnell")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("family") / request.param, FAMILIES[request.param])


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_pipeline(folder, str(folder))


@pytest.fixture(autouse=True)
def untouched(request) -> Any:
    """Every test leaves the base weights as they were, bit for bit, and no adapter."""
    if "model" not in request.fixturenames:
        yield
        return
    model = request.getfixturevalue("model")
    model.drop_adapters()
    before = {n: weight.detach().clone() for n, weight in plain_weights(model.network).items()}
    yield
    model.drop_adapters()
    after = plain_weights(model.network)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def called(pipe: Any, prompts: list[str], steps: int) -> torch.Tensor:
    """Latents of some of `PROMPTS` by a plain call."""
    seeds = SEEDS[: len(prompts)]
    return plain_latents(pipe, prompts, seeds, num_inference_steps=steps, guidance_scale=3.0)


def test_sampling_a_batch_is_a_plain_call_of_diffusers(model, folder) -> None:
    """SD 3 rounds the empty prompt otherwise in a batch; ours is encoded once, by itself."""
    made, theirs = model.sample(PROMPTS, SEEDS, **HOW), called(plain_pipeline(folder), PROMPTS, 4)
    if folder.name.startswith("sd3"):
        torch.testing.assert_close(made, theirs, rtol=1e-3, atol=1e-3)
    else:
        assert torch.equal(made, theirs)


def test_encoding_undoes_scale_and_shift_of_decoding(model) -> None:
    """The mean of the autoencoder, less the shift, times the scale: as diffusers encodes."""
    pictures = torch.rand(2, 3, 64, 64, generator=generator(0)) * 2 - 1
    vae = model.pipe.vae
    with torch.no_grad():
        plain = vae.encode(pictures).latent_dist.mode()
    shift = {"SD3": 0.0609, "Flux": 0.1159}.get(type(model.network).__name__.split("Tr")[0], 0.0)
    assert torch.equal(model.encode_pictures(pictures), (plain - shift) * vae.config.scaling_factor)


def test_a_prediction_reads_the_whole_conditioning(model) -> None:
    x_t = torch.randn(2, *model.latent_shape, generator=generator(0))
    t = torch.tensor([200, 700]).to(model.parameterization.draw_timesteps(1, generator(0)).dtype)
    cond = model.encode_text(PROMPTS)
    made = model.predict(x_t, t, cond)
    assert made.shape == x_t.shape
    alone = torch.cat([model.predict(x_t[[i]], t[[i]], cond.rows([i])) for i in (0, 1)])
    torch.testing.assert_close(made, alone, rtol=1e-4, atol=1e-5)
    for number, tensor in enumerate(cond.tensors()):
        moved, rows = tensor.clone(), cond.rows([0, 1])
        moved[1] += 1
        parts = [*rows.tensors()]
        parts[number].copy_(moved)
        other = model.predict(x_t, t, rows)
        assert torch.equal(other[0], made[0]) or torch.allclose(other[0], made[0], atol=1e-5)
        assert not torch.allclose(other[1], made[1], atol=1e-6), f"tensor {number} is not read"


def test_a_prediction_is_what_the_pipeline_asks_the_denoiser_for(model, monkeypatch) -> None:
    """The first step of a pipeline without guidance, called again by `predict`."""
    seen = {}

    def spy(module, arguments, named, output):
        if not seen:
            seen.update(named, output=output[0])
            seen.update(zip(("sample", "timestep"), arguments, strict=False))

    hook = model.network.register_forward_hook(spy, with_kwargs=True)
    monkeypatch.setattr("unlearn_app.models.diffusers.flux.GUIDANCE", 1.0)
    model.sample(PROMPTS, SEEDS, steps=4, guidance_scale=1.0)
    hook.remove()
    x_t = torch.cat(
        [torch.randn(1, *model.latent_shape, generator=generator(seed)) for seed in SEEDS]
    )
    if "sample" in seen:
        x_t = seen["sample"]  # scaled by what the scheduler asks for
    t = seen["timestep"] * (1000 if "img_ids" in seen else 1)
    made = model.predict(x_t, t.expand(2), model.encode_text(PROMPTS))
    expected = seen["output"]
    if "img_ids" in seen:
        expected = model.unpacked(expected)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mixed", "bfloat16 weights"])
def test_a_family_computes_in_bfloat16(model, folder, kind, monkeypatch) -> None:
    if kind == "mixed":
        patched = "unlearn_app.models.diffusers.pipeline.fits_bfloat16"
        monkeypatch.setattr(patched, lambda device: True)
    else:
        patched = "unlearn_app.models.diffusers.loading.choose_dtype"
        monkeypatch.setattr(patched, lambda device, size: torch.bfloat16)
    half = load_pipeline(folder, "half")
    x_t = torch.randn(2, *model.latent_shape, generator=generator(0))
    t = torch.tensor([200, 700])
    whole = model.predict(x_t, t, model.encode_text(PROMPTS))
    made = half.predict(x_t, t, half.encode_text(PROMPTS))
    assert made.dtype == torch.float32
    assert 0 < (made - whole).norm() / whole.norm() < 0.1
    assert half.sample(PROMPTS, SEEDS, **HOW).isfinite().all()


@pytest.mark.parametrize("modules", ["all", "cross", "not_cross", "self", "attention"])
def test_any_layers_learn_alone(model, folder, modules) -> None:
    config = make_config("cat", model=str(folder), **TINY | {"unlearn.modules": modules})
    list(forget(model, preview_concept(config), config))
    assert frobenius_norm(model.adapter_state("unlearn")) > 0


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_the_relearning_attack_learns(model, folder, weights) -> None:
    strong_adapter(model)
    kept = model.adapter_state("unlearn")
    changes = {"attack.steps": 12, "attack.lr": 1e-3, "attack.weights": weights}
    config = make_config("cat", model=str(folder), **TINY | changes)
    context = attack_context(model, preview_concept(config), config)
    with model.active("unlearn"):
        told = list(attack_of(config, "relearn")(model, context))
    assert all(torch.isfinite(torch.tensor(step.losses["relearn"])) for step in told)
    assert mean(step.changes["relearn"] for step in told) < 0
    after = model.adapter_state("unlearn")
    assert all(torch.equal(after[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("kind", ["scale", "prompts", "noise", "completion"])
def test_an_attack_that_needs_no_tokens_runs(model, folder, kind) -> None:
    strong_adapter(model)
    config = make_config("cat", model=str(folder), **TINY)
    context = attack_context(model, preview_concept(config), config)
    with model.active("unlearn"):
        assert list(attack_of(config, kind)(model, context))


@pytest.mark.parametrize("kind", ["inversion", "prompt_search", "ring_a_bell"])
def test_an_attack_on_tokens_runs_or_says_that_it_does_not_apply(model, folder, kind) -> None:
    config = make_config("cat", model=str(folder), **TINY)
    context = attack_context(model, preview_concept(config), config)
    small = {"steps": 2} if kind != "ring_a_bell" else {"generations": 2, "population": 4}
    attack = attack_of(config, kind, **small)
    if folder.name in WITH_TOKENS:
        assert list(attack(model, context))
        return
    with pytest.raises(ConfigError, match="does not offer; a model whose text encoder reads rows"):
        list(attack(model, context))


@pytest.mark.parametrize("method", ["uce", "rece"])
def test_an_edit_moves_the_keys_and_values_or_does_not_apply(model, folder, method) -> None:
    config = make_config("cat", model=str(folder), objective=method, **TINY)
    if folder.name in WITH_TOKENS:
        list(edit(model, preview_concept(config), config))
        layers = {name.partition(".lora_")[0] for name in model.adapter_state("unlearn")}
        assert layers == set(model.cross_weights())
        assert all(layer.endswith(("attn2.to_k", "attn2.to_v")) for layer in layers)
        return
    assert model.cross_weights() == {}
    with pytest.raises(ConfigError, match="needs single tokens, which the model"):
        list(edit(model, preview_concept(config), config))


def test_states_of_ids_are_those_of_the_sentence(model, folder) -> None:
    if folder.name not in WITH_TOKENS:
        assert not hasattr(model, "encode_ids")
        return
    ids = torch.tensor([model.padded(model.token_ids(prompt)[1:-1]) for prompt in PROMPTS])
    expected, made = model.encode_text(PROMPTS), model.encode_ids(ids)
    assert len(made.tensors()) == len(expected.tensors())
    for mine, other in zip(made.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(mine, other)
    table, token = model.word_vectors(), int(ids[0, 2])
    extra = table[[token]].clone().requires_grad_()
    read = model.encode_ids(torch.where(ids == token, len(table), ids), extra)
    for mine, other in zip(read.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(mine, other)
    sum(tensor.square().sum() for tensor in read.tensors() if tensor.requires_grad).backward()
    widths = [getattr(model.pipe, encoder).config.hidden_size for _, encoder in model.readers]
    assert all(part.abs().sum() > 0 for part in extra.grad.split(widths, 1))


@pytest.mark.parametrize("modules", ["all", "keys_values", "convolutions"])
def test_an_adapter_file_is_read_back_and_by_diffusers(model, folder, tmp_path, modules) -> None:
    if modules == "convolutions" and folder.name not in WITH_TOKENS:
        with pytest.raises(ConfigError, match=r"has no layers that unlearn\.modules=convolutions"):
            strong_adapter(model, modules)
        return
    strong_adapter(model, modules)
    state = model.adapter_state("unlearn")
    file = tmp_path / "unlearn.safetensors"
    file.write_bytes(adapter_bytes(state, {}))
    with model.active("unlearn"):
        made = model.sample(PROMPTS, SEEDS, **HOW)
    with model.active():
        assert not torch.allclose(made, model.sample(PROMPTS, SEEDS, **HOW), atol=1e-3)
    model.drop_adapters()
    model.load_adapter("unlearn", read_adapter(file))
    again = model.adapter_state("unlearn")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    with model.active("unlearn"):
        assert torch.equal(model.sample(PROMPTS, SEEDS, **HOW), made)
    pipe = plain_pipeline(folder)
    pipe.load_lora_weights(tmp_path, weight_name=file.name)
    torch.testing.assert_close(made, called(pipe, PROMPTS, 4), rtol=2e-3, atol=2e-3)


def test_another_model_of_the_family_stands_in_to_the_bit(model, folder, tmp_path) -> None:
    """Every part of it: the denoiser, the text encoders and the decoder."""
    other = load_pipeline(Path(shutil.copytree(folder, tmp_path / "other")), "other")
    for part in other.parts:
        if (network := getattr(other.pipe, part)) is not None:
            with torch.no_grad():
                for weight in network.parameters():
                    weight += 0.05 * torch.randn(weight.shape, generator=generator(5)).to(weight)
    before, wanted = (shown_by(one) for one in (model, other))
    replacement = replaced_parts.difference(model, other)
    assert set(replacement.weights) == {
        part for part in other.parts if getattr(other.pipe, part) is not None
    }
    replaced_parts.save_replacement(tmp_path / "kept", replacement)
    model.load_replacement(replaced_parts.read_replacement(tmp_path / "kept", model))
    with model.active("unlearn"):
        assert torch.equal(shown_by(model), wanted)
    assert torch.equal(shown_by(model), before)
    assert not torch.equal(before, wanted)
    with model.merged("unlearn"):
        assert torch.equal(shown_by(model), wanted)


def shown_by(model: Any) -> torch.Tensor:
    return model.decode(model.sample(PROMPTS, SEEDS, **HOW))


@pytest.mark.parametrize("folder", FLOWS, indirect=True)
def test_overrides_of_no_effect_change_nothing(model) -> None:
    """DDIM stands for the schedulers of UNets, so this holds for flows alone."""
    own = model.sample(PROMPTS, SEEDS, **HOW)
    same = model.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(noise_scale=1.0), **HOW)
    assert torch.equal(same.half().float(), own)
    more = model.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(eta=1.0), **HOW)
    assert not torch.allclose(more, same, atol=1e-2)
    scaled = model.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(noise_scale=1.3), **HOW)
    assert 0.05 < (scaled - same).abs().mean() < 1


def test_what_a_mask_keeps_of_a_picture_stays(model) -> None:
    given = model.decode(model.sample(PROMPTS, [8, 9], **HOW))
    known = model.encode_pictures(given)
    mask = torch.zeros(2, 1, *model.latent_shape[1:])
    mask[:, :, 2:6, 2:6] = 1
    inside = mask.bool().expand_as(known)
    half = model.sample(
        PROMPTS, SEEDS, overrides=SamplingOverrides(pictures=given, mask=mask), **HOW
    )
    torch.testing.assert_close(half[~inside], known[~inside])
    assert not torch.allclose(half[inside], known[inside], atol=1e-2)
    weak, wide = (
        model.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(pictures=given, strength=s), **HOW)
        for s in (0.5, 1.0)
    )
    assert (weak - known).norm() < (wide - known).norm()


def test_the_original_takes_the_first_steps(model) -> None:
    with model.active():
        original = model.sample(PROMPTS, SEEDS, overrides=SamplingOverrides(eta=0.0), **HOW)
    strong_adapter(model)
    with model.active("unlearn"):
        for own in (4, 2):
            asked = SamplingOverrides(eta=0.0, original_steps=own)
            handed = model.sample(PROMPTS, SEEDS, overrides=asked, **HOW)
            assert torch.equal(handed, original) == (own == 4)


def test_batches_hold_the_whole_conditioning(model) -> None:
    prompts = ["a cat", "a dog", "a horse"]
    data = sample_latents(
        model, prompts, prompts[::-1], range(3), sampling_steps=2, guidance_scale=1.0
    )
    batch = next(noisy_batches(model, data.rows([2, 0]).mixed(data, [True, False] * 2), 4, seed=0))
    whole = [tensor.shape[1:] for tensor in model.encode_text(prompts).tensors()]
    for cond in (batch.cond, batch.null, batch.anchor):
        assert [tensor.shape[1:] for tensor in cond.tensors()] == whole
        assert all(len(tensor) == 4 for tensor in cond.tensors())
    assert torch.isfinite(model.predict(batch.x_t, batch.t, batch.cond)).all()


def test_the_weights_that_are_hashed_are_the_denoisers(model, folder, tmp_path) -> None:
    assert model.base_hash == hash_weights(folder)
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    part = "unet" if (other / "unet").exists() else "transformer"
    (other / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    assert hash_weights(other) == model.base_hash
    (other / part / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    assert hash_weights(other) != model.base_hash


def test_stored_latents_are_found_again_for_the_same_question_alone(model) -> None:
    cond, null = model.encode_text(PROMPTS), model.encode_text([""])
    key = model._keys(cond, null, tuple(PROMPTS), SEEDS, HOW)
    assert key == model._keys(cond, null, tuple(PROMPTS), SEEDS, HOW)
    for number in range(len(cond.tensors())):
        rows = cond.rows([0, 1])
        rows.tensors()[number].add_(1)
        assert model._keys(rows, null, tuple(PROMPTS), SEEDS, HOW)[0] != key[0]


SD = {"all": 48, "cross": 16, "self": 16, "attention": 32, "keys_values": 8}
SD_3 = {"all": 25, "cross": 7, "self": 12, "attention": 19, "keys_values": 4}
FLUX = {"all": 17, "cross": 4, "self": 7, "attention": 11, "keys_values": 2}
LAYERS = {
    "sd1": SD,
    "sd2": SD,
    "sdxl": {"all": 78, "cross": 28, "self": 28, "attention": 56, "keys_values": 14},
    "sd3": SD_3,
    "sd3-without-t5": SD_3,
    "flux-dev": FLUX,
    "flux-schnell": FLUX,
}


def test_modules_name_the_layers_of_the_table(model, folder) -> None:
    """Counted by hand from the blocks of the small pipelines."""
    found = {modules: model._targets(modules) for modules in LAYERS[folder.name]}
    assert {name: len(layers) for name, layers in found.items()} == LAYERS[folder.name]
    rest = model._targets("not_cross")
    assert sorted([*rest, *found["cross"]]) == sorted(found["all"])
    assert sorted([*found["self"], *found["cross"]]) == sorted(found["attention"])
    assert {*found["keys_values"]} < {*found["cross"]}


def test_the_empty_prompt_of_sdxl_is_what_its_pipeline_guides_away_from(tmp_path) -> None:
    model = load_pipeline(save(tmp_path / "zeros", sdxl), "sdxl")
    null, named = model.encode_text([""]), model.encode_text(["a cat", ""])
    assert not null.states.any()
    assert not null.pooled.any()
    assert named.states[0].any()
    assert null.extras["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]]
    index = tmp_path / "zeros" / "model_index.json"
    index.write_text(
        json.dumps(json.loads(index.read_text()) | {"force_zeros_for_empty_prompt": False})
    )
    assert load_pipeline(tmp_path / "zeros", "sdxl").encode_text([""]).states.any()


@pytest.mark.parametrize("made", [sdxl, flux])
def test_guidance_matters_where_the_family_has_it(made, tmp_path) -> None:
    model = load_pipeline(save(tmp_path / "guided", made), "guided")
    one, two = (model.sample(PROMPTS, SEEDS, steps=2, guidance_scale=scale) for scale in (2.0, 4.0))
    assert not torch.allclose(one, two, atol=1e-3)


def test_schnell_samples_alike_at_every_guidance(tmp_path) -> None:
    model = load_pipeline(save(tmp_path / "schnell", FAMILIES["flux-schnell"]), "schnell")
    one, two = (model.sample(PROMPTS, SEEDS, steps=2, guidance_scale=scale) for scale in (1.0, 7.0))
    assert torch.equal(one, two)
    assert model.encode_text(PROMPTS).states.shape[1] == WORDS_DISTILLED


def test_pictures_may_be_wider_than_high(tmp_path) -> None:
    folder = save(tmp_path / "wide", lambda: sdxl(sample_size=(8, 12)))
    model = load_pipeline(folder, "wide")
    assert model.latent_shape == (4, 8, 12)
    made = model.decode(model.sample(PROMPTS, SEEDS, **HOW))
    assert made.shape == (2, 3, 64, 96)
    assert model.encode_text(["a cat"]).extras["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]]
    given = SamplingOverrides(pictures=made, strength=0.5)
    assert model.sample(PROMPTS, SEEDS, overrides=given, **HOW).shape == (2, 4, 8, 12)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: sd3(sample_size=7), "56 x 56 pixels; multiples of 16 are"),
        (lambda: flux(side=72), "72 x 72 pixels; multiples of 16 are"),
    ],
)
def test_a_size_that_does_not_fit_the_patches_is_refused(made, said, tmp_path) -> None:
    with pytest.raises(ModelError, match=said):
        load_pipeline(save(tmp_path / "odd", made), "odd")


@pytest.mark.parametrize("label", ["StableDiffusionXLImg2ImgPipeline", None])
def test_the_refiner_is_refused_by_name(label, tmp_path) -> None:
    folder = save(tmp_path / "refiner", sdxl)
    index = folder / "model_index.json"
    changed = json.loads(index.read_text()) | {"text_encoder": [None, None]}
    index.write_text(json.dumps(changed | ({"_class_name": label} if label else {})))
    with pytest.raises(ModelError, match="is an SDXL refiner"):
        load_pipeline(folder, "refiner")


def test_another_architecture_is_refused_with_those_that_are_accepted(tmp_path) -> None:
    folder = save(tmp_path / "other", sd3)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "SanaPipeline"}))
    accepted = "a StableDiffusionPipeline, StableDiffusionXLPipeline, StableDiffusion3Pipeline or"
    with pytest.raises(ModelError, match=f"holds a SanaPipeline; {accepted} FluxPipeline is"):
        load_pipeline(folder, "other")


def test_weights_that_are_missing_are_told_whatever_the_part(tmp_path) -> None:
    folder = save(tmp_path / "short", sd3)
    shutil.rmtree(folder / "text_encoder_3")
    with pytest.raises(ModelError, match="text_encoder_3 has no weights"):
        load_pipeline(folder, "short")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("transformer/config.json", {"num_layers": 10**6}),
        ("transformer/config.json", {"sample_size": 10**9}),
        ("transformer/config.json", {"patch_size": 0}),
        ("transformer/config.json", {"joint_attention_dim": -1}),
        ("transformer/config.json", {"qk_norm": "nope"}),
        ("text_encoder_2/config.json", {"hidden_size": 10**9}),
        ("text_encoder_3/config.json", {"d_model": 10**9}),
        ("text_encoder_3/config.json", {"num_layers": 10**6}),
        ("tokenizer_2/tokenizer_config.json", {"model_max_length": 10**30}),
        ("vae/config.json", {"shift_factor": "x"}),
        ("scheduler/scheduler_config.json", {"shift": "x"}),
    ],
)
def test_nonsense_in_the_configuration_of_a_flow_is_a_sentence(name, values, tmp_path) -> None:
    folder = save(tmp_path / "nonsense", sd3)
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(config | values))
    with pytest.raises(ModelError) as raised:
        load_pipeline(folder, "nonsense")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
