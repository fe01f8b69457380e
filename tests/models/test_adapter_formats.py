"""Adapters that others make are read with their strength, and ours are read by others: pictures by
plain diffusers and by us are the same to one step of 255.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from shipped import shipped
from small_runs import TINY
from torch import Tensor, nn

from unlearn_app.attacks import relearn, runner
from unlearn_app.common.errors import ModelError
from unlearn_app.common.paths import ROOT
from unlearn_app.common.seeds import generator
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.models.diffusers.adapter_files import (
    FORMATS,
    adapter_bytes,
    converted,
    read_adapter,
    smaller_for_others,
)
from unlearn_app.models.diffusers.adapter_formats import to_kohya
from unlearn_app.models.diffusers.layer_names import flat, ldm_names
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.plain_weights import plain_weights
from unlearn_app.models.diffusers.tiny_pipelines import flux, save
from unlearn_app.models.generate import generate
from unlearn_app.models.lora import dense, scaled
from unlearn_app.settings.groups import AttackConfig
from unlearn_app.settings.run_config import make_config
from unlearn_app.training.latent_dataset import encoded

PROMPTS, SEEDS = ["a cat", "a red dragon"], [3, 4]
HOW = {"sampling_steps": 3, "guidance_scale": 4.0}
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "time_emb_proj"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    return load_pipeline(tiny_pipeline, "tiny")


@pytest.fixture(autouse=True)
def clean(model) -> Iterator[None]:
    yield
    model.drop_adapters()


@pytest.fixture
def pipe(tiny_pipeline: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(pipe: StableDiffusionPipeline) -> list[Image]:
    """The pictures of plain diffusers."""
    return pipe(
        PROMPTS,
        num_inference_steps=HOW["sampling_steps"],
        guidance_scale=HOW["guidance_scale"],
        generator=[generator(seed) for seed in SEEDS],
    ).images


def ours(model, *files: Path | tuple[Path, float]) -> list[Image]:
    return generate(model, PROMPTS, SEEDS, adapters=files, **HOW)


def apart(one: list[Image], other: list[Image]) -> int:
    """The largest difference of two lists of pictures, in steps of 255."""
    pairs = zip(one, other, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)


def add(network: nn.Module, targets: list[str], seed: int, **how: object) -> None:
    """Put a strong random adapter by peft on a network."""
    config = LoraConfig(r=8, lora_alpha=4, target_modules=targets, init_lora_weights=False, **how)
    inject_adapter_in_model(config, network)
    network.peft_config = {"default": config}
    randomize(network, seed)


def randomize(network: nn.Module, seed: int) -> None:
    source = generator(seed)
    for name, weight in network.named_parameters():
        if ".lora_" in name:
            weight.data.normal_(std=0.25, generator=source)


def saved(pipe: StableDiffusionPipeline, folder: Path, text: bool = True) -> Path:
    """What a training script of diffusers saves."""
    trained = {"unet": pipe.unet} | ({"text_encoder": pipe.text_encoder} if text else {})
    StableDiffusionPipeline.save_lora_weights(
        folder,
        **{
            f"{name}_lora_layers": get_peft_model_state_dict(part) for name, part in trained.items()
        },
        **_collate_lora_metadata(trained),
    )
    return folder / "pytorch_lora_weights.safetensors"


def layer_weights(model) -> State:
    """The weights of all linear and convolutional layers of the denoiser, by layer."""
    return {
        name.removesuffix(".weight"): weight
        for name, weight in plain_weights(model.network).items()
        if name.endswith(".weight") and weight.ndim > 1
    }


def random_state(model, seed: int = 1, rank: int = 4, layers: list[str] | None = None) -> State:
    """A strong random adapter in the names of `model`."""
    plain = layer_weights(model)
    source, state = generator(seed), {}
    for layer in layers or [n for n in plain if n.endswith(tuple(ATTENTION))]:
        out, *inner = plain[layer].shape
        a = torch.randn(rank, *inner, generator=source)
        b = torch.randn(out, rank, *[1] * (len(inner) - 1), generator=source)
        state |= {f"{layer}.lora_A.weight": a * 0.3, f"{layer}.lora_B.weight": b * 0.3}
    return state


def write(path: Path, state: State, **metadata: str) -> Path:
    save_file({n: t.contiguous() for n, t in state.items()}, path, metadata=metadata or None)
    return path


@pytest.mark.parametrize("targets", [ATTENTION, [*ATTENTION, *CONVOLUTIONS], ["conv1"]])
def test_what_diffusers_trains_is_read_with_its_alpha(model, pipe, tmp_path, targets) -> None:
    plain = theirs(pipe)
    add(pipe.unet, targets, 1)
    add(pipe.text_encoder, TEXT, 2)
    expected, file = theirs(pipe), saved(pipe, tmp_path)
    assert apart(expected, plain) > 20
    assert apart(ours(model, file), expected) <= 1
    without_alpha = write(tmp_path / "b.safetensors", load_file(file))
    assert apart(ours(model, without_alpha), expected) > 5
    assert apart(ours(model), plain) <= 1


@pytest.mark.parametrize(
    "how",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"attn2.to_k": 16.0}},
        # the first that matches; diffusers sorts the names when it saves
        {"alpha_pattern": {"attn1.to_q": 1.0, "transformer_blocks.0.attn1.to_q": 16.0}},
        {"alpha_pattern": {"^to_q": 16.0}},  # matches nothing
    ],
)
def test_other_rules_of_scale_are_peft_s(model, pipe, tmp_path, how) -> None:
    add(pipe.unet, ATTENTION, 1, rank_pattern={"attn1.to_q": 3}, **how)
    assert apart(ours(model, saved(pipe, tmp_path, text=False)), theirs(pipe)) <= 1


def test_what_peft_saves_is_read_with_the_settings_beside_it(model, pipe, tmp_path) -> None:
    config = LoraConfig(r=8, lora_alpha=4, target_modules=ATTENTION, init_lora_weights=False)
    wrapped = get_peft_model(pipe.unet, config)
    randomize(wrapped, 1)
    wrapped.save_pretrained(tmp_path)
    text = get_peft_model(pipe.text_encoder, LoraConfig(r=2, lora_alpha=4, target_modules=TEXT[:2]))
    randomize(text, 2)
    text.save_pretrained(tmp_path / "text")
    expected = theirs(pipe)
    files = [tmp_path / "adapter_model.safetensors", tmp_path / "text/adapter_model.safetensors"]
    assert all(name.startswith("base_model.model.") for name in load_file(files[0]))
    assert apart(ours(model, *files), expected) <= 1
    (tmp_path / "adapter_config.json").unlink()
    assert apart(ours(model, *files), expected) > 5


def test_ours_is_read_by_diffusers_in_both_formats(model, pipe, tmp_path) -> None:
    state = random_state(model)
    expected = None
    for form in ("diffusers", "kohya"):
        file = tmp_path / f"{form}.safetensors"
        file.write_bytes(adapter_bytes(state, {"concept": "cat"}, form))
        pipe.load_lora_weights(tmp_path, weight_name=file.name)
        painted = theirs(pipe)
        pipe.unload_lora_weights()
        assert apart(ours(model, file), painted) <= 1
        assert apart(painted, expected or painted) <= 1
        expected = painted
    assert apart(expected, theirs(pipe)) > 20


@pytest.mark.parametrize("form", FORMATS)
def test_what_we_write_is_read_back_as_it_was(model, tmp_path, form) -> None:
    layers = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "conv_in"]
    state = random_state(model, layers=layers)
    file = tmp_path / "a.safetensors"
    file.write_bytes(adapter_bytes(state, {}, form))
    model.load_adapter("unlearn", read_adapter(file))
    found = model.adapter_state("unlearn")
    if form != "dense":
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    updates = dense(state)
    for layer, update in dense(found).items():
        torch.testing.assert_close(update, updates[layer], atol=1e-6, rtol=1e-5)


def test_kohya_s_alpha_scales_the_update(model, tmp_path) -> None:
    state = random_state(model, rank=8)
    written = to_kohya(state)
    halved = {n: torch.tensor(4.0) if n.endswith(".alpha") else t for n, t in written.items()}
    files = [write(tmp_path / f"{n}.safetensors", s) for n, s in enumerate((written, halved))]
    whole, half = (read_adapter(file) for file in files)
    for name, tensor in half.items():
        expected = whole[name] / 2 if ".lora_B." in name else whole[name]
        assert torch.equal(tensor, expected)
    no_alpha = {n: t for n, t in written.items() if not n.endswith(".alpha")}
    bare = read_adapter(write(tmp_path / "bare.safetensors", no_alpha))
    assert all(torch.equal(bare[name], tensor) for name, tensor in whole.items())


def test_kohya_s_names_of_the_original_code_are_read(model, tmp_path) -> None:
    layers = list(layer_weights(model))
    state = random_state(model, layers=layers)
    names = ldm_names(layers)
    renamed = {}
    for name, tensor in to_kohya(state).items():
        layer, _, rest = name.partition(".")
        (own,) = (n for n in layers if f"lora_unet_{flat(n)}" == layer)
        renamed[f"lora_unet_{flat(names[own])}.{rest}"] = tensor
    model.load_adapter("unlearn", read_adapter(write(tmp_path / "a.safetensors", renamed)))
    found = model.adapter_state("unlearn")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_kohya_s_text_encoder_and_convolutions_are_what_diffusers_makes_of_them(
    model, pipe, tmp_path
) -> None:
    layers = [
        "down_blocks.0.resnets.0.conv1",
        "down_blocks.0.resnets.0.conv2",
        "down_blocks.0.attentions.0.proj_in",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v",
    ]
    state, source = to_kohya(random_state(model, layers=layers)), generator(3)
    for part in TEXT[:4]:
        at = f"lora_te_text_model_encoder_layers_0_self_attn_{part}"
        state[f"{at}.lora_down.weight"] = torch.randn(4, 32, generator=source)
        state[f"{at}.lora_up.weight"] = torch.randn(32, 4, generator=source)
        state[f"{at}.alpha"] = torch.tensor(2.0)
    file = write(tmp_path / "a.safetensors", state)
    pipe.load_lora_weights(tmp_path, weight_name=file.name)
    assert apart(ours(model, file), theirs(pipe)) <= 1
    no_text = {n: t for n, t in state.items() if "lora_te" not in n}
    unet_alone = write(tmp_path / "b.safetensors", no_text)
    assert apart(ours(model, unet_alone), theirs(pipe)) > 1


def test_a_factor_in_the_middle_is_multiplied_in(model, tmp_path) -> None:
    """W = sum over r, s of up[o, r] mid[r, s, h, w] down[s, i], the Tucker form of LoCon."""
    source = generator(1)
    up, down = (
        torch.randn(32, 2, 1, 1, generator=source),
        torch.randn(2, 32, 1, 1, generator=source),
    )
    middle = torch.randn(2, 2, 3, 3, generator=source)
    at = "lora_unet_down_blocks_0_resnets_0_conv2"
    parts = {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": middle}
    state = {f"{at}.{name}": tensor for name, tensor in parts.items()}
    model.load_adapter("unlearn", read_adapter(write(tmp_path / "a.safetensors", state)))
    (update,) = dense(model.adapter_state("unlearn")).values()
    expected = torch.zeros(32, 32, 3, 3, dtype=torch.float64)
    for r in range(2):
        for s in range(2):
            outer = up[:, r, 0, 0, None].double() * down[None, s, :, 0, 0].double()
            expected += outer[:, :, None, None] * middle[r, s].double()
    torch.testing.assert_close(update.view(32, 32, 3, 3), expected, atol=1e-5, rtol=1e-5)


def test_the_text_encoder_is_itself_again_bit_for_bit(model, pipe, tmp_path) -> None:
    add(pipe.unet, ATTENTION, 1)
    add(pipe.text_encoder, TEXT, 2)
    state = read_adapter(saved(pipe, tmp_path))
    before = {n: w.clone() for n, w in model.pipe.text_encoder.state_dict().items()}
    states = model.encode_text(PROMPTS).states

    def same() -> bool:
        now = model.pipe.text_encoder.state_dict()
        return all(torch.equal(now[name], weight) for name, weight in before.items())

    model.load_adapter("unlearn", state)
    assert same()
    for use in (model.active, model.merged, model.trainable_base_weights):
        with pytest.raises(KeyboardInterrupt), use("unlearn"):
            assert not same()
            assert not torch.equal(model.encode_text(PROMPTS).states, states)
            if use == model.active:
                with model.active():
                    assert same()
            raise KeyboardInterrupt
        assert same()
    with model.active("unlearn"):
        model.drop_adapters()
        assert same()
    assert torch.equal(model.encode_text(PROMPTS).states, states)


def test_an_attack_trains_with_the_text_encoder_that_it_attacks(
    model, pipe, tmp_path, monkeypatch
) -> None:
    data = encoded(model, torch.zeros(2, 3, 64, 64), PROMPTS)
    add(pipe.text_encoder, TEXT, 2)
    add(pipe.unet, ATTENTION, 1)
    model.load_adapter("unlearn", read_adapter(saved(pipe, tmp_path)))
    config = make_config("cat", **TINY)
    monkeypatch.setattr(runner, "adversary_pictures", lambda *asked: data)
    read = runner.attack_context(model, preview_concept(config), config).data
    with model.merged("unlearn"):
        assert torch.equal(read.cond.states, model.encode_text(PROMPTS).states)
    assert not torch.equal(read.cond.states, data.cond.states)
    assert torch.equal(read.x0, data.x0)
    model.drop_adapters()
    assert runner.attack_context(model, preview_concept(config), config).data is data
    seen = []

    def teach(model, data, *arguments, **how) -> Iterator[None]:
        seen.append(data)
        yield

    monkeypatch.setattr(relearn, "teach", teach)
    list(relearn.fine_tune(model, read, AttackConfig(steps=1), 0))
    assert torch.equal(seen[0].cond.states, read.cond.states)


def test_a_slot_keeps_the_text_encoder_s_part(model, pipe, tmp_path) -> None:
    add(pipe.unet, ATTENTION, 1)
    add(pipe.text_encoder, TEXT, 2)
    model.load_adapter("unlearn", read_adapter(saved(pipe, tmp_path)))
    kept = model.adapter_state("unlearn")
    assert {name.partition(".")[0] for name in kept} >= {"text_encoder", "down_blocks"}
    model.drop_adapters()
    with pytest.raises(KeyError):
        model.adapter_state("unlearn")
    model.load_adapter("unlearn", kept)
    found = model.adapter_state("unlearn")
    assert all(torch.equal(found[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_a_text_encoder_alone_is_an_adapter(model, pipe, tmp_path, form) -> None:
    add(pipe.text_encoder, TEXT, 2)
    layers = get_peft_model_state_dict(pipe.text_encoder)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        text_encoder_lora_layers=layers,
        **_collate_lora_metadata({"text_encoder": pipe.text_encoder}),
    )
    file, expected = tmp_path / "pytorch_lora_weights.safetensors", theirs(pipe)
    assert apart(ours(model, file), expected) <= 1
    model.load_adapter("unlearn", read_adapter(file))
    again = tmp_path / "again.safetensors"
    again.write_bytes(adapter_bytes(model.adapter_state("unlearn"), {}, form))
    assert apart(ours(model, again), expected) <= 1


def test_adapters_add_up_with_their_weights(model, tmp_path) -> None:
    one, two = random_state(model, 1, 4), random_state(model, 2, 3)
    files = []
    for name, state in (("one", one), ("two", two)):
        files.append(tmp_path / f"{name}.safetensors")
        files[-1].write_bytes(adapter_bytes(state, {}, "kohya"))
    updates = [dense(one), dense(scaled(two, -0.5))]
    source = {layer: (updates[0][layer] + updates[1][layer]).float() for layer in updates[0]}
    whole = tmp_path / "sum.safetensors"
    write(whole, {f"lora_unet_{flat(layer)}.diff": update for layer, update in source.items()})
    assert apart(ours(model, files[0], (files[1], -0.5)), ours(model, whole)) <= 1
    assert apart(ours(model, *files), ours(model, whole)) > 5


def test_every_layer_keeps_a_rank_of_its_own(model) -> None:
    layers = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "conv_in", "conv_out"]
    state = {}
    for rank, layer in enumerate(layers, 1):
        state |= random_state(model, rank, rank, [layer])
    model.load_adapter("unlearn", state)
    found = model.adapter_state("unlearn")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    with model.merged("unlearn"):
        sums = dict(model.pipe.unet.named_parameters())
        weights = {layer: sums[f"{layer}.base_layer.weight"].clone() for layer in layers}
    for layer, update in dense(state).items():
        own = model.pipe.unet.get_submodule(layer).base_layer.weight
        torch.testing.assert_close(
            weights[layer] - own, update.float().view(own.shape), atol=1e-5, rtol=1e-4
        )


def test_flux_s_joined_queries_keys_and_values_are_taken_apart(tmp_path) -> None:
    """kohya's FLUX has one matrix for the three; W of each is alpha / rank times its rows of B."""
    source = generator(1)
    down, up = torch.randn(4, 6, generator=source), torch.randn(18, 4, generator=source)
    at = "lora_unet_double_blocks_0_img_attn_qkv"
    state = {f"{at}.lora_down.weight": down, f"{at}.lora_up.weight": up}
    state[f"{at}.alpha"] = torch.tensor(2.0)
    found = dense(read_adapter(write(tmp_path / "a.safetensors", state)))
    whole = 0.5 * up.double() @ down.double()
    assert found.keys() == {f"transformer_blocks.0.attn.to_{part}" for part in "qkv"}
    for part, rows in zip("qkv", whole.split(6), strict=True):
        torch.testing.assert_close(found[f"transformer_blocks.0.attn.to_{part}"], rows)


