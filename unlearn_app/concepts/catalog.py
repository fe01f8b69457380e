"""Concepts by name: those that a model knows, and the prompts that a run will use."""

from ..common.registry import DEFAULT_MODEL, world
from ..settings.run_config import RunConfig
from .concept import Concept, KnownConcept, Prompt, restricted_retain
from .own_prompts import with_own
from .targets import targets_told


def tuning_prompts(config: RunConfig) -> tuple[Prompt, ...]:
    """Prompts to tune by for the concept of `config`: the world's own, else the adversary's."""
    return world(config.model).tuning_prompts(config.concept) or preview_concept(config).relearn


def known_concepts(model: str = DEFAULT_MODEL) -> list[KnownConcept]:
    """The vocabulary of a model, or what the user's targets for it name; empty for a model that
    takes any words.
    """
    targets = targets_told()
    return targets.known() if targets and targets.model == model else world(model).known_concepts()


def preview_concept(config: RunConfig) -> Concept:
    """The prompts a run with `config` will use; nothing is loaded.

    Raises:
        ConfigError: the model's world does not know the concept, its kind or the anchor, or the
        own prompts are not accepted.
    """
    known = world(config.model)
    concept = known.concept(config.concept, config.anchor, config.concept_kind)
    if (targets := targets_told()) and targets.model == config.model:
        concept = targets.applied(concept)
    if config.prompts:
        concept = with_own(concept, config.prompts)
    return restricted_retain(concept, config.unlearn.retain)


def request_name(concept: Concept, model: str) -> str:
    """Words that name the concept of `model` when they are typed anew: its name, and the kind where
    that does not tell it.
    """
    return world(model).request(concept)
