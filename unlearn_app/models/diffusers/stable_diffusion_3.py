"""Stable Diffusion 3.x: a flow transformer over the states of CLIP, CLIP and T5."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from ..conditioning import Conditioning
from ..parameterization import Parameterization
from .layers import MMDIT
from .pipeline import PipelineModel

WORDS = 256
"""The states of T5, as many as diffusers takes unless it is told otherwise."""


class StableDiffusion3(PipelineModel):
    """A Stable Diffusion 3.x pipeline as a `Model`.

    Text is read as `encode_prompts` says. Guidance is classifier-free, so `null`, ESD's target and
    `guidance_scale` mean what they mean for a UNet.

    Timesteps are logit-normal before the scheduler's shift, and each row's loss is that of the x0
    which the velocity implies: s^2 times that of the velocity (diffusers,
    `examples/dreambooth/train_dreambooth_lora_sd3.py` with `logit_normal`, the scheme of
    2403.03206, section 3.1, and its preconditioned outputs).
    """

    pipeline = StableDiffusion3Pipeline
    image_pipeline = StableDiffusion3Img2ImgPipeline
    parts = {
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
        "transformer": SD3Transformer2DModel,
        "vae": AutoencoderKL,
    }
    optional = ("text_encoder_3", "tokenizer_3")
    denoiser = "transformer"
    layers = MMDIT
    words = WORDS

    @property
    def multiple(self) -> int:
        """The side of a patch."""
        return int(self.pipe.transformer.config.patch_size)

    def _latent_shape(self) -> tuple[int, int, int]:
        config = self.pipe.transformer.config
        return int(config.in_channels), int(config.sample_size), int(config.sample_size)

    def _learned(self) -> Parameterization:
        return replace(super()._learned(), density="logit_normal", loss="x0")

    def denoised(
        self, network: Callable[..., Any], x_t: Tensor, t: Tensor, cond: Conditioning
    ) -> Tensor:
        return velocity(network, x_t, t, cond)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        return encode_prompts(self.pipe, prompts, self.device, self.words)


def velocity(network: Callable[..., Any], x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """The prediction (B, C, H, W) of a flow transformer, called through `network`."""
    return network(
        hidden_states=x_t,
        timestep=t,
        encoder_hidden_states=cond.states.to(x_t.dtype),
        pooled_projections=cond.pooled.to(x_t.dtype),
    ).sample


def encode_prompts(
    pipe: Any, prompts: Sequence[str], device: torch.device, words: int = WORDS
) -> Conditioning:
    """What the text encoders of a pipeline make of `prompts`.

    The states of the two CLIP encoders stand side by side, padded to the width of T5's, which
    follow them; `pooled` is that of both CLIP encoders. T5 has `words` states, which are zeros
    where it is absent.
    """
    states, _, pooled, _ = pipe.encode_prompt(
        list(prompts),
        None,
        None,
        device=device,
        do_classifier_free_guidance=False,
        max_sequence_length=words,
    )
    return Conditioning(states, pooled)
