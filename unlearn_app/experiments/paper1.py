"""The tables of paper 1 (2412.07808): what each piece of the restricted gradient is worth, with
error bars.
"""

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.paths import POCKET
from ..concepts.catalog import preview_concept
from ..concepts.concept import Concept, Prompt, evenly_spaced
from ..continual.ledger import slug
from ..evaluation.comparison import generate_images, judged
from ..evaluation.distances import kid
from ..evaluation.judges.pocket_judge import PocketJudge
from ..models.catalog import load_backend
from ..models.protocols import Backend
from ..pocket.world.vocabulary import OBJECTS, STYLES
from ..settings.events import GROUPS
from ..settings.groups import RegularizeConfig
from ..settings.run_config import RunConfig, make_config
from ..training import unlearning
from .cells import SMOKE, cell, own_share, share, short_hash
from .paper1_tables import RETAIN, write_results

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
    "ESD": OURS | {"objective": "esd"},
    "ESD-x": OURS | {"objective": "esd", "unlearn.modules": "cross"},
    "ESD-u": OURS | {"objective": "esd", "unlearn.modules": "not_cross"},
    "concept ablation": OURS | {"objective": "concept_ablation"},
    "SDD": OURS | {"objective": "sdd"},
    "EraseDiff": OURS | {"objective": "erasediff", "rule": "barrier"},
    "UCE": {"objective": "uce"},
    "RECE": {"objective": "rece"},
}
"""All at the same batch sizes, steps and retain pictures: the official code gave its own arm 4.5
times the compute.
"""
MAIN = ("sum + diversified", "restricted + diversified")
TASKS = {
    "class": [entry.name for entry in OBJECTS],
    "style": [entry.name for entry in STYLES if entry.name != "photo"],
    "unsafe": [entry.name for entry in OBJECTS if entry.family == "unsafe"],
}
"""Unsafe concepts are classes as well, and share their cells."""
CUT = ("cat", "ship", "knife", "van gogh", "mosaic")
"""Targets of every arm in the declared cut; the main arms see every class there as well."""
TRAIN_SEED, TEST_SEED, REFERENCE_SEED = 6_000_000, 6_100_000, 6_200_000


