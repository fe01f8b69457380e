"""The bundled world: a small model that knows a fixed vocabulary, with judges of its own."""

from typing import TYPE_CHECKING

from ..common.paths import POCKET
from ..common.registry import register
from ..concepts.concept import Concept, Kind, KnownConcept, Lesson, Prompt
from ..pocket import concepts
from ..settings.presets import DEFAULT_REGULARIZATION, DEFAULT_SEQUENCE_OBJECTIVE
from . import World

if TYPE_CHECKING:
    from ..models.protocols import Backend

TUNED = (DEFAULT_SEQUENCE_OBJECTIVE, "esd")
"""The objectives for which the strengths of `DEFAULT_REGULARIZATION` are tuned."""


@register("world", "pocket")
class PocketWorld(World):
    """The bundled model with its judges, its vocabulary and its recorded base rates."""

    assets = POCKET

    def load_backend(self) -> "Backend":
        """See `World`."""
        from ..models.diffusers.loading import load_pipeline

        return load_pipeline(POCKET / "pipeline", self.model)

    def concept(self, text: str, anchor: str | None) -> Concept:
        """See `World`."""
        return concepts.pocket_concept(text, anchor)

    def known_concepts(self) -> list[KnownConcept]:
        """See `World`."""
        return concepts.known_concepts()

    def nearest_known(self, text: str) -> list[str]:
        """See `World`."""
        return concepts.nearest_known(text)

    def tuning_prompts(self, text: str) -> tuple[Prompt, ...]:
        """See `World`."""
        return concepts.tuning_prompts(text)

    def unseen(self, kind: Kind) -> tuple[str, ...]:
        """See `World`."""
        from ..pocket.lesson import EASIEST

        return EASIEST[kind]

    def lesson(self, count: int, seed: int, name: str = "", alike: bool = False) -> Lesson:
        """See `World`."""
        from ..pocket.lesson import fresh_lesson

        return fresh_lesson(count, seed, name, alike)

    def regularization_preset(self, objective: str) -> str:
        """See `World`."""
        return DEFAULT_REGULARIZATION if objective in TUNED else "nothing"
