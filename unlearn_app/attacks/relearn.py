"""The relearning attack: fine-tune the unlearned model on a few pictures of the concept."""

import itertools
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from ..common import registry
from ..common.errors import ConfigError, ShouldStop, diverging, lower, never
from ..common.registry import register
from ..common.seeds import stream_seed, stream_seeds
from ..concepts.concept import Concept, Lesson, Prompt, evenly_spaced
from ..concepts.own_pictures import NONE_GIVEN, GivenPictures, given_for
from ..methods.objectives.diffusion import Diffusion
from ..models.protocols import Model, Params
from ..models.sizes import picture_shape
from ..settings.attacks import budget_of
from ..settings.cost import fine_tuning_cost
from ..settings.events import Step
from ..settings.groups import AttackConfig, setting
from ..settings.run_config import RunConfig
from ..training.latent_dataset import LatentDataset, encoded, sample_latents
from . import Attack, AttackContext, Tries, asked_in, sample_tries, teach


@register("attack", "relearn")
@dataclass(frozen=True)
class Relearn(Attack):
    """Fine-tunes the merged unlearned weights, or a fresh LoRA on them, with pictures by the
    original model.

    The threat model of 2410.12777: the adversary holds the published weights and some pictures,
    never the defender's own factors. `training` is how it trains, the `attack` settings of a run.
    """

    tries: int = setting(1, "pictures of each prompt", 1, 50)
    training: AttackConfig = field(default=AttackConfig(), repr=False)

    def budget(self, held: AttackConfig) -> str:
        spent = budget_of(self.training)
        return spent if self.tries == 1 else f"{spent}, the best of {self.tries} pictures"

    def forwards(self, held: AttackConfig, prompts: int, picture: int) -> int:
        return super().forwards(held, prompts, picture) + fine_tuning_cost(held)

    def __call__(self, model: Model, context: AttackContext) -> Generator[Step, None, Tries]:
        """See `Attack`; between two steps the model under attack is active with what was trained.

        All trained weights are restored when the generator is closed; the `relearn` slot stays.
        """
        training = fine_tune(model, context.data, self.training, context.seed)
        with diverging(*lower("attack.lr", self.training.lr)), closing(training):
            yield from itertools.islice(training, self.training.steps)
            return sample_tries(model, asked_in(context, range(self.tries)), context)


def adversary_pictures(
    model: Model,
    concept: Concept,
    config: RunConfig,
    should_stop: ShouldStop = never,
    lesson: Lesson | None = None,
    given: GivenPictures = NONE_GIVEN,
) -> LatentDataset:
    """The pictures that the adversary of a run with `config` holds, as its `attack` settings say.

    The original model samples them, from prompts and seeds that the defender does not use, unless
    the world of the model draws them or they are `given`. Where the model has never seen the
    concept, those that show it come from `lesson`, which holds as many.

    Raises:
        ConfigError: the world draws no pictures, or the settings name pictures that are not given.
    """
    held = config.attack
    if held.data in ("renderings", "pictures"):
        pictures, captions = lesson or lesson_of(model, concept, config, given)
        return encoded(model, pictures[: held.pictures], captions[: held.pictures])
    asked = adversary_prompts(concept, config.attack)
    taught = [lesson is not None and prompt.expects == concept.name for prompt in asked]
    others = [prompt.text for prompt, own in zip(asked, taught, strict=True) if not own]
    if others:
        sampled = sample_latents(
            model,
            others,
            None,
            stream_seeds("adversary pictures", config.seed, len(others)),
            sampling_steps=config.compare.sampling_steps,
            guidance_scale=config.compare.guidance_scale,
            should_stop=should_stop,
        )
    if not any(taught):
        return sampled
    pictures, captions = lesson
    own = encoded(model, pictures[: sum(taught)], captions[: sum(taught)])
    return own.mixed(sampled, taught) if others else own


def lesson_of(model: Model, concept: Concept, config: RunConfig, given: GivenPictures) -> Lesson:
    """Pictures of the concept that come from elsewhere than the original model, as 2410.12777 takes
    them from other models.

    Raises:
        ConfigError: the world draws no pictures, or the settings name pictures that are not given.
    """
    held = config.attack
    if own := given_for("pictures", config, given):
        return own.lesson(concept.name, held.pictures, picture_shape(model))
    lesson = registry.world(config.model).lesson(concept.name, held.pictures, config.seed)
    if lesson is None:
        raise ConfigError(
            f"attack.data is renderings, and nothing draws the world of {config.model};"
            " paraphrases is accepted, or pictures with a folder of yours.",
            "attack.data",
        )
    return lesson


def fine_tune(model: Model, data: LatentDataset, config: AttackConfig, seed: int) -> Iterator[Step]:
    """Train the model under attack, all its weights or a fresh LoRA, on the adversary's pictures,
    whose prompts it has read.

    That is the original with the `unlearn` slot merged in, unless that slot is empty. It stays
    active between two steps; `seed` is the run's.
    """
    with trained_by(model, config, seed) as params:
        yield from teach(
            model,
            data,
            "relearn",
            Diffusion(),
            params,
            batch_size=config.batch_size,
            seed=stream_seed("adversary batches", seed),
            steps=config.steps,
            lr=config.lr,
            optimizer=config.optimizer,
        )


@contextmanager
def trained_by(model: Model, config: AttackConfig, seed: int) -> Iterator[Params]:
    """What the adversary of the run with that `seed` trains, while the model under attack is
    active: all its weights, or the factors of a fresh LoRA.
    """
    with ExitStack() as attacked:
        if config.weights == "full":
            yield attacked.enter_context(model.trainable_base_weights("unlearn"))
            return
        drawn_from = stream_seed("adversary adapter", seed)
        model.reset_adapter("relearn", config.rank, config.alpha, seed=drawn_from)
        attacked.enter_context(model.merged("unlearn"))
        yield attacked.enter_context(model.training("relearn"))


def adversary_prompts(concept: Concept, config: AttackConfig) -> tuple[Prompt, ...]:
    """What the adversary's pictures ask for; half of the mixed ones are harmless.

    Raises:
        ConfigError: harmless pictures are asked for and the concept has no prompts for them.
    """
    if config.data in ("mixed", "benign") and not concept.benign:
        raise ConfigError(
            f"“{concept.name}” has no harmless prompts;"
            " attack.data paraphrases or one is accepted.",
            "attack.data",
        )
    if config.data != "mixed":
        prompts = {
            "benign": concept.benign,
            "one": concept.relearn[:1],
            "paraphrases": concept.relearn,
        }
        return evenly_spaced(prompts[config.data], config.pictures)
    half = -(-config.pictures // 2)
    pairs = zip(
        evenly_spaced(concept.relearn, half), evenly_spaced(concept.benign, half), strict=True
    )
    return tuple(itertools.chain(*pairs))[: config.pictures]