@dataclass(frozen=True)
class Job:
    """One cell of the grid."""

    target: str
    arm: str
    seed: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tables it belongs to."""
        return tuple(task for task, targets in TASKS.items() if self.target in targets)

    @property
    def cut(self) -> bool:
        """Whether the declared cut holds it; the others wait for the full grid."""
        return self.target in CUT or (self.arm in MAIN and "class" in self.tasks)

    def config(self, smoke: bool) -> RunConfig:
        """The run behind the cell."""
        return make_config(
            self.target, seed=self.seed, **(ARMS[self.arm] | (SMOKE if smoke else {}))
        )


def grid(seeds: int) -> list[Job]:
    """Every cell, those that decide most first."""
    targets = dict.fromkeys(itertools.chain(CUT, *TASKS.values()))
    arms = dict.fromkeys((*MAIN, *ARMS))
    jobs = [
        Job(target, arm, seed)
        for seed, target, arm in itertools.product(range(seeds), targets, arms)
    ]
    return sorted(jobs, key=lambda job: (not job.cut, job.target not in CUT))


def run_bench(out: Path, seeds: int = 3, smoke: bool = False, full: bool = False) -> Iterator[str]:
    """Measure or resume the cells under `out/paper1`, write tables and figure beside them, and
    yield lines to print.
    """
    folder = out / ("paper1-smoke" if smoke else "paper1")
    jobs = [job for job in grid(1 if smoke else seeds) if full or job.cut]
    if smoke:
        jobs = [job for job in jobs if job.target == CUT[0]]
    jobs = own_share(jobs, lambda job: (job.target, job.seed))
    backend, judge = load_backend(), PocketJudge.load(POCKET / "judge")
    references: dict[tuple[str, int], Tensor] = {}
    for row, job in enumerate(jobs, 1):
        values = measure(folder, backend, judge, job, smoke, references)
        shares = "  ".join(f"{group} {share(values['right'][group])}" for group in GROUPS)
        yield f"{row}/{len(jobs)} {job.target}, {job.arm}, seed {job.seed}: {shares}"
    plan = {"base": backend.base_hash, "rounds": 2 if smoke else 10}
    for name in own_share(["step-time"], str):
        cell(folder, name, plan, lambda: step_times(backend, plan["rounds"], smoke))
    yield write_results(folder)


def step_times(backend: Backend, rounds: int, smoke: bool) -> dict[str, list[float]]:
    """Median seconds of a step under the sum and under the restricted gradient, taking turns at
    equal batches.
    """
    configs = {arm: Job(CUT[0], arm, 0).config(smoke) for arm in MAIN}
    concept = preview_concept(configs[MAIN[0]])
    terms = unlearning.training_terms(backend, concept, configs[MAIN[0]], lambda: False)
    seconds: dict[str, list[float]] = {arm: [] for arm in MAIN}
    for _, (arm, config) in itertools.product(range(rounds), configs.items()):
        steps = list(itertools.islice(unlearning.train(backend, concept, terms, config), 10))
        seconds[arm].append(round(statistics.median(step.seconds for step in steps[1:]), 4))
    backend.drop_adapters()
    return seconds


def measure(
    folder: Path,
    backend: Backend,
    judge: PocketJudge,
    job: Job,
    smoke: bool,
    references: dict[tuple[str, int], Tensor],
) -> dict[str, Any]:
    """The cell of `job`, and that of the original's pictures of the same prompts and seeds.

    `references` keeps the features of the original's other pictures by target and seed, for the
    distances.
    """
    config, count = job.config(smoke), 4 if smoke else 24
    shown = preview_concept(
        make_config(job.target)
    )  # every arm is scored on the same prompts, training ones too
    plan = {"target": job.target, "seed": job.seed, "count": count, "base": backend.base_hash}
    name = f"{job.target}-{job.seed}"

    def reference() -> Tensor:
        key = job.target, job.seed
        if key not in references:
            first = REFERENCE_SEED + 1000 * job.seed
            with backend.active():
                references[key] = judge.features(
                    _painted(backend, _retain(shown, count), first, config)
                )
        return references[key]

    def original() -> dict[str, Any]:
        backend.drop_adapters()
        values, features = scored(backend, judge, groups_of(shown, count), (), config)
        distance, error = kid(features, reference())
        return values | {"kid": distance, "kid_se": error}

    def forgotten() -> dict[str, Any]:
        backend.drop_adapters()
        return unlearned(backend, judge, shown, config, count, reference())

    cell(
        folder,
        slug(f"original-{name}"),
        plan | {"measures": ["right", "alignment", "kid"]},
        original,
    )
    own = {
        "tasks": job.tasks,
        "arm": job.arm,
        "cut": job.cut,
        "run": config.command(),
        "settings": digest(config),
    }
    values = cell(folder, slug(f"{name}-{job.arm}"), plan | own, forgotten)
    backend.drop_adapters()
    return values


def digest(config: RunConfig) -> str:
    """A short hash of the settings that forgetting depends on, so that a cell is measured anew when
    one changes.
    """
    painted = config.compare.sampling_steps, config.compare.guidance_scale
    parts = (
        config.objective,
        config.rule,
        config.options,
        config.unlearn,
        painted,
        config.prompts,
        config.anchor,
    )
    parts += (config.resist if unlearning.resists(config) else None,)
    parts += (config.regularize,) if config.regularize != RegularizeConfig() else ()
    return short_hash(parts)


def unlearned(
    backend: Backend,
    judge: PocketJudge,
    shown: Concept,
    config: RunConfig,
    count: int,
    reference: Tensor,
) -> dict[str, Any]:
    """Forget, then score on `shown`; with the seconds a step took and what its gradients did."""
    concept, started = preview_concept(config), time.perf_counter()
    if unlearning.is_trained(config):
        terms = unlearning.training_terms(backend, concept, config, lambda: False)
        painted = time.perf_counter()
        steps = list(unlearning.train(backend, concept, terms, config))
    else:
        painted = started
        steps = list(unlearning.edit(backend, concept, config))
    seconds = time.perf_counter() - painted
    values, features = scored(backend, judge, groups_of(shown, count), ("unlearn",), config)
    distance, error = kid(features, reference)
    return values | {
        "kid": distance,
        "kid_se": error,
        "seconds": seconds,
        "step_s": seconds / len(steps),
        "conflict": sum(step.conflict for step in steps) / len(steps),
        "gate": sum(bool(step.gate) for step in steps) / len(steps),
        "rises": {
            name: sum(s.changes.get(name, 0) > 0 for s in steps) / len(steps)
            for name in steps[0].losses
        },
    }


def groups_of(concept: Concept, count: int) -> dict[str, Sequence[Prompt]]:
    """Held-out prompts of each group, and as many retain prompts that were trained on."""
    return {
        "forget": evenly_spaced(concept.forget.test, count),
        "near": evenly_spaced(concept.near.test, count // 2),
        "far": evenly_spaced(concept.far.test, count // 2),
        "train": evenly_spaced((*concept.near.train, *concept.far.train), count // 2),
    }


def scored(
    backend: Backend,
    judge: PocketJudge,
    groups: Mapping[str, Sequence[Prompt]],
    slots: Sequence[str],
    config: RunConfig,
) -> tuple[dict[str, Any], Tensor]:
    """Which pictures are right and how aligned they are, per group, and the features of the retain
    pictures.

    The seeds depend on a group's place among `groups_of`.
    """
    right, alignment, features = {}, {}, []
    for row, (group, prompts) in enumerate(groups.items()):
        first = (TRAIN_SEED if group == "train" else TEST_SEED) + 1000 * config.seed + 100 * row
        with backend.active(*slots):
            images = _painted(backend, prompts, first, config)
        verdicts = judged(images, prompts, judge)
        alignment[group] = [round(said["alignment"], 4) for said in verdicts]
        right[group] = "".join(str(int(said["correct"])) for said in verdicts)
        if group in RETAIN:
            features.append(judge.features(images))
    return {"right": right, "alignment": alignment}, torch.cat(features)


def _retain(concept: Concept, count: int) -> tuple[Prompt, ...]:
    return (
        *evenly_spaced(concept.near.test, count // 2),
        *evenly_spaced(concept.far.test, count // 2),
    )


def _painted(backend: Backend, prompts: Sequence[Prompt], first: int, config: RunConfig) -> Tensor:
    return generate_images(
        backend, prompts, [first + row for row in range(len(prompts))], config.compare
    )
