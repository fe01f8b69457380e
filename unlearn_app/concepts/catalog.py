"""Concepts by name: those a model is known to paint, and the prompts that a run will use."""

from ..settings.run_config import RunConfig
from .concept import Concept, KnownConcept, Prompt, restricted_retain
from .diversification import free_concept
from .own_prompts import with_own


def tuning_prompts(config: RunConfig) -> tuple[Prompt, ...]:
    """Prompts for the concept of `config` beside those that it is taught and tested by.

    For other models than the bundled one these are the adversary's.
    """
    if config.model != "pocket":
        return preview_concept(config).relearn
    from ..pocket import concepts

    return concepts.tuning_prompts(config.concept)


def known_concepts(model: str = "pocket") -> list[KnownConcept]:
    """What the bundled model knows; empty for other models, which take any words."""
    if model != "pocket":
        return []
    from ..pocket import concepts

    return concepts.known_concepts()


def nearest_known(text: str) -> list[str]:
    """Names in the bundled vocabulary closest to `text`."""
    from ..pocket import concepts

    return concepts.nearest_known(text)


def preview_concept(config: RunConfig) -> Concept:
    """The prompts a run with `config` will use; nothing is loaded.

    Raises:
        ConfigError: the bundled model does not know the concept or the anchor, or the own prompts
        are no good.
    """
    if config.model != "pocket":
        concept = free_concept(config.concept, config.anchor)
    else:
        from ..pocket import concepts

        concept = concepts.pocket_concept(config.concept, config.anchor)
    if config.prompts:
        concept = with_own(concept, config.prompts)
    return restricted_retain(concept, config.unlearn.retain)
