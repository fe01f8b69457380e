"""Checkpoints in one file: the same model as the folder, without a network."""

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from unlearn_app.common.errors import ModelError
from unlearn_app.models.diffusers import single_file
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.tiny_pipelines import save, sdxl
from unlearn_app.settings.run_config import make_config

SECOND = "conditioner.embedders.1.model."
HOW = {"steps": 2, "guidance_scale": 2.0}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original_unet(state: Mapping[str, Tensor], blocks: int, layers: int) -> Iterator:
    """The names of the original code for a UNet whose blocks have so many layers."""
    places = {
        "conv_in.": "input_blocks.0.0.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
    }
    for block in range(blocks):
        first, last = 1 + block * (layers + 1), block * (layers + 1)
        for layer in range(layers):
            places[f"down_blocks.{block}.resnets.{layer}."] = f"input_blocks.{first + layer}.0."
            places[f"down_blocks.{block}.attentions.{layer}."] = f"input_blocks.{first + layer}.1."
        places[f"down_blocks.{block}.downsamplers.0.conv."] = f"input_blocks.{first + layers}.0.op."
        attends = any(name.startswith(f"up_blocks.{block}.attentions") for name in state)
        for layer in range(layers + 1):
            places[f"up_blocks.{block}.resnets.{layer}."] = f"output_blocks.{last + layer}.0."
            places[f"up_blocks.{block}.attentions.{layer}."] = f"output_blocks.{last + layer}.1."
        after = 2 if attends else 1
        places[f"up_blocks.{block}.upsamplers.0."] = f"output_blocks.{last + layers}.{after}."
    for name, tensor in state.items():
        (place,) = [place for place in places if name.startswith(place)]
        rest = name.removeprefix(place)
        if ".resnets." in place:
            part, _, kind = rest.partition(".")
            rest = f"{RESNET[part]}.{kind}"
        yield f"model.diffusion_model.{places[place]}{rest}", tensor


def original_vae(state: Mapping[str, Tensor], blocks: int) -> Iterator:
    for name, tensor in state.items():
        for block in range(blocks):
            name = name.replace(f"down_blocks.{block}.resnets.", f"down.{block}.block.")
            name = name.replace(f"down_blocks.{block}.downsamplers.0.", f"down.{block}.downsample.")
            back = blocks - 1 - block
            name = name.replace(f"up_blocks.{block}.resnets.", f"up.{back}.block.")
            name = name.replace(f"up_blocks.{block}.upsamplers.0.", f"up.{back}.upsample.")
        for old, new in {
            "mid_block.resnets.0.": "mid.block_1.",
            "mid_block.resnets.1.": "mid.block_2.",
            "mid_block.attentions.0.": "mid.attn_1.",
            "conv_shortcut": "nin_shortcut",
            "conv_norm_out": "norm_out",
            "group_norm": "norm",
            "to_q.": "q.",
            "to_k.": "k.",
            "to_v.": "v.",
            "to_out.0.": "proj_out.",
        }.items():
            name = name.replace(old, new)
        if ".attn_1." in name and tensor.ndim == 2:
            tensor = tensor[:, :, None, None].contiguous()
        yield f"first_stage_model.{name}", tensor


def checkpoint(folder: Path) -> dict[str, Tensor]:
    """The weights of a small pipeline folder as one original checkpoint has them."""
    unet, vae, text = (
        load_file(next((folder / part).glob("*.safetensors")))
        for part in ("unet", "vae", "text_encoder")
    )
    prefix = "cond_stage_model.transformer.text_model."
    return {
        **dict(original_unet(unet, 2, 1)),
        **dict(original_vae(vae, 4)),
        **{prefix + name.removeprefix("text_model."): tensor for name, tensor in text.items()},
    }


