"""Adapters reach every layer of Stable Diffusion 1.x, 2.x and XL in ComfyUI, A1111 and kohya's
tools, by the names that these look for; the real structures are built without memory.
"""

import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from unlearn_app.models.diffusers.adapter_files import adapter_bytes
from unlearn_app.models.diffusers.adapter_formats import to_dense, to_kohya
from unlearn_app.models.diffusers.comfyui import comfyui_keys, unet_layers
from unlearn_app.models.diffusers.layer_names import aliases, flat, ldm_names
from unlearn_app.models.diffusers.layers import UNET

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
}
CONFIGS = {
    "SD 1.5": SD | {"cross_attention_dim": 768, "attention_head_dim": 8},
    "SD 2.1": SD
    | {
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "SDXL": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
CARRIERS = {"SD 1.5": 192, "SD 2.1": 192, "SDXL": 722}
"""Linear and 1 x 1 layers around attention: 12 in each of 16 blocks of SD; in SDXL 10 in each of 70
and 2 in each of 11 attentions.
"""


@pytest.fixture(scope="module", params=CONFIGS)
def network(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    with torch.device("meta"):
        return request.param, UNet2DConditionModel(**CONFIGS[request.param])


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.Linear, nn.Conv2d)
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, kinds)}


def factors(layers: dict[str, nn.Module], rank: int = 4) -> dict[str, torch.Tensor]:
    """An adapter of all `layers`, without memory."""
    state = {}
    for name, layer in layers.items():
        out, *inner = layer.weight.shape
        state[f"{name}.lora_A.weight"] = torch.empty(rank, *inner, device="meta")
        ones = [1] * (len(inner) - 1)
        state[f"{name}.lora_B.weight"] = torch.empty(out, rank, *ones, device="meta")
    return state


def read(written: dict[str, torch.Tensor], keys: dict[str, str], ending: str) -> set[str]:
    """The layers that a reader with `keys` finds in a file."""
    return {layer for key, layer in keys.items() if key + ending in written}


def test_the_layers_that_comfyui_knows_are_those_that_are_there(network) -> None:
    _, unet = network
    assert layers_of(unet).keys() <= unet_layers(unet.config)


def test_comfyui_finds_every_layer_of_what_we_write_for_it(network) -> None:
    name, unet = network
    layers, keys = layers_of(unet), comfyui_keys(unet)
    for chosen in (layers, {n: m for n, m in layers.items() if re.search(UNET["all"], n)}):
        written = to_kohya(factors(chosen))
        assert read(written, keys, ".lora_up.weight") == chosen.keys()
        assert read(written, keys, ".lora_down.weight") == chosen.keys()
        assert read(written, keys, ".alpha") == chosen.keys()
        assert len(written) == 3 * len(chosen)
    assert len(chosen) == CARRIERS[name]


def test_comfyui_finds_every_layer_of_a_dense_file(network) -> None:
    _, unet = network
    layers = layers_of(unet)
    written = to_dense(factors(layers))
    assert read(written, comfyui_keys(unet), ".diff") == layers.keys()
    for layer, module in layers.items():
        assert written[f"lora_unet_{flat(layer)}.diff"].shape == module.weight.shape


def test_comfyui_misses_the_attention_in_a_file_with_the_keys_of_diffusers(network) -> None:
    """Why there is a second file: it looks for `.processor.`, and says so only in its log."""
    name, unet = network
    chosen = {n: m for n, m in layers_of(unet).items() if re.search(UNET["all"], n)}
    written = {f"unet.{key}": tensor for key, tensor in factors(chosen).items()}
    found = read(written, comfyui_keys(unet), ".lora_B.weight")
    assert found == {layer for layer in chosen if ".to_" not in layer}
    assert len(found) == {"SD 1.5": 64, "SD 2.1": 64, "SDXL": 162}[name]


def test_the_keys_are_those_that_diffusers_converts_to(network) -> None:
    _, unet = network
    state = factors(layers_of(unet))
    theirs = convert_state_dict_to_kohya({f"unet.{name}": t for name, t in state.items()})
    ours = to_kohya(state)
    assert ours.keys() == theirs.keys()
    assert all(float(ours[name]) == float(theirs[name]) for name in ours if name.endswith(".alpha"))


def test_the_names_of_the_original_code_are_those_that_diffusers_converts(network) -> None:
    _, unet = network
    names = ldm_names(layers_of(unet))
    assert names.keys() == layers_of(unet).keys()
    assert len(set(names.values())) == len(names)
    marked = {
        f"model.diffusion_model.{ldm}.{part}": torch.tensor([[place]])
        for place, ldm in enumerate(names.values())
        for part in ("weight", "bias")
    }
    found = convert_ldm_unet_checkpoint(dict(marked), config=dict(unet.config))
    for place, layer in enumerate(names):
        assert int(found[f"{layer}.weight"]) == place


def test_every_name_leads_to_one_layer(network) -> None:
    _, unet = network
    layers = list(layers_of(unet))
    known = aliases(layers, {})
    for layer, ldm in ldm_names(layers).items():
        for name in (layer, f"lora_unet_{flat(layer)}", f"lora_unet_{flat(ldm)}"):
            assert known[name] == layer


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoders_are_found_by_the_names_of_kohya_and_diffusers(prefix: str) -> None:
    with torch.device("meta"):
        encoder = CLIPTextModel(CLIPTextConfig(num_hidden_layers=2, hidden_size=64))
    inner = [n for n, part in encoder.named_modules() if isinstance(part, nn.Linear)]
    own = [prefix + name.removeprefix("text_model.") for name in inner]
    known = aliases(["conv_in"], {"text_encoder": own, "text_encoder_2": own})
    layer = own[0]
    bare = layer.removeprefix("text_model.")
    for said in (bare, f"text_model.{bare}"):
        assert known[f"text_encoder.{said}"] == f"text_encoder.{layer}"
        assert known[f"lora_te_{flat(said)}"] == f"text_encoder.{layer}"
        assert known[f"lora_te1_{flat(said)}"] == f"text_encoder.{layer}"
        assert known[f"lora_te2_{flat(said)}"] == f"text_encoder_2.{layer}"


def test_the_layers_of_a_transformer_have_the_prefix_that_diffusers_and_comfyui_know() -> None:
    layer = "transformer_blocks.0.attn.to_q"
    state = {f"{layer}.lora_A.weight": torch.ones(2, 3), f"{layer}.lora_B.weight": torch.ones(3, 2)}
    assert f"transformer.{layer}.lora_A".encode() in adapter_bytes(state, {})
    assert f"lora_transformer_{flat(layer)}.lora_up".encode() in adapter_bytes(state, {}, "kohya")
