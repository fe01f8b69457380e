"""Frozen weights in bfloat16, cast once instead of in every forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class CastWeights:
    """What autocast makes of the weights of a network's linear and convolutional layers, kept.

    Autocast keeps only the casts of weights that are trained, so it casts frozen ones each time
    they are used. The numbers are the same to the bit. A weight that is changed in place through
    its `.data`, which autograd does not see either, is not cast again.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        self._places = [(layer, name) for layer in layers for name in layer._parameters]
        self._kept: dict[tuple[nn.Module, str], tuple[Tensor, int, Tensor]] = {}
        """By place the weights, their version, and the cast."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the casts in place of the float32 weights that are not trained.

        The layers hold other tensors then, so that a backward pass afterwards still finds what its
        forward pass used.
        """
        before = []
        try:
            for layer, name in self._places:
                own = layer._parameters[name]
                if own is not None and own.dtype == torch.float32 and not own.requires_grad:
                    before.append((layer, name, own))
                    layer._parameters[name] = self._cast(layer, name, own.detach())
            yield
        finally:
            for layer, name, own in before:
                layer._parameters[name] = own

    def _cast(self, layer: nn.Module, name: str, own: Tensor) -> Tensor:
        kept, version, cast = self._kept.get((layer, name), (None, 0, None))
        if kept is None or kept.data_ptr() != own.data_ptr() or version != own._version:
            with torch.inference_mode(False), torch.no_grad():
                cast = own.bfloat16()
            self._kept[layer, name] = own, own._version, cast
        return cast
