"""The parts of `pocket-flow`, a Stable Diffusion 3 pipeline in small over the latents and the words
of the bundled world, and what its transformer learns.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ...models.conditioning import Conditioning
from ...models.diffusers.loading import new_part
from ...models.diffusers.stable_diffusion_3 import StableDiffusion3, encode_prompts, velocity
from ...models.parameterization import parameterization_of
from ..texts import round_to_half, shared_texts
from .denoiser import Learner
from .parts import LATENT_CHANNELS, LATENT_SIDE
from .tower import WIDTH

HEADS, HEAD_WIDTH, BLOCKS = 4, 32, 4
"""The transformer's attention heads and their width, and its blocks of joint attention: as much as
fits `assets` in half precision.
"""
SECOND_WIDTH = 8
"""The width of the second text encoder, which says nothing: its class wants two."""


def new_transformer() -> Any:
    """The untrained flow transformer (MMDiT, 2403.03206): every latent pixel is a patch; queries
    and keys are normalised as in Stable Diffusion 3.5.
    """
    return new_part(
        "transformer",
        sample_size=LATENT_SIDE,
        patch_size=1,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=BLOCKS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=WIDTH + SECOND_WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=WIDTH + SECOND_WIDTH,
        pos_embed_max_size=LATENT_SIDE,
        qk_norm="rms_norm",
    )


def new_flow_scheduler() -> Any:
    """Euler steps along the flow, without the shift towards noise that larger pictures need."""
    return new_part("flow_scheduler", shift=1.0)


def text_parts(tokenizer: CLIPTokenizer, text_model: CLIPTextModel, seed: int) -> dict[str, Any]:
    """The tokenizers and text encoders of the pipeline: `shared_texts`, an untrained encoder of
    `SECOND_WIDTH`, and no T5.

    Weights are rounded to half precision, in which they are stored.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        second = CLIPTextModelWithProjection(
            CLIPTextConfig.from_dict(
                text_model.config.to_dict()
                | {
                    "hidden_size": SECOND_WIDTH,
                    "intermediate_size": SECOND_WIDTH,
                    "projection_dim": SECOND_WIDTH,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 1,
                }
            )
        )
    round_to_half(second)
    own = {"text_encoder_2": second, "tokenizer_3": None, "text_encoder_3": None}
    return shared_texts(tokenizer, text_model) | own


def flow_learner(
    network: Callable[..., Any], transformer: nn.Module, texts: dict[str, Any], device: torch.device
) -> Learner:
    """A `transformer`, called through `network`, that reads what a pipeline makes of captions.

    Timesteps are logit-normal with the loss of the velocity, rf/lognorm(0, 1) of 2403.03206.
    """
    scheduler = new_flow_scheduler()
    pipe = StableDiffusion3.pipeline(
        transformer=transformer, scheduler=scheduler, vae=None, **texts
    )
    for name in ("text_encoder", "text_encoder_2"):
        texts[name].to(device)

    def encode(captions: list[str]) -> Conditioning:
        return encode_prompts(pipe, captions, device, pipe.tokenizer_max_length)

    def predict(x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        return velocity(network, x_t, t, cond)

    flow = replace(parameterization_of(scheduler, device), density="logit_normal")
    return Learner(encode, predict, flow)
