"""What the lab measures: attacks on models whose true verdict is known and on unlearned models."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...attacks import Attack, AttackContext
from ...attacks.runner import attack_of, attacked, result_of
from ...common import registry
from ...common.json_values import to_json
from ...common.registry import DEFAULT_MODEL
from ...concepts.catalog import preview_concept
from ...concepts.targets import targets_told
from ...evaluation.base_rates import attack_key, record
from ...evaluation.judges import Scorer
from ...models.protocols import Params
from ...pocket.lesson import EASIEST
from ...settings.attacks import QUICK, SURE
from ...settings.presets import EQUAL_BUDGET
from ...settings.run_config import RunConfig, make_attack, make_config
from ..cells import (
    SMOKE,
    Experiment,
    all_names,
    measured_model,
    read_cells,
    settings,
    short_hash,
)
from ..known_outcome_models import (
    MADE_WITH,
    OF_TOKENS,
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
"""The controls: for each kind of concept, the first that the model has never seen."""
LEADS = ("cat", "guitar", *UNSEEN_CONTROLS)
"""Concepts under every attack in the cut, with seed 0; other cells have the quick attacks only."""
WITHOUT_TOKENS = ("prompts", "noise", "relearn")
"""The quick attacks that a flow transformer allows."""
SMOKE_ATTACKS = {
    "prompts": {"tries": 1},
    "ring_a_bell": {"tries": 1, "population": 4, "generations": 1},
    "inversion": {"tries": 1, "steps": 1},
    "noise": {"tries": 1},
}


@dataclass(frozen=True)
class AttackedModel:
    """One model under attack. Its row is a case whose true verdict is known, an unlearning method,
    or the control: an attack on a concept that the model has never seen.
    """

    row: str
    concept: str
    seed: int

    @property
    def cut(self) -> bool:
        """Whether it belongs to the declared cut; the full grid measures the others too."""
        return self.row not in METHODS or self.concept in CUT_CONCEPTS

    def config(self, smoke: bool) -> RunConfig:
        """The settings of the run and of its attacks."""
        changes = EQUAL_BUDGET | METHODS[self.row] if self.row in METHODS else {}
        changes |= SMOKE if smoke else {}
        return settings(self.concept, seed=self.seed, **changes)

    def kinds(self, smoke: bool, full: bool) -> tuple[str, ...]:
        """The attacks on it; one that proves nothing needs an adapter, which only methods leave."""
        every = full or (self.seed == 0 and self.concept in leading())
        quick, known = QUICK, registry.names("attack")
        if second():
            quick = known = WITHOUT_TOKENS
        chosen = quick[:2] if smoke else known if every else quick
        return tuple(kind for kind in chosen if make_attack(kind).counts or self.row in METHODS)


def second() -> bool:
    """Whether the second bundled model is measured, a flow transformer."""
    return not targets_told() and measured_model() != DEFAULT_MODEL


def leading() -> tuple[str, ...]:
    """The concepts under every attack: fewer of a model that the user brings, none of the second
    bundled one.
    """
    if targets_told():
        return all_names(LEADS)[:1]
    return () if second() else LEADS


def grid(seeds: int, smoke: bool) -> list[AttackedModel]:
    """Every model, controls and cases first; cases with more seeds, for each of which the verdict
    has to be true. Of a model that the user brings nobody knows these.
    """
    if targets_told():
        asked = itertools.product(range(seeds), METHODS, all_names(CONCEPTS))
        methods = [AttackedModel(row, concept, seed) for seed, row, concept in asked]
        return methods[:2] if smoke else methods
    if second():
        return of_second_model(seeds, smoke)
    if smoke:
        # "held down" needs a whole training.
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


def of_second_model(seeds: int, smoke: bool) -> list[AttackedModel]:
    """The same with as many seeds of everything, without closed forms, which edit the text states
    of a UNet.
    """
    closed = registry.names("closed_form")
    trained = [row for row, asked in METHODS.items() if asked.get("objective") not in closed]
    cases = {row: case.concept for row, case in CASES.items() if case.model not in OF_TOKENS}
    rows = [(CONTROL, name) for name in UNSEEN_CONTROLS]
    rows += cases.items()
    rows += itertools.product(trained, CUT_CONCEPTS)
    models = [AttackedModel(*row, seed) for seed in range(seeds) for row in rows]
    return models[:1] + models[-1:] if smoke else models


class Lab(Experiment):
    """Attack models. A cell holds the attacks on one model and grows: the full grid adds attacks to
    the cells of the cut, and the cut keeps those that it does not need.
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
        """Write the base rates that ship: of all attacks, over all seeds measured with today's
        settings.
        """
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
        controls = []
        for config, values in read_cells(self.folder).values():
            if (config["row"], config["concept"]) == (CONTROL, name):
                today = self.config(AttackedModel(CONTROL, name, config["seed"]))
                if all(config[part] == today[part] for part in ("base_model", "settings")):
                    controls.append(values["attacks"])
        rates = {}
        for kind in registry.names("attack"):
            attack = make_attack(kind)
            known = [attacks[kind] for attacks in controls if kind in attacks]
            found = [one for one in known if one["settings"] == repr(attack)]
            if found:
                rates[kind] = {
                    "config": attack_key(attack, make_config(name), self.model),
                    "name": f"{name}, never seen",
                    "hits": "".join(one["hits"] for one in found),
                    "judge": judged_by(self.judge),
                    "sure": SURE,
                    "seconds": round(statistics.median(one["seconds"] for one in found), 1),
                }
        return rates


class Controls(Lab):
    """The lab's controls alone, with the seeds that are asked for, in a folder of their own: the
    lab's cells may be of an earlier edition of the model.
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
