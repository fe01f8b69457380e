"""The benchmark of paper 2: bases, defences and attacks, and the declared cut of their grid, small
enough for two cores.
"""

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...attacks.relearn import Relearn
from ...attacks.runner import checkpoints
from ...common.json_values import to_json
from ...concepts.targets import targets_told
from ...models.protocols import Params
from ...pocket.world.vocabulary import FRESH_OBJECTS
from ...settings.events import GROUPS, Step
from ...settings.presets import EQUAL_BUDGET, PRESET_CHANGES
from ...settings.run_config import RunConfig
from ..cells import SMOKE, Experiment, all_names, settings
from ..known_outcome_models import context_of, load_only, unlearn
from ..paper1.measure import digest, groups_of, scored
from ..tables import percent_of

MARKS = (0, 10, 25, 50, 100, 200, 300)
COUNT = 24
"""Pictures of the concept that are judged at each mark, with half as many of relatives and half as
many of everything else.
"""
SEEDS = 3
ALONE, META, M0, STRONG = "unlearn only", "meta", "no look ahead (M = 0)", "stronger unlearning"
FAST_ALONE, FAST_META = "unlearn only, fast", "meta, fast"
ORIGINAL, UNSEEN, NONE = "original", "fresh concept", "none"
"""Bases without unlearning, and what stands for a missing defence or attack."""
HARMLESS = "clean"
"""No adversary: an honest user fine-tunes on other pictures."""
RESIST = {"resist.on": True}
LENGTHS = {
    preset: {n: v for n, v in changes.items() if n.partition(".")[0] in ("unlearn", "resist")}
    for preset, changes in PRESET_CHANGES.items()
}
"""The settings of unlearning by preset; attacks and judged pictures do not depend on the preset."""
BASES: dict[str, dict[str, Any]] = {
    "ESD": {"objective": "esd", "unlearn.modules": "all", "unlearn.lr": 2e-3},
    "ESD-x": {"objective": "esd"},
    "SDD": {"objective": "sdd"},
    "concept ablation": {"objective": "concept_ablation"},
    "UCE": {"objective": "uce"},
    "RECE": {"objective": "rece"},
}
FIRST_BASE = next(iter(BASES))
DEFENCES: dict[str, dict[str, Any]] = {ALONE: {}, META: RESIST}
CONTROLS: dict[str, dict[str, Any]] = {M0: RESIST | {"resist.steps": 0}, STRONG: {"esd.eta": 3.0}}
"""Measured with the first base only: the loss weights of meta-unlearning without inner attack
steps, and stronger unlearning without resistance.
"""
SHORT = {FAST_ALONE: {}, FAST_META: RESIST}
"""Measured with the first base only, in the lengths of the preset fast instead of full."""
LORA = {"attack.rank": 16, "attack.alpha": 16.0}
ALL = {"attack.weights": "full", "attack.lr": 3e-4}
SGD = {"attack.optimizer": "sgd"}
"""SGD needs learning rates of its own to bring anything back; tests/training/test_resistance.py
tries the one for LoRA.
"""
ATTACKS: dict[str, dict[str, Any]] = {
    "LoRA 16": LORA,
    "all weights": ALL,
    HARMLESS: LORA | {"attack.data": "benign"},
    "one prompt": LORA | {"attack.data": "one"},
    "mixed": LORA | {"attack.data": "mixed"},
    "LoRA 4": {"attack.rank": 4, "attack.alpha": 4.0},
    "LoRA 16, lr x 3": LORA | {"attack.lr": 6e-3},
    "LoRA 16, lr / 3": LORA | {"attack.lr": 7e-4},
    "LoRA 16, SGD": LORA | SGD | {"attack.lr": 10.0},
    "all weights, SGD": ALL | SGD | {"attack.lr": 0.1},
}
TARGETS = ("cat", "ship", "knife", "van gogh", "mosaic")
CUT_ATTACKS, CUT_STEPS = ("LoRA 16", "all weights", HARMLESS), 100
CUT = {
    **dict.fromkeys(DEFENCES, CUT_ATTACKS),
    **dict.fromkeys((*CONTROLS, NONE), CUT_ATTACKS[:2]),
    **dict.fromkeys(SHORT, CUT_ATTACKS[:1]),
}
"""The declared cut: the attacks by defence, of `CUT_STEPS` steps, on the first base and the fresh
concepts.
"""
ATTACK_SEED = 50
"""Added to the defender's seed to make the adversary's, so that the two share neither pictures nor
noise.
"""


@dataclass(frozen=True)
class DefendedAttack:
    """One attack on one defended model. Fresh concepts have no defence; the original has neither a
    defence nor an attack.
    """

    target: str
    seed: int
    base: str
    defence: str
    attack: str

    @property
    def cut(self) -> bool:
        """Whether it belongs to the declared cut; the full grid measures the others too."""
        return self.base == ORIGINAL or (
            self.base in (FIRST_BASE, UNSEEN) and self.attack in CUT[self.defence]
        )

    def config(self, smoke: bool, full: bool) -> RunConfig:
        """The settings of unlearning and of the attack. All attacks have the same length, because
        the schedule of the learning rate depends on it.
        """
        own = {"attack.steps": MARKS[-1] if full else CUT_STEPS, "attack.pictures": 32}
        if self.base in BASES:
            own |= EQUAL_BUDGET | LENGTHS["fast" if self.defence in SHORT else "full"]
            own |= BASES[self.base] | (DEFENCES | CONTROLS | SHORT)[self.defence]
        own |= ATTACKS.get(self.attack, {}) | (SMOKE if smoke else {})
        return settings(self.target, seed=self.seed, **own)


