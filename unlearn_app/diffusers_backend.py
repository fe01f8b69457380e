"""The one file that imports diffusers and peft: Stable Diffusion 1.x pipelines as a `Backend`, and their parts."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from .backend import Params, Slot, choose_device, choose_dtype, fits_bfloat16, generator, in_chunks
from .errors import Cancelled, ModelError
from .model_folder import check_folder, hash_weights, looks_like_hub_id

TARGET_MODULES = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CHUNK = 18
SMALL_SIDE = 16


class DiffusersBackend:
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
        quicken(pipe.unet, self.device)
        self._alphas_cumprod = pipe.scheduler.alphas_cumprod.to(self.device, torch.float32)
        self._configs: dict[Slot, LoraConfig] = {}
        self._active: tuple[Slot, ...] = ()
        self._trained: Slot | None = None

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        states = self.pipe.encode_prompt(list(prompts), self.device, 1, do_classifier_free_guidance=False)[0]
        return states.detach()

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self._alphas_cumprod[t].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._levels(t)
        return signal * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._levels(t)
        return noise if self.pipe.scheduler.config.prediction_type == "epsilon" else signal * noise - sigma * x0

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor, params: Params | None = None) -> Tensor:
        arguments = (x_t.to(self.unet.dtype), t, cond.to(self.unet.dtype))
        with self._mixed():
            if params is None:
                return self.unet(*arguments).sample.float()
            return torch.func.functional_call(self.unet, params, arguments).sample.float()

    def _mixed(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast)

    @torch.no_grad()
    def frozen(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        with self.active():
            return self.predict(x_t, t, cond)

    def reset_adapter(self, slot: Slot, rank: int, alpha: float, seed: int) -> Params:
        self._add(slot, rank, alpha)
        source = generator(seed)
        for name, tensor in self._params(slot).items():
            fresh = torch.zeros(tensor.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(fresh, a=5**0.5, generator=source)
            tensor.data.copy_(fresh)
        return self._params(slot)

    def _add(self, slot: Slot, rank: int, alpha: float) -> None:
        if slot in self._configs:
            self.unet.delete_adapters(slot)
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGET_MODULES), init_lora_weights=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            self.unet.add_adapter(config, adapter_name=slot)
        for tensor in self._params(slot).values():
            tensor.data = tensor.data.float()
        self._configs[slot] = config
        self._apply()

    def _params(self, slot: Slot) -> Params:
        return {name: p for name, p in self.unet.named_parameters() if f".{slot}." in name and ".lora_" in name}

    def drop_adapters(self) -> None:
        for slot in tuple(self._configs):
            self.unet.delete_adapters(slot)
            del self._configs[slot]

    def adapter_state(self, slot: Slot) -> Params:
        """The factors with the LoRA scale folded into B, so that the file needs no alpha beside it."""
        config = self._configs[slot]
        scale = config.lora_alpha / config.r
        state = get_peft_model_state_dict(self.unet, adapter_name=slot)
        return {k: (v * scale if "lora_B" in k else v).detach().cpu().clone() for k, v in state.items()}

    def load_adapter(self, slot: Slot, state: Params) -> None:
        """Put a state of `adapter_state` into `slot`.

        Raises:
            ModelError: its tensors do not fit this model.
        """
        ranks = {tensor.shape[0] for name, tensor in state.items() if "lora_A" in name}
        if len(ranks) != 1:
            raise ModelError(f"The adapter has factors of ranks {sorted(ranks)}; one LoRA rank is accepted.")
        rank = ranks.pop()
        self._add(slot, rank, float(rank))
        expected = get_peft_model_state_dict(self.unet, adapter_name=slot)
        shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
        if shapes != {name: tuple(tensor.shape) for name, tensor in state.items()}:
            raise ModelError(f"The adapter does not fit the model {self.name}: it was made for other layers.")
        set_peft_model_state_dict(self.unet, state, adapter_name=slot)
        self._apply()

    @property
    def _layers(self) -> list[BaseTunerLayer]:
        return [module for module in self.unet.modules() if isinstance(module, BaseTunerLayer)]

    def _apply(self) -> None:
        """Make `_active` and `_trained` true of every layer; peft flips requires_grad on each switch."""
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
    def merged(self, slot: Slot) -> Iterator[None]:
        originals = [(layer.get_base_layer(), layer.get_base_layer().weight.data) for layer in self._layers]
        try:
            for layer, (base, weight) in zip(self._layers, originals, strict=True):
                base.weight.data = (weight.float() + layer.get_delta_weight(slot).detach().float()).to(weight.dtype)
            yield
        finally:
            for base, weight in originals:
                base.weight.data = weight

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        def check(pipe: StableDiffusionPipeline, step: int, t: int, state: dict) -> dict:
            if should_stop():
                raise Cancelled("The run was stopped.")
            return state

        states, null, latents = self.encode_text(prompts), self.encode_text([""]), []
        for rows in in_chunks(len(prompts), CHUNK):
            cond = states[rows]
            with self._mixed():
                painted = self.pipe(
                    prompt_embeds=cond,
                    negative_prompt_embeds=null.expand_as(cond),
                    num_inference_steps=steps,
                    guidance_scale=guidance_scale,
                    generator=[generator(seed) for seed in seeds[rows]],
                    output_type="latent",
                    callback_on_step_end=check,
                )
            latents.append(painted.images)
        return torch.cat(latents).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
        with self._mixed():
            pieces = [vae.decode(scaled[rows]).sample.float().cpu() for rows in in_chunks(len(latents), CHUNK)]
        return torch.cat(pieces).clamp(-1, 1)

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        vae = self.pipe.vae
        moved = pictures.to(self.device, vae.dtype)
        pieces = [vae.encode(moved[rows]).latent_dist.mode() for rows in in_chunks(len(pictures), CHUNK)]
        return torch.cat(pieces).float() * vae.config.scaling_factor


def load_pipeline(source: str | Path, name: str) -> DiffusersBackend:
    """A backend from a folder in Stable Diffusion 1.x format, or from a Hugging Face id.

    Raises:
        ModelError: it is missing, damaged, of another architecture, or holds pickles, which can run code.
    """
    folder = Path(source)
    if folder.is_dir():
        check_folder(folder)
    elif folder.exists() or not looks_like_hub_id(str(source)):
        raise ModelError(
            f"There is no model folder {str(source)!r}; pocket, a folder or an id like owner/name is accepted."
        )
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = StableDiffusionPipeline.from_pretrained(
                str(source),
                torch_dtype=choose_dtype(choose_device()),
                use_safetensors=True,
                safety_checker=None,
                requires_safety_checker=False,
                feature_extractor=None,
                image_encoder=None,
            )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        AttributeError,
        ImportError,
        SafetensorError,
    ) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise ModelError(f"The model {str(source)!r} cannot be loaded: {reason}") from error
    return DiffusersBackend(pipe, name, hash_weights(folder) if folder.is_dir() else str(source))


def new_part(name: Literal["unet", "vae", "scheduler"], **config: Any) -> Any:
    """An untrained part of a pipeline from its diffusers configuration."""
    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "scheduler": DDIMScheduler}
    return kinds[name](**config)


def quicken(unet: nn.Module, device: torch.device) -> None:
    """On CPUs and small grids the plain attention product is quicker than the fused one, by a quarter of a step."""
    if device.type == "cpu" and unet.config.sample_size <= SMALL_SIDE:
        unet.set_attn_processor(AttnProcessor())


def save_pipeline(
    folder: str | Path, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module, tokenizer: object, scheduler: object
) -> None:
    """Write a `StableDiffusionPipeline` folder in half precision, weight files cut into pieces of at most 14 MB."""
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(str(folder), safe_serialization=True, max_shard_size="14MB")