OPEN_CLIP = {
    "self_attn.out_proj.": "attn.out_proj.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}
TOP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def open_clip(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights of a text encoder of diffusers as OpenCLIP's code has them: queries, keys and
    values in one matrix, and the projection transposed.
    """
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    found = {"text_projection": bare.pop("text_projection.weight").T.contiguous()}
    for name, said in TOP.items():
        found[said] = bare[name]
    for layer in range(layers):
        at, to = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            joined = [bare[f"{at}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{to}attn.in_proj_{kind}"] = torch.cat(joined)
            found |= {
                f"{to}{new}{kind}": bare[f"{at}{old}{kind}"] for old, new in OPEN_CLIP.items()
            }
    return found


def xl_checkpoint(folder: Path) -> dict[str, Tensor]:
    """The weights of a small SDXL folder as one original checkpoint has them."""
    unet, vae, first, second = (
        load_file(next((folder / part).glob("*.safetensors")))
        for part in ("unet", "vae", "text_encoder", "text_encoder_2")
    )
    texts = {
        f"0.transformer.text_model.{n.removeprefix('text_model.')}": t for n, t in first.items()
    }
    texts |= {f"1.model.{name}": tensor for name, tensor in open_clip(second, 2).items()}
    return {
        **dict(original_unet(unet, 2, 1)),
        **dict(original_vae(vae, 4)),
        **{f"conditioner.embedders.{name}": tensor for name, tensor in texts.items()},
    }


def as_configured(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the configurations and the tokenizers of a small pipeline in place of those of `kind`, a
    constant of `single_file`.
    """
    configs = {name: json.loads((folder / name).read_text()) for name in getattr(single_file, kind)}
    monkeypatch.setattr(single_file, kind, configs)
    write = single_file.write_configs

    def with_the_tokenizer(to: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
        write(to, configs)
        for place in folder.glob("tokenizer*"):
            for file in place.iterdir():
                (to / place.name / file.name).write_bytes(file.read_bytes())
            (to / place.name / "merges.txt").unlink()

    monkeypatch.setattr("unlearn_app.models.diffusers.sources.write_configs", with_the_tokenizer)


@pytest.fixture
def small(tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configurations of the small pipeline in place of those of Stable Diffusion 1.5."""
    as_configured(tiny_pipeline, "STABLE_DIFFUSION_1", monkeypatch)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def saved(state: Mapping[str, Tensor], folder: Path) -> Path:
    state = {name: tensor.clone() for name, tensor in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder / "model.safetensors"


def refused(file: Path) -> str:
    with pytest.raises(ModelError) as raised:
        load_pipeline(file, "tiny")
    return str(raised.value)


@pytest.mark.usefixtures("offline", "small")
def test_a_single_file_is_the_same_model_as_the_folder(tiny_pipeline, tmp_path) -> None:
    file = saved(checkpoint(tiny_pipeline), tmp_path)
    one, folder = load_pipeline(file, "tiny"), load_pipeline(tiny_pipeline, "tiny")
    for part in ("unet", "vae", "text_encoder"):
        expected = getattr(folder.pipe, part).state_dict()
        found = getattr(one.pipe, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    latents = one.sample(["a cat"], [1], **HOW)
    assert torch.equal(latents, folder.sample(["a cat"], [1], **HOW))
    assert torch.equal(one.decode(latents), folder.decode(latents))
    assert len(one.base_hash) == 64
    assert one.base_hash != folder.base_hash


@pytest.fixture
def xl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small folder of Stable Diffusion XL, whose configurations stand for those of the real one;
    the text encoders are told apart by their widths, as those of the real one are.
    """
    folder = save(tmp_path / "xl", sdxl)
    as_configured(folder, "STABLE_DIFFUSION_XL", monkeypatch)
    return folder


@pytest.mark.usefixtures("offline")
def test_a_single_file_of_sdxl_is_the_same_model_as_the_folder(xl: Path, tmp_path: Path) -> None:
    file = saved(xl_checkpoint(xl), tmp_path)
    one, folder = load_pipeline(file, "tiny"), load_pipeline(xl, "tiny")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        expected = getattr(folder.pipe, part).state_dict()
        found = getattr(one.pipe, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), part
    assert torch.equal(one.sample(["a cat"], [1], **HOW), folder.sample(["a cat"], [1], **HOW))
    assert make_config("cat", model=str(file)).compare.guidance_scale == 5.0
    assert make_config("cat", model=str(file)) == replace(
        make_config("cat", model=str(xl)), model=str(file)
    )


def test_a_file_that_says_so_predicts_v_with_zero_snr(xl: Path, tmp_path: Path) -> None:
    marks = {single_file.V_PREDICTION: torch.zeros(0)}
    states = (marks, marks | {single_file.ZERO_SNR: torch.zeros(0)})
    for state, zero in zip(states, (False, True), strict=True):
        config = load_pipeline(
            saved(xl_checkpoint(xl) | state, tmp_path), "v"
        ).pipe.scheduler.config
        assert config.prediction_type == "v_prediction"
        assert config.rescale_betas_zero_snr == zero


def test_a_single_file_of_sdxl_without_its_second_text_encoder_is_refused(xl, tmp_path) -> None:
    state = {n: t for n, t in xl_checkpoint(xl).items() if not n.startswith(SECOND)}
    assert "holds no second text encoder" in refused(saved(state, tmp_path))
    first = f"{SECOND}ln_final.weight"
    state = {n: t for n, t in xl_checkpoint(xl).items() if n != first}
    assert "its file lacks weights" in refused(saved(state, tmp_path))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "beginning", ["model.diffusion_model.middle_block.1.", "first_stage_model.decoder.mid.attn_1."]
)
def test_a_single_file_that_lacks_a_weight_is_refused(tiny_pipeline, tmp_path, beginning) -> None:
    state = checkpoint(tiny_pipeline)
    first = min(name for name in state if name.startswith(beginning))
    file = saved({n: t for n, t in state.items() if n != first}, tmp_path)
    assert "its file lacks weights" in refused(file)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("first_stage_model.", "holds no VAE"),
        ("cond_stage_model.", "holds no text encoder"),
        ("model.diffusion_model.", "holds no denoiser"),
    ],
)
def test_a_part_that_a_single_file_lacks_is_named(tiny_pipeline, tmp_path, part, name) -> None:
    state = checkpoint(tiny_pipeline)
    assert name in refused(saved({n: t for n, t in state.items() if part not in n}, tmp_path))


ONE = torch.zeros(1)
FIRST = single_file.FIRST_LAYER
WHOLE = {FIRST: torch.zeros(8, 4, 3, 3), "first_stage_model.x": ONE, f"{single_file.TEXT}x": ONE}


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (WHOLE | {FIRST: torch.zeros(8, 9, 3, 3)}, "an inpainting model"),
        (WHOLE | {FIRST: torch.zeros(8, 8, 3, 3)}, "an instruct-pix2pix model"),
        (WHOLE | {single_file.TIME_COND: ONE}, "an LCM"),
        ({FIRST: ONE, f"{single_file.BOTH_TEXTS}0.model.x": ONE}, "holds an SDXL refiner"),
        ({FIRST: ONE, "edm_mean": ONE}, "parameterization of EDM"),
        ({FIRST: ONE, "cond_stage_model.model.x": ONE}, "holds Stable Diffusion 2.x"),
        ({"model.diffusion_model.joint_blocks.0.x": ONE}, "holds Stable Diffusion 3"),
        ({"double_blocks.0.x": ONE}, "holds FLUX"),
        ({"lora_unet_x.lora_down.weight": ONE}, "holds a LoRA"),
        ({"unet.x.lora_A.weight": ONE}, "no denoiser"),
    ],
)
def test_other_single_files_are_refused_by_name(tmp_path, state, name) -> None:
    assert name in refused(saved(state, tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.ckpt", b"cos\n", "is a pickle"),
        ("model.bin", b"cos\n", "is a pickle"),
        ("model.txt", b"x", "is no .safetensors file"),
        ("model.safetensors", b"x", "cannot be read"),
    ],
)
def test_other_files_are_no_models(tmp_path, name, content, said) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refused(tmp_path / name)


