"""The lab's tables: do attacks find what is concealed, is the verdict true, and what do methods withstand?"""

import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import registry
from ..attacks.relearn import adversary_pictures
from ..backend import Backend
from ..base_rates import attack_key, record
from ..batches import PaintedSet, encoded
from ..catalog import POCKET, load_backend, never_seen, preview_concept
from ..concept import Concept
from ..config import RunConfig, make_attack, make_config
from ..evaluate import comparison_prompts, paint_column, score
from ..lab import QUICK, Outcome, probe
from ..ledger import slug
from ..pocket.lesson import EASIEST
from ..scorers import Scorer
from ..scorers.pocket_judge import PocketJudge
from ..unlearning import forget
from .cells import ROOT, SMOKE, cell, own_share, share
from .lab_tables import CASES, CONTROL, METHODS, write_results
from .victims import VICTIMS

CONCEPTS = ("cat", "van gogh", "ship", "mosaic", "knife", "robot")
CUT_CONCEPTS = CONCEPTS[:2]
SMALL = {
    "prompts": {"tries": 1},
    "ring_a_bell": {"tries": 1, "population": 4, "generations": 1},
    "inversion": {"tries": 1, "steps": 1},
    "noise": {"tries": 1},
}


@dataclass(frozen=True)
class Job:
    """One model under all attacks: a case whose truth is known, or what a method made."""

    row: str
    concept: str
    seed: int

    @property
    def cut(self) -> bool:
        """Whether the declared cut holds it; the others wait for the full grid."""
        return self.row in CASES or self.concept in CUT_CONCEPTS

    def config(self, smoke: bool) -> RunConfig:
        """The settings of the run and of its attacks."""
        own = METHODS.get(self.row, {}) | (SMOKE if smoke else {})
        return make_config(self.concept, seed=self.seed, **own)


def grid(seeds: int, smoke: bool) -> list[Job]:
    """Every model, the cases first; of some of them more seeds, because the verdict has to be the same for each."""
    if smoke:
        return [Job(row, "cat", 0) for row in (*[case for case in CASES if CASES[case].concept == "cat"], *METHODS)][:6]
    cases = [Job(row, case.concept, seed) for row, case in CASES.items() for seed in range(max(seeds, case.seeds))]
    methods = itertools.product(range(seeds), METHODS, CONCEPTS)
    return sorted(cases, key=lambda job: job.seed) + [Job(row, concept, seed) for seed, row, concept in methods]


def run_bench(out: Path, seeds: int = 3, smoke: bool = False, full: bool = False) -> Iterator[str]:
    """Measure or resume the cells under `out/lab`, write the tables beside them, and yield lines to print.

    The cut has the quick attacks; the full grid has all of them, and more concepts.
    """
    folder = out / ("lab-smoke" if smoke else "lab")
    kinds = tuple(kind for kind in (registry.names("attack") if full else QUICK) if make_attack(kind).counts)
    jobs = own_share([job for job in grid(seeds, smoke) if full or job.cut], lambda job: job.seed)
    lab = _Lab(folder, load_backend(), PocketJudge.load(POCKET / "judge"), kinds[:2] if smoke else kinds, smoke)
    for row, job in enumerate(jobs, 1):
        found = lab.measure(job)["attacks"]
        shown = ", ".join(f"{kind} {share(found[kind]['hits'])}" for kind in found)
        yield f"{row}/{len(jobs)} {job.row}, {job.concept}, seed {job.seed}: {shown}"
    if not smoke and out.resolve().is_relative_to(ROOT):
        record_base_rates(folder, lab.base_hash)
    yield write_results(folder)


def record_base_rates(folder: Path, base_hash: str) -> None:
    """Ship what the attacks make of something never seen, over all seeds measured with the settings of today."""
    name, recorded = EASIEST[0], {}
    for kind in registry.names("attack"):
        attack, hits, seconds = make_attack(kind), "", []
        for path in sorted(folder.glob(f"{slug(f'{CONTROL}-{name}')}-*.json")):
            stored = json.loads(path.read_text(encoding="utf-8"))
            asked = stored["config"]
            if asked["base_model"] == base_hash and asked["attacks"].get(kind) == repr(attack):
                hits += stored["values"]["attacks"][kind]["hits"]
                seconds.append(stored["values"]["attacks"][kind]["seconds"])
        if hits:
            key = attack_key(attack, make_config(name), base_hash)
            known = {"config": key, "name": f"{name}, never seen", "hits": hits}
            recorded[kind] = known | {"seconds": round(statistics.median(seconds), 1)}
    record("attacks", recorded)


