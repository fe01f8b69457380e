"""Stable Diffusion 1.x and 2.x: a UNet with cross-attention over one text encoder's states."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from ..conditioning import Conditioning
from ..protocols import SamplingOverrides
from .layers import UNET
from .pipeline import PipelineModel
from .text import TokenizedText

SMALL_SIDE = 16
LEAST_SIGNAL = 2**-24
"""The floor of `alphas_cumprod` where fresh noise is added."""


class StableDiffusion(PipelineModel, TokenizedText):
    """A Stable Diffusion 1.x or 2.x pipeline as a `Model` with `TokenAccess`.

    Both are trained at uniform timesteps with every row's loss alike, on the noise or, in the
    768-pixel model of 2.x, on v (diffusers, `examples/text_to_image/train_text_to_image_lora.py`
    with its defaults); the scheduler's configuration says on which, and whether its terminal
    signal-to-noise ratio is zero.
    """

    pipeline = StableDiffusionPipeline
    image_pipeline = StableDiffusionImg2ImgPipeline
    parts = {
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }
    unused = PipelineModel.unused | {"safety_checker": None, "requires_safety_checker": False}
    denoiser = "unet"
    layers = UNET

    def __init__(self, pipe: Any, name: str, base_hash: str) -> None:
        super().__init__(pipe, name, base_hash)
        use_plain_attention(pipe.unet, self.device)

    @property
    def multiple(self) -> int:
        """The least at which pictures have sides that are multiples of 8, as the pipelines want."""
        return 8 // math.gcd(8, self.pipe.vae_scale_factor)

    def _latent_shape(self) -> tuple[int, int, int]:
        config = self.pipe.unet.config
        return int(config.in_channels), *_sides(config.sample_size)

    def denoised(
        self, network: Callable[..., Any], x_t: Tensor, t: Tensor, cond: Conditioning
    ) -> Tensor:
        return network(x_t, t, cond.states.to(x_t.dtype)).sample

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        states, _ = self.pipe.encode_prompt(
            list(prompts), self.device, 1, do_classifier_free_guidance=False
        )
        return Conditioning(states)

    def conditioned(self, outputs: Sequence[Any]) -> Conditioning:
        return Conditioning(outputs[0][0])

    def arguments(
        self, cond: Conditioning, null: Conditioning, overrides: SamplingOverrides
    ) -> dict[str, Any]:
        told = super().arguments(cond, null, overrides) | {"eta": overrides.eta or 0.0}
        if overrides.pictures is not None:  # the size is then that of the pictures
            del told["height"], told["width"]
        return told

    def _family_facts(self) -> tuple[Any, ...]:
        own = self.latent_shape == self._latent_shape()
        return () if own else super()._family_facts()  # () as before there were other families

    def _stochastic_scheduler(self, overrides: SamplingOverrides) -> Any:
        scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config, clip_sample=False)
        if overrides.eta or self._own_eta:
            # At zero terminal SNR and eta 1 the first step takes the root of 0, which rounding
            # makes negative at some numbers of steps: NaN. Euler in diffusers has the same floor.
            scheduler.alphas_cumprod.clamp_(min=LEAST_SIGNAL)
        return scheduler


def _sides(sample_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of what a UNet's configuration calls its sample size."""
    sides = [sample_size] * 2 if isinstance(sample_size, int) else sample_size
    return int(sides[0]), int(sides[1])


def use_plain_attention(unet: nn.Module, device: torch.device) -> None:
    """Use the plain attention product on CPUs and small grids, where it is quicker than the fused
    one.
    """
    if device.type == "cpu" and max(_sides(unet.config.sample_size)) <= SMALL_SIDE:
        unet.set_attn_processor(AttnProcessor())
