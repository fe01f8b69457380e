"""Two LoRA slots over any network, by peft, and its base weights: read with an update added,
replaced for a while, and restored bit for bit.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from ...common.errors import ConfigError, ModelError
from ...common.seeds import generator
from ...settings.groups import MODULES
from ..conditioning import Conditioning
from ..lora import scaled, update_of
from ..protocols import Adapters, Denoiser, Params, Slot
from .adapter_files import check_factors


class AdaptedNetwork(Denoiser, Adapters):
    """`Adapters` over `network`, and a `Denoiser` whose `predict` a subclass adds.

    `layers` maps every value of `UnlearnConfig.modules` to a pattern of the names of the layers
    that carry an adapter, and `text_readers` to those that read text states as they were encoded.
    """

    def __init__(self, network: nn.Module, name: str, layers: Mapping[str, str]) -> None:
        self.network = network.requires_grad_(False).eval()
        self.name = name
        self._patterns = layers
        self.network.peft_config = {}
        self._active: tuple[Slot, ...] = ()
        self._trained: Slot | None = None
        self._swaps = 0
        """How many `_swapped` contexts are open."""

    @property
    def is_original(self) -> bool:
        """Whether neither adapters nor other base weights are in use."""
        return not self._active and not self._swaps

    @torch.no_grad()
    def frozen(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        with self.active():
            return self.predict(x_t, t, cond)

    def cross_weights(self) -> Params:
        weights = self._layer_weights(self._targets("text_readers"))
        return {layer: weight.detach() for layer, weight in weights.items()}

    def reset_adapter(
        self, slot: Slot, rank: int, alpha: float, seed: int, modules: str = "all"
    ) -> Params:
        layers = self._targets(modules)
        if not layers:
            others = [name for name in MODULES if self._targets(name)]
            raise ConfigError(
                f"The model {self.name} has no layers that unlearn.modules={modules} names;"
                f" {', '.join(others)} is accepted.",
                "unlearn.modules",
            )
        self._add(slot, rank, alpha, layers)
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

    def _carriers(self) -> set[str]:
        """Names of the layers that any of the values of `modules` stands for."""
        return {name for modules in self._patterns for name in self._targets(modules)}

    def _layer_weights(self, layers: Iterable[str]) -> dict[str, nn.Parameter]:
        """The base weights of `layers`, with or without an adapter on them, by layer."""
        own = base_weights(self.network)
        plain = {name.replace(".base_layer.", "."): weight for name, weight in own.items()}
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
        for slot in tuple(self.network.peft_config):
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
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
        for layer, weight in self._layer_weights({*layers} & self._carriers()).items():
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
        weights = {n: at_least_float32(weight) for n, weight in base_weights(self.network).items()}
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
        with self._swapped(sums):
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
