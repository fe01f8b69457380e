"""The tables of paper 2 (2410.12777): does looking ahead resist an adversary, and at what price, with controls."""

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import unlearning
from ..attacks.relearn import fine_tune, first_seed, relearn
from ..backend import Backend, Params
from ..batches import encoded
from ..catalog import POCKET, fresh_lesson, load_backend, preview_concept
from ..config import PRESET_CHANGES, RunConfig, make_config
from ..events import GROUPS, Step
from ..ledger import slug
from ..pocket.vocabulary import FRESH_OBJECTS
from ..runs import to_json
from ..scorers.pocket_judge import PocketJudge
from .cells import SMOKE, cell, own_share, share
from .paper1 import digest, groups_of, scored
from .paper2_tables import FAST_META, FAST_PLAIN, FRESH, M0, MARKS, META, PLAIN, STRONG, write_results

RESIST = {"resist.on": True}
LENGTHS = {
    preset: {n: v for n, v in changes.items() if n.partition(".")[0] in ("unlearn", "resist")}
    for preset, changes in PRESET_CHANGES.items()
}
"""What forgetting takes from a preset: the adversary and the pictures that are judged are the same for all."""
BASES: dict[str, dict[str, Any]] = {
    "ESD": {"objective": "esd"},
    "ESD-x": {"objective": "esd", "unlearn.modules": "cross"},
    "SDD": {"objective": "sdd"},
    "concept ablation": {"objective": "concept_ablation"},
    "UCE": {"objective": "uce"},
    "RECE": {"objective": "rece"},
}
DEFENCES: dict[str, dict[str, Any]] = {PLAIN: {}, META: RESIST}
CONTROLS: dict[str, dict[str, Any]] = {M0: RESIST | {"resist.steps": 0}, STRONG: {"esd.eta": 3.0}}
"""Of the first base: the same weights without the attack in the middle, and more forgetting without resistance."""
SHORT = {FAST_PLAIN: {}, FAST_META: RESIST}
"""Of the first base, with the steps of the preset fast."""
LORA = {"attack.rank": 16, "attack.alpha": 16.0}
ALL = {"attack.weights": "full", "attack.lr": 3e-4}
SGD = {"attack.optimizer": "sgd", "attack.lr": 0.1}
ATTACKS: dict[str, dict[str, Any]] = {
    "LoRA 16": LORA,
    "all weights": ALL,
    "clean": LORA | {"attack.data": "benign"},
    "one prompt": LORA | {"attack.data": "one"},
    "mixed": LORA | {"attack.data": "mixed"},
    "LoRA 4": {"attack.rank": 4, "attack.alpha": 4.0},
    "LoRA 16, lr x 3": LORA | {"attack.lr": 6e-3},
    "LoRA 16, lr / 3": LORA | {"attack.lr": 7e-4},
    "LoRA 16, SGD": LORA | SGD,
    "all weights, SGD": ALL | SGD,
}
TARGETS = ("cat", "ship", "knife", "van gogh", "mosaic")
CUT_ATTACKS, CUT_STEPS = ("LoRA 16", "all weights", "clean"), 100
"""The declared cut: the first base under these attacks, its controls under two, the short ones under one; the steps."""
ATTACK_SEED = 50
"""The adversary's seed is this much above the defender's, so that its pictures and noise are its own."""


@dataclass(frozen=True)
class Job:
    """One attack on one defended model; the fresh concept has no defence."""

    target: str
    seed: int
    base: str
    defence: str
    attack: str

    @property
    def cut(self) -> bool:
        """Whether the declared cut holds it; the others wait for the full grid."""
        attacks = {**dict.fromkeys(CONTROLS, CUT_ATTACKS[:2]), **dict.fromkeys(SHORT, CUT_ATTACKS[:1])}
        return self.base in (next(iter(BASES)), FRESH) and self.attack in attacks.get(self.defence, CUT_ATTACKS)

    def config(self, smoke: bool) -> RunConfig:
        """Forgetting, and the attack on it."""
        own = {}
        if self.base != FRESH:
            length = LENGTHS["fast" if self.defence in SHORT else "full"]
            own = length | BASES[self.base] | (DEFENCES | CONTROLS | SHORT)[self.defence]
        steps = CUT_STEPS if self.cut else MARKS[-1]
        changes = {"attack.steps": steps, "attack.pictures": 32} | own | ATTACKS[self.attack]
        return make_config(self.target, seed=self.seed, **(changes | (SMOKE if smoke else {})))