def test_the_configurations_are_those_of_stable_diffusion_1_5() -> None:
    """The numbers of weights are those that are published: 860 M, 84 M and 123 M."""
    configs = single_file.STABLE_DIFFUSION_1
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(configs["unet/config.json"])
        vae = AutoencoderKL.from_config(configs["vae/config.json"])
        text = CLIPTextModel(CLIPTextConfig(**configs["text_encoder/config.json"]))
    sizes = [sum(p.numel() for p in part.parameters()) for part in (unet, vae, text)]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    assert len(unet.state_dict()) == 686


def test_the_configurations_are_those_of_stable_diffusion_xl() -> None:
    """The numbers of weights are those that are published: 2567 M, 84 M, 123 M and 695 M."""
    configs = single_file.STABLE_DIFFUSION_XL
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(configs["unet/config.json"])
        vae = AutoencoderKL.from_config(configs["vae/config.json"])
        second = CLIPTextConfig(**configs["text_encoder_2/config.json"])
        text = CLIPTextModelWithProjection(second)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (unet, vae, text)]
    assert sizes == [2_567_463_684, 83_653_863, 694_659_840]
    assert len(unet.state_dict()) == 1680


@pytest.mark.usefixtures("offline")
def test_the_tokenizer_of_clip_is_whole(tmp_path: Path) -> None:
    """The ids are those that CLIP's own code gives."""
    single_file.write_configs(tmp_path, single_file.STABLE_DIFFUSION_1)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = tokenizer("cat", padding="max_length", max_length=77).input_ids
    assert padded == [49406, 2368, *[49407] * 75]
