"""The tables of paper 2 (2410.12777): does looking ahead resist an adversary, and at what price,
with controls.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..attacks.relearn import Relearn
from ..attacks.runner import attack_context, checkpoints
from ..attacks.unseen import fresh_lesson
from ..common.json_values import to_json
from ..common.paths import POCKET
from ..concepts.catalog import preview_concept
from ..continual.ledger import slug
from ..evaluation.judges.pocket_judge import PocketJudge
from ..models.catalog import load_backend
from ..models.protocols import Backend, Params
from ..pocket.world.vocabulary import FRESH_OBJECTS
from ..settings.events import GROUPS, Step
from ..settings.run_config import RunConfig, make_config
from ..training import unlearning
from .cells import cell, own_share, share
from .paper1 import digest, groups_of, scored
from .paper2_grid import ATTACK_SEED, BASES, COUNT, FRESH, MARKS, NONE, SEEDS, TARGETS, Job, grid
from .paper2_tables import write_results


def run_bench(
    out: Path, seeds: int = SEEDS, smoke: bool = False, full: bool = False
) -> Iterator[str]:
    """Measure or resume the cells under `out/paper2`, write tables and figure beside them, and
    yield lines to print.

    The full grid stands in `out/paper2-full`: its attacks are longer, so none of its cells is one
    of the cut.
    """
    folder = out / f"paper2{'-full' if full else ''}{'-smoke' if smoke else ''}"
    jobs = [job for job in grid(1 if smoke else seeds) if full or job.cut]
    if smoke:
        jobs = [job for job in jobs if job.target in (TARGETS[0], FRESH_OBJECTS[0].name)]
    jobs = own_share(jobs, lambda job: (job.target, job.seed))
    bench = _Bench(folder, load_backend(), PocketJudge.load(POCKET / "judge"), smoke, full)
    for row, job in enumerate(jobs, 1):
        marks = bench.measure(job)["marks"]
        way = " ".join(f"{step}:{share(seen['right']['forget'])}" for step, seen in marks.items())
        yield (
            f"{row}/{len(jobs)} {job.target}, {job.base}, {job.defence}, {job.attack}, seed"
            f" {job.seed}: {way}"
        )
    yield write_results(folder)


def planned(job: Job, config: RunConfig, count: int, base_model: str) -> dict[str, Any]:
    """What the cell of `job` depends on: it is measured anew where a stored one says anything
    else.
    """
    plan = to_json(job) | {"cut": job.cut, "run": config.command(), "settings": digest(config)}
    plan["adversary"] = None if job.attack == NONE else to_json(config.attack)
    return plan | {"count": count, "base_model": base_model}


@dataclass(frozen=True)
class _Defended:
    """A model before any attack: its adapter, none for the original, what it scores, and what
    forgetting took.
    """

    adapter: Params
    scores: dict[str, Any]
    seconds: float


class _Bench:
    """Models, judge and the last defended model, which serves all attacks on it."""

    def __init__(
        self, folder: Path, backend: Backend, judge: PocketJudge, smoke: bool, full: bool
    ) -> None:
        self._folder, self._backend, self._judge = folder, backend, judge
        self._smoke, self._full, self._count = smoke, full, 4 if smoke else COUNT
        self._last: tuple[tuple[str, int, str], _Defended] | None = None

    def measure(self, job: Job) -> dict[str, Any]:
        """The values of a cell, kept or new."""
        config = job.config(self._smoke, self._full)
        plan = planned(job, config, self._count, self._backend.base_hash)
        name = "-".join([job.target, str(job.seed), job.base, job.defence, job.attack])
        return cell(self._folder, slug(name), plan, lambda: self._attacked(job, config))

    def _attacked(self, job: Job, config: RunConfig) -> dict[str, Any]:
        backend, defended = self._backend, self._defended(job, config)
        backend.drop_adapters()
        if defended.adapter:
            backend.load_adapter("unlearn", defended.adapter)
        marks = {0: defended.scores}
        slots = () if config.attack.weights == "full" else ("relearn",)
        for event in self._attack(job, config, slots):
            if not isinstance(event, Step):
                marks |= event
        backend.drop_adapters()
        return {"marks": marks, "unlearn_s": round(defended.seconds, 2)}

    def _defended(self, job: Job, config: RunConfig) -> _Defended:
        """The model that `job` attacks, made once for the attacks that follow each other."""
        forgets = job.base in BASES
        key = config.concept, config.seed, digest(config) if forgets else job.base
        if self._last is None or self._last[0] != key:
            backend, started = self._backend, time.perf_counter()
            backend.drop_adapters()
            for _ in unlearning.forget(backend, preview_concept(config), config) if forgets else ():
                pass
            seconds = time.perf_counter() - started
            slots, adapter = (
                (("unlearn",), backend.adapter_state("unlearn")) if forgets else ((), {})
            )
            self._last = key, _Defended(adapter, self._scored(config, slots), seconds)
        return self._last[1]

    def _attack(
        self, job: Job, config: RunConfig, slots: tuple[str, ...]
    ) -> Iterator[Step | dict[int, Any]]:
        """The steps of the attack, and the scores at each of `MARKS` by step."""
        if job.attack == NONE:
            return
        asked = replace(config, seed=job.seed + ATTACK_SEED)
        lesson = None
        if job.base == FRESH:
            lesson = fresh_lesson("pocket", asked.attack.pictures, asked.seed, job.target)
        context = attack_context(self._backend, preview_concept(asked), asked, lesson=lesson)
        attack = Relearn(training=asked.attack)

        def look(step: Step) -> dict[int, Any]:
            return {step.step: self._scored(config, slots)}

        yield from checkpoints(self._backend, attack, context, look, steps=MARKS)

    def _scored(self, config: RunConfig, slots: tuple[str, ...]) -> dict[str, Any]:
        """Which pictures are right, and the mean alignment, by group."""
        groups = groups_of(preview_concept(make_config(config.concept)), self._count)
        asked = {group: groups[group] for group in GROUPS}
        found = scored(self._backend, self._judge, asked, slots, config)[0]
        means = {
            group: round(statistics.mean(values), 4) for group, values in found["alignment"].items()
        }
        return {"right": found["right"], "alignment": means}
