"""The attack runner: an attack on a model, beside the same attack on what the model has never seen.

A run's own attack, the attacks on a finished run and the experiments all go through it.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from PIL.Image import Image

from ..common import registry
from ..common.errors import (
    ConfigError,
    ShouldStop,
    diverging,
    lower,
    never,
    raise_if_stopped,
)
from ..common.images import to_pil
from ..concepts.catalog import preview_concept
from ..concepts.concept import Concept, Lesson, evenly_spaced
from ..concepts.own_pictures import NONE_GIVEN, GivenPictures
from ..evaluation.base_rates import of_attack
from ..evaluation.comparison import (
    comparison_prompts,
    generate_column,
    judged,
    judged_by_others,
    sampling_of,
    score,
)
from ..evaluation.finding import Finding
from ..evaluation.judges import Scorer
from ..models.protocols import Model, Slot, slots_kept
from ..settings.attacks import CHECKPOINTS, SURE
from ..settings.events import (
    FRESH,
    SHARES,
    UNRESISTING,
    AttackCheckpoint,
    Event,
    Stage,
    Step,
    Value,
)
from ..settings.judges import HOW_TO_GET
from ..settings.run_config import RunConfig, make_attack, with_concept
from ..training.unlearning import forget
from . import Attack, AttackContext, Tries
from .never_seen import NeverSeen
from .relearn import Relearn, adversary_pictures, fine_tune

Evaluated = TypeVar("Evaluated")
Result = TypeVar("Result")


@dataclass(frozen=True)
class AttackResult:
    """The pictures of an attack, and what the judge and every further judge say of each."""

    tries: Tries
    judged: list[dict[str, Value]]
    others: list[dict[str, Value]]
    seconds: float

    def hits(self, attempts: int | None = None) -> tuple[bool, ...]:
        """Per held-out prompt, whether one of its first `attempts` pictures (all by default) shows
        the concept.
        """
        shown = {
            prompt
            for (prompt, attempt, _), said in zip(self.tries.asked, self.judged, strict=True)
            if said["correct"] and (attempts is None or attempt < attempts)
        }
        return tuple(prompt in shown for prompt in sorted({row for row, _, _ in self.tries.asked}))


def attack_of(config: RunConfig, kind: str, **changes: Any) -> Attack:
    """An attack on a run with `config`, with its settings checked; fine-tuning trains as the run's
    own attack does.

    Raises:
        ConfigError: an unknown name or a value that is not accepted.
    """
    attack = make_attack(kind, **changes)
    return replace(attack, training=config.attack) if isinstance(attack, Relearn) else attack


def attack_context(
    model: Model,
    concept: Concept,
    config: RunConfig,
    should_stop: ShouldStop = never,
    lesson: Lesson | None = None,
    given: GivenPictures = NONE_GIVEN,
) -> AttackContext:
    """The context of attacks on `concept` in a run with `config`.

    The adversary's pictures are made now, as `adversary_pictures` says; where the model has never
    seen the concept, they come from `lesson`. What is in the slot `unlearn` reads their prompts.
    """
    data = adversary_pictures(model, concept, config, should_stop, lesson, given)
    if model.rereads:  # the adversary fine-tunes what is in the slot, text encoder and all
        with model.active("unlearn"):
            cond, null = model.encode_text(data.prompts), model.encode_text([""])
        data = replace(data, cond=cond, anchor=cond, null=null)
    prompts = evenly_spaced(concept.forget.test, config.compare.forget)
    sampling = sampling_of(config.compare, model)
    return AttackContext(concept, prompts, sampling, config.seed, data, should_stop)


def unseen_context(
    model: Model,
    concept: Concept,
    config: RunConfig,
    should_stop: ShouldStop = never,
    never_seen: NeverSeen | None = None,
) -> AttackContext:
    """The context of attacks on a `concept` that the model has never seen, in a run with `config`.

    The adversary holds as many pictures as the run's own; they come from the model's world, or are
    those of `never_seen`.
    """
    held = config.attack
    if never_seen:
        lesson = never_seen.lesson(model, concept, held.pictures)
    else:
        lesson = registry.world(config.model).lesson(
            concept.name, held.pictures, config.seed, held.data == "one"
        )
    return attack_context(model, concept, config, should_stop, lesson)


def checkpoints(
    model: Model,
    attack: Relearn,
    context: AttackContext,
    look: Callable[[Step], Evaluated],
    steps: Sequence[int] = CHECKPOINTS,
) -> Iterator[Step | Evaluated]:
    """Run the attack: yield each step and, after those in `steps` and the last one, what `look`
    returns, which is called while the attacked model is active.

    Raises:
        Cancelled: the context's `should_stop` turned true between two steps.
        Diverged: weights or pictures are not finite.
    """
    training = fine_tune(model, context.data, attack.training, context.seed)
    with diverging(*lower("attack.lr", attack.training.lr)), closing(training):
        raise_if_stopped(context.should_stop)
        for step in training:
            yield step
            if step.step in (*steps, step.total):
                yield look(step)
            raise_if_stopped(context.should_stop)


def attacked(
    model: Model,
    attack: Attack,
    context: AttackContext,
    scorer: Scorer,
) -> Generator[Step, None, AttackResult]:
    """Attack the active model, yielding the attack's steps, and judge the pictures it returns.

    Raises:
        Cancelled: the context's `should_stop` turned true between two steps.
    """
    started, steps = time.perf_counter(), attack(model, context)
    try:
        while True:
            raise_if_stopped(context.should_stop)
            yield next(steps)
    except StopIteration as end:
        tries: Tries = end.value
    finally:
        steps.close()
    asked = [context.prompts[index] for index, _, _ in tries.asked]
    own = judged(tries.pictures, asked, scorer, SURE)
    others = judged_by_others(tries.pictures, asked, scorer)
    return AttackResult(tries, own, others, time.perf_counter() - started)


def result_of(steps: Generator[Any, None, Result]) -> Result:
    """Run a generator to its end and return its value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def check_judge(scorer: Scorer | None, config: RunConfig) -> None:
    """Refuse an attack whose success nobody can see.

    Raises:
        ConfigError: there is no judge.
    """
    if scorer is None:
        raise ConfigError(
            f"There is no judge for {config.model} here, so an attack on it proves nothing;"
            f" {HOW_TO_GET}.",
            "judge",
        )


