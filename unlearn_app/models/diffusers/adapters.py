"""Two LoRA slots over any network, by peft, and its base weights: read with an update added,
replaced for a while, and restored bit for bit.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from ...common.errors import ModelError
from ...common.seeds import generator
from ..conditioning import Conditioning
from ..lora import scaled, update_of
from ..protocols import Adapters, Denoiser, Params, Slot
from ..replacement import Replacement
from .adapter_files import check_factors
from .replaced_parts import ReplacedParts, plain_weights


class AdaptedNetwork(Denoiser, Adapters):
    """`Adapters` over `network`, and a `Denoiser` whose `predict` a subclass adds.

    `layers` maps every value of `UnlearnConfig.modules` to a pattern of the names of the layers
    that carry an adapter; those of `keys_values` read text states.
    """

    pipe: Any
    """The pipeline around the network, whose parts another model may replace."""

    def __init__(self, network: nn.Module, name: str, layers: Mapping[str, str]) -> None:
        self.network = network.requires_grad_(False).eval()
        self.name = name
        self._patterns = layers
        self.network.peft_config = {}
        self._active: tuple[Slot, ...] = ()
        self._trained: Slot | None = None
        self._swaps = 0
        """How many `_swapped` contexts are open."""
        self._replaced: ReplacedParts | None = None
        """Another model in the slot `unlearn`, in the place of an adapter."""
        self._held = {"network": 0, "beside": 0}
        """How many contexts want which parts of it inside, whatever is active."""

    @property
    def is_original(self) -> bool:
        """Whether neither adapters nor other base weights are in use."""
        replaced = self._replaced is not None and self._replaced.inside
        return not self._active and not self._swaps and not replaced

    @torch.no_grad()
    def frozen(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        with self.active():
            return self.predict(x_t, t, cond)

    def cross_weights(self) -> Params:
        weights = self._layer_weights(self._targets("keys_values"))
        return {layer: weight.detach() for layer, weight in weights.items()}

    def reset_adapter(
        self, slot: Slot, rank: int, alpha: float, seed: int, modules: str = "all"
    ) -> Params:
        self._add(slot, rank, alpha, self._targets(modules))
        source = generator(seed)
        for name, tensor in self._params(slot).items():
            fresh = torch.zeros(tensor.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(fresh, a=5**0.5, generator=source)
            tensor.data.copy_(fresh)
        return self._params(slot)

    def _targets(self, modules: str) -> list[str]:
        """Names of the layers that `modules` stands for, as they are without adapters."""
        names = (name.removesuffix(".base_layer") for name, _ in self.network.named_modules())
        pattern = re.compile(self._patterns[modules])
        return [name for name in dict.fromkeys(names) if pattern.search(name)]

    def _layer_weights(self, layers: Iterable[str]) -> dict[str, nn.Parameter]:
        """The base weights of `layers`, with or without an adapter on them, by layer."""
        plain = plain_weights(self.network)
        return {layer: plain[f"{layer}.weight"] for layer in layers}

    def _add(self, slot: Slot, rank: int, alpha: float, layers: list[str]) -> None:
        self._drop(slot)
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=layers, init_lora_weights=False
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            inject_adapter_in_model(config, self.network, slot)
        for tensor in self._params(slot).values():
            tensor.data = tensor.data.float()
        self._apply()

    def _params(self, slot: Slot) -> Params:
        return {
            name: p
            for name, p in self.network.named_parameters()
            if f".{slot}." in name and ".lora_" in name
        }

    def drop_adapters(self) -> None:
        for slot in ("unlearn", *self.network.peft_config):
            self._drop(slot)

    @property
    def replacement(self) -> Replacement | None:
        return self._replaced.replacement if self._replaced else None

    def load_replacement(self, replacement: Replacement) -> None:
        self._drop("unlearn")
        self._replaced = ReplacedParts(self.pipe, self.network, replacement)
        self._put_replacement()

    def _put_replacement(self) -> None:
        """Put the other model's parts in, or take them out, as the state of this one asks."""
        if self._replaced:
            network = "unlearn" in self._active or self._held["network"] > 0
            self._replaced.put(network, network or self._held["beside"] > 0)

    @contextmanager
    def _holding(self, slot: Slot, what: str) -> Iterator[None]:
        """Use another model in `slot`, if there is one: its "network" too, or what is "beside" it
        alone.
        """
        held = self._replaced is not None and slot == "unlearn"
        self._held[what] += held
        self._put_replacement()
        try:
            yield
        finally:
            self._held[what] -= held
            self._put_replacement()

    @contextmanager
    def scaled(self, slot: Slot, factor: float) -> Iterator[None]:
        layers = [layer for layer in self._layers if slot in layer.scaling]
        replaced = self._replaced if slot == "unlearn" else None
        if not layers and not replaced:
            raise KeyError(slot)
        before = [layer.scaling[slot] for layer in layers]
        try:
            for layer, scale in zip(layers, before, strict=True):
                layer.scaling[slot] = factor * scale
            if replaced:
                self._replaced = replaced.scaled(factor)
                self._put_replacement()
            yield
        finally:
            for layer, scale in zip(layers, before, strict=True):
                layer.scaling[slot] = scale
            if replaced:
                self._replaced.put(False, False)
                self._replaced = replaced
                self._put_replacement()

    def _drop(self, slot: Slot) -> None:
        if slot == "unlearn" and self._replaced:
            self._replaced.put(False, False)
            self._replaced = None
        if self.network.peft_config.pop(slot, None):
            for layer in self._layers:
                layer.delete_adapter(slot)

    def adapter_state(self, slot: Slot) -> Params:
        config = self.network.peft_config[slot]
        # The LoRA scale is folded into B, so that the file needs no alpha.
        state = get_peft_model_state_dict(self.network, adapter_name=slot)
        unscaled = scaled(state, config.lora_alpha / config.r)
        return {name: tensor.detach().cpu().clone() for name, tensor in unscaled.items()}

    def load_adapter(self, slot: Slot, state: Params) -> None:
        check_factors(state, "The adapter")
        ranks = {tensor.shape[0] for name, tensor in state.items() if ".lora_A." in name}
        if len(ranks) != 1:
            raise ModelError(
                f"The adapter has factors of ranks {sorted(ranks)}; one LoRA rank is accepted."
            )
        rank = ranks.pop()
        layers = list(dict.fromkeys(name.partition(".lora_")[0] for name in state))
        shapes = {}
        for layer, weight in self._layer_weights({*layers} & {*self._targets("all")}).items():
            shapes[f"{layer}.lora_A.weight"] = (rank, *weight.shape[1:])
            shapes[f"{layer}.lora_B.weight"] = (len(weight), rank, *(1 for _ in weight.shape[2:]))
        if shapes != {name: tuple(tensor.shape) for name, tensor in state.items()}:
            raise ModelError(
                f"The adapter does not fit the model {self.name}: it was made for other layers."
            )
        self._add(slot, rank, float(rank), layers)
        set_peft_model_state_dict(self.network, state, adapter_name=slot)

    @property
    def _layers(self) -> list[BaseTunerLayer]:
        return [module for module in self.network.modules() if isinstance(module, BaseTunerLayer)]

    def _apply(self) -> None:
        """Apply `_active` and `_trained` to every layer; peft changes requires_grad on each
        switch.
        """
        for layer in self._layers:
            layer.enable_adapters(bool(self._active))
            layer.set_adapter(list(self._active), inference_mode=True)
        for slot in self.network.peft_config:
            for tensor in self._params(slot).values():
                tensor.requires_grad_(slot == self._trained)
        self._put_replacement()

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
        with self._switched(slots, self._trained):
            yield

    @contextmanager
    def training(self, slot: Slot) -> Iterator[Params]:
        with self._switched((slot,), slot):
            yield self._params(slot)

    @contextmanager
    def base_weight_grads(self, slot: Slot) -> Iterator[Params]:
        suffix = f".lora_B.{slot}.weight"
        layers = [n.removesuffix(suffix) for n in self._params(slot) if n.endswith(suffix)]
        dense = {layer + suffix: w for layer, w in self._layer_weights(layers).items()}
        with with_gradients(dense):
            yield dense

    def weights(self, slot: Slot | None = None, params: Params | None = None) -> Params:
        own = base_weights(self.network)
        if self._replaced and slot == "unlearn":
            new = self._replaced.of_network()
            own = {n: new.get(n.replace(".base_layer.", "."), w) for n, w in own.items()}
        weights = {name: at_least_float32(weight) for name, weight in own.items()}
        for name, update in (self._updates(slot, params or {}) if slot else {}).items():
            weights[name] = weights[name] + update
        return weights

    def _updates(self, slot: Slot, params: Params) -> Params:
        """The update of `slot` by the name of the base weight it adds to, differentiable in its
        factors, of which `params` replaces some by name.
        """
        found = {}
        for name, layer in self.network.named_modules():
            if slot in getattr(layer, "lora_A", {}):
                a, b = (
                    params.get(f"{name}.{part}.{slot}.weight", getattr(layer, part)[slot].weight)
                    for part in ("lora_A", "lora_B")
                )
                update = layer.scaling[slot] * update_of((a, b))
                found[f"{name}.base_layer.weight"] = update.view(layer.base_layer.weight.shape)
        return found

    @contextmanager
    def merged(self, slot: Slot) -> Iterator[None]:
        own = base_weights(self.network)
        with torch.no_grad():
            sums = {
                n: (at_least_float32(own[n]) + u).to(own[n].dtype)
                for n, u in self._updates(slot, {}).items()
            }
        with self._holding(slot, "network"), self._swapped(sums):
            yield

    @contextmanager
    def _swapped(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Put other values into base weights by name, and restore the original tensors
        afterwards.
        """
        own = base_weights(self.network)
        before = {name: own[name].data for name in weights}
        self._swaps += 1
        try:
            for name, weight in weights.items():
                own[name].data = weight.detach()
            yield
        finally:
            for name, weight in before.items():
                own[name].data = weight
            self._swaps -= 1

    @contextmanager
    def trainable_base_weights(self, slot: Slot) -> Iterator[Params]:
        copies = {name: weight.detach().clone() for name, weight in self.weights(slot).items()}
        with (
            self._switched((), None),
            self._holding(slot, "beside"),
            self._swapped(copies),
            with_gradients(base_weights(self.network)),
        ):
            yield base_weights(self.network)


def base_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that belongs to no adapter, by name."""
    return {name: weight for name, weight in network.named_parameters() if ".lora_" not in name}


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision widened; float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


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
