"""The benchmark of paper 1: arms with equal budgets, on class, style and unsafe removal."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...concepts.catalog import preview_concept
from ...concepts.concept import Prompt, evenly_spaced
from ...continual.ledger import slug
from ...evaluation.comparison import generate_images, judged
from ...evaluation.distances import frechet, kid
from ...evaluation.judges import Scorer
from ...models.protocols import Model
from ...pocket.world.vocabulary import OBJECTS, STYLES
from ...settings.events import GROUPS
from ...settings.groups import RegularizeConfig
from ...settings.presets import EQUAL_BUDGET
from ...settings.run_config import RunConfig
from ...training import unlearning
from ..cells import SMOKE, Experiment, all_names, names_of, settings, short_hash
from ..tables import bits, percent_of
from .report import RESTRICTED, RETAIN, SUM, write_results

PAPER = {"objective": "gradient_ascent", "unlearn.retain_loss": "diffusion"}
OURS = {"rule": "restricted", "unlearn.retain_loss": "preserve"}
ARMS: dict[str, dict[str, Any]] = {
    "sum": PAPER | {"rule": "weighted_sum", "unlearn.retain": "near"},
    "restricted": PAPER | {"rule": "restricted", "unlearn.retain": "near"},
    "sum + diversified": PAPER | {"rule": "weighted_sum"},
    "restricted + diversified": PAPER | {"rule": "restricted"},
    "finetune": {"objective": "retain_only", "rule": "weighted_sum"},
    "SalUn": {
        "objective": "random_label",
        "rule": "weighted_sum",
        "unlearn.retain_loss": "diffusion",
    },
    "one-sided": PAPER | {"rule": "one_sided"},
    "restricted, Adam": PAPER | {"rule": "restricted_adam"},
    "ESD": OURS | {"objective": "esd", "unlearn.modules": "all", "unlearn.lr": 2e-3},
    "ESD-x": OURS | {"objective": "esd"},
    "ESD-u": OURS | {"objective": "esd", "unlearn.modules": "not_cross", "unlearn.lr": 2e-3},
    "concept ablation": OURS | {"objective": "concept_ablation"},
    "SDD": OURS | {"objective": "sdd"},
    "EraseDiff": OURS | {"objective": "erasediff", "rule": "barrier"},
    "UCE": {"objective": "uce"},
    "RECE": {"objective": "rece"},
}
"""All have the same batch sizes, steps and number of retain pictures; in the official code the
paper's own arm had 4.5 times the compute of the others.
"""
MAIN = (SUM, RESTRICTED)
TASKS = {
    "class": [entry.name for entry in OBJECTS],
    "style": [entry.name for entry in STYLES if entry.name != "photo"],
    "unsafe": [entry.name for entry in OBJECTS if entry.family == "unsafe"],
}
"""Targets by task. Unsafe concepts are classes too, with one cell for both tasks."""
CUT_TARGETS = ("cat", "ship", "knife", "van gogh", "mosaic")
"""Targets of every arm in the declared cut, where the main arms have every class as well."""
TRAIN_SEED, TEST_SEED, REFERENCE_SEED = 6_000_000, 6_100_000, 6_200_000
CAPTION_SEED, CAPTION_REFERENCE_SEED = 7_000_000, 8_000_000
SMOKE_ARMS, SMOKE_CAPTIONS = (*MAIN, "UCE"), 4
"""The arms of a smoke test with a model that the user brings, and its captions."""
Reference = tuple[Tensor, Tensor | None]
"""Features of the original's pictures of retain prompts, and of the user's captions if there are
any.
"""
UNTOUCHED, STEP_TIME = "original", "step-time"
"""What stands in place of an arm: pictures by the original model, and the seconds of a step."""


@dataclass(frozen=True)
class Removal:
    """One target removed by one arm."""

    target: str
    arm: str
    seed: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks whose tables count it."""
        return tuple(task for task, targets in tasks_of().items() if self.target in targets)

    @property
    def cut(self) -> bool:
        """Whether it belongs to the declared cut; the full grid measures the others too."""
        return self.target in CUT_TARGETS or (self.arm in MAIN and "class" in self.tasks)

    def config(self, smoke: bool) -> RunConfig:
        """The settings of its run."""
        changes = EQUAL_BUDGET | ARMS.get(self.arm, {}) | (SMOKE if smoke else {})
        return settings(self.target, seed=self.seed, **changes)


