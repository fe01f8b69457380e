"""Painting and judging: the same prompts and seeds from the original, the unlearned and the
relearned model.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from PIL import Image
from torch import Tensor

from ..common.images import to_pil
from ..concepts.concept import Concept, Prompt, evenly_spaced
from ..models.protocols import Backend
from ..settings.events import GROUPS, Column, Group, GroupScore, Images, Picture, Sampling
from ..settings.run_config import CompareConfig
from .judges import Classifier, Scorer

SEED_OFFSET = 900_000
"""Evaluation seeds start here; training seeds never reach it."""


def sampling_of(config: CompareConfig) -> Sampling:
    """How the pictures of a comparison are sampled."""
    return Sampling(config.sampling_steps, config.guidance_scale)


def comparison_prompts(concept: Concept, config: CompareConfig) -> list[tuple[Group, int, Prompt]]:
    """Held-out prompts of every group with their index in it."""
    return [
        (group, index, prompt)
        for group in GROUPS
        for index, prompt in enumerate(
            evenly_spaced(getattr(concept, group).test, getattr(config, group))
        )
    ]


def column_state(backend: Backend, column: Column) -> AbstractContextManager:
    """Adapters as the column needs them: none, `unlearn`, or a trained `relearn` on the merged
    unlearned weights.
    """
    stack = ExitStack()
    if column == "relearned":
        stack.enter_context(backend.merged("unlearn"))
    slots = {"original": (), "unlearned": ("unlearn",), "relearned": ("relearn",)}[column]
    stack.enter_context(backend.active(*slots))
    return stack


def generate_column(
    backend: Backend,
    column: Column,
    prompts: Sequence[tuple[Group, int, Prompt]],
    config: CompareConfig,
    seed: int,
    scorer: Scorer | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Images:
    """All pictures of one column by the model as it is active, judged.

    Picture i has seed `1000 * seed + SEED_OFFSET + i` in every column.
    """
    seeds = [1000 * seed + SEED_OFFSET + row for row in range(len(prompts))]
    asked = [prompt for _, _, prompt in prompts]
    images = generate_images(backend, asked, seeds, config, should_stop)
    detector = scorer.detector if scorer else None
    found = detector(images).tolist() if detector else [None] * len(images)
    seen, checked = judged(images, asked, scorer), checked_by_second(images, asked, scorer)
    rows = zip(prompts, seeds, to_pil(images), seen, checked, found, strict=True)
    return Images(
        column,
        tuple(
            Picture(column, g, i, p.text, n, im, *s, *c, d) for (g, i, p), n, im, s, c, d in rows
        ),
    )


def generate_judged(
    backend: Backend,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    config: CompareConfig,
    scorer: Scorer | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[tuple[Image.Image, float | None, str | None, bool | None]]:
    """A picture of each prompt by the model as it is active, with alignment, predicted class, and
    whether it fits.
    """
    images = generate_images(backend, prompts, seeds, config, should_stop)
    seen = judged(images, prompts, scorer)
    return [(picture, *verdict) for picture, verdict in zip(to_pil(images), seen, strict=True)]


def generate_images(
    backend: Backend,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    config: CompareConfig,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """A picture (B, 3, H, W) in [-1, 1] of each prompt by the model as it is active."""
    latents = backend.sample(
        [prompt.text for prompt in prompts],
        seeds,
        steps=config.sampling_steps,
        guidance_scale=config.guidance_scale,
        should_stop=should_stop,
    )
    return backend.decode(latents)


def judged(
    images: Tensor, prompts: Sequence[Prompt], scorer: Scorer | None, sure: float = 0.0
) -> list[tuple[float | None, str | None, bool | None]]:
    """Alignment, predicted class on the prompt's axis, and whether it is the expected one, per
    picture.

    The expected one needs a probability of at least `sure`.
    """
    if scorer is None:
        return [(None, None, None)] * len(prompts)
    alignment = scorer(images, [prompt.text for prompt in prompts]).tolist()
    answers = zip(alignment, prompts, _answers(images, prompts, scorer), strict=True)
    return [
        (value, answer, p >= sure and answer == prompt.expects)
        for value, prompt, (answer, p) in answers
    ]


def checked_by_second(
    images: Tensor, prompts: Sequence[Prompt], scorer: Scorer | None
) -> list[tuple[str | None, bool | None]]:
    """What the second judge sees in each picture, and whether that is expected; None where there is
    no such judge.
    """
    if scorer is None or scorer.second is None:
        return [(None, None)] * len(prompts)
    answers = _answers(images, prompts, scorer.second)
    return [
        (answer, answer == prompt.expects)
        for prompt, (answer, _) in zip(prompts, answers, strict=True)
    ]


def _answers(
    images: Tensor, prompts: Sequence[Prompt], judge: Classifier
) -> list[tuple[str, float]]:
    """The likeliest class of each picture on its prompt's axis, and its probability."""
    best = {
        axis: judge.classify(images, axis).max(1) for axis in {prompt.axis for prompt in prompts}
    }
    rows = [
        (best[prompt.axis], row, judge.classes(prompt.axis)) for row, prompt in enumerate(prompts)
    ]
    return [
        (classes[int(found.indices[row])], float(found.values[row])) for found, row, classes in rows
    ]


def score(pictures: Sequence[Picture], scorer: Scorer | None = None) -> dict[Group, GroupScore]:
    """Accuracy and mean alignment by group, and what a second judge and a detector of `scorer`
    add.
    """
    scores: dict[Group, GroupScore] = {}
    for group in GROUPS:
        chosen = [p for p in pictures if p.group == group]
        judged = bool(chosen) and chosen[0].alignment is not None
        checked = bool(chosen) and chosen[0].second is not None
        detector = scorer.detector if scorer and chosen else None
        scores[group] = GroupScore(
            accuracy=sum(bool(p.correct) for p in chosen) / len(chosen) if judged else None,
            alignment=sum(p.alignment for p in chosen) / len(chosen) if judged else None,
            n=len(chosen),
            second=sum(bool(p.second_correct) for p in chosen) / len(chosen) if checked else None,
            detected=(
                sum(p.detected >= detector.threshold for p in chosen) / len(chosen)
                if detector
                else None
            ),
        )
    return scores
