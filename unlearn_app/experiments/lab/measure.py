"""What the lab measures: attacks on models whose truth is known, and on what methods make."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...attacks import AttackContext
from ...attacks.runner import attack_context, attack_of, attacked, result_of, unseen_context
from ...common import registry
from ...common.json_values import to_json
from ...concepts.catalog import known_concepts, preview_concept
from ...concepts.concept import Concept
from ...continual.ledger import slug
from ...evaluation.base_rates import attack_key, record
from ...evaluation.comparison import comparison_prompts, generate_column, score
from ...evaluation.judges import Scorer
from ...pocket.lesson import EASIEST
from ...settings.attacks import QUICK, SURE
from ...settings.run_config import RunConfig, make_attack, make_config
from ...training.unlearning import forget
from ..cells import SMOKE, Experiment, read_cells, run_cells, short_hash
from ..known_outcome_models import KNOWN_OUTCOME_MODELS, MADE_WITH
from ..paper1.measure import digest
from ..tables import percent_of
from .report import CASES, CONTROL, METHODS, write_results

CONCEPTS = ("cat", "van gogh", "ship", "mosaic", "knife", "robot")
CUT_CONCEPTS = CONCEPTS[:2]
UNSEEN_CONTROLS = tuple(names[0] for names in EASIEST.values())
"""By kind what the attacks are tried on that the model has never seen."""
LEADS = ("cat", "guitar", *UNSEEN_CONTROLS)
"""Of these the cut has every attack with the first seed; of the others, and with other seeds, the
quick ones.
"""
SMOKE_ATTACKS = {
    "prompts": {"tries": 1},
    "ring_a_bell": {"tries": 1, "population": 4, "generations": 1},
    "inversion": {"tries": 1, "steps": 1},
    "noise": {"tries": 1},
}


@dataclass(frozen=True)
class AttackedModel:
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


def grid(seeds: int, smoke: bool) -> list[AttackedModel]:
    """Every model, controls and cases first; of some more seeds, because the verdict has to be the
    same for each.
    """
    if smoke:
        rows = [case for case in CASES if CASES[case].concept == "cat"] + list(METHODS)
        control = AttackedModel(CONTROL, UNSEEN_CONTROLS[0], 0)
        return [control, *(AttackedModel(row, "cat", 0) for row in rows[:6])]
    cases = [
        AttackedModel(row, case.concept, seed)
        for row, case in CASES.items()
        for seed in range(max(seeds, case.seeds))
    ]
    controls = [
        AttackedModel(CONTROL, name, seed)
        for seed in sorted({cell.seed for cell in cases})
        for name in UNSEEN_CONTROLS
    ]
    methods = [
        AttackedModel(row, concept, seed)
        for seed, row, concept in itertools.product(range(seeds), METHODS, CONCEPTS)
    ]
    return sorted([*controls, *cases], key=lambda cell: cell.seed) + methods


class Lab(Experiment):
    """Attack models. A cell grows by the attacks on one of them, so that the full grid, which has
    all attacks on every model and more concepts, goes on from the cut, and the cut keeps what the
    full grid has measured.
    """

    name = "lab"

    def cells(self) -> list[AttackedModel]:
        return self.chosen(grid(self.extent.seeds, self.smoke), lambda cell: True)

    def config(self, cell: AttackedModel) -> dict[str, Any]:
        run, judge = cell.config(self.smoke), judged_by(self.judge)
        return to_json(cell) | {
            "cut": cell.cut,
            "run": run.command(),
            "settings": depends_on(cell, run, judge),
            "judge": judge,
            "base_model": self.model.base_hash,
        }

    def lacks(self, cell: AttackedModel, known: Mapping[str, Any]) -> bool:
        return bool(self._lacking(cell, known))

    def measure(
        self, cell: AttackedModel, known: dict[str, Any], shared: None
    ) -> Iterator[dict[str, Any]]:
        config = cell.config(self.smoke)
        concept = preview_concept(config)
        model, adapter = self._made(cell, concept, config)
        slots, scores = ("unlearn",) if adapter else (), known.get("scores", {})
        if cell.row != CONTROL and not scores:
            scores = self._scores(model, slots, concept, config)
        context, attacks = self._context(concept, config, model), dict(known.get("attacks", {}))
        for kind in self._lacking(cell, known):
            self.model.drop_adapters()
            if adapter:
                self.model.load_adapter("unlearn", adapter)
            with model.active(*slots):
                attacks[kind] = self._attacked(kind, model, context, config)
        yield ({"scores": scores} if scores else {}) | {"attacks": attacks}

    def line(self, cell: AttackedModel, values: Mapping[str, Any]) -> str:
        attacks = values["attacks"]
        shown = ", ".join(f"{kind} {percent_of(found['hits'])}" for kind, found in attacks.items())
        return f"{cell.row}, {cell.concept}, seed {cell.seed}: {shown}"

    def report(self) -> str:
        self.record_base_rates()
        return write_results(self.folder)

    def record_base_rates(self) -> None:
        """Ship what the attacks make of something never seen, over all seeds measured with the
        settings of today.
        """
        if self.extent.ships:
            record("attacks", {of: self._rates(names[0]) for of, names in EASIEST.items()})

    def _lacking(self, cell: AttackedModel, known: Mapping[str, Any]) -> list[str]:
        attacks = known.get("attacks", {})
        return [
            kind
            for kind in cell.kinds(self.smoke, self.extent.full)
            if attacks.get(kind, {}).get("settings") != repr(self._attack(kind))
        ]

    def _attack(self, kind: str) -> Any:
        return make_attack(kind, **self._small(kind))

    def _small(self, kind: str) -> dict[str, int]:
        return SMOKE_ATTACKS.get(kind, {}) if self.smoke else {}

    def _made(
        self, cell: AttackedModel, concept: Concept, config: RunConfig
    ) -> tuple[Any, dict[str, Any]]:
        """The model under attack and its adapter, if it has one."""
        original = self.model
        original.drop_adapters()
        if cell.row == CONTROL:
            return original, {}
        if cell.row in CASES:
            model = KNOWN_OUTCOME_MODELS[CASES[cell.row].model](original, concept, cell.seed)
        else:
            model = original
            for _ in forget(original, concept, config):
                pass
        try:
            return model, original.adapter_state("unlearn")
        except KeyError:
            return model, {}

    def _scores(
        self, model: Any, slots: tuple[str, ...], concept: Concept, config: RunConfig
    ) -> dict[str, Any]:
        prompts, scores = comparison_prompts(concept, config.compare), {}
        for column, shown, active in (
            ("original", self.model, ()),
            ("unlearned", model, slots),
        ):
            with shown.active(*active):
                images = generate_column(
                    shown, column, prompts, config.compare, config.seed, self.judge
                )
            scores[column] = score(images.pictures)
        return scores

    def _context(self, concept: Concept, config: RunConfig, model: Any) -> AttackContext:
        """What the attacks work with; renderings are the pictures of what the original has never
        seen.

        They are read as the model reads them, because that is what the adversary fine-tunes.
        """
        unseen = {known.name for known in known_concepts() if known.fresh}
        held = unseen_context if concept.name in unseen else attack_context
        context = held(self.model, concept, config)
        cond = model.encode_text(context.data.prompts)
        return replace(context, data=replace(context.data, cond=cond))

    def _attacked(
        self, kind: str, model: Any, context: AttackContext, config: RunConfig
    ) -> dict[str, Any]:
        attack = attack_of(config, kind, **self._small(kind))
        found = result_of(attacked(model, attack, context, self.judge))
        return {
            "settings": repr(attack),
            "hits": _bits(found.hits()),
            "first": _bits(found.hits(attempts=1)),
            "seconds": round(found.seconds, 2),
        }

    def _rates(self, name: str) -> dict[str, Any]:
        """What every attack makes of `name`, over stored controls with the settings of today."""
        rates = {kind: self._rate(name, kind) for kind in registry.names("attack")}
        return {kind: rate for kind, rate in rates.items() if rate}

    def _rate(self, name: str, kind: str) -> dict[str, Any]:
        attack, found = make_attack(kind), []
        for config, values in _controls(self.folder, name):
            cell = AttackedModel(CONTROL, name, config["seed"])
            known = values["attacks"].get(kind, {})
            today = self.config(cell)
            same = all(config[part] == today[part] for part in ("base_model", "settings"))
            if same and known.get("settings") == repr(attack):
                found.append(known)
        if not found:
            return {}
        return {
            "config": attack_key(attack, make_config(name), self.model.base_hash),
            "name": f"{name}, never seen",
            "hits": "".join(one["hits"] for one in found),
            "judge": judged_by(self.judge),
            "sure": SURE,
            "seconds": round(statistics.median(one["seconds"] for one in found), 1),
        }


class Controls(Lab):
    """What every attack makes of something never seen, over as many seeds.

    The cells stand apart from those of the lab, which may be of an earlier model.
    """

    name = "controls"

    def cells(self) -> list[AttackedModel]:
        every = grid(self.extent.seeds, self.smoke)
        return [cell for cell in every if cell.row == CONTROL and cell.seed < self.extent.seeds]

    def ship(self) -> None:
        """Measure or resume the cells, and ship the base rates where `out` is our own."""
        for _ in run_cells(self, self.cells()):
            pass
        self.record_base_rates()


def judged_by(judge: Scorer) -> str:
    """The judge's name and version."""
    return f"{judge.name} {judge.version}"


def depends_on(cell: AttackedModel, config: RunConfig, judge: str) -> str:
    """A short hash of everything but the attack's own settings that a cell depends on."""
    made = MADE_WITH.get(CASES[cell.row].model) if cell.row in CASES else None
    return short_hash([digest(config), config.attack, config.compare, judge, SURE, made])


def _controls(folder: Path, name: str) -> list[tuple[dict[str, Any], Any]]:
    stored = read_cells(folder)
    prefix = slug(f"{CONTROL}-{name}")
    return [found for key, found in stored.items() if key.startswith(f"{prefix}-")]


def _bits(hits: Iterable[bool]) -> str:
    return "".join(str(int(hit)) for hit in hits)
