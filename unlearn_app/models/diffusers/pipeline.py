"""A diffusers pipeline as a `Model`, with its denoiser under two LoRA slots: what all families
share.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ...common.errors import ModelError, NotFinite, ShouldStop, never
from ...common.seeds import generator
from ..conditioning import Conditioning
from ..device import choose_device, fits_bfloat16, machine
from ..latent_store import Store, key_of, user_store
from ..parameterization import Parameterization, parameterization_of
from ..protocols import NO_OVERRIDES, Params, Sampler, SamplingOverrides, TextEncoder
from ..sizes import sides_at
from .adapters import AdaptedNetwork, at_least_float32
from .cast_weights import CastWeights
from .checkpointing import not_checkpointed
from .layer_names import TEXT_PREFIXES
from .sampling import StochasticFlow, run_pipeline

CHUNK = 18
TILED = 1024
"""Pixels of a side above which an autoencoder on a card works on tiles."""
TRIED_SIDE = 8
"""The largest side, in latent pixels, of the picture that `try_out` makes."""


class PipelineModel(AdaptedNetwork, TextEncoder, Sampler):
    """A diffusers pipeline as a `Model`; a family is a subclass that says what it loads and how its
    denoiser is called.

    `null`, the conditioning of the empty prompt, is what the family's pipeline guides away from.
    """

    pipeline: ClassVar[Any]
    """The class of the family's pipelines."""
    image_pipeline: ClassVar[Any]
    """The class of those that begin with a picture."""
    parts: ClassVar[Mapping[str, Any]]
    """The class of each part with weights; those in `optional` may be absent."""
    optional: ClassVar[tuple[str, ...]] = ()
    unused: ClassVar[Mapping[str, Any]] = {"feature_extractor": None, "image_encoder": None}
    """Arguments of the pipelines without which they load parts that are not used here."""
    denoiser: ClassVar[str]
    layers: ClassVar[Mapping[str, str]]
    """The row of `layers` for the denoiser."""

    def __init__(self, pipe: Any, name: str, base_hash: str) -> None:
        texts = {part: pipe.components[part] for part in TEXT_PREFIXES if pipe.components.get(part)}
        super().__init__(getattr(pipe, self.denoiser), name, self.layers, texts)
        self.device = choose_device()
        self.base_hash = base_hash
        self.store: Store | None = user_store()
        self.chunk = CHUNK
        self.planned = False
        """Whether `chunk` is for pictures of the run's resolution, not of the model's own size."""
        self.scheduler = type(pipe.scheduler).__name__
        pipe.set_progress_bar_config(disable=True)
        self.pipe = pipe.to(self.device)
        self.parameterization = self._learned()
        self.latent_shape = self._latent_shape()
        self.enlarged = self.pipe.vae_scale_factor
        self._check_sides()
        for part in self._weighted().values():
            part.requires_grad_(False).eval()
        self.mixes = self.network.dtype == torch.float32 and fits_bfloat16(self.device)
        """Whether float32 weights are computed with in bfloat16."""
        self._cast = CastWeights(self.network)
        if self.mixes:
            self.network.register_forward_hook(_in_float32)

    @property
    @abstractmethod
    def multiple(self) -> int:
        """What the sides of latents must be multiples of."""

    @abstractmethod
    def _latent_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of latents of the size that the model is made for."""

    @abstractmethod
    def denoised(
        self, network: Callable[..., Any], x_t: Tensor, t: Tensor, cond: Conditioning
    ) -> Tensor:
        """The prediction (B, C, H, W) of the denoiser, called through `network`, in the dtype of
        `x_t`.
        """

    def _learned(self) -> Parameterization:
        """What the denoiser is trained to predict, and at which timesteps."""
        return parameterization_of(self.pipe.scheduler, self.device)

    def arguments(
        self, cond: Conditioning, null: Conditioning, overrides: SamplingOverrides
    ) -> dict[str, Any]:
        """What the pipeline of `overrides` is told of prompts and size; `null` is one row."""
        _, height, width = self.latent_shape
        scale = self.pipe.vae_scale_factor
        told = {
            "prompt_embeds": cond.states,
            "negative_prompt_embeds": null.states.expand_as(cond.states),
            "height": height * scale,
            "width": width * scale,
        }
        if cond.pooled is not None:
            told["pooled_prompt_embeds"] = cond.pooled
            told["negative_pooled_prompt_embeds"] = null.pooled.expand_as(cond.pooled)
        return told

    def packed(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) as the family's pipeline holds them."""
        return latents

    def unpacked(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) of what `packed` returns."""
        return latents

    def _weighted(self) -> dict[str, nn.Module]:
        """The parts of the pipeline that have weights, by name."""
        parts = {name: getattr(self.pipe, name) for name in self.parts}
        return {name: part for name, part in parts.items() if part is not None}

    def _check_sides(self) -> None:
        """Refuse sizes that the family's pipelines would change or fail at.

        Raises:
            ModelError: naming the size.
        """
        sides = self.latent_shape[1:]
        if any(side % self.multiple for side in sides):
            height, width = (side * self.pipe.vae_scale_factor for side in sides)
            raise ModelError(
                f"The model {self.name} makes pictures of {width} x {height} pixels; multiples of"
                f" {self.multiple * self.pipe.vae_scale_factor} are accepted."
            )

    @torch.no_grad()
    def try_out(self) -> None:
        """Make a small picture in two steps, so that a model that cannot is refused on loading.

        Raises:
            ModelError: weights are not finite.
            NotFinite: the picture is not finite.
            Exception: of any kind, from the libraries, for sizes that do not fit.
        """
        for part, network in self._weighted().items():
            for name, weight in network.named_parameters():
                if not torch.stack(weight.aminmax()).isfinite().all():  # quicker than isfinite
                    raise ModelError(
                        f"The model {self.name} holds numbers that are not finite, in {name} of its"
                        f" {part}; finite weights are accepted."
                    )
        height, width = (min(side, TRIED_SIDE) for side in self.latent_shape[1:])
        scale = self.enlarged
        with self._of_size((width * scale, height * scale)):
            cond = self.encode_text([""])
            zeros = torch.zeros(1, *self.latent_shape).to(cond.states)
            with self._mixed():
                latents = self.pipe(
                    **self.arguments(cond, cond, NO_OVERRIDES),
                    num_inference_steps=2,
                    guidance_scale=1.0,
                    generator=generator(0),
                    latents=self.packed(zeros),
                    output_type="latent",
                ).images
            self.decode(self.unpacked(latents))

    @contextmanager
    def of_resolution(self, pixels: int) -> Iterator[None]:
        if not pixels:
            yield
            return
        height, width = sides_at(self.latent_shape[1:], pixels, self.multiple, self.enlarged)
        with self._of_size((width * self.enlarged, height * self.enlarged)):
            yield

    @contextmanager
    def _of_size(self, size: tuple[int, int]) -> Iterator[None]:
        """A context in which pictures have this width and height in pixels.

        Raises:
            ModelError: the family's pipelines cannot make such pictures.
        """
        own, scale = self.latent_shape, self.enlarged
        if any(side % scale for side in size):
            raise ModelError(
                f"The size for the model {self.name} is {size[0]} x {size[1]}; multiples of"
                f" {scale} are accepted."
            )
        width, height = (side // scale for side in size)
        self.latent_shape = own[0], height, width
        try:
            self._check_sides()
            yield
        finally:
            self.latent_shape = own

    def predict(
        self, x_t: Tensor, t: Tensor, cond: Conditioning, params: Params | None = None
    ) -> Tensor:
        dense = params and not any(".lora_" in name for name in params)
        weights = iter(params.values()) if dense else self.network.parameters()
        dtype = next(weights).dtype  # the network's own property walks through all of it

        def replaced(*inputs: Any, **named: Any) -> Any:
            return torch.func.functional_call(self.network, params, inputs, named)

        network = replaced if params else self.network
        with self._mixed(), not_checkpointed(self.network) if params else nullcontext():
            return at_least_float32(self.denoised(network, x_t.to(dtype), t, cond))

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
        size: tuple[int, int] | None = None,
        negative: str = "",
    ) -> Tensor:
        cond = prompts if isinstance(prompts, Conditioning) else self.encode_text(prompts)
        null = self.encode_text([negative])
        pipe = self._pipeline_for(overrides)
        plain = overrides is NO_OVERRIDES and not size and not negative
        store = self.store if plain and self.is_original else None
        if overrides.eta is None:
            overrides = replace(overrides, eta=self._own_eta)
        texts = None if isinstance(prompts, Conditioning) else tuple(prompts)
        how = {"steps": steps, "guidance_scale": guidance_scale}
        latents, numbers = [], math.prod(self.latent_shape)
        with self._of_size(size) if size else nullcontext():
            chunk = self._chunk(numbers, math.prod(self.latent_shape))
            for start in range(0, len(cond), chunk):
                rows = slice(start, start + chunk)
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
        pipe: Any,
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
                self, pipe, cond, null, seeds, overrides=overrides, original=original, **how
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
        facts = self.base_hash, seeds, how, sampler, precision, *self._family_facts()
        exact = key_of((*cond.tensors(), *null.tensors()), facts, machine(self.device))
        return exact, None if prompts is None else key_of((), prompts, facts).hex()

    def _family_facts(self) -> tuple[Any, ...]:
        """What else decides about the latents of a batch, as JSON values."""
        return type(self).__name__, list(self.latent_shape)

    def _pipeline_for(self, overrides: SamplingOverrides) -> Any:
        """The pipeline itself, or one for `overrides`, whose scheduler takes an eta."""
        if overrides is NO_OVERRIDES:
            return self.pipe
        kind = self.pipeline if overrides.pictures is None else self.image_pipeline
        parts = self.pipe.components | {"scheduler": self._stochastic_scheduler(overrides)}
        pipe = kind(**self.unused | parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _stochastic_scheduler(self, overrides: SamplingOverrides) -> Any:
        """A scheduler of the model's own noise that adds the share of fresh noise asked for."""
        return StochasticFlow.from_config(self.pipe.scheduler.config)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self._autoencoder(max(latents.shape[2:]) * self.enlarged)
        scaled = (latents / vae.config.scaling_factor + self._shift).to(vae.dtype)
        chunk = self._chunk(math.prod(self.latent_shape), latents[0].numel())
        pieces = [vae.decode(part).sample.float().cpu() for part in scaled.split(chunk)]
        return self._finite(torch.cat(pieces)).clamp(-1, 1)

    def _chunk(self, own: int, numbers: int) -> int:
        """How many pictures with `numbers` in their latents take about the memory of `chunk` with
        the usual count: the run's `own`, or the model's where nothing is planned.
        """
        usual = own if self.planned else math.prod(self._latent_shape())
        return min(self.chunk, max(1, self.chunk * usual // numbers))

    def _autoencoder(self, side: int) -> Any:
        """The autoencoder, which on a card works on tiles of pictures with that longer side in
        pixels.
        """
        if self.device.type != "cpu":
            self.pipe.vae.use_tiling = side > TILED
        return self.pipe.vae

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
        height, width = pictures.shape[2:]
        vae, own = self._autoencoder(max(height, width)), math.prod(self.latent_shape)
        numbers = self.latent_shape[0] * height * width // self.enlarged**2
        parts = pictures.to(vae.device, vae.dtype).split(self._chunk(own, numbers))
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in parts])
        return (latents.float() - self._shift) * vae.config.scaling_factor

    @property
    def _shift(self) -> float:
        """What the autoencoder's latents are around, beside their scaling factor."""
        return self.pipe.vae.config.get("shift_factor") or 0.0


def _in_float32(network: nn.Module, arguments: tuple, output: Any) -> Any:
    """A hook that returns the output of `network` in float32: schedulers draw their noise in its
    dtype, and before torch 2.13 other numbers in bfloat16.
    """
    sample = output[0].float()
    return (sample,) if isinstance(output, tuple) else type(output)(sample)