def kohya_layer(at: str, out: int, inside: int, rank: int = 2) -> dict[str, torch.Tensor]:
    """A layer with random factors and the alpha 1."""
    source = generator(len(at))
    return {
        f"{at}.lora_down.weight": torch.randn(rank, inside, generator=source),
        f"{at}.lora_up.weight": torch.randn(out, rank, generator=source),
        f"{at}.alpha": torch.tensor(1.0),
    }


def test_flux_s_single_blocks_are_taken_apart(tmp_path) -> None:
    """`linear1` holds queries, keys, values and the first layer of the MLP; diffusers expects the
    width of FLUX itself.
    """
    width, at = 3072, "lora_unet_single_blocks_0"
    state = kohya_layer(f"{at}_linear1", 7 * width, width, rank=1)
    state |= kohya_layer(f"{at}_linear2", width, 5 * width, rank=1)
    state |= kohya_layer(f"{at}_modulation_lin", 3 * width, width, rank=1)
    found = read_adapter(write(tmp_path / "a.safetensors", state))
    rows = dict.fromkeys(("attn.to_q", "attn.to_k", "attn.to_v"), width) | {"proj_mlp": 4 * width}
    ups = state[f"{at}_linear1.lora_up.weight"].split([*rows.values()])
    wanted = {layer: ("linear1", up) for layer, up in zip(rows, ups, strict=True)}
    wanted["proj_out"] = "linear2", state[f"{at}_linear2.lora_up.weight"]
    wanted["norm.linear"] = "modulation_lin", state[f"{at}_modulation_lin.lora_up.weight"]
    assert len(found) == 2 * len(wanted)
    for layer, (name, up) in wanted.items():
        a, b = (found[f"single_transformer_blocks.0.{layer}.lora_{side}.weight"] for side in "AB")
        down = state[f"{at}_{name}.lora_down.weight"]
        torch.testing.assert_close(b * a[:, :9], up * down[:, :9])