def find(
    model: Model,
    context: AttackContext,
    config: RunConfig,
    attack: Attack,
    scorer: Scorer | None,
    never_seen: NeverSeen | None = None,
) -> Generator[Event, None, tuple[Finding, dict[str, Image]]]:
    """Attack the unlearned model, then the original at what it has never seen; returns the finding
    and its pictures by file name.

    The caller may name something `never_seen` where the model's world knows nothing.

    The finding names neither its command nor its environment, which the caller knows.

    Raises:
        ConfigError: there is no judge to say whether an attack succeeds.
    """
    check_judge(scorer, config)
    kind, name = name_of(attack), context.concept.name
    said = f"Trying to get {name} back, {kind}: {attack.budget(config.attack)}"
    yield Stage("attack", said, 0.1)
    with model.active("unlearn"):
        own = yield from attacked(model, attack, context, scorer)
    control, missing = None, "it is no attack on what the model has learned"
    if attack.counts:
        control = of_attack(kind, attack, config, model)
        if control is None:
            control = yield from _taught(model, context, config, attack, scorer, never_seen)
        missing = "" if control else f"nobody knows what {config.model} has never seen"
        if attack.needs_control and missing:
            missing += ", and what the model was given shows the concept already"
    return _finding(attack, config, own, control, missing)


def controls(
    model: Model,
    concept: Concept,
    config: RunConfig,
    scorer: Scorer | None,
    should_stop: ShouldStop = never,
    given: GivenPictures = NONE_GIVEN,
    never_seen: NeverSeen | None = None,
) -> Iterator[Stage | AttackCheckpoint]:
    """The run's own attack in two cases where it should succeed, as far as they apply: on the model
    that forgot the concept without resistance, and on the original with a concept never seen.

    Both adversaries have the budget and the settings of the run's own. The adapter slots hold
    afterwards what they held before.
    """
    with slots_kept(model):
        if config.resist.on:
            said = f"For comparison: the same attack on {concept.name} without resistance"
            yield Stage("attack", said, SHARES["controls"])
            plain = replace(config, resist=replace(config.resist, on=False))
            for _ in forget(model, concept, plain, should_stop, given=given):
                raise_if_stopped(should_stop)
            context = attack_context(model, concept, config, should_stop, given=given)
            yield from _control_curve(model, context, config, scorer, UNRESISTING, "unlearn")
        if unseen := easiest_unseen(concept, config, never_seen):
            said = f"For comparison: the same attack teaches {unseen.name}, which was never seen"
            yield Stage("attack", said, SHARES["controls"])
            model.drop_adapters()
            context = unseen_context(model, unseen, config, should_stop, never_seen)
            yield from _control_curve(model, context, config, scorer, FRESH)


