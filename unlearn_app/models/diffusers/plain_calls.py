"""Plain calls of diffusers' own pipelines, without anything of ours: what is said to be the same is
compared with them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from ...common.seeds import generator

SIDE = 64
"""Pixels along each side of a picture."""
SCHNELL_WORDS = 256
"""The most tokens of T5 that FLUX schnell reads."""


def plain_pipeline(folder: Path) -> Any:
    """The pipeline in `folder`, loaded by diffusers alone."""
    index = DiffusionPipeline.load_config(folder)
    absent = [n for n in ("text_encoder_3", "tokenizer_3") if index.get(n) in (None, [None, None])]
    without = absent if index["_class_name"] == "StableDiffusion3Pipeline" else []
    pipe = DiffusionPipeline.from_pretrained(folder, **dict.fromkeys(without))
    pipe.set_progress_bar_config(disable=True)
    if hasattr(pipe, "unet"):  # the product that ours takes on small grids
        pipe.unet.set_attn_processor(AttnProcessor())
    return pipe


def plain_latents(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> Tensor:
    """Latents (B, C, H, W) by a plain call of `pipe` for pictures of `SIDE` pixels, rounded to half
    precision, as ours are.
    """
    asked = {"prompt": list(prompts), "generator": [generator(seed) for seed in seeds], **how}
    if type(pipe).__name__.startswith("Flux"):
        if not pipe.transformer.config.guidance_embeds:
            asked["max_sequence_length"] = SCHNELL_WORDS
        packed = pipe(height=SIDE, width=SIDE, output_type="latent", **asked).images
        latents = pipe._unpack_latents(packed, SIDE, SIDE, pipe.vae_scale_factor)
    else:
        latents = pipe(output_type="latent", **asked).images
    return latents.half().float()


def plain_pictures(pipe: Any, latents: Tensor) -> list[Any]:
    """Pictures of latents (B, C, H, W), decoded by the parts of `pipe` itself."""
    config = pipe.vae.config
    scaled = latents / config.scaling_factor + (config.get("shift_factor") or 0)
    return pipe.image_processor.postprocess(pipe.vae.decode(scaled).sample, output_type="pil")
