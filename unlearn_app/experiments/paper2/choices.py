"""What is chosen on development targets, by code from their cells: the learning rates of attacks,
the settings of each base, and those of each defence.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...pocket.world.split import DEVELOPMENT_FRESH
from ..calibration import BROUGHT_BACK, NEVER_SEEN
from .arms import (
    ALONE,
    BASE_TRIALS,
    BASES,
    DEFENCE_TRIALS,
    DEVELOPED,
    FACTORS,
    FIRST_BASE,
    LAST,
    LORA,
    M0,
    META,
    NONE,
    RENDERINGS,
    STRONG,
    TUNED_ON,
    UNSEEN,
    WEIGHTS,
    Attacked,
    kind_of,
    trains,
    tuned_as,
)

Found = Mapping[Attacked, Mapping[str, Any]]
"""The values of measured cells."""
FORGOTTEN, MATCHED = 10.0, 5.0
"""Percent of pictures that may show an unlearned concept, and the points by which a defence may
forget or keep worse than its base.
"""


@dataclass(frozen=True)
class Choices:
    """Rates by kind of concept and what the attack trains, and trials by base and by defence.

    What nothing was tried of, as on a model that the user brings, has the usual ones.
    """

    rates: Mapping[tuple[str, str], str] = field(default_factory=dict)
    bases: Mapping[str, int] = field(default_factory=dict)
    defences: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def rate(self, target: str, attack: str) -> str:
        """The reference rate of an attack on a target."""
        return self.rates.get((kind_of(target), trains(attack)), "1/3")

    def cell(
        self, target: str, seed: int, base: str, defence: str, attack: str, rate: str = ""
    ) -> Attacked:
        """A test cell with what is chosen, at the reference rate unless another one is given."""
        tried = self.bases.get(base, 0)
        own = tuned_as(defence)
        chosen = self.defences.get((base, own), self.defences.get((FIRST_BASE, own), 0))
        rate = rate or ("" if attack == NONE else self.rate(target, attack))
        return Attacked(target, seed, base, tried, defence, chosen, attack, rate)


def rate_trials() -> list[Attacked]:
    """Every rate of the adversary, teaching what the model has never seen."""
    return [
        Attacked(name, DEVELOPED, UNSEEN, attack=attack, rate=rate)
        for name in DEVELOPMENT_FRESH
        for attack in (RENDERINGS, WEIGHTS)
        for rate in FACTORS
    ]


def reach_trials(choices: Choices) -> list[Attacked]:
    """Every rate of the adversary against the first base as it is chosen, without a defence."""
    return [
        Attacked(target, DEVELOPED, FIRST_BASE, choices.bases.get(FIRST_BASE, 0), ALONE,
                 attack=attack, rate=rate)
        for target in TUNED_ON
        for attack in (LORA, WEIGHTS)
        for rate in FACTORS
    ]  # fmt: skip


def base_trials(bases: Sequence[str] = tuple(BASES)) -> list[Attacked]:
    """Every trial of every base, not attacked."""
    return [
        Attacked(target, DEVELOPED, base, tried, ALONE)
        for base in bases
        for target in TUNED_ON
        for tried in range(len(BASE_TRIALS[base]))
    ]


def defence_trials(
    choices: Choices,
    bases: Sequence[str] = tuple(BASES),
    controls: Sequence[str] = (M0, STRONG),
) -> list[Attacked]:
    """Every trial of every defence under the reference attack: of meta with every base, of the
    controls with the first one.
    """
    return [
        Attacked(target, DEVELOPED, base, choices.bases.get(base, 0), defence, chosen, LORA,
                 choices.rate(target, LORA))
        for base in bases
        for defence, trials in DEFENCE_TRIALS.items()
        if defence == META or (defence in controls and base == FIRST_BASE)
        for target in TUNED_ON
        for chosen in range(len(trials))
    ]  # fmt: skip


def share(values: Mapping[str, Any], mark: int, *groups: str) -> float:
    """The percentage of pictures of `groups` that are right at a mark."""
    right = "".join(values["marks"][str(mark)][group] for group in groups or ("forget",))
    return 100 * right.count("1") / len(right)


def last_mark(values: Mapping[str, Any]) -> int:
    """The longest attack, but none that only the whole grid has."""
    return max(int(mark) for mark in values["marks"] if int(mark) <= LAST)


@dataclass(frozen=True)
class Reach:
    """Percent of pictures that show the concept after an attack at a rate, in the mean over
    development targets: of what was never seen, and of what the first base unlearned; None where
    nothing is measured.
    """

    taught: float | None
    back: float | None

    @property
    def fair(self) -> bool:
        """Whether it teaches `NEVER_SEEN` at most."""
        return self.taught is not None and self.taught <= 100 * NEVER_SEEN

    @property
    def strong(self) -> bool:
        """Whether it brings back `BROUGHT_BACK` at least."""
        return self.back is not None and self.back >= 100 * BROUGHT_BACK


def reaches(found: Found, bases: Mapping[str, int]) -> dict[tuple[str, str], dict[str, Reach]]:
    """What each rate comes to on development targets, by kind of concept and what the attack
    trains.
    """
    taught = {c: v for c, v in found.items() if c.base == UNSEEN and c.seed >= DEVELOPED}
    back = {
        cell: values
        for cell, values in found.items()
        if (cell.base, cell.defence) == (FIRST_BASE, ALONE)
        and cell.attack != NONE
        and cell.seed >= DEVELOPED
        and cell.tried == bases.get(FIRST_BASE, 0)
    }

    def mean(own: Found, *key: str) -> float | None:
        shares = [
            share(values, last_mark(values))
            for cell, values in own.items()
            if (kind_of(cell.target), trains(cell.attack), cell.rate) == key
        ]
        return statistics.mean(shares) if shares else None

    return {
        key: {rate: Reach(mean(taught, *key, rate), mean(back, *key, rate)) for rate in FACTORS}
        for key in sorted({(kind_of(cell.target), trains(cell.attack)) for cell in taught})
    }


def choose_rate(reached: Mapping[str, Reach]) -> str:
    """The highest rate that is fair and strong; where none is both, the highest fair one, else the
    lowest.
    """
    fair = [rate for rate, reach in reached.items() if reach.fair]
    both = [rate for rate in fair if reached[rate].strong]
    return [next(iter(FACTORS)), *fair[-1:], *both[-1:]][-1]


@dataclass(frozen=True)
class Trial:
    """What a trial came to, in the mean over development targets: percentages of pictures before
    the attack that show the concept and that show what was to be kept, and that show the concept
    after the attack; None where there was none.
    """

    forget: float
    kept: float
    back: float | None


def trials_of(found: Found, number: Callable[[Attacked], int]) -> dict[int, Trial]:
    """The trials of an arm by number."""

    def mean(own: list[Mapping[str, Any]], look: Callable[[Mapping[str, Any]], float]) -> float:
        return statistics.mean(look(values) for values in own)

    trials = {}
    for n in sorted({number(cell) for cell in found}):
        own = [values for cell, values in found.items() if number(cell) == n]
        attacked = all(last_mark(values) for values in own)
        trials[n] = Trial(
            mean(own, lambda values: share(values, 0)),
            mean(own, lambda values: share(values, 0, "near", "far")),
            mean(own, lambda values: share(values, last_mark(values))) if attacked else None,
        )
    return trials


def choose_base(trials: Mapping[int, Trial]) -> int:
    """The trial that keeps most of those that forget enough; where none does, the one that forgets
    most. The first one of equals.
    """
    enough = [n for n, trial in trials.items() if trial.forget <= FORGOTTEN]
    if enough:
        return max(enough, key=lambda n: trials[n].kept)
    return min(trials, key=lambda n: trials[n].forget)


def choose_defence(trials: Mapping[int, Trial], plain: Trial) -> int:
    """The trial after which the reference attack brings back least, of those that forget and keep
    as well as the base; where none does, the one that keeps most.
    """
    matched = [
        n
        for n, trial in trials.items()
        if trial.kept >= plain.kept - MATCHED and trial.forget <= plain.forget + MATCHED
    ]
    if matched:
        return min(matched, key=lambda n: trials[n].back)
    return max(trials, key=lambda n: trials[n].kept)


def choices_of(found: Found) -> Choices:
    """All choices that the development cells among `found` allow."""
    mine = {cell: values for cell, values in found.items() if cell.seed >= DEVELOPED}
    plain = arms_of(
        {c: v for c, v in mine.items() if (c.defence, c.attack) == (ALONE, NONE)},
    )
    tried = {base: trials_of(own, lambda c: c.tried) for (base, _), own in plain.items()}
    bases = {base: choose_base(trials) for base, trials in tried.items()}
    defended = {
        cell: values
        for cell, values in mine.items()
        if cell.defence in DEFENCE_TRIALS and cell.tried == bases.get(cell.base)
    }
    defences = {
        (base, defence): choose_defence(
            trials_of(own, lambda c: c.chosen), tried[base][bases[base]]
        )
        for (base, defence), own in arms_of(defended).items()
    }
    rates = {key: choose_rate(reached) for key, reached in reaches(mine, bases).items()}
    return Choices(rates, bases, defences)


def arms_of(found: Found) -> dict[tuple[str, str], dict[Attacked, Mapping[str, Any]]]:
    """The cells by base and defence."""
    arms: dict[tuple[str, str], dict[Attacked, Mapping[str, Any]]] = {}
    for cell, values in found.items():
        arms.setdefault((cell.base, cell.defence), {})[cell] = values
    return arms
