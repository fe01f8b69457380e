"""Whole models in one safetensors file, as UIs use them, with the configurations that such a file
lacks.
"""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ...common.errors import ModelError
from ...common.json_values import json_text
from ...common.paths import ASSETS
from .model_folder import INDEX, check_unet, first_line

MERGES = ASSETS / "clip" / "merges.txt.gz"
"""The merges of CLIP's tokenizer (OpenAI, MIT licence), from which its vocabulary follows."""
FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"
TIME_COND = "model.diffusion_model.time_embed.cond_proj.weight"
VAE, TEXT = "first_stage_model.", "cond_stage_model.transformer."
BOTH_TEXTS = "conditioner.embedders."
"""How the names of the text encoders of Stable Diffusion XL begin."""
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
"""Empty weights by which trainers of Stable Diffusion XL say what a file predicts."""
OTHERS = {
    f"{BOTH_TEXTS}0.model.": "an SDXL refiner",
    "edm_": "a model in the parameterization of EDM, such as Playground",
    "cond_stage_model.model.": "Stable Diffusion 2.x",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
    "joint_blocks.": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.": "FLUX",
    "double_blocks.": "FLUX",
    "lora_": "a LoRA",
}
"""What a file holds by the beginning of its names."""
STABLE_DIFFUSION_1: dict[str, dict[str, Any]] = {
    INDEX: {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
    "unet/config.json": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKL",
        "sample_size": 512,
        "latent_channels": 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "scaling_factor": 0.18215,
    },
    "text_encoder/config.json": {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    },
    "scheduler/scheduler_config.json": {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    "tokenizer/tokenizer_config.json": {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    },
}
"""The configurations of Stable Diffusion 1.5 by file, as its repository has them."""


SCHEDULER = "scheduler/scheduler_config.json"
STABLE_DIFFUSION_XL: dict[str, dict[str, Any]] = {
    INDEX: STABLE_DIFFUSION_1[INDEX]
    | {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    },
    "unet/config.json": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae/config.json": STABLE_DIFFUSION_1["vae/config.json"]
    | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
    "text_encoder/config.json": STABLE_DIFFUSION_1["text_encoder/config.json"],
    "text_encoder_2/config.json": STABLE_DIFFUSION_1["text_encoder/config.json"]
    | {
        "architectures": ["CLIPTextModelWithProjection"],
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    SCHEDULER: {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
    },
    "tokenizer/tokenizer_config.json": STABLE_DIFFUSION_1["tokenizer/tokenizer_config.json"],
    "tokenizer_2/tokenizer_config.json": STABLE_DIFFUSION_1["tokenizer/tokenizer_config.json"]
    | {"pad_token": "!"},
}
"""The configurations of Stable Diffusion XL base 1.0 by file, as its repository has them."""


def check_checkpoint(file: Path) -> dict[str, dict[str, Any]]:
    """The configurations of the model in a safetensors file, from the names and shapes of its
    weights; the numbers are not read.

    Raises:
        ModelError: it cannot be read, is no whole model, or one of a kind we refuse.
    """
    said = f"The model file {str(file)!r}"
    shapes = _shapes(file, said)
    accepted = "a whole Stable Diffusion 1.x or XL checkpoint, or a diffusers folder, is accepted"
    for beginning, kind in OTHERS.items():
        if any(name.startswith(beginning) for name in shapes):
            raise ModelError(f"{said} holds {kind}; {accepted}.")
    if FIRST_LAYER not in shapes:
        raise ModelError(f"{said} holds no denoiser of Stable Diffusion; {accepted}.")
    configs, texts = STABLE_DIFFUSION_1, {TEXT: "text encoder"}
    if any(name.startswith(BOTH_TEXTS) for name in shapes):
        configs = STABLE_DIFFUSION_XL
        texts = {f"{BOTH_TEXTS}0.": "text encoder", f"{BOTH_TEXTS}1.": "second text encoder"}
    for beginning, part in {VAE: "VAE", **texts}.items():
        if not any(name.startswith(beginning) for name in shapes):
            raise ModelError(f"{said} holds no {part}; {accepted}.")
    unet = {
        "in_channels": shapes[FIRST_LAYER][1],
        "out_channels": configs["unet/config.json"]["out_channels"],
        "time_cond_proj_dim": TIME_COND in shapes,
        "num_class_embeds": None,
        "class_embed_type": None,
    }
    check_unet(unet, configs["vae/config.json"], said)
    if V_PREDICTION not in shapes:
        return configs
    told = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": ZERO_SNR in shapes}
    return configs | {SCHEDULER: configs[SCHEDULER] | told}


def _shapes(file: Path, said: str) -> dict[str, list[int]]:
    try:
        with safe_open(file, "pt") as tensors:
            names = tensors.keys()
            return {name: tensors.get_slice(name).get_shape() for name in names}
    except Exception as error:  # of a class of the library's own, by version
        raise ModelError(f"{said} cannot be read: {first_line(error)}.") from error


def write_configs(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """The configurations and CLIP's tokenizers, as the folder of a diffusers pipeline without
    weights has them.
    """
    for name, config in configs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_text(config))
    merges = gzip.decompress(MERGES.read_bytes()).decode()
    vocabulary = json_text(clip_vocabulary(merges.splitlines()[1:]))
    for place in folder.glob("tokenizer*"):
        (place / "merges.txt").write_text(merges, encoding="utf-8")
        (place / "vocab.json").write_text(vocabulary, encoding="utf-8")


def clip_vocabulary(merges: list[str]) -> dict[str, int]:
    """The number of every token of CLIP: single bytes, bytes that end a word, merges, and the two
    marks of begin and end.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    ends = [f"{letter}</w>" for letter in letters]
    merged = ["".join(merge.split()) for merge in merges]
    tokens = [*letters, *ends, *merged, "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}