def grid(seeds: int) -> list[Job]:
    """Every cell, the declared cut first; attacks on the same defended model follow each other."""
    defended = [(base, defence) for base in BASES for defence in DEFENCES]
    defended[len(DEFENCES) : len(DEFENCES)] = [(next(iter(BASES)), control) for control in (*CONTROLS, *SHORT)]
    jobs = [
        Job(target, seed, *model, attack)
        for seed, target, model, attack in itertools.product(range(seeds), TARGETS, defended, ATTACKS)
    ]
    fresh = [
        Job(entry.name, seed, FRESH, "none", attack)
        for seed, entry, attack in itertools.product(range(seeds), FRESH_OBJECTS[:2], ATTACKS)
        if attack in CUT_ATTACKS and attack != "clean"
    ]
    return sorted([*fresh, *jobs], key=lambda job: (not job.cut, job.seed))


def run_bench(out: Path, seeds: int = 3, smoke: bool = False, full: bool = False) -> Iterator[str]:
    """Measure or resume the cells under `out/paper2`, write tables and figure beside them, and yield lines to print."""
    folder = out / ("paper2-smoke" if smoke else "paper2")
    jobs = [job for job in grid(1 if smoke else seeds) if full or job.cut]
    if smoke:
        jobs = [job for job in jobs if job.target in (TARGETS[0], FRESH_OBJECTS[0].name)]
    jobs = own_share(jobs, lambda job: (job.target, job.seed))
    bench = _Bench(folder, load_backend(), PocketJudge.load(POCKET / "judge"), smoke)
    for row, job in enumerate(jobs, 1):
        marks = bench.measure(job)["marks"]
        way = " ".join(f"{step}:{share(seen['right']['forget'])}" for step, seen in marks.items())
        yield f"{row}/{len(jobs)} {job.target}, {job.base}, {job.defence}, {job.attack}, seed {job.seed}: {way}"
    yield write_results(folder)


@dataclass(frozen=True)
class _Defended:
    """A model before any attack: its adapter, none for the original, what it scores, and what forgetting took."""

    adapter: Params
    scores: dict[str, Any]
    seconds: float


class _Bench:
    """Models, judge and the last defended model, which serves all attacks on it."""

    def __init__(self, folder: Path, backend: Backend, judge: PocketJudge, smoke: bool) -> None:
        self._folder, self._backend, self._judge, self._smoke = folder, backend, judge, smoke
        self._count = 4 if smoke else 24
        self._last: tuple[tuple[str, int, str], _Defended] | None = None

    def measure(self, job: Job) -> dict[str, Any]:
        """The values of a cell, kept or new."""
        config = job.config(self._smoke)
        plan = to_json(job) | {"cut": job.cut, "run": config.command(), "settings": digest(config)}
        plan["adversary"] = to_json(config.attack)
        plan |= {"count": self._count, "base_model": self._backend.base_hash}
        name = "-".join([job.target, str(job.seed), job.base, job.defence, job.attack])
        return cell(self._folder, slug(name), plan, lambda: self._attacked(job, config))

    def _attacked(self, job: Job, config: RunConfig) -> dict[str, Any]:
        backend, defended = self._backend, self._defended(job, config)
        backend.drop_adapters()
        if defended.adapter:
            backend.load_adapter("unlearn", defended.adapter)
        marks = {0: defended.scores}
        slots = () if config.attack.weights == "full" else ("relearn",)
        for step in self._attack(job, config):
            if step.step in MARKS or step.step == step.total:
                marks[step.step] = self._scored(config, slots)
        backend.drop_adapters()
        return {"marks": marks, "unlearn_s": round(defended.seconds, 2)}

    def _defended(self, job: Job, config: RunConfig) -> _Defended:
        """The model that `job` attacks, made once for the attacks that follow each other."""
        key = config.concept, config.seed, digest(config) if job.base != FRESH else FRESH
        if self._last is None or self._last[0] != key:
            backend, started = self._backend, time.perf_counter()
            backend.drop_adapters()
            for _ in unlearning.forget(backend, preview_concept(config), config) if job.base != FRESH else ():
                pass
            seconds = time.perf_counter() - started
            slots, adapter = ((), {}) if job.base == FRESH else (("unlearn",), backend.adapter_state("unlearn"))
            self._last = key, _Defended(adapter, self._scored(config, slots), seconds)
        return self._last[1]

    def _attack(self, job: Job, config: RunConfig) -> Iterator[Step]:
        config = replace(config, seed=job.seed + ATTACK_SEED)
        if job.base == FRESH:
            _, pictures, captions = fresh_lesson("pocket", config.attack.pictures, config.seed, job.target)
            data = encoded(self._backend, pictures, captions)
            return fine_tune(self._backend, data, config.attack, first_seed(config.seed))
        return relearn(self._backend, preview_concept(config), config)

    def _scored(self, config: RunConfig, slots: tuple[str, ...]) -> dict[str, Any]:
        """Which pictures are right, and the mean alignment, by group."""
        groups = groups_of(preview_concept(make_config(config.concept)), self._count)
        asked = {group: groups[group] for group in GROUPS}
        found = scored(self._backend, self._judge, asked, slots, config)[0]
        means = {group: round(statistics.mean(values), 4) for group, values in found["alignment"].items()}
        return {"right": found["right"], "alignment": means}
