"""A Stable Diffusion 1.x pipeline as a `Model`, with its UNet under two LoRA slots."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from ...common.errors import ModelError, NotFinite, ShouldStop, never
from ...common.seeds import generator
from ..conditioning import Conditioning
from ..device import choose_device, fits_bfloat16, machine
from ..latent_store import Store, key_of, user_store
from ..parameterization import parameterization_of
from ..protocols import NO_OVERRIDES, Params, Sampler, SamplingOverrides
from .adapters import AdaptedNetwork, at_least_float32
from .cast_weights import CastWeights
from .checkpointing import not_checkpointed
from .sampling import run_pipeline
from .text import TokenizedText

CARRIERS = r"\.(to_q|to_k|to_v|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)$"
"""Layers that may carry an adapter."""
LAYERS = {
    "all": CARRIERS,
    "cross": r"\.attn2" + CARRIERS,
    "keys_values": r"\.attn2\.to_[kv]$",
    "not_cross": r"^(?!.*\.attn2\.).*" + CARRIERS,
}
CHUNK, SMALL_SIDE = 18, 16
TRIED_SIDE = 8
"""The largest side, in latent pixels, of the picture that `try_out` makes."""
LEAST_SIGNAL = 2**-24
"""The floor of `alphas_cumprod` where fresh noise is added."""


class StableDiffusion(AdaptedNetwork, TokenizedText, Sampler):
    """A Stable Diffusion 1.x pipeline as a `Model` with `TokenAccess`."""

    def __init__(self, pipe: StableDiffusionPipeline, name: str, base_hash: str) -> None:
        super().__init__(pipe.unet, name, LAYERS)
        self.device = choose_device()
        self.chunk = CHUNK
        self.base_hash = base_hash
        self.store: Store | None = user_store()
        self.scheduler = type(pipe.scheduler).__name__
        self.parameterization = parameterization_of(pipe.scheduler, self.device)
        self.latent_shape = (int(pipe.unet.config.in_channels), *latent_sides(pipe.unet))
        pipe.set_progress_bar_config(disable=True)
        self.pipe = pipe.to(self.device)
        for part in (pipe.vae, pipe.text_encoder):
            part.requires_grad_(False).eval()
        self.mixes = pipe.unet.dtype == torch.float32 and fits_bfloat16(self.device)
        """Whether float32 weights are computed with in bfloat16."""
        self._cast = CastWeights(pipe.unet)
        if self.mixes:
            pipe.unet.register_forward_hook(_in_float32)
        use_plain_attention(pipe.unet, self.device)

    @torch.no_grad()
    def try_out(self) -> None:
        """Make a small picture in two steps, so that a model that cannot is refused on loading.

        Raises:
            ModelError: weights are not finite.
            NotFinite: the picture is not finite.
            Exception: of any kind, from the libraries, for sizes that do not fit.
        """
        for part in ("unet", "vae", "text_encoder"):
            for name, weight in getattr(self.pipe, part).named_parameters():
                if not torch.stack(weight.aminmax()).isfinite().all():  # quicker than isfinite
                    raise ModelError(
                        f"The model {self.name} holds numbers that are not finite, in {name} of its"
                        f" {part}; finite weights are accepted."
                    )
        channels, side = self.latent_shape[0], min(*self.latent_shape[1:], TRIED_SIDE)
        cond, pixels = self.encode_text([""]), side * self.pipe.vae_scale_factor
        with self._mixed():
            latents = self.pipe(
                prompt_embeds=cond.states,
                num_inference_steps=2,
                guidance_scale=1.0,
                generator=generator(0),
                latents=torch.zeros(1, channels, side, side).to(cond.states),
                height=pixels,
                width=pixels,
                output_type="latent",
            ).images
        self.decode(latents)

    def predict(
        self, x_t: Tensor, t: Tensor, cond: Conditioning, params: Params | None = None
    ) -> Tensor:
        dense = params and not any(".lora_" in name for name in params)
        weights = iter(params.values()) if dense else self.network.parameters()
        dtype = next(weights).dtype  # the network's own property walks through all of it
        arguments = (x_t.to(dtype), t, cond.states.to(dtype))
        with self._mixed():
            if not params:
                return at_least_float32(self.network(*arguments).sample)
            with not_checkpointed(self.network):
                return at_least_float32(
                    torch.func.functional_call(self.network, params, arguments).sample
                )

    @property
    def _own_eta(self) -> float:
        """The eta at which DDIM adds as much noise as the model's own scheduler (2010.02502,
        section 4.1): 1 for DDPM and stochastic solvers, 0 for those that add none.
        """
        scheduler = self.pipe.scheduler
        stochastic = str(scheduler.config.get("algorithm_type", "")).startswith("sde")
        return float(isinstance(scheduler, DDPMScheduler) or stochastic)

    @contextmanager
    def _mixed(self) -> Iterator[None]:
        if not self.mixes:
            yield
            return
        with torch.autocast(self.device.type, torch.bfloat16), self._cast.in_place():
            yield

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str] | Conditioning,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        should_stop: ShouldStop = never,
        overrides: SamplingOverrides = NO_OVERRIDES,
    ) -> Tensor:
        cond = prompts if isinstance(prompts, Conditioning) else self.encode_text(prompts)
        null = self.encode_text([""])
        pipe = self._pipeline_for(overrides)
        plain = overrides is NO_OVERRIDES
        store = self.store if plain and self.is_original else None
        if overrides.eta is None:
            overrides = replace(overrides, eta=self._own_eta)
        texts = None if isinstance(prompts, Conditioning) else tuple(prompts)
        how = {"steps": steps, "guidance_scale": guidance_scale}
        latents = []
        for start in range(0, len(cond), self.chunk):
            rows = slice(start, start + self.chunk)
            own, seeded = cond.rows(rows), seeds[rows]
            sample = partial(
                self._sampled,
                *(pipe, own, null, seeded, overrides.rows(rows)),
                should_stop=should_stop,
                **how,
            )
            if store:
                keys = self._keys(own, null, texts and texts[rows], list(seeded), how)
                latents.append(store.recall(*keys, sample).to(self.device))
            else:
                latents.append(sample())
        # Rounded also without a store, which holds half precision: the pictures are the same.
        return torch.cat(latents).half().float() if plain else torch.cat(latents)

    def _sampled(
        self,
        pipe: StableDiffusionPipeline | StableDiffusionImg2ImgPipeline,
        cond: Conditioning,
        null: Conditioning,
        seeds: Sequence[int],
        overrides: SamplingOverrides,
        **how: Any,
    ) -> Tensor:
        with self._mixed(), ExitStack() as original:
            if overrides.original_steps:
                original.enter_context(self.active())
            latents = run_pipeline(
                pipe, cond, null, seeds, overrides=overrides, original=original, **how
            )
        return self._finite(latents.float())

    def _keys(
        self,
        cond: Conditioning,
        null: Conditioning,
        prompts: tuple[str, ...] | None,
        seeds: list[int],
        how: Mapping[str, float],
    ) -> tuple[bytes, str | None]:
        """The exact and the portable key of a batch, as `Store.recall` takes them."""
        scheduler = self.pipe.scheduler
        # Names with an underscore are diffusers' own notes, whose order may change by process.
        own = {name: value for name, value in scheduler.config.items() if name[0] != "_"}
        sampler = type(scheduler).__name__, own
        precision = str(self.network.dtype), self.mixes
        facts = self.base_hash, seeds, how, sampler, precision
        exact = key_of((cond.states, null.states), facts, machine(self.device))
        return exact, None if prompts is None else key_of((), prompts, facts).hex()

    def _pipeline_for(
        self, overrides: SamplingOverrides
    ) -> StableDiffusionPipeline | StableDiffusionImg2ImgPipeline:
        """The pipeline itself, or one with DDIM for `overrides`: other schedulers take no eta."""
        if overrides is NO_OVERRIDES:
            return self.pipe
        kind = (
            StableDiffusionPipeline
            if overrides.pictures is None
            else StableDiffusionImg2ImgPipeline
        )
        scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config, clip_sample=False)
        if overrides.eta or self._own_eta:
            # At zero terminal SNR and eta 1 the first step takes the root of 0, which rounding
            # makes negative at some numbers of steps: NaN. Euler in diffusers has the same floor.
            scheduler.alphas_cumprod.clamp_(min=LEAST_SIGNAL)
        pipe = kind(
            **self.pipe.components | {"scheduler": scheduler}, requires_safety_checker=False
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        scaled = (latents / vae.config.scaling_factor + self._shift).to(vae.dtype)
        pieces = [vae.decode(part).sample.float().cpu() for part in scaled.split(self.chunk)]
        return self._finite(torch.cat(pieces)).clamp(-1, 1)

    def _finite(self, pictures: Tensor) -> Tensor:
        """`pictures` or latents of them, where all numbers are finite.

        Raises:
            NotFinite: some are not; as pixels they would be black.
        """
        if not pictures.isfinite().all():
            what = f"the pictures of the model {self.name} are not finite"
            raise NotFinite(what, "weights and adapters whose pictures are finite are accepted")
        return pictures

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        vae = self.pipe.vae
        parts = pictures.to(self.device, vae.dtype).split(self.chunk)
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in parts])
        return (latents.float() - self._shift) * vae.config.scaling_factor

    @property
    def _shift(self) -> float:
        """What the autoencoder's latents are shifted by."""
        return self.pipe.vae.config.get("shift_factor") or 0.0


def _in_float32(unet: nn.Module, arguments: tuple, output: Any) -> Any:
    """A hook that returns the output of `unet` in float32: schedulers draw their noise in its
    dtype, and before torch 2.13 other numbers in bfloat16.
    """
    sample = output[0].float()
    return (sample,) if isinstance(output, tuple) else type(output)(sample)


def latent_sides(unet: nn.Module) -> tuple[int, int]:
    """The height and the width of latents; configurations give one number for squares."""
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def use_plain_attention(unet: nn.Module, device: torch.device) -> None:
    """Use the plain attention product on CPUs and small grids, where it is quicker than the fused
    one.
    """
    if device.type == "cpu" and max(latent_sides(unet)) <= SMALL_SIDE:
        unet.set_attn_processor(AttnProcessor())
