"""Two LoRA slots over any network, by peft, and its base weights: read with an update added,
replaced for a while, and restored bit for bit.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import set_peft_model_state_dict
from torch import Tensor, nn

from ...common.errors import ConfigError, ModelError
from ...common.record_files import shown
from ...common.seeds import generator
from ...settings.groups import MODULES
from ..conditioning import Conditioning
from ..lora import scaled, update_of
from ..protocols import Adapters, Denoiser, Params, Slot
from ..replacement import Replacement, between
from ..weight_differences import difference_name, is_dense, weight_name
from .adapter_files import check_factors
from .layer_names import aliases, is_text
from .layers import NONE
from .plain_weights import base_weights, without_adapter
from .replaced_parts import ReplacedParts
from .text_updates import TextUpdates


class AdaptedNetwork(Denoiser, Adapters):
    """`Adapters` over `network`, and a `Denoiser` whose `predict` a subclass adds.

    `layers` maps every value of `UnlearnConfig.modules` to a pattern of the names of the layers
    that carry an adapter, and `text_readers` to those that read text states as they were encoded.
    An adapter that is loaded may have any linear and convolutional layers, also of the text
    encoders `texts`, which are named as the pipeline does. A slot may also hold weights of its own
    instead of an adapter; those of another model are such weights, beside its other parts.
    """

    pipe: Any
    """The pipeline around the network, whose parts another model may replace."""

    def __init__(
        self,
        network: nn.Module,
        name: str,
        layers: Mapping[str, str],
        texts: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.network = network.requires_grad_(False).eval()
        self.name = name
        self._patterns = layers
        self.network.peft_config = {}
        self._texts = TextUpdates(texts or {})
        self._active: tuple[Slot, ...] = ()
        self._merged: tuple[Slot, ...] = ()
        self._trained: Slot | None = None
        self._dense: dict[Slot, dict[str, nn.Parameter]] = {}
        """The weights of slots that hold some instead of an adapter, by their names without
        adapters; `_chosen` are those of them that the slot trains and publishes.
        """
        self._chosen: dict[Slot, tuple[str, ...]] = {}
        self._originals: dict[str, nn.Parameter] = {}
        """The original weights under those in `_dense`."""
        self._replacement: Replacement | None = None
        """Another model in the slot `unlearn`; its denoiser is in `_dense`."""
        self._beside: ReplacedParts | None = None
        """The parts of that model beside its denoiser."""
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
        self._add(slot, dict.fromkeys(self._asked(modules), rank), alpha / rank)
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
        others = [name for name in MODULES if self._targets(name)]
        raise ConfigError(
            f"The model {self.name} has no layers that unlearn.modules={modules} names;"
            f" {', '.join(others)} is accepted.",
            "unlearn.modules",
        )

    def _targets(self, modules: str) -> list[str]:
        """Names of the layers that `modules` stands for, as they are without adapters."""
        names = (name.removesuffix(".base_layer") for name, _ in self.network.named_modules())
        pattern = re.compile(self._patterns.get(modules, NONE))
        return [name for name in dict.fromkeys(names) if pattern.search(name)]

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
        self._hold(slot, {name: at_least_float32(weights[name]).clone() for name in names}, chosen)

    def _hold(self, slot: Slot, weights: Params, chosen: Iterable[str]) -> None:
        """Let the empty `slot` hold `weights`, of which it publishes those that are `chosen`."""
        plain = self._plain()
        self._originals |= {name: plain[name] for name in weights}
        self._dense[slot] = {
            name: nn.Parameter(weight, requires_grad=False) for name, weight in weights.items()
        }
        self._chosen[slot] = tuple(chosen)
        self._apply()

    def _install(self, name: str, weight: nn.Parameter) -> None:
        """Make `weight` the one that the network computes with."""
        path, _, leaf = name.rpartition(".")
        module = self.network.get_submodule(path)
        if isinstance(module, BaseTunerLayer):
            module = module.get_base_layer()
        setattr(module, leaf, weight)

    def _add(self, slot: Slot, ranks: Mapping[str, int], scale: float) -> None:
        """Put an adapter of the `ranks` by layer into `slot`; its update is `scale * B A`."""
        self._drop(slot)
        if not ranks:  # an adapter of text encoders alone
            return
        common = Counter(ranks.values()).most_common(1)[0][0]
        others = {f"^{re.escape(n)}": rank for n, rank in ranks.items() if rank != common}
        config = LoraConfig(
            r=common,
            lora_alpha=scale * common,
            rank_pattern=others,
            alpha_pattern={name: scale * rank for name, rank in others.items()},
            target_modules=list(ranks),
            init_lora_weights=False,
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
        for slot in get_args(Slot):
            self._drop(slot)

    @property
    def replacement(self) -> Replacement | None:
        return self._replacement

    @property
    def rereads(self) -> bool:
        return self._beside is not None or bool(self._texts.state("unlearn"))

    def load_replacement(self, replacement: Replacement) -> None:
        self._drop("unlearn")
        others = dict(replacement.weights)
        own = [part for part in others if getattr(self.pipe, part) is self.network]
        weights = {name: w for part in own for name, w in others.pop(part).items()}
        self._replacement = replacement
        self._beside = ReplacedParts(self.pipe, others, replacement.tokenizers)
        self._hold("unlearn", weights, ())

    @contextmanager
    def scaled(self, slot: Slot, factor: float) -> Iterator[None]:
        layers = [layer for layer in self._layers if slot in layer.scaling]
        texts = self._texts.state(slot)
        if not (layers or texts or slot in self._dense):
            raise KeyError(slot)
        scales = [layer.scaling[slot] for layer in layers]
        dense = {name: weight.data for name, weight in self._dense.get(slot, {}).items()}
        beside = self._beside if slot == "unlearn" else None
        try:
            for layer, scale in zip(layers, scales, strict=True):
                layer.scaling[slot] = factor * scale
            for name, weight in dense.items():
                own = self._originals[name].data
                self._dense[slot][name].data = between(own, weight, factor)
            self._texts.put(slot, scaled(texts, factor))
            if beside:
                self._beside = beside.scaled(factor)
            self._apply()
            yield
        finally:
            for layer, scale in zip(layers, scales, strict=True):
                layer.scaling[slot] = scale
            for name, weight in dense.items():
                self._dense[slot][name].data = weight
            self._texts.put(slot, texts)
            if beside:
                self._beside.put(False)
                self._beside = beside
            self._apply()

    def _drop(self, slot: Slot) -> None:
        self._texts.drop(slot)
        if slot == "unlearn" and self._beside:
            used = (*self._active, *self._merged)
            self._use_beside(tuple(other for other in used if other != slot))
            self._replacement = self._beside = None
        for name in self._dense.pop(slot, {}):
            self._install(name, self._originals[name])
        held = {name for weights in self._dense.values() for name in weights}
        self._originals = {n: weight for n, weight in self._originals.items() if n in held}
        self._chosen.pop(slot, None)
        if self.network.peft_config.pop(slot, None):
            for layer in self._layers:
                layer.delete_adapter(slot)

    def adapter_state(self, slot: Slot) -> Params:
        if slot == "unlearn" and self._replacement:
            raise KeyError(slot)
        if slot in self._dense:
            return {
                difference_name(name): (weight.detach() - self._originals[name].detach()).cpu()
                for name, weight in self._params(slot).items()
            }
        state = {}
        for name, layer in self.network.named_modules():
            if slot in getattr(layer, "lora_A", {}):
                state[f"{name}.lora_A.weight"] = layer.lora_A[slot].weight
                # The LoRA scale is folded into B, so that the file needs no alpha.
                state[f"{name}.lora_B.weight"] = layer.lora_B[slot].weight * layer.scaling[slot]
        state |= self._texts.state(slot)
        if not state:
            raise KeyError(slot)
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def load_adapter(self, slot: Slot, state: Params) -> None:
        check_factors(state, "The adapter")
        if is_dense(state):
            self._load_differences(slot, state)
            return
        fitted = self._fitted(state)
        own = {name: tensor for name, tensor in fitted.items() if not is_text(name)}
        ranks = {
            name.partition(".lora_")[0]: len(tensor)
            for name, tensor in own.items()
            if ".lora_A." in name
        }
        self._add(slot, ranks, 1.0)
        if own:
            set_peft_model_state_dict(self.network, own, adapter_name=slot)
        texts = {name: tensor for name, tensor in fitted.items() if is_text(name)}
        self._texts.put(slot, texts)
        self._apply()

    def _fitted(self, state: Params) -> Params:
        """The factors in `state` by the names and in the shapes of this model's layers.

        Raises:
            ModelError: a layer is not here, is there twice, or has another shape.
        """
        plain, fitted = self._plain(), {}
        known = self._known_layers()
        for said in dict.fromkeys(name.partition(".lora_")[0] for name in state):
            layer = known.get(said)
            if layer is None or f"{layer}.lora_A.weight" in fitted:
                fault = "it has layers twice" if layer else "it was made for other layers"
                raise self._misfit(fault, said)
            weight = self._texts.weight(layer) if is_text(layer) else plain[f"{layer}.weight"]
            for side in "AB":
                tensor = state[f"{said}.lora_{side}.weight"]
                wanted = _shape_of_factor(weight, tensor, side)
                if wanted is None:
                    raise self._misfit("its factors have other shapes", said)
                fitted[f"{layer}.lora_{side}.weight"] = tensor.reshape(wanted)
        if not fitted:
            raise ModelError("The adapter has no factors; one LoRA rank or more is accepted.")
        return fitted

    def _known_layers(self) -> dict[str, str]:
        """The layers that a loaded adapter may have, by every name that files give them."""
        kinds = (nn.Linear, nn.Conv2d)
        names = [n for n, layer in self.network.named_modules() if isinstance(layer, kinds)]
        plain = [n.removesuffix(".base_layer") for n in names if ".lora_" not in n]
        return aliases(plain, self._texts.layers())

    def _load_differences(self, slot: Slot, state: Params) -> None:
        plain, known, found = self._plain(), self._known_layers(), {}
        for name, difference in state.items():
            said, dot, ending = name.rpartition(".")
            weight = weight_name(f"{known.get(said, said)}{dot}{ending}")
            if weight not in plain or difference.shape != plain[weight].shape or weight in found:
                raise self._misfit("it was made for other layers", said)
            found[weight] = difference
        weights = {name: weight.detach() for name, weight in plain.items()}
        for name, difference in found.items():
            own = at_least_float32(weights[name])
            weights[name] = own + difference.to(own)
        self._replace(slot, weights, found)

    def _misfit(self, fault: str, layer: str) -> ModelError:
        return ModelError(
            f"The adapter does not fit the model {self.name}: {fault}, such as"
            f" {shown(layer)[:80]!r}; an adapter of this model is accepted."
        )

    @property
    def _layers(self) -> list[BaseTunerLayer]:
        return [module for module in self.network.modules() if isinstance(module, BaseTunerLayer)]

    def _apply(self) -> None:
        """Apply `_active` and `_trained` to every layer; peft changes requires_grad on each
        switch.
        """
        used = dict(self._originals)
        for slot, weights in self._dense.items():
            used |= weights if slot in self._active else {}
            for name, weight in weights.items():
                weight.requires_grad_(slot == self._trained and name in self._chosen[slot])
        for name, weight in used.items():
            self._install(name, weight)
        adapters = [slot for slot in self._active if slot not in self._dense]
        for layer in self._layers:
            layer.enable_adapters(bool(adapters))
            layer.set_adapter(adapters, inference_mode=True)
        for slot in self.network.peft_config:
            for tensor in self._params(slot).values():
                tensor.requires_grad_(slot == self._trained)
        self._use_beside((*self._active, *self._merged))

    def _use_beside(self, slots: tuple[Slot, ...]) -> None:
        """Use what `slots` hold for the parts beside the network, and nothing else."""
        if self._beside and self._beside.inside != ("unlearn" in slots):
            self._texts.use(())  # updates are added to the weights that are in place
            self._beside.put("unlearn" in slots)
        self._texts.use(slots)

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
        with self._swapped(sums), self._with_merged(slot):
            yield

    @contextmanager
    def _with_merged(self, slot: Slot) -> Iterator[None]:
        """Let the text encoders keep the update of `slot` while it is merged."""
        before, self._merged = self._merged, (*self._merged, slot)
        self._apply()
        try:
            yield
        finally:
            self._merged = before
            self._apply()

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
            self._with_merged(slot),
            self._swapped(copies),
            with_gradients(self._base()),
        ):
            yield self._base()


def _shape_of_factor(weight: Tensor, factor: Tensor, side: str) -> tuple[int, ...] | None:
    """The shape in which a layer with `weight` takes one of its factors, `side` A or B; None where
    the factor is of another layer. Axes of 1 at the end may be there or not.
    """
    inner = tuple(weight.shape[1:])
    ones = tuple(1 for _ in inner[1:])
    wanted = (len(factor), *inner) if side == "A" else (len(weight), factor.shape[1], *ones)
    return wanted if _core(wanted) == _core(tuple(factor.shape)) else None


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a factor without axes of 1 behind its first two."""
    kept = list(shape)
    while len(kept) > 2 and kept[-1] == 1:
        kept.pop()
    return tuple(kept)


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
