"""A check that stops a training that destroys the model."""

from dataclasses import replace

from ..common.errors import ShouldStop
from ..common.seeds import preview_seed
from ..concepts.concept import Concept, evenly_spaced
from ..models.protocols import Model
from ..settings.events import Step
from ..settings.run_config import CompareConfig
from .comparison import generate_images, judged
from .judges import Scorer

STEPS = 6
"""The most denoising steps of the pictures."""
WATCHED = 4
"""How many pictures of relatives, and as many of everything else, the check generates."""
LOST = 0.5
COLLAPSE = f"the model loses what it should keep, more than {LOST:.0%} of it."


class CollapseMonitor:
    """Judged pictures of what should be kept, from retain prompts of the training.

    Without a judge, or where those prompts do not say what they expect, nothing is judged and no
    training is stopped.
    """

    def __init__(
        self,
        model: Model,
        concept: Concept,
        compare: CompareConfig,
        scorer: Scorer | None,
        should_stop: ShouldStop,
    ) -> None:
        self._model, self._should_stop = model, should_stop
        self._compare = replace(compare, sampling_steps=min(STEPS, compare.sampling_steps))
        self._scorer = scorer
        kept = [
            *evenly_spaced(concept.near.train, WATCHED),
            *evenly_spaced(concept.far.train, WATCHED),
        ]
        self._kept = [prompt for prompt in kept if prompt.expects] if scorer else []
        with model.active():
            self._known = self._right()

    def collapsed(self, step: Step) -> bool:
        """Whether the model as it is active has lost more than `LOST` of what the original gets
        right; checked after half of the steps, and False after others.

        Also False where the original gets less than half right, as with very few sampling steps.
        """
        return (
            bool(self._kept)
            and step.step == -(-step.total // 2)
            and self._known >= len(self._kept) / 2
            and self._right() < (1 - LOST) * self._known
        )

    def _right(self) -> int:
        if not self._kept:
            return 0
        seeds = [preview_seed(100 + row) for row in range(len(self._kept))]
        images = generate_images(self._model, self._kept, seeds, self._compare, self._should_stop)
        return sum(bool(said["correct"]) for said in judged(images, self._kept, self._scorer))
