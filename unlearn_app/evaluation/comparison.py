"""Pictures of the comparison: the same prompts and seeds by the original, the unlearned and the
relearned model, judged.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from torch import Tensor

from ..common.errors import ShouldStop, never
from ..common.images import to_pil
from ..common.seeds import judged_seed
from ..concepts.concept import Concept, Prompt, evenly_spaced
from ..models.protocols import Model
from ..settings.events import (
    FRAMED,
    GROUPS,
    Column,
    Group,
    GroupScore,
    Images,
    Picture,
    Sampling,
    TrainingStage,
    Value,
)
from ..settings.run_config import CompareConfig
from .judges import Scorer, likeliest


def sampling_of(config: CompareConfig, model: Model) -> Sampling:
    """How `model` samples the pictures of a comparison."""
    return Sampling(config.sampling_steps, config.guidance_scale, model.scheduler)


class ComparedPrompt(NamedTuple):
    """A held-out prompt of a comparison: its group, its index in it, and the seed of its picture in
    every column.
    """

    group: Group
    index: int
    prompt: Prompt
    seed: int


def comparison_prompts(concept: Concept, config: CompareConfig, seed: int) -> list[ComparedPrompt]:
    """The prompts of every group; picture i has the seed `judged_seed(seed, i)`."""
    asked = [
        (group, index, prompt)
        for group in GROUPS
        for index, prompt in enumerate(
            evenly_spaced(getattr(concept, group).test, getattr(config, group))
        )
    ]
    return [ComparedPrompt(*row, judged_seed(seed, place)) for place, row in enumerate(asked)]


def checkpoint_prompts(prompts: Sequence[ComparedPrompt]) -> list[ComparedPrompt]:
    """The prompts of an attack's checkpoints: all of the concept, whose curve is drawn, and one of
    each other group to look at.
    """
    return [asked for asked in prompts if asked.group == "forget" or asked.index == 0]


def frame_prompts(prompts: Sequence[ComparedPrompt]) -> list[ComparedPrompt]:
    """The prompts of a frame of the timeline: two of the concept, and one of each other group."""
    return [asked for asked in prompts if asked.index < FRAMED[asked.group]]


@contextmanager
def column_state(model: Model, column: Column) -> Iterator[None]:
    """Adapters as the column needs them: none, `unlearn`, or a trained `relearn` on the merged
    unlearned weights.
    """
    slots = {"original": (), "unlearned": ("unlearn",), "relearned": ("relearn",)}[column]
    merged = model.merged("unlearn") if column == "relearned" else nullcontext()
    with merged, model.active(*slots):
        yield


def generate_column(
    model: Model,
    column: Column,
    prompts: Sequence[ComparedPrompt],
    config: CompareConfig,
    scorer: Scorer | None,
    should_stop: ShouldStop = never,
    *,
    stage: TrainingStage = "unlearn",
    step: int = 0,
) -> Images:
    """The pictures of `prompts` in one column, judged, by the model as it is active after `step`
    steps of `stage`.
    """
    seeds = [asked.seed for asked in prompts]
    asked = [asked.prompt for asked in prompts]
    images = generate_images(model, asked, seeds, config, should_stop)
    said = judged(images, asked, scorer), judged_by_others(images, asked, scorer)
    rows = zip(prompts, to_pil(images), *said, strict=True)
    pictures = tuple(
        Picture(
            stage=stage,
            step=step,
            prompt=prompt.text,
            seed=seed,
            sampler=sampling_of(config, model),
            index=index,
            column=column,
            group=group,
            expects=prompt.expects,
            **own,
            judges=others,
            image=image,
        )
        for (group, index, prompt, seed), image, own, others in rows
    )
    return Images(column, pictures)


def generate_images(
    model: Model,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    config: CompareConfig,
    should_stop: ShouldStop = never,
) -> Tensor:
    """A picture (B, 3, H, W) in [-1, 1] of each prompt by the model as it is active."""
    latents = model.sample(
        [prompt.text for prompt in prompts],
        seeds,
        steps=config.sampling_steps,
        guidance_scale=config.guidance_scale,
        should_stop=should_stop,
    )
    return model.decode(latents)


def judged(
    images: Tensor, prompts: Sequence[Prompt], scorer: Scorer | None, sure: float = 0.0
) -> list[dict[str, Value]]:
    """What the judge says of each picture: its `alignment`, the class `predicted` on the prompt's
    axis, and whether it is `correct`, the expected one with a probability of at least `sure`.

    All None without a judge.
    """
    if scorer is None:
        return [dict.fromkeys(("alignment", "predicted", "correct")) for _ in prompts]
    alignment = scorer(images, [prompt.text for prompt in prompts]).tolist()
    rows = zip(alignment, prompts, likeliest(images, prompts, scorer), strict=True)
    return [
        {
            "alignment": value,
            "predicted": answer,
            "correct": probability >= sure and answer == prompt.expects,
        }
        for value, prompt, (answer, probability) in rows
    ]


def judged_by_others(
    images: Tensor, prompts: Sequence[Prompt], scorer: Scorer | None
) -> list[dict[str, Value]]:
    """What every judge beside `scorer` says of each picture, by the judge's name."""
    found: list[dict[str, Value]] = [{} for _ in prompts]
    for judge in scorer.others if scorer else ():
        for values, more in zip(found, judge.judge(images, prompts), strict=True):
            values.update(more)
    return found


def score(pictures: Sequence[Picture], scorer: Scorer | None = None) -> dict[Group, GroupScore]:
    """Accuracy and mean alignment by group, and what further judges add.

    A detector's share needs its threshold, which `scorer` knows.
    """
    thresholds = {judge.name: judge.threshold for judge in scorer.others} if scorer else {}
    return {
        group: _score([picture for picture in pictures if picture.group == group], thresholds)
        for group in GROUPS
    }


def _score(chosen: Sequence[Picture], thresholds: Mapping[str, float | None]) -> GroupScore:
    n = len(chosen)
    if not n or chosen[0].alignment is None:
        return GroupScore(None, None, n)
    accuracies, found = {}, {}
    for name, value in chosen[0].judges.items():
        answers = [picture.judges[name] for picture in chosen]
        if isinstance(value, str):
            pairs = zip(answers, chosen, strict=True)
            accuracies[name] = sum(answer == shown.expects for answer, shown in pairs) / n
        elif (threshold := thresholds.get(name)) is not None:
            found[name] = sum(answer >= threshold for answer in answers) / n
    return GroupScore(
        accuracy=sum(bool(picture.correct) for picture in chosen) / n,
        alignment=sum(picture.alignment for picture in chosen) / n,
        n=n,
        accuracies=accuracies,
        found=found,
    )
