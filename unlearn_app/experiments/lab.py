"""The lab's tables: do attacks find what is concealed, is the verdict true, and what do methods
withstand?
"""

import itertools
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..attacks import AttackContext
from ..attacks.runner import AttackResult, attack_context, attack_of, attacked
from ..attacks.unseen import fresh_lesson
from ..common import registry
from ..common.paths import POCKET
from ..concepts.catalog import known_concepts, preview_concept
from ..concepts.concept import Concept
from ..continual.ledger import slug
from ..evaluation.base_rates import attack_key, record
from ..evaluation.comparison import comparison_prompts, generate_column, score
from ..evaluation.judges import Scorer
from ..evaluation.judges.pocket_judge import PocketJudge
from ..models.catalog import load_backend
from ..models.protocols import Backend
from ..pocket.lesson import EASIEST
from ..settings.attacks import QUICK, SURE
from ..settings.run_config import RunConfig, make_attack, make_config
from ..training.unlearning import forget
from .cells import ROOT, SMOKE, grown, own_share, share, short_hash
from .known_outcome_models import KNOWN_OUTCOME_MODELS, MADE_WITH
from .lab_tables import CASES, CONTROL, METHODS, write_results
from .paper1 import digest

CONCEPTS = ("cat", "van gogh", "ship", "mosaic", "knife", "robot")
CUT_CONCEPTS = CONCEPTS[:2]
CONTROLS = tuple(names[0] for names in EASIEST.values())
"""By kind what the attacks are tried on that the model has never seen."""
LEADS = ("cat", "guitar", *CONTROLS)
"""Of these the cut has every attack with the first seed; of the others, and with other seeds, the
quick ones.
"""
SMALL = {
    "prompts": {"tries": 1},
    "ring_a_bell": {"tries": 1, "population": 4, "generations": 1},
    "inversion": {"tries": 1, "steps": 1},
    "noise": {"tries": 1},
}


@dataclass(frozen=True)
class Job:
    """One model under attack: a case whose truth is known, what a method made, or something never
    seen as control.
    """

    row: str
    concept: str
    seed: int

    @property
    def cut(self) -> bool:
        """Whether the declared cut holds it; the others wait for the full grid."""
        return self.row not in METHODS or self.concept in CUT_CONCEPTS

    def config(self, smoke: bool) -> RunConfig:
        """The settings of the run and of its attacks."""
        own = METHODS.get(self.row, {}) | (SMOKE if smoke else {})
        return make_config(self.concept, seed=self.seed, **own)

    def kinds(self, smoke: bool, full: bool) -> tuple[str, ...]:
        """The attacks on it; one that proves nothing needs an adapter, as methods make it."""
        every = full or (self.seed == 0 and self.concept in LEADS)
        chosen = QUICK[:2] if smoke else registry.names("attack") if every else QUICK
        return tuple(kind for kind in chosen if make_attack(kind).counts or self.row in METHODS)


def grid(seeds: int, smoke: bool) -> list[Job]:
    """Every model, controls and cases first; of some more seeds, because the verdict has to be the
    same for each.
    """
    if smoke:
        rows = [case for case in CASES if CASES[case].concept == "cat"] + list(METHODS)
        return [Job(CONTROL, CONTROLS[0], 0), *(Job(row, "cat", 0) for row in rows[:6])]
    cases = [
        Job(row, case.concept, seed)
        for row, case in CASES.items()
        for seed in range(max(seeds, case.seeds))
    ]
    taught = [
        Job(CONTROL, name, seed)
        for seed in sorted({job.seed for job in cases})
        for name in CONTROLS
    ]
    methods = itertools.product(range(seeds), METHODS, CONCEPTS)
    known = sorted([*taught, *cases], key=lambda job: job.seed)
    return known + [Job(row, concept, seed) for seed, row, concept in methods]


