"""The benchmark of paper 1: development chooses for every arm, then test targets are forgotten."""

import functools
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...attacks.relearn import adversary_pictures, fine_tune
from ...attacks.runner import result_of
from ...common.errors import Diverged, diverging, lower, never
from ...common.json_values import to_json
from ...common.registry import DEFAULT_MODEL
from ...concepts.catalog import known_concepts, preview_concept
from ...concepts.concept import Concept, Kind, Prompt, evenly_spaced, restricted_retain
from ...concepts.english import mentions
from ...concepts.targets import Targets, targets_told
from ...continual.ledger import slug
from ...evaluation.comparison import generate_images, judged
from ...evaluation.distances import frechet, kid
from ...evaluation.judges import Classifier, Scorer
from ...methods.objectives.diffusion import Diffusion
from ...models.lora import sum_adapters
from ...models.protocols import Model, NoisyBatch
from ...settings.events import GROUPS, Step
from ...settings.groups import RegularizeConfig
from ...settings.run_config import RunConfig
from ...training import unlearning
from ...training.latent_dataset import noisy_batches, sample_latents
from ...training.loop import Term, fit
from ..cells import SMOKE, Experiment, measured_model, names_of, settings, short_hash, stored
from ..forwards import CountedModel
from ..known_outcome_models import load_only
from ..tables import bits, percent_of
from .arms import (
    ARMS,
    CUT_TARGETS,
    DESCENT_LR,
    DESCENT_STEPS,
    DESCENTS,
    FINETUNE,
    HARMLESS_ARMS,
    KIND_OF,
    KINDS,
    MAIN,
    MORE_TARGETS,
    RGD,
    SECOND_MODEL,
    STAGES,
    TUNED,
    TUNED_ON,
    TUNING_SEED,
    UCE,
    Setting,
)
from .report import RETAIN, trial_of, write_results
from .tuning import Trial, asked, chosen, development_anchor, in_development, narrowed

TRAIN_SEED, TEST_SEED, REFERENCE_SEED = 6_000_000, 6_100_000, 6_200_000
HELD_OUT_SEED, HELD_OUT_NOISE = 6_300_000, 6_400_000
CAPTION_SEED, CAPTION_REFERENCE_SEED = 7_000_000, 8_000_000
COUNT, TRIAL_COUNT, SMOKE_COUNT = 24, 12, 4
"""Pictures of the concept that are judged in a test, in a trial, and in a smoke; half as many are
of near relatives, of far ones and of training prompts. Of everything kept there is one each.
"""
HELD_OUT = 12
"""Pictures of the concept, and of what is kept, whose losses are followed step by step."""
HARMLESS = {
    "attack.data": "benign",
    "attack.steps": 25,
    "attack.lr": 1e-3,
    "attack.batch_size": 8,
    "attack.pictures": 16,
}
"""One round of an honest user's fine-tuning."""
ROUNDS, ROUND_SEED = 3, 100
"""Rounds of it, each with pictures and an adapter of its own on top of the last; what is added to
the seed at each.
"""
SMOKE_ARMS, SMOKE_CAPTIONS = (*MAIN, UCE), 4
"""The arms of a smoke on a model that the user brings, and its captions."""
Reference = tuple[Tensor, Tensor | None]
"""Features of the original's pictures of retain prompts, and of the user's captions if there are
any.
"""
HeldOut = dict[str, NoisyBatch]
"""A fixed batch of the concept and one of what is kept, both of held-out prompts."""
UNTOUCHED, STEP_TIME = "original", "step-time"
"""What stands in place of an arm: pictures by the original model, and the seconds of a step."""


@dataclass(frozen=True)
class Removal:
    """One target removed by one arm with one setting; None where nothing is chosen for the arm."""

    target: str
    arm: str
    seed: int
    setting: Setting | None = None

    @property
    def tuning(self) -> bool:
        """Whether it is a trial on a development target."""
        return self.seed == TUNING_SEED

    @property
    def kind(self) -> Kind:
        """The kind of the target."""
        return kind_of(self.target)

    @property
    def cut(self) -> bool:
        """Whether it belongs to the declared cut; the full grid measures the others too."""
        known = DESCENTS.get(self.arm, self.arm)
        return self.seed == 0 and self.target in CUT_TARGETS[self.kind] and ARMS[known].cut

    def config(self, smoke: bool) -> RunConfig:
        """The settings of its run, and of the honest user's fine-tuning after it."""
        arm = ARMS.get(DESCENTS.get(self.arm, self.arm))
        changes = arm.changes(self.kind, self.setting) if arm else {}
        if self.arm in DESCENTS:
            changes |= {"unlearn.steps": DESCENT_STEPS}
        if self.tuning:
            changes |= {"anchor": development_anchor(preview_concept(settings(self.target)))}
        return settings(
            self.target, seed=self.seed, **changes | HARMLESS | (SMOKE if smoke else {})
        )


