"""The weights of a network that belong to no adapter."""

from torch import nn


def without_adapter(name: str) -> str:
    """The name that a weight has where no adapter is on its layer."""
    return name.replace(".base_layer.", ".")


def base_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that belongs to no adapter, by name."""
    return {name: weight for name, weight in network.named_parameters() if ".lora_" not in name}


def plain_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that belongs to no adapter, by the name that it has without adapters."""
    return {without_adapter(name): weight for name, weight in base_weights(network).items()}