def run_bench(out: Path, seeds: int = 3, smoke: bool = False, full: bool = False) -> Iterator[str]:
    """Measure or resume the cells under `out/lab`, write the tables beside them, and yield lines to
    print.

    A cell is one model and grows by the attacks on it, so that the full grid, which has all attacks
    on every model and more concepts, goes on from the cut, and the cut keeps what the full grid has
    measured.
    """
    folder = out / ("lab-smoke" if smoke else "lab")
    jobs = own_share([job for job in grid(seeds, smoke) if full or job.cut], lambda job: job)
    lab = _Lab(folder, load_backend(), PocketJudge.load(POCKET / "judge"), smoke)
    for row, job in enumerate(jobs, 1):
        found = lab.measure(job, job.kinds(smoke, full))["attacks"]
        shown = ", ".join(f"{kind} {share(found[kind]['hits'])}" for kind in found)
        yield f"{row}/{len(jobs)} {job.row}, {job.concept}, seed {job.seed}: {shown}"
    if not smoke and out.resolve().is_relative_to(ROOT):
        record_base_rates(folder, lab.base_hash)
    yield write_results(folder)


def measure_controls(out: Path, seeds: int, smoke: bool = False) -> None:
    """What every attack makes of something never seen, over as many seeds; shipped where `out` is
    our own.

    The cells stand apart from those of the table, which may be of an earlier model.
    """
    folder = out / ("controls-smoke" if smoke else "controls")
    lab = _Lab(folder, load_backend(), PocketJudge.load(POCKET / "judge"), smoke)
    for job in grid(seeds, smoke):
        if job.row == CONTROL and job.seed < seeds:
            lab.measure(job, job.kinds(smoke, False))
    if not smoke and out.resolve().is_relative_to(ROOT):
        record_base_rates(folder, lab.base_hash)


def depends_on(job: Job, config: RunConfig, judge: str) -> str:
    """A short hash of everything but the attack's own settings that a cell depends on."""
    made = MADE_WITH.get(CASES[job.row].victim) if job.row in CASES else None
    return short_hash([digest(config), config.attack, config.compare, judge, SURE, made])


def record_base_rates(folder: Path, base_hash: str) -> None:
    """Ship what the attacks make of something never seen, over all seeds measured with the settings
    of today.
    """
    record(
        "attacks",
        {of: _control_rates(folder, base_hash, names[0]) for of, names in EASIEST.items()},
    )


def _control_rates(folder: Path, base_hash: str, name: str) -> dict[str, Any]:
    judge = PocketJudge.load(POCKET / "judge")
    judged, recorded = f"{judge.name} {judge.version}", {}
    for kind in registry.names("attack"):
        attack, hits, seconds = make_attack(kind), "", []
        for path in sorted(folder.glob(f"{slug(f'{CONTROL}-{name}')}-*.json")):
            stored = json.loads(path.read_text(encoding="utf-8"))
            asked, found = stored["config"], stored["values"]["attacks"].get(kind)
            job = Job(CONTROL, name, asked["seed"])
            today = asked["base_model"] == base_hash and asked["settings"] == depends_on(
                job, job.config(False), judged
            )
            if today and found and found["settings"] == repr(attack):
                hits += found["hits"]
                seconds.append(found["seconds"])
        if hits:
            key = attack_key(attack, make_config(name), base_hash)
            known = {
                "config": key,
                "name": f"{name}, never seen",
                "hits": hits,
                "judge": judged,
                "sure": SURE,
            }
            recorded[kind] = known | {"seconds": round(statistics.median(seconds), 1)}
    return recorded


