"""Models whose truth is known, to see whether attacks and verdict find it out: concealed,
destroyed, untouched.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..common.seeds import generator
from ..concepts.concept import Concept, named
from ..models.conditioning import Conditioning
from ..models.lora import layer_factors, scaled, update_of
from ..models.protocols import Model
from ..settings.run_config import make_config
from ..training.unlearning import forget

HELD_DOWN = 0.35
DESTROYED_BY = 1.0
"""Size of the noise in a destroyed model's adapter, against that of its weights (Frobenius norm).
"""
REMAPPING = {"objective": "uce"}
MADE_WITH = {"destroyed": DESTROYED_BY, "held down": HELD_DOWN, "tokens remapped": REMAPPING}
"""Settings of their own that these models depend on."""


class Misread:
    """A model that reads prompts in a way of its own; everything else is the model's."""

    def __init__(self, model: Model, concept: Concept) -> None:
        self._model, self._concept = model, concept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def sample(
        self, prompts: Sequence[str] | Conditioning, seeds: Sequence[int], **how: Any
    ) -> Tensor:
        """Latents of prompts as this model reads them, or of their conditioning."""
        cond = prompts if isinstance(prompts, Conditioning) else self.encode_text(prompts)
        return self._model.sample(cond, seeds, **how)


class Filtered(Misread):
    """Behind a prompt filter: sentences that name the concept are read as sentences that name its
    anchor.
    """

    def _safe(self, sentence: str) -> str:
        concept = self._concept
        mentioned = re.search(rf"\b{re.escape(concept.name)}", sentence, re.I)
        return named(concept, sentence, concept.anchor) if mentioned else sentence

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of what is left of the prompts."""
        return self._model.encode_text([self._safe(prompt) for prompt in prompts])


class Swapped(Misread):
    """Its text encoder reads the concept's word as the anchor's."""

    def __init__(self, model: Model, concept: Concept) -> None:
        super().__init__(model, concept)
        self._old, self._new = (
            model.token_ids(word)[1:-1] for word in (concept.name, concept.anchor)
        )

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of the prompts, as this model reads them."""
        ids = [self._model.padded(self._model.token_ids(prompt)[1:-1]) for prompt in prompts]
        return self.encode_ids(torch.tensor(ids, device=self._model.device))

    def encode_ids(self, ids: Tensor, extra: Tensor | None = None) -> Conditioning:
        """The conditioning of ids, as this model reads them."""
        length = ids.shape[1]
        rows = [self._model.padded(self._read(row)[1 : length - 1]) for row in ids.tolist()]
        return self._model.encode_ids(torch.tensor(rows, device=ids.device), extra)

    def _read(self, ids: list[int]) -> list[int]:
        place, read = 0, []
        while place < len(ids):
            if ids[place : place + len(self._old)] == self._old:
                read += self._new
                place += len(self._old)
            else:
                read.append(ids[place])
                place += 1
        return read


def filtered(model: Model, concept: Concept, seed: int) -> Any:
    """Concealed by a filter of prompts."""
    model.drop_adapters()
    return Filtered(model, concept)


def swapped(model: Model, concept: Concept, seed: int) -> Any:
    """Concealed by exchanging a word vector."""
    model.drop_adapters()
    return Swapped(model, concept)


def remapped(model: Model, concept: Concept, seed: int) -> Any:
    """Concealed by an adapter that only reads the concept's tokens as the anchor's: UCE."""
    model.drop_adapters()
    for _ in forget(model, concept, make_config(concept.name, seed=seed, **REMAPPING)):
        pass
    return model


def destroyed(model: Model, concept: Concept, seed: int) -> Any:
    """Noise in all weights that an adapter reaches: the model generates nothing recognisable."""
    model.drop_adapters()
    source, params = generator(seed), model.reset_adapter("unlearn", 16, 16.0, seed)
    weights = model.weights()
    for layer, (a, b) in layer_factors(params).items():
        wanted = DESTROYED_BY * _own(weights, layer).norm()
        noise = torch.randn(b.shape, generator=source).to(b)
        b.data.copy_(noise * wanted / update_of((a, noise)).norm())
    return model


def _own(weights: dict[str, Tensor], layer: str) -> Tensor:
    return next(
        weight
        for name, weight in weights.items()
        if name.startswith(f"{layer}.") and name.endswith("weight")
    )


def held_down(model: Model, concept: Concept, seed: int) -> Any:
    """An unlearned model with a third of its update: the concept is held down, not more."""
    model.drop_adapters()
    for _ in forget(model, concept, make_config(concept.name, seed=seed)):
        pass
    state = model.adapter_state("unlearn")
    model.load_adapter("unlearn", scaled(state, HELD_DOWN))
    return model


def untouched(model: Model, concept: Concept, seed: int) -> Any:
    """The original; of a concept that it has never seen, a model that does not know it."""
    model.drop_adapters()
    return model


KNOWN_OUTCOME_MODELS: dict[str, Callable[[Model, Concept, int], Any]] = {
    "prompt filter": filtered,
    "word exchanged": swapped,
    "tokens remapped": remapped,
    "held down": held_down,
    "destroyed": destroyed,
    "untouched": untouched,
}
