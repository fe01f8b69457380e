"""Stable Diffusion XL: a UNet that also reads a pooled vector and the size of the picture."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from ..conditioning import Conditioning
from .pipeline import PipelineModel
from .stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """A Stable Diffusion XL base pipeline as a `Model` with `TokenAccess`.

    The states of its two text encoders stand side by side (L, D1 + D2), `pooled` is the second
    one's, and `extras["time_ids"]` (B, 6) holds the original size, the crop and the target size, of
    the model's own pictures, or of the run's within `of_resolution`. The empty prompt is zeros
    where the pipeline is configured to guide away from zeros, so that `null` is what a call without
    a negative prompt guides away from. Timesteps and loss are those of Stable Diffusion
    (diffusers, `examples/text_to_image/train_text_to_image_lora_sdxl.py` with its defaults).
    """

    pipeline = StableDiffusionXLPipeline
    image_pipeline = StableDiffusionXLImg2ImgPipeline
    parts = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }
    unused = PipelineModel.unused | {"add_watermarker": False}
    readers = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))

    def denoised(
        self, network: Callable[..., Any], x_t: Tensor, t: Tensor, cond: Conditioning
    ) -> Tensor:
        added = {"text_embeds": cond.pooled.to(x_t.dtype), "time_ids": cond.extras["time_ids"]}
        return network(x_t, t, cond.states.to(x_t.dtype), added_cond_kwargs=added).sample

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        states, _, pooled, _ = self.pipe.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        if self.pipe.config.force_zeros_for_empty_prompt:
            empty = torch.tensor([not prompt for prompt in prompts], device=self.device)
            states = states.masked_fill(empty.view(-1, 1, 1), 0)
            pooled = pooled.masked_fill(empty.view(-1, 1), 0)
        return self._sized(states, pooled)

    def conditioned(self, outputs: Sequence[Any]) -> Conditioning:
        return self._sized(torch.cat([own.hidden_states[-2] for own in outputs], -1), outputs[1][0])

    def _sized(self, states: Tensor, pooled: Tensor) -> Conditioning:
        _, *sides = self.latent_shape
        size = [side * self.pipe.vae_scale_factor for side in sides]
        time_ids = torch.tensor([[*size, 0, 0, *size]]).to(states).repeat(len(states), 1)
        return Conditioning(states, pooled, extras={"time_ids": time_ids})

    def _family_facts(self) -> tuple[Any, ...]:
        return PipelineModel._family_facts(self)
