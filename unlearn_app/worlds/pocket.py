"""The bundled world: a small model that knows a fixed vocabulary, with judges of its own."""

from typing import Any

from ..common.errors import ConfigError
from ..common.paths import POCKET
from ..common.registry import register
from ..concepts.concept import Concept, Kind, Lesson
from ..pocket import concepts
from ..settings.presets import DEFAULT_REGULARIZATION, DEFAULT_SEQUENCE_OBJECTIVE
from ..settings.run_config import BY_WORDS, RunConfig
from . import World

SMALL_BATCHES = {"unlearn.batch_size": 4, "unlearn.pool": 16, "unlearn.retain_weight": 5.0}
FAST = {
    "object": {"unlearn.steps": 40} | SMALL_BATCHES,
    "style": {"unlearn.steps": 20} | SMALL_BATCHES,
}
"""Settings of the default objective by kind of concept, chosen on development targets; `bench
tradeoff` compares it with others.
"""
TUNED = (DEFAULT_SEQUENCE_OBJECTIVE, "esd")
"""The objectives for which the strengths of `DEFAULT_REGULARIZATION` are tuned."""


@register("world", "pocket")
class PocketWorld(World):
    """The bundled model with its judges, its vocabulary and its recorded base rates."""

    assets = POCKET
    known_concepts = staticmethod(concepts.known_concepts)
    nearest_known = staticmethod(concepts.nearest_known)
    tuning_prompts = staticmethod(concepts.tuning_prompts)

    def concept(self, text: str, anchor: str | None, kind: str = BY_WORDS) -> Concept:
        concept = concepts.pocket_concept(text, anchor)
        if kind not in (BY_WORDS, concept.kind):
            raise ConfigError(
                f"“{text}” is of kind {concept.kind} in the bundled world, not {kind};"
                f" {concept.kind} and {BY_WORDS} are accepted.",
                "concept_kind",
            )
        return concept

    def request(self, concept: Concept) -> str:
        return concept.name

    def unseen(self, kind: Kind) -> tuple[str, ...]:
        from ..pocket.lesson import EASIEST

        return EASIEST[kind]

    def lesson(self, name: str, count: int, seed: int, alike: bool = False) -> Lesson:
        from ..pocket.lesson import lesson

        return lesson(name, count, seed, alike)

    def run_settings(self, text: str, objective: str) -> dict[str, Any]:
        kind = concepts.kind_of(text)
        return dict(FAST[kind]) if kind and objective == RunConfig.objective else {}

    def regularization_preset(self, objective: str) -> str:
        return DEFAULT_REGULARIZATION if objective in TUNED else "nothing"
