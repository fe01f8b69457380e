"""The names by which ComfyUI finds the layers of a denoiser in an adapter, counted as it does from
sizes alone: its key map is written down here anew, so that ours can be held against it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from .layer_names import flat

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
TRANSFORMER = (
    *(f"attn{n}.{part}" for n in (1, 2) for part in PROJECTIONS),
    "ff.net.0.proj",
    "ff.net.2",
)
RESNET = ("conv1", "conv2", "time_emb_proj", "conv_shortcut")
BASIC = (
    "conv_in",
    "conv_out",
    *(f"{place}_embedding.linear_{n}" for place in ("time", "add") for n in (1, 2)),
)
JOINT = (
    *(f"attn.{part}" for part in PROJECTIONS),
    *(f"attn2.{part}" for part in PROJECTIONS),
    *(f"attn.{part}" for part in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *(f"{stream}.net.{part}" for stream in ("ff", "ff_context") for part in ("0.proj", "2")),
    "norm1.linear",
    "norm1_context.linear",
)
SINGLE = (*(f"attn.{part}" for part in PROJECTIONS[:3]), "proj_mlp", "proj_out", "norm.linear")


def comfyui_keys(network: nn.Module) -> dict[str, str]:
    """What stands before `.lora_up.weight`, `.lora_B.weight` or `.diff` in files that ComfyUI reads
    for a denoiser, and the layer of diffusers that it patches.
    """
    keys = {}
    if type(network).__name__ != "UNet2DConditionModel":
        for layer in _transformer_layers(network.config):
            keys |= {f"transformer.{layer}": layer, f"lora_transformer_{flat(layer)}": layer}
        return keys
    for layer in unet_layers(network.config):
        keys[f"lora_unet_{flat(layer)}"] = layer
        processor = layer.replace(".to_", ".processor.to_")
        if processor.endswith(".to_out.0"):
            processor = processor.removesuffix(".0")
        keys |= {processor: layer, f"unet.{processor}": layer}
    return keys


def _transformer_layers(config: Any) -> Iterator[str]:
    """The layers of SD 3 or FLUX; SD 3 has no single blocks."""
    blocks = range(config.num_layers), range(config.get("num_single_layers") or 0)
    for kind, places, parts in zip(("", "single_"), blocks, (JOINT, SINGLE), strict=True):
        for place in places:
            yield from (f"{kind}transformer_blocks.{place}.{part}" for part in parts)


def unet_layers(config: Any) -> set[str]:
    """The layers of diffusers that ComfyUI knows in a UNet."""
    found = set(BASIC)
    levels = len(config.block_out_channels)
    depths, resnets = (
        _by_level(config.transformer_layers_per_block, levels),
        config.layers_per_block,
    )
    last = depths[-1]
    halves = (
        ("down", config.down_block_types, depths, resnets, "downsamplers"),
        ("up", config.up_block_types, depths[::-1], resnets + 1, "upsamplers"),
    )
    for half, kinds, depths_of_half, count, moved in halves:
        for level, (kind, depth) in enumerate(zip(kinds, depths_of_half, strict=True)):
            at = f"{half}_blocks.{level}"
            found |= {f"{at}.{moved}.0.conv"} | set(_resnets(at, range(count)))
            for place in range(count if "CrossAttn" in kind else 0):
                found |= set(_attention(f"{at}.attentions.{place}", depth))
    return found | {*_resnets("mid_block", range(2)), *_attention("mid_block.attentions.0", last)}


def _by_level(depth: int | Sequence[int], levels: int) -> list[int]:
    return [depth] * levels if isinstance(depth, int) else list(depth)


def _resnets(at: str, places: Iterable[int]) -> Iterator[str]:
    for place in places:
        yield from (f"{at}.resnets.{place}.{part}" for part in RESNET)


def _attention(at: str, depth: int) -> Iterator[str]:
    yield from (f"{at}.proj_in", f"{at}.proj_out")
    for block in range(depth):
        yield from (f"{at}.transformer_blocks.{block}.{part}" for part in TRANSFORMER)