def concept_of(config: RunConfig) -> Concept:
    """What a run forgets and what it keeps; a trial, told by its seed, keeps development concepts
    only.
    """
    return restricted_retain(_all_kept(config), config.unlearn.retain)


def _all_kept(config: RunConfig) -> Concept:
    """As `concept_of`, with the retain prompts of all arms."""
    unlearn = replace(config.unlearn, retain="diversified")
    concept = preview_concept(replace(config, unlearn=unlearn))
    return in_development(concept) if config.seed == TUNING_SEED else concept


def kind_of(target: str) -> Kind:
    """The kind of a target of the model that is measured."""
    if targets := targets_told():
        return targets.targets[target].kind
    return KIND_OF[target]


def targets_of(kind: Kind) -> tuple[str, ...]:
    """All test targets of a kind, the cut's first, or those that the user brings."""
    return names_of(kind, (*CUT_TARGETS[kind], *MORE_TARGETS[kind]))


class Paper1(Experiment):
    """Tune each arm on development targets, forget each test target with each arm, and score the
    model beside the original.
    """

    name = "paper1"

    def cells(self) -> list[Removal]:
        """Trials stage by stage, then the tests: a stage is known once the one before is
        measured.
        """
        trials: list[Removal] = []
        tried: dict[Any, Trial] = {}
        for stage in range(len(STAGES) if not self.extent.targets else 0):
            own = self._stage(stage, tried)
            trials += own
            known = {cell: stored(self, cell)[0] for cell in own}
            if any(self.lacks(cell, values) for cell, values in known.items()):
                return trials
            if self.smoke:
                break
            for cell, values in known.items():
                trial = trial_of(to_json(cell) | {"kind": cell.kind, "stage": stage}, values)
                tried[cell.arm, cell.kind, stage, cell.target, cell.setting] = trial
        return [*trials, *self._tests(tried)]

    def _stage(self, stage: int, tried: Mapping[Any, Trial]) -> list[Removal]:
        """The trials of a stage of the narrowing; a smoke has those of one arm on one target."""
        found = []
        for arm, kind in itertools.product(self._arms, KINDS):
            if arm in TUNED:
                before = narrowed(arm, kind, tried)[:stage] or [ARMS[arm].start(kind)]
                found += [
                    Removal(target, arm, TUNING_SEED, setting)
                    for target, setting in asked(arm, kind, stage, before[-1])
                ]
        return found[: len(found) if not self.smoke else 2]

    def _tests(self, tried: Mapping[Any, Trial]) -> list[Removal]:
        """The tests, what is compared together, and the original before what it stands beside."""
        removals = []
        for arm, kind in itertools.product((*self._arms, *DESCENTS), KINDS):
            setting = self._setting(arm, kind, tried)
            asked_of = itertools.product(range(self.seeds), targets_of(kind))
            removals += [Removal(target, arm, seed, setting) for seed, target in asked_of]
        some = self.chosen(removals, self._small)
        places = {target: place for kind in KINDS for place, target in enumerate(targets_of(kind))}

        def order(cell: Removal) -> tuple[Any, ...]:
            group = ARMS[cell.arm].group if cell.arm in ARMS else len(ARMS)
            own = not self.extent.targets and not cell.cut
            return own, cell.seed, group, cell.kind, places[cell.target]

        pairs = (
            (Removal(cell.target, UNTOUCHED, cell.seed), cell) for cell in sorted(some, key=order)
        )
        return [*dict.fromkeys(itertools.chain(*pairs)), Removal("", STEP_TIME, 0)]

    @property
    def _arms(self) -> list[str]:
        """The arms of the extent."""
        if self.extent.bundled != DEFAULT_MODEL:
            return list(SECOND_MODEL)
        every = self.extent.full or self.extent.targets
        return [name for name, arm in ARMS.items() if every or arm.cut]

    def _setting(self, arm: str, kind: Kind, tried: Mapping[Any, Trial]) -> Setting | None:
        """What development chose, or begins with where there are no trials; fine-tuning lasts as
        long as the main arm.
        """
        own = RGD if arm in (FINETUNE, *DESCENTS) else arm
        if own not in TUNED:
            return None
        return chosen(own, kind, tried) or ARMS[own].start(kind)

    def _small(self, cell: Removal) -> bool:
        """Whether a smoke measures it: every arm on one target, the main ones on one of the other
        kind; of a model that the user brings, few arms on one target.
        """
        names = [targets[0] for kind in KINDS if (targets := targets_of(kind))]
        if self.extent.targets:
            return cell.arm in SMOKE_ARMS and cell.target == names[0]
        return cell.target == names[0] or (cell.target in names and cell.arm in MAIN)

    def key(self, cell: Removal) -> str:
        if cell.arm == STEP_TIME:
            return STEP_TIME
        name = f"{cell.target}-{cell.seed}"
        if cell.tuning:
            how = "-".join(format(value, "g") for value in cell.setting)
            return slug(f"tuning-{cell.arm}-{cell.target}-{how}")
        return slug(f"{UNTOUCHED}-{name}" if cell.arm == UNTOUCHED else f"{name}-{cell.arm}")

    def config(self, cell: Removal) -> dict[str, Any]:
        base = self.model.base_hash
        if cell.arm == STEP_TIME:
            timed = [digest(config) for config in timed_runs(self.smoke).values()]
            return {"base": base, "rounds": 2 if self.smoke else 10, "settings": timed}
        config = cell.config(self.smoke)
        plan = {
            "target": cell.target,
            "seed": cell.seed,
            "count": self._count(cell),
            "base": base,
            "prompts": prompts_hash(config),
        }
        if cell.arm not in DESCENTS:
            twice = not (cell.tuning or self.extent.targets)
            judges = (self.judge, *([self.second] if twice else []))
            plan["judges"] = [f"{judge.name} {judge.version}" for judge in judges]
        if cell.arm == UNTOUCHED:
            sampling = [config.compare.sampling_steps, config.compare.guidance_scale]
            return plan | {"measures": ["right", "alignment", "kid", "kept"], "sampling": sampling}
        plan |= {
            "kind": cell.kind,
            "arm": cell.arm,
            "setting": cell.setting,
            "settings": digest(config),
        }
        if cell.tuning:
            stages = TUNED_ON[cell.kind]
            return plan | {"stage": next(n for n, own in enumerate(stages) if cell.target in own)}
        if cell.arm in DESCENTS:
            return plan | {"held_out": self._held_out, "lr": DESCENT_LR}
        fine_tuned = cell.arm in HARMLESS_ARMS
        return plan | {
            "held_out": self._held_out if cell.arm in MAIN else 0,
            "harmless": short_hash([self._rounds, config.attack]) if fine_tuned else "",
        }

    def alone(self, cell: Removal) -> bool:
        return cell.arm == STEP_TIME

    def shared_by(self, cell: Removal) -> tuple[str, int] | None:
        compares = cell.arm != STEP_TIME and not cell.tuning and cell.arm not in DESCENTS
        return (cell.target, cell.seed) if compares else None

    def prepare(self, cell: Removal) -> Reference:
        config = cell.config(self.smoke)
        groups = groups_of(config, self._count(cell))
        prompts = [prompt for group in RETAIN for prompt in groups[group]]
        with self.model.active():
            images = _pictures(self.model, prompts, REFERENCE_SEED + 1000 * cell.seed, config)
            _, captioned = self._captioned(cell, config, CAPTION_REFERENCE_SEED)
        return self.judge.features(images), captioned

    def measure(
        self, cell: Removal, known: dict[str, Any], shared: Reference | None
    ) -> Iterator[dict[str, Any]]:
        self.model.drop_adapters()
        if cell.arm == STEP_TIME:
            yield step_times(self.model, self.config(cell)["rounds"], self.smoke)
        elif cell.arm in DESCENTS:
            config = cell.config(self.smoke)
            held = held_out(self.model, config, self._held_out)
            yield unlearned(self.model, config, cell.arm, held) | {"run": config.command()}
        elif cell.tuning:
            config = cell.config(self.smoke)
            spent = unlearned(self.model, config, cell.arm)
            groups = groups_of(config, self._count(cell))
            found, _ = scored(
                self.model, self.judge, {g: groups[g] for g in GROUPS}, ("unlearn",), config
            )
            yield found | spent | {"run": config.command()}
        else:
            yield self._tested(cell, shared)
        self.model.drop_adapters()

    def _tested(self, cell: Removal, shared: Reference) -> dict[str, Any]:
        """All that is measured of a test target, and of the original on its prompts."""
        config, spent, slots = cell.config(self.smoke), {}, ()
        if cell.arm != UNTOUCHED:
            follows = cell.arm in MAIN
            held = held_out(self.model, config, self._held_out) if follows else None
            spent, slots = unlearned(self.model, config, cell.arm, held), ("unlearn",)
        groups = groups_of(config, self._count(cell))
        groups["kept"] = kept_prompts(cell.target)[: self._count(cell) if self.smoke else None]
        second = None if self.extent.targets else self.second
        values, features = scored(self.model, self.judge, groups, slots, config, second)
        reference, captioned = shared
        distance, error = kid(features, reference)
        values |= {"kid": distance, "kid_se": error}
        if captioned is not None:
            with self.model.active(*slots):
                alignment, found = self._captioned(cell, config, CAPTION_SEED)
            distance, error = kid(found, captioned)
            own = {"alignment": alignment, "kid": distance, "kid_se": error}
            values["captions"] = own | {"frechet": frechet(found, captioned)}
        if cell.arm in HARMLESS_ARMS:
            some = {
                group: evenly_spaced(groups[group], len(groups[group]) // 2) for group in GROUPS
            }
            rounds = harmless_rounds(self.model, self.judge, config, some, self._rounds)
            values["harmless"] = list(rounds)
        return values | spent | {"run": config.command()}

    def line(self, cell: Removal, values: Mapping[str, Any]) -> str:
        if cell.arm == STEP_TIME:
            return "seconds of a step"
        name = f"{cell.target}, {cell.arm}"
        if cell.tuning:
            name += f", tuning {', '.join(format(value, 'g') for value in cell.setting)}"
        if cell.arm in DESCENTS:
            return f"{name}, seed {cell.seed}: {len(values['held_out']['forget']) - 1} steps"
        shares = "  ".join(f"{group} {percent_of(values['right'][group])}" for group in GROUPS)
        return f"{name}, seed {cell.seed}: {shares}"

    def _captioned(
        self, cell: Removal, config: RunConfig, first: int
    ) -> tuple[float, Tensor | None]:
        """The mean alignment of pictures of the user's captions by the active model, and their
        features (N, D); None where there are no captions.
        """
        captions = self.extent.captions[:SMOKE_CAPTIONS] if self.smoke else self.extent.captions
        if not captions:
            return 0.0, None
        prompts = [Prompt(caption, "object", "") for caption in captions]
        images = _pictures(self.model, prompts, first + 100_000 * cell.seed, config)
        return self.judge(images, captions).mean().item(), self.judge.features(images)

    def report(self) -> str:
        return write_results(self.folder)

    def _count(self, cell: Removal) -> int:
        return SMOKE_COUNT if self.smoke else TRIAL_COUNT if cell.tuning else COUNT

    @property
    def _held_out(self) -> int:
        return SMOKE_COUNT if self.smoke else HELD_OUT

    @property
    def _rounds(self) -> int:
        return 1 if self.smoke else ROUNDS


def step_times(model: Model, rounds: int, smoke: bool) -> dict[str, list[float]]:
    """Median seconds of a step by main arm, one for each round; the arms take turns, with equal
    batches.
    """
    configs = timed_runs(smoke)
    concept = preview_concept(configs[MAIN[0]])
    terms = unlearning.training_terms(model, concept, configs[MAIN[0]], never)
    seconds: dict[str, list[float]] = {arm: [] for arm in MAIN}
    for _, (arm, config) in itertools.product(range(rounds), configs.items()):
        steps = list(itertools.islice(unlearning.train(model, concept, terms, config), 10))
        seconds[arm].append(round(statistics.median(step.seconds for step in steps[1:]), 4))
    model.drop_adapters()
    return seconds


def timed_runs(smoke: bool) -> dict[str, RunConfig]:
    """The settings of the main arms whose steps are timed: those that the narrowing begins with."""
    target = next(names[0] for kind in KINDS if (names := targets_of(kind)))
    kind = kind_of(target)
    return {arm: Removal(target, arm, 0, ARMS[arm].start(kind)).config(smoke) for arm in MAIN}


def digest(config: RunConfig) -> str:
    """A short hash of the settings that unlearning and sampling depend on; a cell with another
    hash is measured again.
    """
    return short_hash(
        [
            config.objective,
            config.rule,
            config.options,
            config.unlearn,
            (config.compare.sampling_steps, config.compare.guidance_scale),
            config.prompts,
            config.anchor,
            config.resist if config.resist.on else None,
            *([config.regularize] if config.regularize != RegularizeConfig() else []),
        ]
    )


def held_out(model: Model, config: RunConfig, count: int) -> HeldOut:
    """Fixed batches of `count` pictures by the original model: of the concept's held-out prompts,
    and of near and far ones.
    """
    concept, half = preview_concept(config), count // 2
    prompts = {
        "forget": evenly_spaced(concept.forget.test, count),
        "retain": (
            *evenly_spaced(concept.near.test, half),
            *evenly_spaced(concept.far.test or concept.near.test, count - half),
        ),
    }
    batches = {}
    for row, (term, own) in enumerate(prompts.items()):
        seed = 1000 * config.seed + 100 * row
        first = HELD_OUT_SEED + seed
        data = sample_latents(
            model,
            [prompt.text for prompt in own],
            None,
            range(first, first + count),
            sampling_steps=config.compare.sampling_steps,
            guidance_scale=config.compare.guidance_scale,
        )
        batches[term] = next(noisy_batches(model, data, count, HELD_OUT_NOISE + seed))
    return batches


@torch.no_grad()
def _losses(model: Model, held: HeldOut) -> dict[str, float]:
    """The diffusion loss of each batch by the model as it is active."""
    return {
        term: float(format(Diffusion()(model, batch).item(), ".7g")) for term, batch in held.items()
    }


def unlearned(
    model: Model, config: RunConfig, arm: str, held: HeldOut | None = None
) -> dict[str, Any]:
    """Unlearn as an arm does; what it cost, the shares of steps in which losses rose, gradients
    conflicted or the gate was on, and the losses of `held` batches before the first and after every
    step.

    Training that diverges ends before the step that does, and says so.
    """
    counted, concept = CountedModel(model), concept_of(config)
    steps: list[Step] = []
    series: dict[str, list[float]] = {term: [] for term in held or ()}

    def follow() -> None:
        for term, loss in (_losses(model, held) if held else {}).items():
            series[term].append(loss)

    values: dict[str, Any] = {}
    with model.active():
        follow()
    try:
        for step in _training(counted, concept, config, arm):
            steps.append(step)
            follow()
    except Diverged:
        values["diverged"] = len(steps) + 1
    seconds, count = sum(step.seconds for step in steps), max(len(steps), 1)
    values |= {
        "forwards": counted.forwards,
        "seconds": seconds,
        "step_s": seconds / count,
        "conflict": sum(step.conflict for step in steps) / count,
        "gate": bits(step.gate is not False for step in steps),
        "rises": {
            name: sum((step.changes.get(name) or 0) > 0 for step in steps) / count
            for name in (steps[0].losses if steps else ())
        },
    }
    return values | ({"held_out": series} if held else {})


def _training(model: Model, concept: Concept, config: RunConfig, arm: str) -> Iterator[Step]:
    if not unlearning.is_trained(config):
        return unlearning.edit(model, concept, config)
    terms = unlearning.training_terms(model, concept, config, never)
    if arm in DESCENTS:
        return _descent(model, terms, config)
    return unlearning.train(model, concept, terms, config)


def _descent(model: Model, terms: Mapping[str, Term], config: RunConfig) -> Iterator[Step]:
    """Train by plain gradient descent, whose rate no setting of a run is made for."""
    params, rule = unlearning.fresh_update(model, config), config.build("rule")
    how = {"steps": config.unlearn.steps, "lr": DESCENT_LR, "optimizer": "sgd"}
    with diverging(*lower("the rate of the descent", DESCENT_LR)), model.training("unlearn"):
        yield from fit(model, params, terms, rule, stage="unlearn", **how)


def groups_of(config: RunConfig, count: int) -> dict[str, Sequence[Prompt]]:
    """Held-out prompts of each group, and retain prompts of the training split; the same for every
    arm.
    """
    concept = _all_kept(config)
    return {
        "forget": evenly_spaced(concept.forget.test, count),
        "near": evenly_spaced(concept.near.test, count // 2),
        "far": evenly_spaced(concept.far.test, count // 2),
        "train": evenly_spaced((*concept.near.train, *concept.far.train), count // 2),
    }


def kept_prompts(target: str) -> tuple[Prompt, ...]:
    """One held-out prompt of every other concept that the model knows, the same weight for each;
    none names the target.
    """
    return _kept_prompts(target, measured_model(), targets_told())


def prompts_hash(config: RunConfig) -> str:
    """A short hash of all prompts that a removal trains on or is judged by."""
    judged = _all_kept(config)
    kept = () if config.seed == TUNING_SEED else kept_prompts(config.concept)
    return short_hash(to_json([restricted_retain(judged, config.unlearn.retain), judged, kept]))


@functools.lru_cache(64)
def _kept_prompts(target: str, model: str, targets: Targets | None) -> tuple[Prompt, ...]:
    """As `kept_prompts`, for what is measured and the targets that are told now."""
    forgotten = preview_concept(settings(target))
    words, found = (forgotten.name, *forgotten.synonyms), []
    for place, entry in enumerate(known_concepts(model)):
        if entry.fresh or entry.name == forgotten.name:
            continue
        prompts = [
            prompt
            for prompt in preview_concept(settings(entry.name)).forget.test
            if not any(mentions(prompt.text, word) for word in words)
        ]
        if prompts:
            found.append(prompts[place % len(prompts)])
    return tuple(found)


def scored(
    model: Model,
    judge: Scorer,
    groups: Mapping[str, Sequence[Prompt]],
    slots: Sequence[str],
    config: RunConfig,
    second: Classifier | None = None,
) -> tuple[dict[str, Any], Tensor]:
    """Which pictures are right and how aligned they are, by group, and the features (N, D) of the
    retain pictures; with a `second` judge also how probable it finds what each prompt asks for.

    The seeds depend on the place of a group in `groups`.
    """
    right, alignment, features, sure = {}, {}, [], {}
    for row, (group, prompts) in enumerate(groups.items()):
        first = (TRAIN_SEED if group == "train" else TEST_SEED) + 1000 * config.seed + 100 * row
        with model.active(*slots):
            images = _pictures(model, prompts, first, config)
        verdicts = judged(images, prompts, judge)
        alignment[group] = [round(said["alignment"], 4) for said in verdicts]
        right[group] = bits(said["correct"] for said in verdicts)
        if second:
            sure[group] = _probabilities(images, prompts, second)
        if group in RETAIN:
            features.append(judge.features(images))
    values = {"right": right, "alignment": alignment} | ({"second": sure} if second else {})
    return values, torch.cat(features)


def _probabilities(images: Tensor, prompts: Sequence[Prompt], judge: Classifier) -> list[float]:
    """How probable a judge finds what each prompt asks for."""
    axes = {axis: judge.classify(images, axis) for axis in {prompt.axis for prompt in prompts}}
    return [
        round(float(axes[p.axis][row, judge.classes(p.axis).index(p.expects)]), 4)
        for row, p in enumerate(prompts)
    ]


def harmless_rounds(
    model: Model,
    judge: Scorer,
    config: RunConfig,
    groups: Mapping[str, Sequence[Prompt]],
    rounds: int,
) -> Iterator[dict[str, str]]:
    """Which pictures of each group are right after each round of an honest user's fine-tuning of
    what is in the slot `unlearn`, on pictures without the concept; first before any.
    """
    concept = preview_concept(config)
    for number in range(rounds + 1):
        if number:
            own = replace(config, seed=config.seed + ROUND_SEED * number)
            data = adversary_pictures(model, concept, own)
            result_of(fine_tune(model, data, own.attack, own.seed))
            states = (model.adapter_state(slot) for slot in ("unlearn", "relearn"))
            load_only(model, sum_adapters(*states).state)
        found, _ = scored(model, judge, groups, ("unlearn",), config)
        yield found["right"]


def _pictures(model: Model, prompts: Sequence[Prompt], first: int, config: RunConfig) -> Tensor:
    return generate_images(model, prompts, range(first, first + len(prompts)), config.compare)
