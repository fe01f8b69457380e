"""What development chooses for each arm: a narrowing in three stages, the same for every arm.

First the number of steps, then the learning rate, then the strength, each on development targets of
its own; what was chosen before stays. Objects and styles are tuned apart.
"""

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from ...concepts.concept import Concept, Kind
from ...concepts.targets import FEWEST, Target
from ...evaluation.statistics import harmonic
from .arms import ARMS, DEVELOPMENT, STAGES, STEPS, TUNED_ON, Setting


@dataclass(frozen=True)
class Trial:
    """One setting of an arm tried on one development target; shares in [0, 1]."""

    arm: str
    kind: Kind
    stage: int
    target: str
    setting: Setting
    forgotten: float
    kept: float
    """Of the pictures of near and far relatives together."""
    alignment: float
    """Mean over the same pictures."""

    @property
    def score(self) -> float:
        """The harmonic mean of what is forgotten and what is kept."""
        return harmonic((self.forgotten, self.kept))


Trials = Mapping[tuple[str, Kind, int, str, Setting], Trial]
"""Trials by arm, kind, stage, target and setting."""


def development_anchor(concept: Concept) -> str:
    """What a trial shows instead of `concept`: for an object the first development object that is
    no relative, so that relatives stay to be kept. For a style its usual one, the plain style,
    which is no target anywhere.
    """
    if concept.kind == "style":
        return concept.anchor
    related = {concept.name, *_related(concept)}
    return next(name for name in DEVELOPMENT["object"] if name not in related)


def in_development(concept: Concept) -> Concept:
    """`concept` with retain prompts, both splits, that name development concepts only.

    There is one relative at most among them, so that the next ones count as near too.
    """
    others = {concept.name, concept.anchor}
    own = [name for name in DEVELOPMENT[concept.kind] if name not in others]
    related = _related(concept)
    own.sort(key=lambda name: name not in related)
    near, far = tuple(own[:FEWEST]), tuple(own[FEWEST:])
    return Target(concept.name, concept.kind, near, far).applied(concept)


def _related(concept: Concept) -> set[str]:
    return {prompt.expects for prompt in (*concept.near.train, *concept.near.test)}


def varied(arm: str, kind: Kind, stage: int, before: Setting) -> list[Setting]:
    """The settings that a stage compares, given what was chosen before it."""
    if stage == 0:
        return [before._replace(steps=steps) for steps in STEPS]
    if stage == 1:
        return [before._replace(lr=lr) for lr in ARMS[arm].rates(kind)]
    return [before._replace(strength=value) for value in ARMS[arm].strength.values]


def asked(arm: str, kind: Kind, stage: int, before: Setting) -> list[tuple[str, Setting]]:
    """The trials of a stage: every setting on every target of the stage."""
    settings = varied(arm, kind, stage, before)
    return list(itertools.product(TUNED_ON[kind][stage], settings))


def narrowed(arm: str, kind: Kind, trials: Trials) -> list[Setting]:
    """What was chosen after each stage that is measured as a whole."""
    found: list[Setting] = []
    for stage in range(len(STAGES)):
        before = found[-1] if found else ARMS[arm].start(kind)
        keys = [(arm, kind, stage, *one) for one in asked(arm, kind, stage, before)]
        if any(key not in trials for key in keys):
            break
        found.append(_best([trials[key] for key in keys]))
    return found


def chosen(arm: str, kind: Kind, trials: Trials) -> Setting | None:
    """What development chose; None where not all is measured."""
    found = narrowed(arm, kind, trials)
    return found[-1] if len(found) == len(STAGES) else None


def _best(tried: list[Trial]) -> Setting:
    """The setting with the best mean score; of equal ones that with the better alignment, and then
    the first, which takes the fewest steps.
    """
    groups: dict[Setting, list[Trial]] = {}
    for trial in tried:
        groups.setdefault(trial.setting, []).append(trial)

    def worth(setting: Setting) -> tuple[float, float]:
        own = groups[setting]
        return (
            round(statistics.mean(trial.score for trial in own), 6),
            round(statistics.mean(trial.alignment for trial in own), 4),
        )

    return max(groups, key=worth)
