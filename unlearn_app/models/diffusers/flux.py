"""FLUX: a flow transformer on packed latents, over the states of T5 and a vector of CLIP."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxImg2ImgPipeline, FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextModel, T5EncoderModel

from ..conditioning import Conditioning
from ..protocols import SamplingOverrides
from .layers import MMDIT
from .pipeline import PipelineModel

GUIDANCE = 3.5
"""The guidance that FLUX dev is trained on with: the default of diffusers' trainer."""
WORDS, WORDS_DISTILLED = 512, 256
"""T5's tokens: the pipeline's default, and the most that schnell reads."""


class Flux(PipelineModel):
    """A FLUX.1 pipeline, dev or schnell, as a `Model`.

    Neither has classifier-free guidance. In dev the guidance is an input of the denoiser:
    `guidance_scale` is that input when sampling, and predictions in training and attacks take
    `GUIDANCE`. Schnell has no guidance at all and samples alike at every `guidance_scale`. `null`
    is the empty prompt, which no sampling reads; it serves objectives only. ESD's target base -
    eta (towards - empty) is a combination of distilled predictions, each of which is guided
    already, so that an eta pushes further than in a model with classifier-free guidance.

    Timesteps are uniform, moved by the scheduler's shift unless that depends on the picture, and
    every row's loss counts alike (diffusers, `examples/dreambooth/train_dreambooth_lora_flux.py`
    with its default `none`).
    """

    pipeline = FluxPipeline
    image_pipeline = FluxImg2ImgPipeline
    parts = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
        "transformer": FluxTransformer2DModel,
        "vae": AutoencoderKL,
    }
    denoiser = "transformer"
    layers = MMDIT

    @property
    def multiple(self) -> int:
        """The side of a packed patch."""
        return 2

    def _latent_shape(self) -> tuple[int, int, int]:
        side = int(self.pipe.vae.config.sample_size) // self.pipe.vae_scale_factor
        return int(self.pipe.transformer.config.in_channels) // 4, side, side

    @property
    def _guided(self) -> bool:
        return bool(self.pipe.transformer.config.guidance_embeds)

    def denoised(
        self, network: Callable[..., Any], x_t: Tensor, t: Tensor, cond: Conditioning
    ) -> Tensor:
        rows, _, height, width = x_t.shape
        scale = self.pipe.vae_scale_factor
        place = {"device": x_t.device, "dtype": x_t.dtype}
        predicted = network(
            hidden_states=self.packed(x_t),
            timestep=t / 1000,
            guidance=torch.full([rows], GUIDANCE, device=x_t.device) if self._guided else None,
            pooled_projections=cond.pooled.to(x_t.dtype),
            encoder_hidden_states=cond.states.to(x_t.dtype),
            txt_ids=torch.zeros(cond.states.shape[1], 3, **place),
            img_ids=self.pipe._prepare_latent_image_ids(rows, height // 2, width // 2, **place),
        ).sample
        return self.pipe._unpack_latents(predicted, height * scale, width * scale, scale)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        states, pooled, _ = self.pipe.encode_prompt(
            list(prompts),
            device=self.device,
            max_sequence_length=WORDS if self._guided else WORDS_DISTILLED,
        )
        return Conditioning(states, pooled)

    def arguments(
        self, cond: Conditioning, null: Conditioning, overrides: SamplingOverrides
    ) -> dict[str, Any]:
        told = super().arguments(cond, null, overrides)
        return {name: value for name, value in told.items() if not name.startswith("negative_")}

    def packed(self, latents: Tensor) -> Tensor:
        rows, channels, height, width = latents.shape
        return self.pipe._pack_latents(latents, rows, channels, height, width)

    def unpacked(self, latents: Tensor) -> Tensor:
        scale = self.pipe.vae_scale_factor
        _, height, width = self.latent_shape
        return self.pipe._unpack_latents(latents, height * scale, width * scale, scale)
