"""What a folder of cells says: states, statistics of their concepts, and which tests count by what
the trials chose.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cells import read_cells
from ..claims import grouped
from .measure import (
    ALONE,
    APART,
    BASES,
    DOMAINS,
    FIRST_BASE,
    MIXED,
    PLAIN,
    REFUSED,
    REHEARSALS,
    TEACHERS,
    TUNED,
    RequestSequence,
    accuracy,
    best_teacher,
    best_trial,
    score,
)

WAY = FIRST_BASE, ALONE
"""The paper's own way: its base method, and nothing of what stays in training."""
RATES = {"ua": "UA", "ra_i": "RA-I", "ra_c": "RA-C"}
KIND_DOMAINS = tuple(DOMAINS[kind] for kind in sorted(DOMAINS))
"""The domains of the folds."""


@dataclass(frozen=True)
class State:
    """The state of a sequence after `number` requests, as its cell holds it."""

    cell: RequestSequence
    number: int
    found: Mapping[str, Any]
    requests: tuple[str, ...]
    kinds: tuple[str, ...]
    kept: tuple[str, ...]
    forwards: int
    last: bool

    @property
    def domain(self) -> str:
        """Objects, styles, or mixed."""
        return MIXED if len(self.kinds) > 1 else DOMAINS[self.kinds[0]]

    @property
    def way(self) -> tuple[str, str]:
        """The base method, and with or without rehearsal."""
        return self.cell.way

    @property
    def arm(self) -> str:
        """Its arm."""
        return self.cell.arm


States = Sequence[State]
Unit = tuple[str, int, str]
"""A sequence, a seed and a concept."""
Statistic = Callable[[State], dict[str, float]]


def read_states(folder: Path) -> list[State]:
    """The states of all measured cells of `folder`."""
    return [
        State(
            _cell(config),
            int(number),
            state,
            tuple(config["requests"]),
            tuple(config["kinds"]),
            tuple(config["kept"]),
            state["forwards"],
            int(number) == len(config["requests"]),
        )
        for config, values in read_cells(folder).values()
        for number, state in values.items()
        if number != REFUSED
    ]


def read_refusals(folder: Path) -> list[tuple[RequestSequence, str]]:
    """The cells of `folder` that ended before their last request, and why."""
    return [
        (_cell(config), values[REFUSED])
        for config, values in read_cells(folder).values()
        if REFUSED in values
    ]


def _cell(config: Mapping[str, Any]) -> RequestSequence:
    names = "sequence", "base", "rehearsal", "arm", "teacher"
    own = (config[name] for name in names)
    return RequestSequence(*own, tuple(config["tried"]), config["seed"])


def rate(name: str) -> Statistic:
    """UA of every erased concept, or the accuracy of every kept one of its own domain or of the
    other, in percent.
    """

    def of(state: State) -> dict[str, float]:
        groups = {"ua": state.requests, "ra_i": state.kept}
        right = {n: 100 * accuracy(own) for n, own in state.found["right"].items()}
        if name == "ra_c":
            return {n: r for n, r in right.items() if n not in (*state.requests, *state.kept)}
        chosen = {n: r for n, r in right.items() if n in groups[name]}
        return {n: 100 - r for n, r in chosen.items()} if name == "ua" else chosen

    return of


def relapse(state: State) -> dict[str, float]:
    """By how many points each erased concept's accuracy is higher than its own request left it;
    nothing follows a request that stands alone.
    """
    if state.arm == APART:
        return {}
    first, right = state.found["first"], state.found["right"]
    return {n: 100 * (accuracy(right[n]) - accuracy(first[n])) for n in first if n in right}


def moved(role: str) -> Statistic:
    """|dW c| / |W c| in percent of the latest request's state, of those erased before, or of those
    kept.
    """

    def of(state: State) -> dict[str, float]:
        done = state.requests[: state.number]
        names = {"target": done[-1:], "erased": done[:-1], "kept": state.kept}[role]
        return {n: 100 * v for n, v in state.found["moved"].items() if n in names}

    return of


def statistic_of(name: str) -> Statistic:
    """The statistic of a bar or a curve by its name."""
    return relapse if name == "relapse" else rate(name)


def units(found: Iterable[State], statistic: Statistic) -> dict[Unit, float]:
    """The statistic of every concept of every sequence."""
    return {
        (state.cell.sequence, state.cell.seed, name): value
        for state in found
        for name, value in statistic(state).items()
    }


def by_concept(values: Mapping[Unit, float]) -> list[float]:
    """The mean over seeds and sequences of each concept."""
    names = grouped(values, lambda unit: unit[2]).values()
    return [statistics.mean(values[unit] for unit in own) for own in names]


def by_sequence(values: Mapping[Unit, float]) -> list[float]:
    """The mean over seeds and concepts of each sequence."""
    names = grouped(values, lambda unit: unit[0]).values()
    return [statistics.mean(values[unit] for unit in own) for own in names]


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return statistics.mean(values) if values else None


class Results:
    """What a folder's tests found, by what its trials chose."""

    def __init__(self, found: States) -> None:
        self.trials = [s for s in found if s.cell.sequence in TUNED]
        ways = dict.fromkeys(state.way for state in self.trials)
        self.teachers = {way: self._teacher(way) for way in ways}
        tests = [s for s in found if s.cell.sequence not in TUNED]
        self.tests = [state for state in tests if self._is_chosen(state)]
        self.ends = [state for state in self.tests if state.last]

    def scores(self, way: tuple[str, str], arm: str, teacher: str, domain: str) -> dict[int, float]:
        """The scores of the trials of an arm in a domain."""
        return {
            s.cell.tried[0]: score(s.found, s.requests, s.kept)
            for s in self.trials
            if (s.way, s.arm, s.cell.teacher, s.domain) == (way, arm, teacher, domain)
        }

    def _teacher(self, way: tuple[str, str]) -> str:
        return best_teacher(
            {t: [self.scores(way, PLAIN, t, domain) for domain in KIND_DOMAINS] for t in TEACHERS}
        )

    def _is_chosen(self, state: State) -> bool:
        """Whether a test has what the trials that are stored choose; one of an arm without any
        counts.
        """
        teacher = self.teachers.get(state.way, state.cell.teacher)
        for kind, tried in zip(state.kinds, state.cell.tried, strict=True):
            scores = self.scores(state.way, state.arm, teacher, DOMAINS[kind])
            if scores and (tried, state.cell.teacher) != (best_trial(scores), teacher):
                return False
        return True

    def of(self, way: tuple[str, str], arm: str, domain: str) -> list[State]:
        """The last states of an arm in a domain."""
        return [s for s in self.ends if (s.way, s.arm, s.domain) == (way, arm, domain)]

    def differences(
        self,
        one: tuple[tuple[str, str], str],
        other: tuple[tuple[str, str], str],
        domain: str,
        statistic: Statistic,
    ) -> dict[Unit, float]:
        """One arm's values less another's, of the concepts that both have in the same sequences."""
        mine, theirs = (units(self.of(*side, domain), statistic) for side in (one, other))
        return {unit: mine[unit] - theirs[unit] for unit in mine if unit in theirs}

    @property
    def ways(self) -> list[tuple[str, str]]:
        """The ways of the measured tests."""
        measured = {state.way for state in self.ends}
        return [(base, how) for base in BASES for how in REHEARSALS if (base, how) in measured]
