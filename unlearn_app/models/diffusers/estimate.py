"""What a training step of a denoiser costs, from its configuration alone."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from ..conditioning import Conditioning
from ..memory import Cost, cost_of
from .adapters import AdaptedNetwork, base_weights
from .unet import LAYERS

WORDS = {"UNet2DConditionModel": 77, "SD3Transformer2DModel": 333, "FluxTransformer2DModel": 512}
"""How many text states each kind of denoiser reads with its pipeline's defaults: those of CLIP, of
CLIP and 256 of T5, and 512 of T5.
"""


def denoiser_without_numbers(config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """The denoiser of a configuration of diffusers, on the meta device."""
    kind = getattr(diffusers, config["_class_name"])
    with torch.device("meta"):
        network = kind.from_config({k: v for k, v in config.items() if k[:2] != "_d"})
    return network.to("meta", dtype)


def inputs_of(
    network: nn.Module, rows: int, height: int, width: int, device: str = "meta"
) -> dict[str, Any]:
    """Inputs of a denoiser of diffusers for latents (rows, C, height, width)."""
    config, dtype = network.config, network.dtype

    def made(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    kind = config["_class_name"] if "_class_name" in config else type(network).__name__
    words, t = WORDS[kind], made(rows, dtype=torch.float32)
    if kind == "UNet2DConditionModel":
        latents = made(rows, config.in_channels, height, width)
        inputs = {"sample": latents, "timestep": t}
        inputs["encoder_hidden_states"] = made(rows, words, config.cross_attention_dim)
        if config.addition_embed_type == "text_time":
            pooled = config.projection_class_embeddings_input_dim
            pooled -= 6 * config.addition_time_embed_dim
            added = {"text_embeds": made(rows, pooled), "time_ids": made(rows, 6)}
            inputs["added_cond_kwargs"] = added
        return inputs
    inputs = {
        "timestep": t,
        "encoder_hidden_states": made(rows, words, config.joint_attention_dim),
        "pooled_projections": made(rows, config.pooled_projection_dim),
    }
    if kind == "SD3Transformer2DModel":
        return inputs | {"hidden_states": made(rows, config.in_channels, height, width)}
    patches = height * width // 4
    inputs["hidden_states"] = made(rows, patches, config.in_channels)
    inputs |= {"img_ids": made(patches, 3), "txt_ids": made(words, 3)}
    return inputs | ({"guidance": made(rows)} if config.guidance_embeds else {})


class Sketch(AdaptedNetwork):
    """A denoiser without numbers under an adapter, of which nothing but its cost is asked."""

    parameterization: Any = None

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning, params: Any = None) -> Tensor:
        raise NotImplementedError


def step_cost(
    network: nn.Module, rows: int, height: int, width: int, trained: list[Tensor]
) -> Cost:
    """The cost of a prediction for `rows` latents and its gradient in `trained`."""
    inputs = inputs_of(network, rows, height, width)

    def work() -> tuple[Tensor, ...]:
        loss = network(**inputs, return_dict=False)[0].float().square().mean()
        return torch.autograd.grad(loss, trained, materialize_grads=True)

    return cost_of(work, [*network.parameters(), *network.buffers(), *trained])


def sketched(config: Mapping[str, Any], dtype: torch.dtype, rank: int, modules: str) -> Sketch:
    """The denoiser of a configuration with an adapter in the `unlearn` slot."""
    sketch = Sketch(denoiser_without_numbers(config, dtype), "", LAYERS)
    sketch.reset_adapter("unlearn", rank, float(rank), 0, modules)
    return sketch


def count(network: nn.Module) -> int:
    """The number of weights without adapters."""
    return sum(weight.numel() for weight in base_weights(network).values())
