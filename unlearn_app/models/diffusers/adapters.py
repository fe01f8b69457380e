"""Two slots over any network, each for a LoRA adapter, by peft, or for weights that replace the
original ones, and its base weights: read with an update added, replaced for a while, and restored
bit for bit.
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
from ..conditioning import Conditioning
from ..lora import scaled, update_of
from ..protocols import Adapters, Denoiser, Params, Slot
from ..weight_differences import difference_name, is_dense, weight_name
from .adapter_files import check_factors


class AdaptedNetwork(Denoiser, Adapters):
    """`Adapters` over `network`, and a `Denoiser` whose `predict` a subclass adds.

    `layers` maps every value of `UnlearnConfig.modules` to a pattern of the names of the layers
    that carry an adapter; those of `keys_values` read text states. Values that the network has no
    layers for are left out.
    """

    def __init__(self, network: nn.Module, name: str, layers: Mapping[str, str]) -> None:
        self.network = network.requires_grad_(False).eval()
        self.name = name
        self._patterns = layers
        self.network.peft_config = {}
        self._active: tuple[Slot, ...] = ()
        self._trained: Slot | None = None
        self._dense: dict[Slot, dict[str, nn.Parameter]] = {}
        """The weights of slots that hold some instead of an adapter, by their names without
        adapters; `_chosen` are those of them that the slot trains and publishes.
        """
        self._chosen: dict[Slot, tuple[str, ...]] = {}
        self._originals: dict[str, nn.Parameter] = {}
        """The original weights under those in `_dense`."""
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
        weights = self._layer_weights(self._targets("keys_values"))
        return {layer: weight.detach() for layer, weight in weights.items()}

    def reset_adapter(
        self, slot: Slot, rank: int, alpha: float, seed: int, modules: str = "all"
    ) -> Params:
        self._add(slot, rank, alpha, self._asked(modules))
        source = generator(seed)
        for name, tensor in self._params(slot).items():
            fresh = torch.zeros(tensor.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(fresh, a=5**0.5, generator=source)
            tensor.data.copy_(fresh)
        return self._params(slot)

    def reset_weights(self, slot: Slot, modules: str = "all") -> Params:
        weights = {name: weight.detach() for name, weight in self._plain().items()}
        inside = tuple(f"{layer}." for layer in self._asked(modules))
        if modules == "all":
            chosen = [*weights]
        elif modules == "not_cross":
            cross = tuple(f"{layer}." for layer in self._targets("cross"))
            chosen = [name for name in weights if not name.startswith(cross)]
        else:
            chosen = [name for name in weights if name.startswith(inside)]
        self._replace(slot, weights, chosen)
        return self._params(slot)

    def _asked(self, modules: str) -> list[str]:
        """Names of the layers that `modules` stands for.

        Raises:
            ConfigError: the network has none.
        """
        if layers := self._targets(modules):
            return layers
        known = [name for name in self._patterns if self._targets(name)]
        raise ConfigError(
            f"unlearn.modules is {modules}, which the model {self.name} has no layers for;"
            f" {', '.join(known)} are accepted.",
            "unlearn.modules",
        )

    def _targets(self, *modules: str) -> list[str]:
        """Names of the layers that `modules` stand for, as they are without adapters."""
        names = (name.removesuffix(".base_layer") for name, _ in self.network.named_modules())
        patterns = [re.compile(self._patterns[m]) for m in modules if m in self._patterns]
        return [name for name in dict.fromkeys(names) if any(p.search(name) for p in patterns)]

    def _base(self) -> dict[str, nn.Parameter]:
        """The weights of the original model, by the names that they have now."""
        return {
            name: self._originals.get(without_adapter(name), weight)
            for name, weight in base_weights(self.network).items()
        }

    def _plain(self) -> dict[str, nn.Parameter]:
        """The weights of the original model, by the names that they have without adapters."""
        return {without_adapter(name): weight for name, weight in self._base().items()}

    def _layer_weights(self, layers: Iterable[str]) -> dict[str, nn.Parameter]:
        """The base weights of `layers`, with or without an adapter on them, by layer."""
        plain = self._plain()
        return {layer: plain[f"{layer}.weight"] for layer in layers}

    def _replace(self, slot: Slot, weights: Params, chosen: Iterable[str]) -> None:
        """Put copies of those of `weights` that are `chosen` into `slot`, and of all where the
        network is in half precision, since it computes with one.
        """
        self._drop(slot)
        plain, chosen = self._plain(), tuple(chosen)
        mixed = any(weight.dtype != at_least_float32(weight).dtype for weight in plain.values())
        names = tuple(plain) if mixed else chosen
        self._originals |= {name: plain[name] for name in names}
        self._dense[slot] = {
            name: nn.Parameter(at_least_float32(weights[name]).clone(), requires_grad=False)
            for name in names
        }
        self._chosen[slot] = chosen
        self._apply()

    def _install(self, name: str, weight: nn.Parameter) -> None:
        """Make `weight` the one that the network computes with."""
        path, _, leaf = name.rpartition(".")
        module = self.network.get_submodule(path)
        if isinstance(module, BaseTunerLayer):
            module = module.get_base_layer()
        setattr(module, leaf, weight)

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
        if slot in self._dense:
            return {name: self._dense[slot][name] for name in self._chosen[slot]}
        return {
            name: p
            for name, p in self.network.named_parameters()
            if f".{slot}." in name and ".lora_" in name
        }

    def drop_adapters(self) -> None:
        for slot in (*self.network.peft_config, *self._dense):
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        for name in self._dense.pop(slot, {}):
            self._install(name, self._originals[name])
        held = {name for weights in self._dense.values() for name in weights}
        self._originals = {n: weight for n, weight in self._originals.items() if n in held}
        self._chosen.pop(slot, None)
        if self.network.peft_config.pop(slot, None):
            for layer in self._layers:
                layer.delete_adapter(slot)

    def adapter_state(self, slot: Slot) -> Params:
        if slot in self._dense:
            return {
                difference_name(name): (weight.detach() - self._originals[name].detach()).cpu()
                for name, weight in self._params(slot).items()
            }
        config = self.network.peft_config[slot]
        # The LoRA scale is folded into B, so that the file needs no alpha.
        state = get_peft_model_state_dict(self.network, adapter_name=slot)
        unscaled = scaled(state, config.lora_alpha / config.r)
        return {name: tensor.detach().cpu().clone() for name, tensor in unscaled.items()}

    def load_adapter(self, slot: Slot, state: Params) -> None:
        check_factors(state, "The adapter")
        if is_dense(state):
            self._load_differences(slot, state)
            return
        ranks = {tensor.shape[0] for name, tensor in state.items() if ".lora_A." in name}
        if len(ranks) != 1:
            raise ModelError(
                f"The adapter has factors of ranks {sorted(ranks)}; one LoRA rank is accepted."
            )
        rank = ranks.pop()
        layers = list(dict.fromkeys(name.partition(".lora_")[0] for name in state))
        shapes = {}
        carriers = {*layers} & {*self._targets(*self._patterns)}
        for layer, weight in self._layer_weights(carriers).items():
            shapes[f"{layer}.lora_A.weight"] = (rank, *weight.shape[1:])
            shapes[f"{layer}.lora_B.weight"] = (len(weight), rank, *(1 for _ in weight.shape[2:]))
        if shapes != {name: tuple(tensor.shape) for name, tensor in state.items()}:
            raise ModelError(
                f"The adapter does not fit the model {self.name}: it was made for other layers."
            )
        self._add(slot, rank, float(rank), layers)
        set_peft_model_state_dict(self.network, state, adapter_name=slot)

    def _load_differences(self, slot: Slot, state: Params) -> None:
        plain = self._plain()
        found = {weight_name(name): difference for name, difference in state.items()}
        if any(name not in plain or d.shape != plain[name].shape for name, d in found.items()):
            raise ModelError(
                f"The update does not fit the model {self.name}: it was made for other layers."
            )
        weights = {name: at_least_float32(weight.detach()) for name, weight in plain.items()}
        for name, difference in found.items():
            weights[name] = weights[name] + difference.to(weights[name])
        self._replace(slot, weights, found)

    @property
    def _layers(self) -> list[BaseTunerLayer]:
        return [module for module in self.network.modules() if isinstance(module, BaseTunerLayer)]

    def _apply(self) -> None:
        """Apply `_active` and `_trained` to every layer; peft changes requires_grad on each
        switch.
        """
        for slot, weights in self._dense.items():
            for name, weight in weights.items():
                trained = slot == self._trained and name in self._chosen[slot]
                weight.requires_grad_(trained)
                own = weight if slot in self._active else self._originals[name]
                self._install(name, own)
        adapters = [slot for slot in self._active if slot not in self._dense]
        for layer in self._layers:
            layer.enable_adapters(bool(adapters))
            layer.set_adapter(adapters, inference_mode=True)
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
        if slot in self._dense:
            own = {name: self._originals[name] for name in self._chosen[slot]}
            with with_gradients(own):
                yield own
            return
        suffix = f".lora_B.{slot}.weight"
        layers = [n.removesuffix(suffix) for n in self._params(slot) if n.endswith(suffix)]
        dense = {layer + suffix: w for layer, w in self._layer_weights(layers).items()}
        with with_gradients(dense):
            yield dense

    def weights(self, slot: Slot | None = None, params: Params | None = None) -> Params:
        weights = {n: at_least_float32(weight) for n, weight in self._base().items()}
        return weights | (self._updated(slot, params or {}) if slot else {})

    def _updated(self, slot: Slot, params: Params) -> Params:
        """The weights that `slot` changes with its update, by the names that they have now;
        differentiable in what it holds, of which `params` replaces some by name.
        """
        base = self._base()
        if slot in self._dense:
            held = self._dense[slot] | params
            return {
                name: held[without_adapter(name)] for name in base if without_adapter(name) in held
            }
        found = {}
        for name, layer in self.network.named_modules():
            if slot in getattr(layer, "lora_A", {}):
                a, b = (
                    params.get(f"{name}.{part}.{slot}.weight", getattr(layer, part)[slot].weight)
                    for part in ("lora_A", "lora_B")
                )
                update = layer.scaling[slot] * update_of((a, b))
                own = at_least_float32(base[f"{name}.base_layer.weight"])
                found[f"{name}.base_layer.weight"] = own + update.view(own.shape)
        return found

    @contextmanager
    def merged(self, slot: Slot) -> Iterator[None]:
        own = self._base()
        with torch.no_grad():
            sums = {n: w.to(own[n].dtype) for n, w in self._updated(slot, {}).items()}
        with self._swapped(sums):
            yield

    @contextmanager
    def _swapped(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Put other values into base weights by name, and restore the original tensors
        afterwards.
        """
        own = self._base()
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
            with_gradients(self._base()),
        ):
            yield self._base()


def without_adapter(name: str) -> str:
    """The name that a weight has where no adapter is on its layer."""
    return name.replace(".base_layer.", ".")


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
