"""The judges that go with a model."""

from collections.abc import Sequence
from typing import Any

from ...common import registry
from ...concepts.concept import Concept
from . import Scorer


def load_scorer(model: str, concepts: Sequence[Concept]) -> Scorer | None:
    """The scorer for pictures of `concepts` by a model, with all other judges that fit; None where
    no scorer does.
    """
    world = registry.world(model)
    parts = [registry.get("judge", name) for name in registry.names("judge")]

    def fitting(scores: bool) -> list[Any]:
        made = (part.for_world(world, concepts) for part in parts if part.scores == scores)
        return [judge for judge in made if judge is not None]

    scorer = next(iter(fitting(True)), None)
    if scorer is not None:
        scorer.others = tuple(fitting(False))
    return scorer