T5 = "encoder.block.0.layer.0.SelfAttention.q"
CLIP = "encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"lora_te1_text_model_{flat(CLIP)}", f"lora_te3_{flat(T5)}"),
        (f"lora_te1_text_model_{flat(CLIP)}", f"lora_te2_{flat(T5)}"),
        (
            f"text_encoders.clip_l.transformer.text_model.{CLIP}",
            f"text_encoders.t5xxl.transformer.{T5}",
        ),
    ],
)
def test_text_encoders_beside_flux_s_own_names_are_read(tmp_path, first: str, second: str) -> None:
    """diffusers drops T5's layers, and says so in its log only."""
    model = load_pipeline(save(tmp_path / "model", flux), "flux")
    width = model.pipe.transformer.inner_dim
    asked = {
        "transformer_blocks.0.attn.to_out.0": (
            "lora_unet_double_blocks_0_img_attn_proj",
            width,
            width,
        ),
        f"text_encoder.{CLIP}": (first, 32, 32),
        f"text_encoder_2.{T5}": (second, 16, 32),
    }
    state = {}
    for layer in asked.values():
        state |= kohya_layer(*layer)
    model.load_adapter("unlearn", read_adapter(write(tmp_path / "a.safetensors", state)))
    found = dense(model.adapter_state("unlearn"))
    assert found.keys() == asked.keys()
    for layer, (name, _, _) in asked.items():
        a, b = (state[f"{name}.lora_{side}.weight"].double() for side in ("down", "up"))
        torch.testing.assert_close(found[layer], 0.5 * b @ a, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["lora_te2_nonsense", "lora_text_0", "transformer.single_transformer_blocks.0.proj_out"],
)
def test_other_names_beside_flux_s_own_are_refused(tmp_path, name: str) -> None:
    model = load_pipeline(save(tmp_path / "model", flux), "flux")
    width = model.pipe.transformer.inner_dim
    state = kohya_layer("lora_unet_double_blocks_0_img_attn_proj", width, width)
    file = write(tmp_path / "a.safetensors", state | kohya_layer(name, 16, 16))
    with pytest.raises(ModelError, match=r"other layers|others such as"):
        model.load_adapter("unlearn", read_adapter(file))


