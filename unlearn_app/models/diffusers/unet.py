"""A Stable Diffusion 1.x pipeline as a `Backend`, with its UNet under two LoRA slots."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from ...common.errors import ModelError
from ...common.seeds import generator
from ..device import choose_device, fits_bfloat16
from ..protocols import NO_OVERRIDES, Params, SamplingOverrides, Slot, in_chunks
from .sampling import run_pipeline
from .text import TextSide
from .weights import (
    at_least_float32,
    base_weights,
    dense_weights,
    swapped_weights,
    updates,
    with_gradients,
)

TARGET_MODULES = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
    "proj_in",
    "proj_out",
)
LAYERS = {
    "all": "",
    "cross": r"\.attn2\.",
    "keys_values": r"\.attn2\.to_[kv]$",
    "not_cross": r"^(?!.*\.attn2\.)",
}
CHUNK, SMALL_SIDE = 18, 16


class DiffusersBackend(TextSide):
    """A Stable Diffusion 1.x pipeline behind the `Backend` protocol (see there for each method)."""

    def __init__(self, pipe: StableDiffusionPipeline, name: str, base_hash: str) -> None:
        self.device = choose_device()
        pipe.set_progress_bar_config(disable=True)
        self.pipe = pipe.to(self.device)
        self.unet: nn.Module = pipe.unet
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False).eval()
        self.name, self.base_hash = name, base_hash
        self.timesteps = int(pipe.scheduler.config.num_train_timesteps)
        side = int(pipe.unet.config.sample_size)
        self.latent_shape = (int(pipe.unet.config.in_channels), side, side)
        self._autocast = pipe.unet.dtype == torch.float32 and fits_bfloat16(self.device)
        use_plain_attention(pipe.unet, self.device)
        self._alphas_cumprod = pipe.scheduler.alphas_cumprod.to(self.device, torch.float32)
        self._configs: dict[Slot, LoraConfig] = {}
        self._active: tuple[Slot, ...] = ()
        self._trained: Slot | None = None

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self._alphas_cumprod[t].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._levels(t)
        return signal * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._levels(t)
        return (
            noise
            if self.pipe.scheduler.config.prediction_type == "epsilon"
            else signal * noise - sigma * x0
        )

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor, params: Params | None = None) -> Tensor:
        dense = params is not None and not any(".lora_" in name for name in params)
        dtype = next(iter(params.values())).dtype if dense else self.unet.dtype
        arguments = (x_t.to(dtype), t, cond.to(dtype))
        with self._mixed():
            return at_least_float32(
                torch.func.functional_call(self.unet, params or {}, arguments).sample
            )

    def _mixed(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast)

    @torch.no_grad()
    def frozen(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        with self.active():
            return self.predict(x_t, t, cond)

    def cross_weights(self) -> Params:
        bases = {name.removesuffix(".base_layer"): part for name, part in self.unet.named_modules()}
        return {
            n: p.weight.detach()
            for n, p in bases.items()
            if n.endswith((".attn2.to_k", ".attn2.to_v"))
        }

    def reset_adapter(
        self, slot: Slot, rank: int, alpha: float, seed: int, modules: str = "all"
    ) -> Params:
        self._add(
            slot,
            rank,
            alpha,
            [name for name in self._targets() if re.search(LAYERS[modules], name)],
        )
        source = generator(seed)
        for name, tensor in self._params(slot).items():
            fresh = torch.zeros(tensor.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(fresh, a=5**0.5, generator=source)
            tensor.data.copy_(fresh)
        return self._params(slot)

    def _targets(self) -> list[str]:
        names = dict.fromkeys(
            name.removesuffix(".base_layer") for name, _ in self.unet.named_modules()
        )
        return [
            name
            for name in names
            if name.endswith(tuple(f".{target}" for target in TARGET_MODULES))
        ]

    def _add(self, slot: Slot, rank: int, alpha: float, layers: list[str]) -> None:
        if slot in self._configs:
            self.unet.delete_adapters(slot)
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=layers, init_lora_weights=False
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            self.unet.add_adapter(config, adapter_name=slot)
        for tensor in self._params(slot).values():
            tensor.data = tensor.data.float()
        self._configs[slot] = config
        self._apply()

    def _params(self, slot: Slot) -> Params:
        return {
            name: p
            for name, p in self.unet.named_parameters()
            if f".{slot}." in name and ".lora_" in name
        }

    def drop_adapters(self) -> None:
        for slot in tuple(self._configs):
            self.unet.delete_adapters(slot)
            del self._configs[slot]

    def adapter_state(self, slot: Slot) -> Params:
        """The factors with the LoRA scale folded into B, so that the file needs no alpha beside
        it.
        """
        config = self._configs[slot]
        scale = config.lora_alpha / config.r
        state = get_peft_model_state_dict(self.unet, adapter_name=slot)
        return {
            k: (v * scale if "lora_B" in k else v).detach().cpu().clone() for k, v in state.items()
        }

    def load_adapter(self, slot: Slot, state: Params) -> None:
        """Put a state of `adapter_state` into `slot`.

        Raises:
            ModelError: its tensors do not fit this model.
        """
        ranks = {tensor.shape[0] for name, tensor in state.items() if "lora_A" in name}
        if len(ranks) != 1:
            raise ModelError(
                f"The adapter has factors of ranks {sorted(ranks)}; one LoRA rank is accepted."
            )
        rank, layers = (
            ranks.pop(),
            list(dict.fromkeys(name.partition(".lora_")[0] for name in state)),
        )
        strange = ModelError(
            f"The adapter does not fit the model {self.name}: it was made for other layers."
        )
        if not set(layers) <= set(self._targets()):
            raise strange
        self._add(slot, rank, float(rank), layers)
        expected = get_peft_model_state_dict(self.unet, adapter_name=slot)
        shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
        if shapes != {name: tuple(tensor.shape) for name, tensor in state.items()}:
            raise strange
        set_peft_model_state_dict(self.unet, state, adapter_name=slot)
        self._apply()

    @property
    def _layers(self) -> list[BaseTunerLayer]:
        return [module for module in self.unet.modules() if isinstance(module, BaseTunerLayer)]

    def _apply(self) -> None:
        """Make `_active` and `_trained` true of every layer; peft flips requires_grad on each
        switch.
        """
        for layer in self._layers:
            layer.enable_adapters(bool(self._active))
            layer.set_adapter(list(self._active), inference_mode=True)
        for slot in self._configs:
            for tensor in self._params(slot).values():
                tensor.requires_grad_(slot == self._trained)

    @contextmanager
    def _switched(self, active: tuple[Slot, ...], trained: Slot | None) -> Iterator[None]:
        before = self._active, self._trained
        self._active, self._trained = active, trained
        self._apply()
        try:
            yield
        finally:
            self._active, self._trained = before
            self._apply()

    @contextmanager
    def active(self, *slots: Slot) -> Iterator[None]:
        with self._switched(tuple(slots), self._trained):
            yield

    @contextmanager
    def training(self, slot: Slot) -> Iterator[Params]:
        with self._switched((slot,), slot):
            yield self._params(slot)

    @contextmanager
    def base_weight_grads(self, slot: Slot) -> Iterator[Params]:
        own, factors = (
            base_weights(self.unet),
            [name for name in self._params(slot) if ".lora_B." in name],
        )
        probed = {
            name: own[f"{name.partition('.lora_B.')[0]}.base_layer.weight"] for name in factors
        }
        with with_gradients(probed):
            yield probed

    def weights(self, slot: Slot | None = None, params: Params | None = None) -> Params:
        return dense_weights(self.unet, slot, params)

    @contextmanager
    def merged(self, slot: Slot) -> Iterator[None]:
        own = base_weights(self.unet)
        with torch.no_grad():
            sums = {
                n: (at_least_float32(own[n]) + u).to(own[n].dtype)
                for n, u in updates(self.unet, slot).items()
            }
        with swapped_weights(self.unet, sums):
            yield

    @contextmanager
    def trainable_base_weights(self, slot: Slot | None = None) -> Iterator[Params]:
        copies = {name: weight.detach().clone() for name, weight in self.weights(slot).items()}
        with (
            self._switched((), None),
            swapped_weights(self.unet, copies),
            with_gradients(base_weights(self.unet)),
        ):
            yield base_weights(self.unet)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str] | Tensor,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        should_stop: Callable[[], bool] = lambda: False,
        overrides: SamplingOverrides = NO_OVERRIDES,
    ) -> Tensor:
        states = prompts if isinstance(prompts, Tensor) else self.encode_text(prompts)
        pipe, null, latents = self._painter(overrides), self.encode_text([""]), []
        how = {"steps": steps, "guidance_scale": guidance_scale, "should_stop": should_stop}
        for rows in in_chunks(len(states), CHUNK):
            with self._mixed(), ExitStack() as original:
                if overrides.original_steps:
                    original.enter_context(self.active())
                how |= {"overrides": overrides.rows(rows), "original": original}
                latents.append(run_pipeline(pipe, states[rows], null, seeds[rows], **how))
        return torch.cat(latents).float()

    def _painter(
        self, overrides: SamplingOverrides
    ) -> StableDiffusionPipeline | StableDiffusionImg2ImgPipeline:
        """The pipeline itself, or one with DDIM, because others know no eta."""
        if overrides is NO_OVERRIDES:
            return self.pipe
        kind = (
            StableDiffusionPipeline
            if overrides.pictures is None
            else StableDiffusionImg2ImgPipeline
        )
        scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config, clip_sample=False)
        pipe = kind(
            **self.pipe.components | {"scheduler": scheduler}, requires_safety_checker=False
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
        with self._mixed():
            pieces = [
                vae.decode(scaled[rows]).sample.float().cpu()
                for rows in in_chunks(len(latents), CHUNK)
            ]
        return torch.cat(pieces).clamp(-1, 1)

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        vae = self.pipe.vae
        moved = pictures.to(self.device, vae.dtype)
        pieces = [
            vae.encode(moved[rows]).latent_dist.mode() for rows in in_chunks(len(pictures), CHUNK)
        ]
        return torch.cat(pieces).float() * vae.config.scaling_factor


def use_plain_attention(unet: nn.Module, device: torch.device) -> None:
    """On CPUs and small grids the plain attention product is quicker than the fused one, by a
    quarter of a step.
    """
    if device.type == "cpu" and unet.config.sample_size <= SMALL_SIDE:
        unet.set_attn_processor(AttnProcessor())