def tasks_of() -> dict[str, Sequence[str]]:
    """Targets by task; those that the user brings are classes and styles."""
    own = {"class": names_of("object", ()), "style": names_of("style", ())}
    return {task: names for task, names in own.items() if names} or TASKS


def grid(seeds: int) -> list[Removal]:
    """Every arm on every target: the cut first, and in it the targets of every arm."""
    targets = dict.fromkeys(itertools.chain(all_names(CUT_TARGETS), *tasks_of().values()))
    arms = dict.fromkeys((*MAIN, *ARMS))
    removals = [Removal(t, arm, seed) for seed in range(seeds) for t in targets for arm in arms]
    return sorted(removals, key=lambda cell: (not cell.cut, cell.target not in CUT_TARGETS))


class Paper1(Experiment):
    """Forget each target with each arm, and score the model beside the original."""

    name = "paper1"

    def cells(self) -> list[Removal]:
        chosen = self.chosen(grid(self.seeds), self._small)
        pairs = [(Removal(cell.target, UNTOUCHED, cell.seed), cell) for cell in chosen]
        return [*dict.fromkeys(itertools.chain(*pairs)), Removal("", STEP_TIME, 0)]

    def _small(self, cell: Removal) -> bool:
        """Whether a smoke measures it; of a model that the user brings, few arms."""
        few = self.extent.targets is None or cell.arm in SMOKE_ARMS
        return few and cell.target == all_names(CUT_TARGETS)[0]

    def key(self, cell: Removal) -> str:
        if cell.arm == STEP_TIME:
            return STEP_TIME
        name = f"{cell.target}-{cell.seed}"
        return slug(f"{UNTOUCHED}-{name}" if cell.arm == UNTOUCHED else f"{name}-{cell.arm}")

    def config(self, cell: Removal) -> dict[str, Any]:
        base = self.model.base_hash
        if cell.arm == STEP_TIME:
            return {"base": base, "rounds": 2 if self.smoke else 10}
        plan = {"target": cell.target, "seed": cell.seed, "count": self._count, "base": base}
        if cell.arm == UNTOUCHED:
            return plan | {"measures": ["right", "alignment", "kid"]}
        config = cell.config(self.smoke)
        return plan | {
            "tasks": cell.tasks,
            "arm": cell.arm,
            "cut": cell.cut,
            "run": config.command(),
            "settings": digest(config),
        }

    def alone(self, cell: Removal) -> bool:
        return cell.arm == STEP_TIME

    def shared_by(self, cell: Removal) -> tuple[str, int] | None:
        return None if cell.arm == STEP_TIME else (cell.target, cell.seed)

    def prepare(self, cell: Removal) -> Reference:
        groups, config = groups_of(cell.target, self._count), cell.config(self.smoke)
        prompts = [prompt for group in RETAIN for prompt in groups[group]]
        with self.model.active():
            images = _pictures(self.model, prompts, REFERENCE_SEED + 1000 * cell.seed, config)
            _, captioned = self._captioned(cell, config, CAPTION_REFERENCE_SEED)
        return self.judge.features(images), captioned

    def measure(
        self, cell: Removal, known: dict[str, Any], shared: Reference
    ) -> Iterator[dict[str, Any]]:
        self.model.drop_adapters()
        if cell.arm == STEP_TIME:
            yield step_times(self.model, self.config(cell)["rounds"], self.smoke)
            return
        config, spent, slots = cell.config(self.smoke), {}, ()
        if cell.arm != UNTOUCHED:
            spent, slots = unlearned(self.model, config), ("unlearn",)
        groups = groups_of(cell.target, self._count)
        values, features = scored(self.model, self.judge, groups, slots, config)
        reference, captioned = shared
        distance, error = kid(features, reference)
        values |= {"kid": distance, "kid_se": error}
        if captioned is not None:
            with self.model.active(*slots):
                alignment, found = self._captioned(cell, config, CAPTION_SEED)
            distance, error = kid(found, captioned)
            own = {"alignment": alignment, "kid": distance, "kid_se": error}
            values["captions"] = own | {"frechet": frechet(found, captioned)}
        yield values | spent
        self.model.drop_adapters()

    def line(self, cell: Removal, values: Mapping[str, Any]) -> str:
        if cell.arm == STEP_TIME:
            return "seconds of a step"
        shares = "  ".join(f"{group} {percent_of(values['right'][group])}" for group in GROUPS)
        return f"{cell.target}, {cell.arm}, seed {cell.seed}: {shares}"

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

    @property
    def _count(self) -> int:
        return 4 if self.smoke else 24


