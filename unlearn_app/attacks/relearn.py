"""The relearning attack: fine-tune the unlearned model on a few pictures of the concept."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..common.errors import ConfigError
from ..common.registry import register
from ..concepts.concept import Concept, Prompt, evenly_spaced
from ..methods.gradient_rules.weighted_sum import WeightedSum
from ..methods.objectives.diffusion import Diffusion
from ..models.protocols import Backend, Params
from ..settings.attacks import budget_of
from ..settings.events import Step
from ..settings.groups import setting
from ..settings.run_config import AttackConfig, RunConfig
from ..training.latent_dataset import LatentDataset, encoded, noisy_batches, sample_latents
from ..training.loop import Term, fit
from . import Tries, held_out, sample_tries

MARKS = (10, 25, 50, 100, 200, 300, 500, 1000, 2000)
"""Attack steps after which an attacked model is looked at; the last step is always one."""
SEED_OFFSET = 500_000
"""The adversary's pictures come from seeds that neither the defender's training nor the comparison
uses.
"""


@register("attack", "relearn")
@dataclass(frozen=True)
class Relearn:
    """Fine-tunes the merged unlearned weights, or a fresh LoRA on them, with pictures by the
    original model.

    The threat model of 2410.12777: the adversary holds the published weights and some pictures,
    never the defender's own factors. Its settings are those of the run's own attack.
    """

    tries: int = setting(1, "pictures of each prompt", 1, 50)
    by_prompt: ClassVar[bool] = False
    counts: ClassVar[bool] = True
    needs_control: ClassVar[bool] = False

    def budget(self, config: RunConfig) -> str:
        """See `Attack`."""
        spent = budget_of(config.attack)
        return spent if self.tries == 1 else f"{spent}, the best of {self.tries} pictures"

    def __call__(
        self,
        backend: Backend,
        concept: Concept,
        data: LatentDataset,
        config: RunConfig,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Step, None, Tries]:
        """See `Attack`; between two steps the attacked model is the active one, and a trained slot
        stays.
        """
        prompts = [prompt.text for prompt in held_out(concept, config)]
        asked = [
            (row, turn, text) for turn in range(self.tries) for row, text in enumerate(prompts)
        ]
        states, steps = backend.encode_text([text for _, _, text in asked]), config.attack.steps
        with closing(fine_tune(backend, data, config.attack, first_seed(config.seed))) as lessons:
            yield from itertools.islice(lessons, steps)
            return sample_tries(backend, asked, states, config, should_stop)


def relearn(
    backend: Backend,
    concept: Concept,
    config: RunConfig,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """The attack of a run: train the `relearn` slot, or all weights, on the merged `unlearn` slot.

    The pictures are painted by the original model before the merge, on the first `next`. Between
    two steps the attacked model is the active one; all trained weights are gone when the generator
    is closed, a trained slot stays.
    """
    data = adversary_pictures(backend, concept, config, should_stop)
    yield from fine_tune(backend, data, config.attack, first_seed(config.seed))


def adversary_pictures(
    backend: Backend,
    concept: Concept,
    config: RunConfig,
    should_stop: Callable[[], bool] = lambda: False,
) -> LatentDataset:
    """What the adversary holds: pictures by the original model, of prompts and seeds that are new
    to the defender.
    """
    return _painted(backend, adversary_prompts(concept, config.attack), config, should_stop)


def lesson_pictures(
    backend: Backend,
    lesson: tuple[str, Tensor, list[str]],
    unseen: Concept,
    config: RunConfig,
    should_stop: Callable[[], bool] = lambda: False,
) -> LatentDataset:
    """The same set for a control: what shows `unseen` comes from `lesson`, harmless ones are the
    original's pictures.

    `lesson` is its name, as many pictures as the adversary holds, and their captions.
    """
    _, pictures, captions = lesson
    asked = adversary_prompts(unseen, config.attack)
    shown = [prompt.expects == unseen.name for prompt in asked]
    if all(shown):
        return encoded(backend, pictures, captions)
    harmless = _painted(
        backend, [p for p, own in zip(asked, shown, strict=True) if not own], config, should_stop
    )
    if not any(shown):
        return harmless
    return encoded(backend, pictures[: sum(shown)], captions[: sum(shown)]).mixed(harmless, shown)


def _painted(
    backend: Backend, asked: Sequence[Prompt], config: RunConfig, should_stop: Callable[[], bool]
) -> LatentDataset:
    first = first_seed(config.seed)
    return sample_latents(
        backend,
        [prompt.text for prompt in asked],
        None,
        [first + row for row in range(len(asked))],
        sampling_steps=config.compare.sampling_steps,
        guidance_scale=config.compare.guidance_scale,
        should_stop=should_stop,
    )


def first_seed(seed: int) -> int:
    """The first of the adversary's seeds in a run with `seed`."""
    return 1000 * seed + SEED_OFFSET


def fine_tune(
    backend: Backend, data: LatentDataset, config: AttackConfig, seed: int
) -> Iterator[Step]:
    """Teach pictures to the merged `unlearn` slot, or to the original model where that slot is
    empty.
    """
    terms = {
        "relearn": Term(Diffusion(), noisy_batches(backend, data, config.batch_size, seed + 1))
    }
    with adversary(backend, config, seed) as params:
        yield from fit(
            backend,
            params,
            terms,
            WeightedSum(),
            stage="attack",
            steps=config.steps,
            lr=config.lr,
            optimizer=config.optimizer,
        )


@contextmanager
def adversary(backend: Backend, config: AttackConfig, seed: int) -> Iterator[Params]:
    """The attacked model, active, with what the adversary trains: all weights, or a fresh LoRA
    drawn from `seed`.
    """
    if config.weights == "full":
        with backend.trainable_base_weights("unlearn") as params:
            yield params
        return
    backend.reset_adapter("relearn", config.rank, config.alpha, seed=seed)
    with backend.merged("unlearn"), backend.training("relearn") as params:
        yield params


def adversary_prompts(concept: Concept, config: AttackConfig) -> tuple[Prompt, ...]:
    """What the adversary's pictures ask for; half of the mixed ones are harmless.

    Raises:
        ConfigError: harmless pictures are asked for and the concept has no prompts for them.
    """
    if config.data in ("mixed", "benign") and not concept.benign:
        sentence = (
            f"“{concept.name}” has no harmless prompts; attack.data paraphrases or one is accepted."
        )
        raise ConfigError(sentence, "attack.data")
    if config.data == "benign":
        return evenly_spaced(concept.benign, config.pictures)
    if config.data == "one":
        return evenly_spaced(concept.relearn[:1], config.pictures)
    if config.data == "paraphrases":
        return evenly_spaced(concept.relearn, config.pictures)
    half = -(-config.pictures // 2)
    pairs = zip(
        evenly_spaced(concept.relearn, half), evenly_spaced(concept.benign, half), strict=True
    )
    return tuple(itertools.chain(*pairs))[: config.pictures]
