"""What a training step of a denoiser costs, from its configuration alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from ..memory import Cost, cost_of
from ..sizes import sides_at
from .adapters import AdaptedNetwork
from .layers import LAYERS
from .plain_weights import base_weights

WORDS = {"UNet2DConditionModel": 77, "SD3Transformer2DModel": 333, "FluxTransformer2DModel": 512}
"""How many text states each kind of denoiser reads with its pipeline's defaults: those of CLIP, of
CLIP and 256 of T5, and 512 of T5.
"""


def denoiser_of(config: Mapping[str, Any], dtype: torch.dtype, device: str = "meta") -> nn.Module:
    """The untrained denoiser of a configuration of diffusers, on meta without numbers."""
    return _made(getattr(diffusers, config["_class_name"]), config, dtype, device)


def autoencoder_of(
    config: Mapping[str, Any], dtype: torch.dtype, device: str = "meta"
) -> nn.Module:
    """The untrained autoencoder of a configuration of diffusers, on meta without numbers."""
    return _made(diffusers.AutoencoderKL, config, dtype, device)


def _made(kind: Any, config: Mapping[str, Any], dtype: torch.dtype, device: str) -> nn.Module:
    public = {name: value for name, value in config.items() if name[0] != "_"}  # no notes
    with torch.device(device):
        return kind.from_config(public).to(device, dtype)


def inputs_of(
    network: nn.Module, rows: int, height: int, width: int, device: str = "meta"
) -> dict[str, Any]:
    """Inputs of a denoiser of diffusers for latents (rows, C, height, width)."""
    config, dtype = network.config, next(network.parameters()).dtype

    def made(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    kind = type(network).__name__
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


@dataclass(frozen=True)
class Shape:
    """What a model takes: bytes of its denoiser and autoencoder that are `held` and of its `text`
    encoders, numbers of `weights` in the denoiser and of those that are `trained`.

    `kept` and `checkpointed` are the costs of a gradient for one picture, `picture` that of a
    guided prediction for one, `decoding` the bytes that the autoencoder takes for it.
    """

    itemsize: int
    held: int
    text: int
    weights: int
    trained: int
    kept: Cost
    checkpointed: Cost
    picture: Cost
    decoding: int


def measured(
    denoiser: Mapping[str, Any],
    vae: Mapping[str, Any],
    text: int,
    dtype: torch.dtype,
    unlearn: Any,
    resolution: int = 0,
) -> Shape:
    """What a model with the configurations of a `denoiser` and a `vae` takes that are held as
    `dtype`, with what `unlearn`, a group of settings, trains; `text` are the numbers in its text
    encoders. Pictures have `resolution` pixels along the longer side, 0 is the model's own.
    """
    network = denoiser_of(denoiser, dtype)
    sketch = AdaptedNetwork(network, "", LAYERS[type(network).__name__])
    full, rank = unlearn.weights == "full", unlearn.rank
    if full:
        made = sketch.reset_weights("unlearn", unlearn.modules)
    else:
        made = sketch.reset_adapter("unlearn", rank, float(rank), 0, unlearn.modules)
    trained = list(made.values())
    network, sides = sketch.network, sides_of(denoiser)
    enlarged = 2 ** (len(vae["block_out_channels"]) - 1)
    sides = sides_at(sides, resolution, enlarged=enlarged) if resolution else sides
    weights = sum(weight.numel() for weight in base_weights(network).values())
    with sketch.training("unlearn"):
        kept = step_cost(network, 1, *sides, trained)
        network.enable_gradient_checkpointing()
        checkpointed = step_cost(network, 1, *sides, trained)
    inputs = inputs_of(network, 2, *sides)  # of a picture and of the empty prompt
    given = [*network.parameters(), *network.buffers()]
    with torch.no_grad():
        picture = cost_of(lambda: network(**inputs, return_dict=False), given)
    own, decoding = decoding_cost(vae, *sides, dtype)
    size = dtype.itemsize
    copies = 4 * weights if full and size < 4 else 0  # a dense slot computes in float32
    held, count = size * (weights + own) + copies, sum(tensor.numel() for tensor in trained)
    return Shape(
        size, held, size * text, weights, count, kept, checkpointed, picture, decoding.peak
    )


def sides_of(denoiser: Mapping[str, Any]) -> tuple[int, int]:
    """The height and the width of latents; FLUX is made for pictures of 1024 px."""
    size = denoiser.get("sample_size") or 128
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def step_cost(
    network: nn.Module, rows: int, height: int, width: int, trained: Sequence[Tensor]
) -> Cost:
    """The cost of a prediction for `rows` latents and its gradient in `trained`."""
    inputs = inputs_of(network, rows, height, width)
    given = [*network.parameters(), *network.buffers(), *trained]
    return cost_of(lambda: gradient(network, inputs, trained), given)


def gradient(
    network: nn.Module, inputs: Mapping[str, Any], trained: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The gradient in `trained` of a loss of the prediction for `inputs`."""
    loss = network(**inputs, return_dict=False)[0].float().square().mean()
    return torch.autograd.grad(loss, trained, materialize_grads=True)


def decoding_cost(
    vae: Mapping[str, Any], height: int, width: int, dtype: torch.dtype
) -> tuple[int, Cost]:
    """The numbers of an autoencoder, and the cost of decoding the latents of one picture."""
    network = autoencoder_of(vae, dtype)
    own = list(network.parameters())
    cost = cost_of(lambda: decoded(network, height, width), own)
    return sum(weight.numel() for weight in own), cost


@torch.no_grad()
def decoded(network: nn.Module, height: int, width: int) -> Tensor:
    """The picture of latents of zeros."""
    some = next(network.parameters())
    latents = torch.zeros(
        1, network.config.latent_channels, height, width, dtype=some.dtype, device=some.device
    )
    return network.decode(latents).sample
