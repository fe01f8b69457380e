"""Adapters as the tools of others write them, made with their own code and random: what ours reads
is compared with the pictures that these tools make of them.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from ...common.seeds import generator
from .weight_files import DENOISERS

RANK, ALPHA, SIZE = 4, 2, 0.25
"""Of every adapter; factors have this standard deviation, so that every picture changes."""
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]
PEFT, KOHYA = "lora.safetensors", "kohya.safetensors"
STREAMS, PARTS = ("img", "txt"), {"attn_qkv": 3, "attn_proj": 1}
"""Of a double block of FLUX's original code, and how many times the width each part has rows."""


def trained_elsewhere(pipe: Any, folder: Path) -> None:
    """Put an adapter by peft on the denoiser and the first text encoder of `pipe`, and write it to
    `folder` as a training script of diffusers does, `PEFT`, and with the keys of kohya, `KOHYA`.
    """
    part = next(name for name in DENOISERS if hasattr(pipe, name))
    trained = {part: getattr(pipe, part), "text_encoder": pipe.text_encoder}
    states = {}
    for name, targets in ((part, ATTENTION), ("text_encoder", TEXT)):
        config = LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=targets, init_lora_weights=False
        )
        _add(trained[name], config, seed=len(states))
        states[name] = get_peft_model_state_dict(trained[name])
    type(pipe).save_lora_weights(
        folder,
        weight_name=PEFT,
        **{f"{name}_lora_layers": state for name, state in states.items()},
        **_collate_lora_metadata(trained),
    )
    # The converter knows what to write before a UNet and text encoders, but no transformer; this is
    # OneTrainer's. kohya's own names for SD 3 are those of the original code, which are refused.
    prefix = {"transformer": "lora_transformer"}
    both = {
        f"{prefix.get(name, name)}.{key}": tensor
        for name, state in states.items()
        for key, tensor in state.items()
    }
    converted = convert_state_dict_to_kohya(both)
    alphas = {n: torch.tensor(float(ALPHA)) for n in converted if n.endswith(".alpha")}
    save_file({n: t.contiguous() for n, t in (converted | alphas).items()}, folder / KOHYA)


def _add(network: nn.Module, config: LoraConfig, seed: int) -> None:
    inject_adapter_in_model(config, network)
    network.peft_config = {"default": config}
    draw = generator(seed)
    for name, weight in network.named_parameters():
        if ".lora_" in name:
            weight.data.normal_(std=SIZE, generator=draw)


def write_flux_names(file: Path, width: int) -> None:
    """Write an adapter for the first double block of a FLUX transformer of that width, with the
    names of its original code, which kohya's trainer writes and diffusers reads.
    """
    draw, state = generator(7), {}
    for stream in STREAMS:
        for part, times in PARTS.items():
            at = f"lora_unet_double_blocks_0_{stream}_{part}"
            state[f"{at}.lora_down.weight"] = SIZE * torch.randn(RANK, width, generator=draw)
            up = torch.randn(times * width, RANK, generator=draw)
            state[f"{at}.lora_up.weight"] = SIZE * up
            state[f"{at}.alpha"] = torch.tensor(float(ALPHA))
    save_file(state, file)
