"""The same attack where it ought to succeed: what an attack does not bring back means something
only beside these.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..common.errors import raise_if_stopped
from ..concepts.catalog import preview_concept
from ..concepts.concept import Concept
from ..evaluation.comparison import comparison_prompts, generate_column, score
from ..evaluation.judges import Scorer
from ..models.protocols import Backend, slots_kept
from ..settings.events import FRESH, SHARES, UNRESISTING, AttackCheckpoint, Stage, Step
from ..settings.run_config import RunConfig, with_concept
from ..training.unlearning import forget, resists
from .relearn import MARKS, fine_tune, first_seed, lesson_pictures, relearn
from .unseen import never_seen


def controls(
    backend: Backend,
    concept: Concept,
    config: RunConfig,
    scorer: Scorer | None,
    should_stop: Callable[[], bool],
) -> Iterator[Stage | AttackCheckpoint]:
    """Attack the model that does not resist, and teach the original what it has never seen, each as
    far as it applies.

    Both adversaries have the budget and the settings of the run's own. The adapter slots hold
    afterwards what they held before.
    """
    with slots_kept(backend):
        if resists(config):
            yield Stage(
                "attack",
                f"For comparison: the same attack on {concept.name} without resistance",
                SHARES["controls"],
            )
            plain = replace(config, resist=replace(config.resist, on=False))
            for _ in forget(backend, concept, plain, should_stop):
                raise_if_stopped(should_stop)
            steps = relearn(backend, concept, config, should_stop)
            yield from _marks(
                UNRESISTING, ("unlearn",), steps, backend, concept, config, scorer, should_stop
            )
        asked = config.attack
        lesson = never_seen(config.model, asked.pictures, config.seed, concept, asked.data == "one")
        if lesson:
            name = lesson[0]
            yield Stage(
                "attack",
                f"For comparison: the same attack teaches {name}, which was never seen",
                SHARES["controls"],
            )
            backend.drop_adapters()
            unseen = preview_concept(with_concept(config, name))
            data = lesson_pictures(backend, lesson, unseen, config, should_stop)
            steps = fine_tune(backend, data, config.attack, first_seed(config.seed))
            yield from _marks(FRESH, (), steps, backend, unseen, config, scorer, should_stop)


def _marks(
    name: str,
    before: tuple[str, ...],
    steps: Iterator[Step],
    backend: Backend,
    concept: Concept,
    config: RunConfig,
    scorer: Scorer | None,
    should_stop: Callable[[], bool],
) -> Iterator[AttackCheckpoint]:
    prompts = [row for row in comparison_prompts(concept, config.compare) if row[0] == "forget"]

    def mark(step: int) -> AttackCheckpoint:
        painted = generate_column(
            backend, "relearned", prompts, config.compare, config.seed, scorer, should_stop
        )
        return AttackCheckpoint(
            step, (), {"forget": score(painted.pictures)["forget"]}, control=name
        )

    with backend.active(*before):
        yield mark(0)
    try:
        for step in steps:
            if step.step in (*MARKS, step.total):
                yield mark(step.step)
            raise_if_stopped(should_stop)
    finally:
        steps.close()