def step_times(model: Model, rounds: int, smoke: bool) -> dict[str, list[float]]:
    """Median seconds of a step by main arm, one for each round; the arms take turns, with equal
    batches.
    """
    target = all_names(CUT_TARGETS)[0]
    configs = {arm: Removal(target, arm, 0).config(smoke) for arm in MAIN}
    concept = preview_concept(configs[MAIN[0]])
    terms = unlearning.training_terms(model, concept, configs[MAIN[0]], lambda: False)
    seconds: dict[str, list[float]] = {arm: [] for arm in MAIN}
    for _, (arm, config) in itertools.product(range(rounds), configs.items()):
        steps = list(itertools.islice(unlearning.train(model, concept, terms, config), 10))
        seconds[arm].append(round(statistics.median(step.seconds for step in steps[1:]), 4))
    model.drop_adapters()
    return seconds


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


def unlearned(model: Model, config: RunConfig) -> dict[str, Any]:
    """Unlearn; the seconds of its steps, and the shares of steps in which losses rose, gradients
    conflicted or the gate was on.
    """
    steps = list(unlearning.forget(model, preview_concept(config), config))
    seconds = sum(step.seconds for step in steps)
    return {
        "seconds": seconds,
        "step_s": seconds / len(steps),
        "conflict": sum(step.conflict for step in steps) / len(steps),
        "gate": sum(bool(step.gate) for step in steps) / len(steps),
        "rises": {
            name: sum(step.changes.get(name, 0) > 0 for step in steps) / len(steps)
            for name in steps[0].losses
        },
    }


def groups_of(target: str, count: int) -> dict[str, Sequence[Prompt]]:
    """Held-out prompts of each group, and retain prompts of the training split; the same for every
    arm.
    """
    concept = preview_concept(settings(target))
    return {
        "forget": evenly_spaced(concept.forget.test, count),
        "near": evenly_spaced(concept.near.test, count // 2),
        "far": evenly_spaced(concept.far.test, count // 2),
        "train": evenly_spaced((*concept.near.train, *concept.far.train), count // 2),
    }


def scored(
    model: Model,
    judge: Scorer,
    groups: Mapping[str, Sequence[Prompt]],
    slots: Sequence[str],
    config: RunConfig,
) -> tuple[dict[str, Any], Tensor]:
    """Which pictures are right and how aligned they are, by group, and the features (N, D) of the
    retain pictures.

    The seeds depend on the place of a group in `groups`.
    """
    right, alignment, features = {}, {}, []
    for row, (group, prompts) in enumerate(groups.items()):
        first = (TRAIN_SEED if group == "train" else TEST_SEED) + 1000 * config.seed + 100 * row
        with model.active(*slots):
            images = _pictures(model, prompts, first, config)
        verdicts = judged(images, prompts, judge)
        alignment[group] = [round(said["alignment"], 4) for said in verdicts]
        right[group] = bits(said["correct"] for said in verdicts)
        if group in RETAIN:
            features.append(judge.features(images))
    return {"right": right, "alignment": alignment}, torch.cat(features)


def _pictures(model: Model, prompts: Sequence[Prompt], first: int, config: RunConfig) -> Tensor:
    return generate_images(model, prompts, range(first, first + len(prompts)), config.compare)
