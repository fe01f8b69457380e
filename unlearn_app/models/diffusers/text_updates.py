"""Adapters of text encoders: they are only used, never trained, so their updates are added to the
weights while a slot is in use.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..lora import layer_factors, update_of
from ..protocols import Params, Slot


class TextUpdates:
    """The adapters of both slots over the text encoders of a pipeline, by the pipeline's names for
    these; the weights are the originals bit for bit while none is in use.
    """

    def __init__(self, encoders: Mapping[str, nn.Module]) -> None:
        self._encoders = encoders
        self._states: dict[Slot, Params] = {}
        self._originals: dict[nn.Parameter, Tensor] = {}
        self._used: frozenset[Slot] = frozenset()

    def layers(self) -> dict[str, list[str]]:
        """The layers of each encoder that may carry an adapter."""
        return {
            encoder: [n for n, inner in module.named_modules() if isinstance(inner, nn.Linear)]
            for encoder, module in self._encoders.items()
        }

    def weight(self, layer: str) -> nn.Parameter:
        """The weight of a layer, which an adapter names with its encoder before it."""
        encoder, _, name = layer.partition(".")
        return self._encoders[encoder].get_submodule(name).weight

    def put(self, slot: Slot, state: Params) -> None:
        """Replace what `slot` holds; it is not in use before the next `use`."""
        self.drop(slot)
        if state:
            self._states[slot] = state

    def drop(self, slot: Slot) -> None:
        """Empty `slot`."""
        if slot in self._states:
            self.use(self._used - {slot})
            del self._states[slot]

    def state(self, slot: Slot) -> Params:
        """What `slot` holds."""
        return dict(self._states.get(slot, {}))

    @torch.no_grad()
    def use(self, slots: Iterable[Slot]) -> None:
        """Add the updates of exactly these slots to the original weights."""
        used = frozenset(slots) & self._states.keys()
        if used == self._used:
            return
        for weight, original in self._originals.items():
            weight.data = original
        self._originals, self._used = {}, used
        for slot in sorted(used):
            for layer, factors in layer_factors(self._states[slot]).items():
                weight = self.weight(layer)
                self._originals.setdefault(weight, weight.data)
                a, b = (factor.to(weight.device, torch.float32) for factor in factors)
                update = update_of((a, b)).view(weight.shape)
                weight.data = (weight.float() + update).to(weight.dtype)