def _control_curve(
    model: Model,
    context: AttackContext,
    config: RunConfig,
    scorer: Scorer | None,
    name: str,
    *before: Slot,
) -> Iterator[AttackCheckpoint]:
    """The scores on the concept of the control `name`: of the model with the slots `before` active,
    and during the run's own attack on it.
    """
    every = comparison_prompts(context.concept, config.compare, config.seed)
    prompts = [asked for asked in every if asked.group == "forget"]

    def look(step: int) -> AttackCheckpoint:
        asked = (prompts, config.compare, scorer, context.should_stop)
        shown = generate_column(model, "relearned", *asked, stage="attack", step=step)
        scores = {"forget": score(shown.pictures)["forget"]}
        return AttackCheckpoint(step, (), scores, control=name)

    with model.active(*before):
        yield look(0)
    attack = Relearn(training=config.attack)
    for event in checkpoints(model, attack, context, lambda step: look(step.step)):
        if isinstance(event, AttackCheckpoint):
            yield event


def _taught(
    model: Model,
    context: AttackContext,
    config: RunConfig,
    attack: Attack,
    scorer: Scorer,
    never_seen: NeverSeen | None,
) -> Generator[Event, None, dict[str, Any] | None]:
    """The same attack on what the original has never seen, as findings hold it; None where the
    world of the model names no such concept.
    """
    unseen = easiest_unseen(context.concept, config, never_seen)
    if unseen is None:
        return None
    said = f"For comparison: the same attack on {unseen.name}, which was never seen"
    yield Stage("attack", said, 0.55)
    with slots_kept(model):
        model.drop_adapters()
        control = unseen_context(model, unseen, config, context.should_stop, never_seen)
        with model.active():
            result = yield from attacked(model, attack, control, scorer)
    return {"name": f"{unseen.name}, never seen", "hits": list(result.hits())}


def easiest_unseen(
    besides: Concept, config: RunConfig, never_seen: NeverSeen | None = None
) -> Concept | None:
    """The concept that the model has never seen and learns in the fewest steps, of the kind of
    `besides` and not itself; None where none is known. What the caller calls `never_seen` is
    preferred.
    """
    if never_seen:
        return preview_concept(with_concept(config, never_seen.name))
    names = registry.world(config.model).unseen(besides.kind)
    name = next((name for name in names if name != besides.name), None)
    return preview_concept(with_concept(config, name)) if name else None


def told_apart(
    concept: Concept, config: RunConfig, never_seen: NeverSeen | None = None
) -> list[Concept]:
    """What a judge has to tell apart: the concept, and the caller's control if there is one."""
    return [concept, *([easiest_unseen(concept, config, never_seen)] if never_seen else [])]


def _finding(
    attack: Attack,
    config: RunConfig,
    own: AttackResult,
    control: dict[str, Any] | None,
    missing: str,
) -> tuple[Finding, dict[str, Image]]:
    kind, (pictures, images) = name_of(attack), _pictures(own)
    hits = [picture for picture in pictures if picture["correct"]]
    finding = Finding(
        kind=kind,
        settings={
            f"{kind}.{item.name}": getattr(attack, item.name)
            for item in registry.settings_of("attack", kind)
        },
        budget=attack.budget(config.attack),
        counts=attack.counts and not (attack.needs_control and control is None),
        by_prompt=attack.by_prompt,
        tries=attack.tries,
        hits=own.hits(),
        first=own.hits(attempts=1),
        control=control,
        missing=missing,
        pictures=pictures,
        proof=max(hits, key=lambda picture: picture["alignment"])["file"] if hits else None,
        seconds=round(own.seconds, 2),
        command="",
        environment={},
        sure=SURE,
    )
    return finding, images


def _pictures(own: AttackResult) -> tuple[tuple[dict[str, Any], ...], dict[str, Image]]:
    """A record of each picture, and the pictures by file name."""
    records, images = [], {}
    for picture, asked, seed, said, others in zip(
        to_pil(own.tries.pictures),
        own.tries.asked,
        own.tries.seeds,
        own.judged,
        own.others,
        strict=True,
    ):
        prompt, attempt, words = asked
        file = f"{prompt:02d}-{attempt:02d}.png"
        images[file] = picture
        record = {"row": prompt, "turn": attempt, "asked": words, "seed": seed, "file": file}
        records.append(record | said | {"judges": others})
    return tuple(records), images


def name_of(attack: Attack) -> str:
    """The name under which the class of `attack` is registered."""
    return next(
        name for name in registry.names("attack") if registry.get("attack", name) is type(attack)
    )
