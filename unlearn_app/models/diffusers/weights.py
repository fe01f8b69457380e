"""Base weights of a network under its LoRA layers: read as one dense set, replaced, and restored
bit for bit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..lora import update_of
from ..protocols import Params


def base_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that belongs to no adapter, by name."""
    return {name: weight for name, weight in network.named_parameters() if ".lora_" not in name}


def updates(network: nn.Module, slot: str, params: Mapping[str, Tensor] | None = None) -> Params:
    """The update of `slot` by the name of the base weight it adds to, differentiable in its
    factors.

    `params` replaces factors by name.
    """
    found = {}
    for name, layer in network.named_modules():
        if slot in getattr(layer, "lora_A", {}):
            a, b = (
                (params or {}).get(
                    f"{name}.{part}.{slot}.weight", getattr(layer, part)[slot].weight
                )
                for part in ("lora_A", "lora_B")
            )
            shape = layer.base_layer.weight.shape
            found[f"{name}.base_layer.weight"] = layer.scaling[slot] * update_of((a, b)).view(shape)
    return found


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision widened; float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@contextmanager
def swapped_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other values into base weights by name, and restore the original tensors afterwards."""
    own = base_weights(network)
    before = {name: own[name].data for name in weights}
    try:
        for name, weight in weights.items():
            own[name].data = weight.detach()
        yield
    finally:
        for name, weight in before.items():
            own[name].data = weight


@contextmanager
def with_gradients(parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Let frozen parameters have gradients for a while."""
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None
