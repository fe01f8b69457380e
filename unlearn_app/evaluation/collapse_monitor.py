"""Pictures by a model under training: previews, and a check that stops a training that destroys
the model.
"""

from dataclasses import replace

from ..common.errors import ShouldStop
from ..common.images import to_pil
from ..common.seeds import preview_seed
from ..concepts.concept import Concept, evenly_spaced
from ..models.protocols import Model
from ..settings.events import Picture, Preview, Step
from ..settings.run_config import CompareConfig
from .comparison import generate_images, judged, sampling_of
from .judges import Scorer

PREVIEWS, CHECKS = 4, 2
"""How many times in a training previews are made, and the model is checked for a collapse."""
STEPS = 6
"""The most denoising steps of these pictures."""
WATCHED = 4
"""How many pictures of relatives, and as many of everything else, the check generates."""
LOST = 0.5
COLLAPSE = f"the model loses what it should keep, more than {LOST:.0%} of it."


class CollapseMonitor:
    """Previews of the same few prompts and seeds each time, and judged pictures of what should be
    kept.

    The judged ones have retain prompts of the training. Without a judge, or where those prompts do
    not say what they expect, nothing is judged and no training is stopped.
    """

    def __init__(
        self,
        model: Model,
        concept: Concept,
        compare: CompareConfig,
        scorer: Scorer | None,
        should_stop: ShouldStop,
    ) -> None:
        self._model, self._concept = model, concept
        self._compare = replace(compare, sampling_steps=min(STEPS, compare.sampling_steps))
        self._scorer, self._should_stop = scorer, should_stop
        kept = [
            *evenly_spaced(concept.near.train, WATCHED),
            *evenly_spaced(concept.far.train, WATCHED),
        ]
        self._kept = [prompt for prompt in kept if prompt.expects] if scorer else []
        with model.active():
            self._known = self._right()

    def due(self, step: Step) -> bool:
        """Whether previews are made after this step; always after the last one."""
        return _is_part(step, PREVIEWS)

    def preview(self, step: Step) -> Preview:
        """Pictures of the concept, of a relative and of something else by the model as it is
        active.
        """
        concept = self._concept
        prompts = [split.test[0] for split in (concept.forget, concept.near, concept.far)]
        seeds = [preview_seed(row) for row in range(len(prompts))]
        images = generate_images(self._model, prompts, seeds, self._compare, self._should_stop)
        sampler = sampling_of(self._compare, self._model)
        pictures = tuple(
            Picture(step.stage, step.step, prompt.text, seed, sampler, index, image=image)
            for index, (prompt, seed, image) in enumerate(
                zip(prompts, seeds, to_pil(images), strict=True)
            )
        )
        return Preview(step.stage, step.step, pictures)

    def collapsed(self, step: Step) -> bool:
        """Whether the model as it is active has lost more than `LOST` of what the original gets
        right; checked after `CHECKS` of the steps, the last one among them, and False after others.

        Also False where the original gets less than half right, as with very few sampling steps.
        """
        return (
            bool(self._kept)
            and _is_part(step, CHECKS)
            and self._known >= len(self._kept) / 2
            and self._right() < (1 - LOST) * self._known
        )

    def _right(self) -> int:
        if not self._kept:
            return 0
        seeds = [preview_seed(100 + row) for row in range(len(self._kept))]
        images = generate_images(self._model, self._kept, seeds, self._compare, self._should_stop)
        return sum(bool(said["correct"]) for said in judged(images, self._kept, self._scorer))


def _is_part(step: Step, parts: int) -> bool:
    """Whether the step ends one of `parts` equal parts of the training."""
    return step.step in {-(-step.total * part // parts) for part in range(1, parts + 1)}
