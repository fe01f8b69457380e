"""Models that the experiments attack, and how they are attacked and scored: unlearned ones, and
those of which it is known whether the concept is concealed, destroyed or untouched, which attacks
and verdict have to find out.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..attacks import AttackContext
from ..attacks.relearn import Relearn
from ..attacks.runner import attack_context, checkpoints, result_of, unseen_context
from ..common.seeds import generator
from ..concepts.catalog import known_concepts, preview_concept
from ..concepts.concept import Concept, named
from ..evaluation.comparison import comparison_prompts, generate_column, score
from ..evaluation.judges import Scorer
from ..models.conditioning import Conditioning
from ..models.lora import layer_factors, scaled, update_of
from ..models.protocols import Model, Params
from ..settings.events import GROUPS, Column, Group, GroupScore
from ..settings.run_config import RunConfig
from ..training.unlearning import forget
from .cells import settings

Evaluated = TypeVar("Evaluated")

HELD_DOWN = 0.35
"""What is left of the update of an unlearned model that is held down."""
DESTROYED_BY = 1.0
"""Size of the noise in a destroyed model's adapter, against that of its weights (Frobenius norm).
"""
REMAPPING = {"objective": "uce"}
"""Settings with which UCE edits the model to read the concept's tokens as the anchor's."""
OF_TOKENS = ("word exchanged", "tokens remapped")
"""Those made by way of single tokens, which a flow transformer does not offer."""
MADE_WITH = {"destroyed": DESTROYED_BY, "held down": HELD_DOWN, "tokens remapped": REMAPPING}
"""By name of a known-outcome model the setting of its own that it depends on."""


class Misread:
    """A model whose prompts a subclass reads in another way, by its own `encode_text`."""

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

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of the prompts as the filter leaves them."""
        concept, word = self._concept, re.compile(rf"\b{re.escape(self._concept.name)}", re.I)
        return self._model.encode_text(
            [
                named(concept, prompt, concept.anchor) if word.search(prompt) else prompt
                for prompt in prompts
            ]
        )


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
        end = ids.shape[1] - 1
        rows = [self._model.padded(self._read(row)[1:end]) for row in ids.tolist()]
        return self._model.encode_ids(torch.tensor(rows, device=ids.device), extra)

    def _read(self, ids: list[int]) -> list[int]:
        size = len(self._old)
        for place in range(len(ids)):
            if ids[place : place + size] == self._old:
                return [*ids[:place], *self._new, *self._read(ids[place + size :])]
        return ids


def unlearn(model: Model, config: RunConfig) -> Params:
    """Unlearn the concept of `config` in the original model; returns the adapter, which stays
    loaded.
    """
    model.drop_adapters()
    result_of(forget(model, preview_concept(config), config))
    return model.adapter_state("unlearn")


def load_only(model: Model, adapter: Params) -> None:
    """Load an adapter into the `unlearn` slot of the original model; none where it is empty."""
    model.drop_adapters()
    if adapter:
        model.load_adapter("unlearn", adapter)


def scores_of(
    model: Model,
    config: RunConfig,
    column: Column,
    judge: Scorer,
    groups: Collection[Group] = GROUPS,
) -> dict[Group, GroupScore]:
    """The scores of the pictures of a comparison by the model as it is active."""
    every = comparison_prompts(preview_concept(config), config.compare, config.seed)
    prompts = [asked for asked in every if asked.group in groups]
    return score(generate_column(model, column, prompts, config.compare, judge).pictures)


def context_of(model: Model, config: RunConfig) -> AttackContext:
    """What attacks on the concept of `config` work with, whether the original model has seen it or
    not.
    """
    concept = preview_concept(config)
    unseen = {known.name for known in known_concepts(config.model) if known.fresh}
    held = unseen_context if concept.name in unseen else attack_context
    return held(model, concept, config)


def relearned(model: Model, config: RunConfig, look: Callable[[], Evaluated]) -> Evaluated:
    """What `look` returns after the fine-tuning attack of `config`, while the attacked model is
    active.
    """
    attack, context = Relearn(training=config.attack), context_of(model, config)
    *_, seen = checkpoints(model, attack, context, lambda step: look(), steps=())
    return seen


def known_outcome_model(name: str, model: Model, concept: Concept, seed: int) -> Any:
    """A model of which it is known what became of the concept, made of the original `model`.

    Raises:
        ValueError: there is none of that name.
    """
    model.drop_adapters()
    match name:
        case "prompt filter":
            return Filtered(model, concept)
        case "word exchanged":
            return Swapped(model, concept)
        case "tokens remapped":
            unlearn(model, settings(concept.name, seed=seed, **REMAPPING))
        case "held down":
            adapter = unlearn(model, settings(concept.name, seed=seed))
            model.load_adapter("unlearn", scaled(adapter, HELD_DOWN))
        case "destroyed":
            _load_noise(model, seed)
        case "untouched":
            pass
        case _:
            raise ValueError(f"There is no model {name!r}.")
    return model


def _load_noise(model: Model, seed: int) -> None:
    """Load an adapter that adds noise to all weights that it reaches, so that the model generates
    nothing recognisable.
    """
    source, params = generator(seed), model.reset_adapter("unlearn", 16, 16.0, seed)
    weights = model.weights()
    for layer, (a, b) in layer_factors(params).items():
        weight = next(
            weight
            for name, weight in weights.items()
            if name.startswith(f"{layer}.") and name.endswith("weight")
        )
        wanted = DESTROYED_BY * weight.norm()
        noise = torch.randn(b.shape, generator=source).to(b)
        b.data.copy_(noise * wanted / update_of((a, noise)).norm())