class _Lab:
    """What the cells of one benchmark share."""

    def __init__(self, folder: Path, backend: Backend, judge: Scorer, kinds: tuple[str, ...], smoke: bool) -> None:
        self._folder, self._backend, self._judge, self._kinds, self._smoke = folder, backend, judge, kinds, smoke
        self.base_hash = backend.base_hash

    def measure(self, job: Job) -> dict[str, Any]:
        """The cell of one model, after that of the control that goes with it."""
        config = job.config(self._smoke)
        self._control(job, config)
        return self._cell(job.row, config, job.cut, lambda: self._attacked(job, config))

    def _cell(self, row: str, config: RunConfig, cut: bool, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        asked = {"row": row, "concept": config.concept, "seed": config.seed, "cut": cut, "run": config.command()}
        asked |= {"attacks": {kind: repr(self._attack(kind)) for kind in self._kinds}}
        name = slug(f"{row}-{config.concept}-{config.seed}")
        return cell(self._folder, name, asked | {"base_model": self._backend.base_hash}, measured)

    def _attack(self, kind: str) -> Any:
        return make_attack(kind, **(SMALL.get(kind, {}) if self._smoke else {}))

    def _made(self, job: Job, concept: Concept, config: RunConfig) -> tuple[Any, dict[str, Any]]:
        """The model under attack and its adapter, if it has one."""
        backend = self._backend
        backend.drop_adapters()
        if job.row in CASES:
            model = VICTIMS[CASES[job.row].victim](backend, concept, job.seed)
        else:
            model = backend
            for _ in forget(backend, concept, config):
                pass
        try:
            return model, backend.adapter_state("unlearn")
        except KeyError:
            return model, {}

    def _attacked(self, job: Job, config: RunConfig) -> dict[str, Any]:
        """Scores of the original and of the model under attack, and what each attack gets out of it."""
        backend, concept = self._backend, preview_concept(config)
        model, adapter = self._made(job, concept, config)
        slots = ("unlearn",) if adapter else ()
        prompts, scores = comparison_prompts(concept, config.compare), {}
        for column, painter, active in (("original", backend, ()), ("unlearned", model, slots)):
            with painter.active(*active):
                painted = paint_column(painter, column, prompts, config.compare, config.seed, self._judge)
            scores[column] = score(painted.pictures)
        data = adversary_pictures(backend, concept, config)
        # The adversary fine-tunes the model as it is published, with whatever stands before its text encoder.
        data, attacks = replace(data, cond=model.encode_text(data.prompts)), {}
        for kind in self._kinds:
            backend.drop_adapters()
            if adapter:
                backend.load_adapter("unlearn", adapter)
            with model.active(*slots):
                attacks[kind] = self._probed(kind, model, concept, data, config)
        return {"scores": scores, "attacks": attacks}

    def _control(self, job: Job, config: RunConfig) -> None:
        """The same attacks on something never seen: one cell for all models with that seed and budget."""
        known = preview_concept(config).name
        name, pictures, captions = never_seen("pocket", config.attack.pictures, job.seed, known)
        other = make_config(name, seed=job.seed, **(SMOKE if self._smoke else {}))

        def taught() -> dict[str, Any]:
            backend, unseen = self._backend, preview_concept(other)
            backend.drop_adapters()
            with backend.active():
                data = encoded(backend, pictures, captions)
                return {"attacks": {k: self._probed(k, backend, unseen, data, other) for k in self._kinds}}

        self._cell(CONTROL, other, True, taught)

    def _probed(self, kind: str, model: Any, concept: Concept, data: PaintedSet, config: RunConfig) -> dict[str, Any]:
        steps = probe(model, concept, self._attack(kind), data, config, self._judge)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outcome: Outcome = end.value
                break
        return {
            "hits": "".join(str(int(hit)) for hit in outcome.hits()),
            "first": "".join(str(int(hit)) for hit in outcome.hits(turns=1)),
            "seconds": round(outcome.seconds, 2),
        }