OTHERS = {
    "DoRA": ("{}.dora_scale", "unet.{}.lora_magnitude_vector"),
    "LoKr": ("{}.lokr_w1", "{}.lokr_w2_a"),
    "LoHa": ("{}.hada_w1_a",),
    "IA3": ("base_model.model.{}.ia3_l", "{}.on_input"),
    "OFT": ("{}.oft_blocks",),
    "GLoRA": ("{}.a1.weight",),
    "biases": ("{}.diff_b", "unet.{}.lora_B.bias"),
    "norm layers": ("{}.w_norm",),
}


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, names in OTHERS.items() for n in names])
def test_adapters_of_other_kinds_are_refused_by_name(tmp_path, kind: str, name: str) -> None:
    at = "lora_unet_mid_block_attentions_0_proj_in"
    state = {f"{at}.lora_down.weight": torch.ones(2, 3), f"{at}.lora_up.weight": torch.ones(3, 2)}
    file = write(tmp_path / "a.safetensors", state | {name.format(at): torch.ones(3)})
    with pytest.raises(ModelError, match=rf"{kind}.*accepted"):
        read_adapter(file)


def test_a_dora_of_peft_is_refused_by_its_settings(tmp_path) -> None:
    state = {"x.lora_A.weight": torch.ones(2, 3), "x.lora_B.weight": torch.ones(3, 2)}
    file = write(tmp_path / "adapter_model.safetensors", state)
    for settings, kind in (({"use_dora": True}, "DoRA"), ({"peft_type": "LOHA"}, "LOHA")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
        with pytest.raises(ModelError, match=kind):
            read_adapter(file)


HOSTILE: dict[str, object] = {
    "no JSON": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "a text": '{"unet.lora_alpha": "4"}',
    "true": '{"unet.lora_alpha": true}',
    "NaN": '{"unet.lora_alpha": NaN}',
    "infinite": '{"unet.lora_alpha": 1e999}',
    "huge": '{"unet.lora_alpha": 1e300}',
    "many digits": f'{{"unet.lora_alpha": 1{"0" * 400}}}',
    "long": f'{{"unet.lora_alpha": 4, "unet.target_modules": "{"a" * 2**20}"}}',
    "many patterns": json.dumps({"unet.alpha_pattern": {f"a{n}": 4 for n in range(10_001)}}),
    "a pattern": '{"unet.alpha_pattern": {"(a+)+$": 4}, "unet.lora_alpha": 4}',
    "a list of patterns": '{"unet.alpha_pattern": [4], "unet.lora_alpha": 4}',
    "a list for an alpha": '{"unet.lora_alpha": [4]}',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nonsense_for_a_scale_is_a_sentence(tmp_path, kind: str) -> None:
    at = "unet.mid_block.attentions.0.proj_in"
    state = {f"{at}.lora_A.weight": torch.ones(2, 3), f"{at}.lora_B.weight": torch.ones(3, 2)}
    file = write(tmp_path / "a.safetensors", state, lora_adapter_metadata=HOSTILE[kind])
    with pytest.raises(ModelError) as raised:
        read_adapter(file)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def of_one(**parts: Tensor) -> State:
    return {f"lora_unet_conv_in.{name.replace('__', '.')}": t.clone() for name, t in parts.items()}


DOWN, UP = torch.ones(2, 4, 1, 1), torch.ones(32, 2, 1, 1)
MIDDLE = torch.ones(2, 2, 3, 3)
BROKEN: dict[str, tuple[State, str]] = {
    "alpha alone": (of_one(alpha=torch.tensor(1.0)), "other tensors"),
    "down alone": (of_one(lora_down__weight=DOWN, alpha=torch.tensor(1.0)), "alone"),
    "two alphas": (
        of_one(lora_down__weight=DOWN, lora_up__weight=UP, alpha=torch.ones(2)),
        "alpha",
    ),
    "NaN alpha": (
        of_one(lora_down__weight=DOWN, lora_up__weight=UP, alpha=torch.tensor(float("nan"))),
        "finite",
    ),
    "a middle of another rank": (
        of_one(lora_down__weight=DOWN, lora_up__weight=UP, lora_mid__weight=MIDDLE[:, :1]),
        "middle",
    ),
    "a middle that unpacks to gigabytes": (
        of_one(
            lora_down__weight=torch.ones(2, 20_000, 1, 1),
            lora_up__weight=torch.ones(4, 20_000, 1, 1),
            lora_mid__weight=torch.ones(20_000, 2, 1, 1),
        ),
        "middle",
    ),
    "a middle of whole numbers": (
        of_one(
            lora_down__weight=DOWN,
            lora_up__weight=UP,
            lora_mid__weight=MIDDLE.int(),
        ),
        "middle",
    ),
    "a dense update of one axis": (of_one(diff=torch.ones(3)), "dense"),
    "a dense update of whole numbers": (of_one(diff=torch.ones(3, 3).int()), "int32"),
    "FLUX": ({"lora_unet_double_blocks_0_nonsense.lora_down.weight": DOWN}, "FLUX|alone"),
    "something else": ({"emb_params": torch.ones(2, 3)}, "other tensors"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_of_others_are_a_sentence(tmp_path, kind: str) -> None:
    state, sentence = BROKEN[kind]
    with pytest.raises(ModelError, match=sentence):
        read_adapter(write(tmp_path / "a.safetensors", state))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda name: name.replace("down_blocks", "down_blocks_9"), "other layers"),
        (lambda name: name.replace("lora_unet", "lora_te"), "other layers"),
    ],
)
def test_a_file_of_another_model_is_refused_as_a_whole(
    model, tmp_path, change: Callable[[str], str], sentence: str
) -> None:
    """A reader that skips what it does not know would use a part of it and say nothing."""
    state = to_kohya(random_state(model))
    first = next(iter(state)).partition(".")[0]
    renamed = {change(n) if n.startswith(f"{first}.") else n: t for n, t in state.items()}
    file = write(tmp_path / "a.safetensors", renamed)
    with pytest.raises(ModelError, match=sentence):
        ours(model, file)
    with pytest.raises(KeyError):
        model.adapter_state("unlearn")


def test_a_layer_twice_is_refused(model, tmp_path) -> None:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    state = random_state(model, layers=[layer])
    twice = {f"unet.{name}": tensor.clone() for name, tensor in state.items()} | to_kohya(state)
    with pytest.raises(ModelError, match="twice"):
        ours(model, write(tmp_path / "a.safetensors", twice))


def test_the_metadata_is_what_trainers_write_and_names_no_place(tmp_path) -> None:
    recorded = shipped("cat") / "unlearn.safetensors"
    state = {
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": torch.ones(
            4, 768
        ),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_B.weight": torch.ones(
            320, 4
        ),
    }
    content = adapter_bytes(state, {"concept": "cat", "base": "sd-v1"}, "kohya")
    length = int.from_bytes(content[:8], "little")
    said = json.loads(content[8 : 8 + length])["__metadata__"]
    assert said["ss_network_dim"] == said["ss_network_alpha"] == "4"
    assert said["ss_network_module"] == "networks.lora"
    assert said["ss_base_model_version"] == "sd_v1"
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert said["modelspec.title"] == "cat unlearned"
    assert said["concept"] == "cat"
    assert content == adapter_bytes(state, {"base": "sd-v1", "concept": "cat"}, "kohya")
    assert str(ROOT).encode() not in converted(recorded, "kohya")
    assert b"ss_base_model_version" not in converted(recorded, "kohya")


def test_a_dense_file_is_written_where_it_is_smaller(model) -> None:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    for rank, form in ((4, "kohya"), (32, "dense")):
        state = random_state(model, rank=rank, layers=[layer])
        assert smaller_for_others(state) == form
        sizes = {form: len(adapter_bytes(state, {}, form)) for form in ("kohya", "dense")}
        assert min(sizes, key=sizes.get) == form
