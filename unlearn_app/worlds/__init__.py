"""Worlds: what a model's pictures can show, and all that the rest of the program asks about that.

A world is one module of this folder. `common.registry.world` builds it from the name of a model, in
the one place where that name is looked at.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..concepts.concept import Concept, Kind, KnownConcept, Lesson, Prompt
from ..concepts.diversification import free_concept, nearest_words, request_words
from ..settings.presets import USUAL_SIDE
from ..settings.run_config import BY_WORDS

if TYPE_CHECKING:
    from ..models.memory import Plan
    from ..models.protocols import Model
    from ..settings.run_config import RunConfig


@dataclass(frozen=True)
class World:
    """What models, concepts and evaluation ask of a world. The answers here are the defaults, for a
    model about whose pictures nothing is known.
    """

    model: str
    """The model's name, as settings hold it."""
    assets: ClassVar[Path | None] = None
    """The folder of a bundled model, with judges of its own and recorded base rates."""

    def load_model(self) -> "Model":
        """The model, ready to use.

        Raises:
            ModelError: it is missing, damaged or of a kind we refuse.
        """
        from ..models.diffusers.loading import load_pipeline
        from ..models.latent_store import SHIPPED, ShippedLatents

        if self.assets is None:
            return load_pipeline(self.model, self.model)
        model = load_pipeline(self.assets / "pipeline", self.model)
        if model.store:
            model.store = ShippedLatents(self.assets / SHIPPED, model.store)
        return model

    def plan_memory(self, config: "RunConfig") -> "Plan | None":
        """How a run with the model uses memory; None where the model is small.

        Raises:
            ModelError: the model is missing, damaged or of a kind we refuse.
            OutOfMemory: the run does not fit; the message names what to lower.
        """
        if self.assets is not None:
            return None
        from ..models.diffusers.loading import FAMILIES
        from ..models.diffusers.plan import plan_of

        return plan_of(config, FAMILIES)

    def concept(self, text: str, anchor: str | None, kind: str = BY_WORDS) -> Concept:
        """The concept behind typed words, with the prompts that a run uses; `kind` says what it is
        where the words do not tell.

        Raises:
            ConfigError: the world does not know the concept, its kind or the anchor, or the words
            name several concepts.
        """
        return free_concept(text, anchor, kind, self.model)

    def request(self, concept: Concept) -> str:
        """Words that name the concept when they are read anew."""
        return request_words(concept)

    def known_concepts(self) -> list[KnownConcept]:
        """Every concept of the world; empty where any words are taken."""
        return []

    def nearest_known(self, text: str) -> list[str]:
        """Names of known concepts closest to `text`; none where it is known itself."""
        return nearest_words(text)

    def tuning_prompts(self, text: str) -> tuple[Prompt, ...]:
        """Prompts to tune by, which a concept is neither trained nor tested with; empty where there
        are none.
        """
        return ()

    def unseen(self, kind: Kind) -> tuple[str, ...]:
        """Concepts that the model was never shown, the one that is learned in the fewest steps
        first.
        """
        return ()

    def lesson(self, name: str, count: int, seed: int, alike: bool = False) -> Lesson | None:
        """Pictures of the concept `name` as the world draws them; None where it draws none.

        Pictures that are `alike` share their caption.
        """
        return None

    def model_settings(self) -> dict[str, Any]:
        """The settings, by dotted name, that the model's family needs in every preset."""
        return {}

    def usual_side(self) -> int:
        """Pixels along a side of pictures that the model's family is made for."""
        return USUAL_SIDE

    def run_settings(self, text: str, objective: str) -> dict[str, Any]:
        """The settings, by dotted name, of `objective` for the concept `text` in the preset fast,
        as tuned on this world.
        """
        return self.model_settings()

    def regularization_preset(self, objective: str) -> str:
        """The preset that regularizes the requests of a sequence where the user names none."""
        return "nothing"
