"""The grid of paper 2 (2410.12777): bases, defences and attacks, and the declared cut of it that
two cores finish.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from ..pocket.world.vocabulary import FRESH_OBJECTS
from ..settings.presets import PRESET_CHANGES
from ..settings.run_config import RunConfig, make_config
from .cells import SMOKE

MARKS = (0, 10, 25, 50, 100, 200, 300)
COUNT = 24
"""Pictures of the concept that are judged at each mark; half as many of relatives, and of
everything else.
"""
SEEDS = 3
PLAIN, META, M0, STRONG = "unlearn only", "meta", "no look ahead (M = 0)", "stronger unlearning"
FAST_PLAIN, FAST_META = "unlearn only, fast", "meta, fast"
ORIGINAL, FRESH, NONE = "original", "fresh concept", "none"
"""Bases without unlearning, and the name of the defence and attack that are none."""
HARMLESS = "clean"
"""The attack that is none: an honest user fine-tunes on other pictures."""
RESIST = {"resist.on": True}
LENGTHS = {
    preset: {n: v for n, v in changes.items() if n.partition(".")[0] in ("unlearn", "resist")}
    for preset, changes in PRESET_CHANGES.items()
}
"""What forgetting takes from a preset: the adversary and the pictures that are judged are the same
for all.
"""
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
"""Of the first base: the same weights without the attack in the middle, and more forgetting without
resistance.
"""
SHORT = {FAST_PLAIN: {}, FAST_META: RESIST}
"""Of the first base, with the steps of the preset fast."""
LORA = {"attack.rank": 16, "attack.alpha": 16.0}
ALL = {"attack.weights": "full", "attack.lr": 3e-4}
SGD = {"attack.optimizer": "sgd"}
"""Needs rates of its own to be an attack at all; tests/training/test_resistance.py tries the one of
LoRA.
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
"""The declared cut: of the first base and the fresh concepts, these attacks by defence, for
`CUT_STEPS`.
"""
ATTACK_SEED = 50
"""The adversary's seed is this much above the defender's, so that its pictures and noise are its
own.
"""


@dataclass(frozen=True)
class Job:
    """One attack on one defended model; the fresh concept has no defence, and the original no
    attack either.
    """

    target: str
    seed: int
    base: str
    defence: str
    attack: str

    @property
    def cut(self) -> bool:
        """Whether the declared cut holds it; the others wait for the full grid."""
        return self.base == ORIGINAL or (
            self.base in (next(iter(BASES)), FRESH) and self.attack in CUT[self.defence]
        )

    def config(self, smoke: bool, full: bool) -> RunConfig:
        """Forgetting, and the attack on it: one length for all, because the learning rate's
        schedule depends on it.
        """
        own = {}
        if self.base in BASES:
            length = LENGTHS["fast" if self.defence in SHORT else "full"]
            own = length | BASES[self.base] | (DEFENCES | CONTROLS | SHORT)[self.defence]
        steps = MARKS[-1] if full else CUT_STEPS
        changes = (
            {"attack.steps": steps, "attack.pictures": 32} | own | ATTACKS.get(self.attack, {})
        )
        return make_config(self.target, seed=self.seed, **(changes | (SMOKE if smoke else {})))


def grid(seeds: int) -> list[Job]:
    """Every cell, the declared cut first; attacks on the same defended model follow each other."""
    defended = [(base, defence) for base in BASES for defence in DEFENCES]
    defended[len(DEFENCES) : len(DEFENCES)] = [
        (next(iter(BASES)), control) for control in (*CONTROLS, *SHORT)
    ]
    jobs = [
        Job(target, seed, *model, attack)
        for seed, target, model, attack in itertools.product(
            range(seeds), TARGETS, defended, ATTACKS
        )
    ]
    originals = [
        Job(target, seed, ORIGINAL, NONE, NONE)
        for seed, target in itertools.product(range(seeds), TARGETS)
    ]
    fresh = [
        Job(entry.name, seed, FRESH, NONE, attack)
        for seed, entry, attack in itertools.product(range(seeds), FRESH_OBJECTS[:2], CUT[NONE])
    ]
    return sorted([*fresh, *originals, *jobs], key=lambda job: (not job.cut, job.seed))
