"""What the lab measures: attacks on models whose truth is known, and on what methods make."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...attacks import Attack, AttackContext
from ...attacks.runner import attack_of, attacked, result_of
from ...common import registry
from ...common.json_values import to_json
from ...concepts.catalog import preview_concept
from ...evaluation.base_rates import attack_key, record
from ...evaluation.judges import Scorer
from ...models.protocols import Params
from ...pocket.lesson import EASIEST
from ...settings.attacks import QUICK, SURE
from ...settings.presets import EQUAL_BUDGET
from ...settings.run_config import RunConfig, make_attack, make_config
from ..cells import SMOKE, Experiment, read_cells, short_hash
from ..known_outcome_models import (
    MADE_WITH,
    context_of,
    known_outcome_model,
    load_only,
    scores_of,
    unlearn,
)
from ..paper1.measure import digest
from ..tables import bits, percent_of
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
        changes = EQUAL_BUDGET | METHODS[self.row] if self.row in METHODS else {}
        changes |= SMOKE if smoke else {}
        return make_config(self.concept, seed=self.seed, **changes)

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
        # What is held down is made by a whole training.
        rows = [row for row in CASES if CASES[row].concept == "cat" and row != "held down"]
        cells = [(CONTROL, UNSEEN_CONTROLS[0]), *((row, "cat") for row in (*rows, *METHODS)[:6])]
        return [AttackedModel(*cell, seed=0) for cell in cells]
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
        model, adapter = self._made(cell, config)
        slots, found = ("unlearn",) if adapter else (), dict(known)
        if cell.row != CONTROL and "scores" not in found:
            found["scores"] = self._scores(model, slots, config)
        context, attacks = context_of(self.model, config), dict(known.get("attacks", {}))
        # The model under attack, which the adversary fine-tunes, encodes the prompts.
        cond = model.encode_text(context.data.prompts)
        context = replace(context, data=replace(context.data, cond=cond))
        for kind in self._lacking(cell, known):
            load_only(self.model, adapter)
            with model.active(*slots):
                attacks[kind] = self._attacked(kind, model, context, config)
        yield found | {"attacks": attacks}

    def line(self, cell: AttackedModel, values: Mapping[str, Any]) -> str:
        hits = {kind: percent_of(found["hits"]) for kind, found in values["attacks"].items()}
        shown = ", ".join(f"{kind} {share}" for kind, share in hits.items())
        return f"{cell.row}, {cell.concept}, seed {cell.seed}: {shown}"

    def report(self) -> str:
        self.record_base_rates()
        return write_results(self.folder)

    def record_base_rates(self) -> None:
        """Ship the base rates of all attacks, over all seeds measured with today's settings."""
        if self.extent.ships:
            record("attacks", {of: self._rates(names[0]) for of, names in EASIEST.items()})

    def _lacking(self, cell: AttackedModel, known: Mapping[str, Any]) -> list[str]:
        attacks, config = known.get("attacks", {}), cell.config(self.smoke)
        return [
            kind
            for kind in cell.kinds(self.smoke, self.extent.full)
            if attacks.get(kind, {}).get("settings") != repr(self._attack(config, kind))
        ]

    def _attack(self, config: RunConfig, kind: str) -> Attack:
        return attack_of(config, kind, **(SMOKE_ATTACKS.get(kind, {}) if self.smoke else {}))

    def _made(self, cell: AttackedModel, config: RunConfig) -> tuple[Any, Params]:
        """The model under attack and its adapter, if it has one."""
        if cell.row in METHODS:
            return self.model, unlearn(self.model, config)
        name = CASES[cell.row].model if cell.row in CASES else "untouched"
        model = known_outcome_model(name, self.model, preview_concept(config), cell.seed)
        try:
            return model, self.model.adapter_state("unlearn")
        except KeyError:
            return model, {}

    def _scores(self, model: Any, slots: Sequence[str], config: RunConfig) -> dict[str, Any]:
        scores = {}
        for column, shown, active in (("original", self.model, ()), ("unlearned", model, slots)):
            with shown.active(*active):
                scores[column] = scores_of(shown, config, column, self.judge)
        return scores

    def _attacked(
        self, kind: str, model: Any, context: AttackContext, config: RunConfig
    ) -> dict[str, Any]:
        attack = self._attack(config, kind)
        found = result_of(attacked(model, attack, context, self.judge))
        return {
            "settings": repr(attack),
            "hits": bits(found.hits()),
            "first": bits(found.hits(attempts=1)),
            "seconds": round(found.seconds, 2),
        }

    def _rates(self, name: str) -> dict[str, Any]:
        """The base rate of every attack at `name`, from stored controls with today's settings."""
        rates = {kind: self._rate(name, kind) for kind in registry.names("attack")}
        return {kind: rate for kind, rate in rates.items() if rate}

    def _rate(self, name: str, kind: str) -> dict[str, Any]:
        attack, found = make_attack(kind), []
        for config, values in read_cells(self.folder).values():
            known = values["attacks"].get(kind, {})
            asked = config["row"], config["concept"], known.get("settings")
            if asked == (CONTROL, name, repr(attack)):
                today = self.config(AttackedModel(CONTROL, name, config["seed"]))
                if all(config[part] == today[part] for part in ("base_model", "settings")):
                    found.append(known)
        if not found:
            return {}
        return {
            "config": attack_key(attack, make_config(name), self.model),
            "name": f"{name}, never seen",
            "hits": "".join(one["hits"] for one in found),
            "judge": judged_by(self.judge),
            "sure": SURE,
            "seconds": round(statistics.median(one["seconds"] for one in found), 1),
        }


class Controls(Lab):
    """The lab's controls alone, over as many seeds as asked for.

    They have a folder of their own, because the lab's cells may be of an earlier model.
    """

    name = "controls"

    def cells(self) -> list[AttackedModel]:
        every = grid(self.extent.seeds, self.smoke)
        return [cell for cell in every if cell.row == CONTROL and cell.seed < self.extent.seeds]


def judged_by(judge: Scorer) -> str:
    """The judge's name and version."""
    return f"{judge.name} {judge.version}"


def depends_on(cell: AttackedModel, config: RunConfig, judge: str) -> str:
    """A short hash of everything but the attack's own settings that a cell depends on."""
    made = MADE_WITH.get(CASES[cell.row].model) if cell.row in CASES else None
    return short_hash([digest(config), config.attack, config.compare, judge, SURE, made])