def grid(seeds: int) -> list[DefendedAttack]:
    """Every cell, the declared cut first; attacks on the same defended model are adjacent. Nobody
    knows what a model that the user brings was never shown.
    """
    targets = all_names(TARGETS)
    unseen = [] if targets_told() else FRESH_OBJECTS[:2]
    models = [(base, defence) for base in BASES for defence in DEFENCES]
    models += [(FIRST_BASE, defence) for defence in (*CONTROLS, *SHORT)]
    attacked = [
        DefendedAttack(target, seed, *model, attack)
        for seed, target, model, attack in itertools.product(range(seeds), targets, models, ATTACKS)
    ]
    originals = [
        DefendedAttack(target, seed, ORIGINAL, NONE, NONE)
        for seed, target in itertools.product(range(seeds), targets)
    ]
    fresh = [
        DefendedAttack(entry.name, seed, UNSEEN, NONE, attack)
        for seed, entry, attack in itertools.product(range(seeds), unseen, CUT[NONE])
    ]
    return sorted([*fresh, *originals, *attacked], key=lambda cell: (not cell.cut, cell.seed))


Defended = tuple[Params, dict[str, Any], float]
"""A model before any attack: its adapter (empty for the original), its scores, and the seconds of
unlearning.
"""


class Paper2(Experiment):
    """Defend a model, attack it, and score it at each mark.

    The full grid has a folder of its own: its attacks are longer, so it shares no cell with the
    cut.
    """

    name = "paper2"

    @property
    def label(self) -> str:
        return f"{self.name}-full" if self.extent.full else self.name

    def cells(self) -> list[DefendedAttack]:
        small = all_names(TARGETS)[0], FRESH_OBJECTS[0].name
        every = grid(self.seeds)
        if self.extent.targets and not self.extent.full:
            every = [cell for cell in every if cell.cut]
        return self.chosen(every, lambda cell: cell.target in small)

    def config(self, cell: DefendedAttack) -> dict[str, Any]:
        run = self._run(cell)
        return to_json(cell) | {
            "cut": cell.cut,
            "run": run.command(),
            "settings": digest(run),
            "adversary": None if cell.attack == NONE else to_json(run.attack),
            "count": self._count,
            "base_model": self.model.base_hash,
        }

    def shared_by(self, cell: DefendedAttack) -> tuple[Any, ...]:
        forgets = cell.base in BASES
        return cell.target, cell.seed, digest(self._run(cell)) if forgets else cell.base

    def prepare(self, cell: DefendedAttack) -> Defended:
        config, started = self._run(cell), time.perf_counter()
        self.model.drop_adapters()
        adapter = unlearn(self.model, config) if cell.base in BASES else {}
        seconds = time.perf_counter() - started
        return adapter, self._scored(config, ("unlearn",) if adapter else ()), seconds

    def measure(
        self, cell: DefendedAttack, known: dict[str, Any], shared: Defended
    ) -> Iterator[dict[str, Any]]:
        adapter, scores, seconds = shared
        load_only(self.model, adapter)
        marks = {0: scores} | (self._attacked(cell) if cell.attack != NONE else {})
        self.model.drop_adapters()
        yield {"marks": marks, "unlearn_s": round(seconds, 2)}

    def line(self, cell: DefendedAttack, values: Mapping[str, Any]) -> str:
        way = " ".join(
            f"{step}:{percent_of(seen['right']['forget'])}"
            for step, seen in values["marks"].items()
        )
        return f"{cell.target}, {cell.base}, {cell.defence}, {cell.attack}, seed {cell.seed}: {way}"

    def report(self) -> str:
        from .report import write_results

        return write_results(self.folder)

    @property
    def _count(self) -> int:
        return 4 if self.smoke else COUNT

    def _run(self, cell: DefendedAttack) -> RunConfig:
        return cell.config(self.smoke, self.extent.full)

    def _attacked(self, cell: DefendedAttack) -> dict[int, Any]:
        """The scores by attack step, at each of `MARKS` and at the end."""
        config = self._run(cell)
        slots = () if config.attack.weights == "full" else ("relearn",)
        asked = replace(config, seed=cell.seed + ATTACK_SEED)
        events = checkpoints(
            self.model,
            Relearn(training=asked.attack),
            context_of(self.model, asked),
            lambda step: (step.step, self._scored(config, slots)),
            steps=MARKS,
        )
        return dict(event for event in events if not isinstance(event, Step))

    def _scored(self, config: RunConfig, slots: tuple[str, ...]) -> dict[str, Any]:
        """Which pictures are right, and the mean alignment, by group."""
        groups = groups_of(config.concept, self._count)
        asked = {group: groups[group] for group in GROUPS}
        found, _ = scored(self.model, self.judge, asked, slots, config)
        means = {group: round(statistics.mean(v), 4) for group, v in found["alignment"].items()}
        return found | {"alignment": means}