class _Lab:
    """What the cells of one benchmark share."""

    def __init__(self, folder: Path, backend: Backend, judge: Scorer, smoke: bool) -> None:
        self._folder, self._backend, self._judge, self._smoke = folder, backend, judge, smoke
        self.base_hash = backend.base_hash

    def measure(self, job: Job, kinds: tuple[str, ...]) -> dict[str, Any]:
        """The cell of one model, with what it lacks of `kinds` measured now."""
        config, judge = job.config(self._smoke), f"{self._judge.name} {self._judge.version}"
        asked = {
            "row": job.row,
            "concept": job.concept,
            "seed": job.seed,
            "cut": job.cut,
            "run": config.command(),
        }
        asked |= {
            "settings": depends_on(job, config, judge),
            "judge": judge,
            "base_model": self.base_hash,
        }

        def measured(known: dict[str, Any]) -> dict[str, Any]:
            attacks = known.get("attacks", {})
            lacking = [
                k for k in kinds if attacks.get(k, {}).get("settings") != repr(self._attack(k))
            ]
            return self._attacked(job, config, known, lacking) if lacking else known

        return grown(self._folder, slug(f"{job.row}-{job.concept}-{job.seed}"), asked, measured)

    def _attack(self, kind: str) -> Any:
        return make_attack(kind, **self._small(kind))

    def _small(self, kind: str) -> dict[str, int]:
        return SMALL.get(kind, {}) if self._smoke else {}

    def _made(self, job: Job, concept: Concept, config: RunConfig) -> tuple[Any, dict[str, Any]]:
        """The model under attack and its adapter, if it has one."""
        backend = self._backend
        backend.drop_adapters()
        if job.row == CONTROL:
            return backend, {}
        if job.row in CASES:
            model = KNOWN_OUTCOME_MODELS[CASES[job.row].victim](backend, concept, job.seed)
        else:
            model = backend
            for _ in forget(backend, concept, config):
                pass
        try:
            return model, backend.adapter_state("unlearn")
        except KeyError:
            return model, {}

    def _attacked(
        self, job: Job, config: RunConfig, known: dict[str, Any], kinds: list[str]
    ) -> dict[str, Any]:
        """`known` with what each of `kinds` gets out of the model and, but of a control, the scores
        of both columns.
        """
        backend, concept = self._backend, preview_concept(config)
        model, adapter = self._made(job, concept, config)
        slots, scores = ("unlearn",) if adapter else (), known.get("scores", {})
        if job.row != CONTROL and not scores:
            prompts = comparison_prompts(concept, config.compare)
            for column, painter, active in (("original", backend, ()), ("unlearned", model, slots)):
                with painter.active(*active):
                    painted = generate_column(
                        painter, column, prompts, config.compare, config.seed, self._judge
                    )
                scores[column] = score(painted.pictures)
        context, attacks = self._context(concept, config, model), dict(known.get("attacks", {}))
        for kind in kinds:
            backend.drop_adapters()
            if adapter:
                backend.load_adapter("unlearn", adapter)
            with model.active(*slots):
                attacks[kind] = self._attack_on(kind, model, context, config)
        return ({"scores": scores} if scores else {}) | {"attacks": attacks}

    def _context(self, concept: Concept, config: RunConfig, model: Any) -> AttackContext:
        """What the attacks work with; renderings are the pictures of what the original has never
        seen.

        They are read as the model reads them, because that is what the adversary fine-tunes.
        """
        lesson = None
        if any(known.fresh and known.name == concept.name for known in known_concepts()):
            lesson = fresh_lesson("pocket", config.attack.pictures, config.seed, concept.name)
        context = attack_context(self._backend, concept, config, lesson=lesson)
        cond = model.encode_text(context.data.prompts)
        return replace(context, data=replace(context.data, cond=cond))

    def _attack_on(
        self, kind: str, model: Any, context: AttackContext, config: RunConfig
    ) -> dict[str, Any]:
        attack = attack_of(config, kind, **self._small(kind))
        steps = attacked(model, attack, context, self._judge)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outcome: AttackResult = end.value
                break
        return {
            "settings": repr(attack),
            "hits": "".join(str(int(hit)) for hit in outcome.hits()),
            "first": "".join(str(int(hit)) for hit in outcome.hits(attempts=1)),
            "seconds": round(outcome.seconds, 2),
        }
