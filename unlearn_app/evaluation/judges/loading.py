"""The judges that go with a model."""

from collections.abc import Sequence
from typing import Any

from ...common import registry
from ...common.errors import ConfigError
from ...concepts.concept import Concept
from ...settings.judges import places_of
from . import Scorer


def load_scorer(model: str, concepts: Sequence[Concept], named: str | None = None) -> Scorer | None:
    """The scorer for pictures of `concepts` by a model, with all other judges that fit; None where
    no scorer does.

    Judges that `named` asks for, as `--judge` does, take the place of those that fit.

    Raises:
        ConfigError: two scorers are asked for.
        ModelError: one that is asked for cannot be loaded.
    """
    world, places = registry.world(model), places_of(named)
    parts = {name: registry.get("judge", name) for name in registry.names("judge")}
    scorers = [name for name in places if parts[name].scores]
    if len(scorers) > 1:
        raise ConfigError(
            f"The judges {' and '.join(scorers)} both give scores; one of them is accepted.",
            "judge",
        )
    asked = {name: parts[name].asked(world, concepts, places[name]) for name in places}

    def fitting(scores: bool) -> list[Any]:
        made = (
            asked[name] if name in asked else part.for_world(world, concepts)
            for name, part in parts.items()
            if part.scores == scores
        )
        return [judge for judge in made if judge is not None]

    scorer = asked[scorers[0]] if scorers else next(iter(fitting(True)), None)
    if scorer is not None:
        scorer.others = tuple(fitting(False))
    return scorer
