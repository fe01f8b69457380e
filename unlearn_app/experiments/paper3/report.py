"""The report on paper 3: tables over the number of requests, bars, claims and curves."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from ...evaluation.statistics import mean_interval, paired_change, wilson
from ..cells import read_cells
from ..claims import ANY, MET, Interval, above_zero, grouped, inside, paired
from ..tables import (
    Panel,
    curves,
    line,
    number_of,
    render,
    with_ends,
    with_half,
    write_report,
)
from .measure import (
    AT_ONCE,
    FIRST_BASE,
    HOLDING,
    PROJECTION,
    RATES,
    SEQUENCES,
    SEQUENTIAL,
    SHARES,
    UNHELD,
    WITH_L2,
    WITH_SELECTION,
    RequestSequence,
)

KEPT = SHARES[1:]
"""Shares that are reported in percent of the original's."""
COLLAPSE = 50.0
"""An arm that keeps less than this percent of the original's RA-I has collapsed."""
MATCHED = 5.0
"""The most points by which the UA of the arm that keeps more may be lower in a comparison."""


@dataclass(frozen=True)
class SequenceState(RequestSequence):
    """The state after `number` requests: shares in percent; RA-I and RA-C are relative to the
    original's.
    """

    number: int
    ua: float
    ra_i: float | None
    ra_c: float | None
    ra_c_official: float | None
    drift: float
    relapse: float
    seconds: float
    cumulative_s: float
    original: dict[str, float | None]
    """The original's own shares of the same pictures, in percent."""
    pictures: dict[str, str]
    """Whether each picture shows what its prompt asks for, 0 or 1, by share."""
    notes: Sequence[str] = ()
    threads: int = 1
    processes: int = 1
    left_alone: tuple[str, ...] = ()
    """The retained concepts of the own domain."""

    @property
    def sequence(self) -> tuple[str, int, int]:
        """Domain, order and seed, by which the states of two arms are paired."""
        return self.domain, self.order, self.seed

    @property
    def title(self) -> str:
        """The title of its section of the report."""
        parts = (self.domain.capitalize(), self.base, "in reverse" if self.order else "")
        return ", ".join(filter(None, parts))


States = Sequence[SequenceState]


def read_states(folder: Path) -> list[SequenceState]:
    """The states of all measured cells of `folder`."""
    return [
        _state(config, state)
        for config, values in read_cells(folder).values()
        for state in values.values()
    ]


def _state(config: dict[str, Any], found: dict[str, Any]) -> SequenceState:
    original = {
        name: None if share is None else 100 * share for name, share in found["original"].items()
    }
    values = {**config, **found, "left_alone": tuple(config["kept"]), "original": original}
    values |= {"ua": 100 * found["ua"], "relapse": 100 * found["relapse"]}
    for name in KEPT:
        known = found[name] is not None and original[name]
        values[name] = 1e4 * found[name] / original[name] if known else None
    return SequenceState(**{item.name: values[item.name] for item in fields(SequenceState)})


def mean(values: Sequence[float | None]) -> float:
    """The mean of the values that are not None; 0 if there are none."""
    return statistics.mean([value for value in values if value is not None] or [0.0])


def _within(found: Interval, unit: str, count: int, digits: int = 0) -> str:
    """A mean over `count` sequences with its interval, which a single sequence does not have."""
    middle, low, high = (f"{value:.{digits}f}" for value in found)
    ends = f"{low} to {high}" if count > 1 else "one sequence"
    return f"{middle} {unit} ({ends}), {number_of(count, 'sequence')}"


def share_interval(found: States, name: str) -> Interval | None:
    """The mean and 95 % interval of a share over sequences, extended to the ends of the Wilson
    interval of its pictures.
    """
    some = [state for state in found if getattr(state, name) is not None]
    if not some:
        return None
    shown, scale = "0", 100.0
    if name != "ua":
        shown, scale = "1", 1e4 / mean([state.original[name] for state in some])
    middle, low, high = mean_interval([getattr(state, name) for state in some])
    right = "".join(state.pictures[name] for state in some)
    least, most = (scale * bound for bound in wilson(right.count(shown), len(right)))
    return middle, min(low, least), max(high, most)


def _at_last(found: States) -> list[SequenceState]:
    last = max((state.number for state in found), default=0)
    return [state for state in found if state.number == last]


def _of_arm(found: States, arm: str) -> list[SequenceState]:
    return [state for state in found if state.arm == arm]


def _paired(
    found: States, arm: str, other: str, name: str
) -> list[tuple[SequenceState, SequenceState]]:
    """The states of two arms after the last request of the same sequences, where both are known."""
    known = [state for state in _at_last(found) if getattr(state, name) is not None]
    return paired(known, attrgetter("arm"), (arm, other), attrgetter("sequence"))


def judged(found: States, text: str, arm: str, other: str, name: str) -> str:
    """One row of claims: `arm` keeps more than `other`, by paired intervals over sequences and
    over pictures.

    The claim is decided if both intervals exclude zero: equal differences between a few sequences
    have no spread, and the pictures of a sequence are not independent. An arm that forgets less
    easily keeps more, so two arms are not comparable if the one that keeps more has a UA lower by
    more than `MATCHED` points.
    """
    pairs = _paired(found, arm, other, name)
    if not pairs:
        return _not_measured(text, f"{arm}, {other}")
    over = mean_interval([getattr(a, name) - getattr(b, name) for a, b in pairs])
    sides = [[c == "1" for pair in pairs for c in pair[side].pictures[name]] for side in (1, 0)]
    shown = [100 * end for end in paired_change(*sides)[:3]]
    ua = [mean([pair[side].ua for pair in pairs]) for side in (0, 1)]
    label = above_zero(over, shown)
    less_forgotten = {"held": ua[1] - ua[0], "not held": ua[0] - ua[1]}.get(label, 0.0)
    if less_forgotten > MATCHED:
        label = "not comparable"
    said = with_ends(over, "+.1f") if len(pairs) > 1 else f"{over[0]:+.1f}"
    sequences = f"{said} points, {number_of(len(pairs), 'sequence')}"
    pictures = f"{with_ends(shown, '+.1f')} points, {number_of(len(sides[0]), 'picture')}"
    both = f"{ua[0]:.0f}, {ua[1]:.0f}"
    return line(text, f"{arm}, {other}", sequences, pictures, both, f"**{label}**")


def _not_measured(text: str, arms: str) -> str:
    return line(text, arms, "not measured", "–", "–", "–")


def claims(found: States) -> list[str]:
    """All claims of the paper for one domain, order and base method, one row each."""
    arms = dict.fromkeys(state.arm for state in found)
    holding = [arm for arm in HOLDING if arm in arms]
    lines = [
        judged(found, f"Keeps more of {text} than plain", arm, SEQUENTIAL, name)
        for arm in holding
        for text, name in (("its own domain", "ra_i"), ("the other domain", "ra_c"))
    ]
    others = [arm for arm in holding if arm not in (PROJECTION, WITH_SELECTION, WITH_L2)]
    if others:
        second = next(arm for arm in by_arm(_at_last(found)) if arm in others)
        text = "Projection keeps most of its own domain"
        lines.append(judged(found, text, PROJECTION, second, "ra_i"))
    lines += [
        judged(found, "What is combined adds to projection", arm, PROJECTION, "ra_i")
        for arm in (WITH_SELECTION, WITH_L2)
        if arm in arms
    ]
    lines += [collapse(found, arm) for arm in (SEQUENTIAL, UNHELD) if arm in arms]
    return lines + ([cost(found)] if AT_ONCE in arms else [])


def collapse(found: States, arm: str) -> str:
    """One row of claims: a sequence without regularization collapses in its own domain."""
    ends = _of_arm(_at_last(found), arm)
    interval = share_interval(ends, "ra_i")
    text = f"Keeps less than {COLLAPSE:.0f} % of its own domain"
    if interval is None:
        return _not_measured(text, arm)
    label = inside(interval, -ANY, COLLAPSE)
    pictures = number_of(sum(len(end.pictures["ra_i"]) for end in ends), "picture")
    ua = f"{mean([end.ua for end in ends]):.0f}"
    return line(text, arm, _within(interval, "%", len(ends)), pictures, ua, f"**{label}**")


def cost(found: States) -> str:
    """One row of claims: training all requests anew after each one takes longer in all than
    training each request on top of the others.
    """
    text, arms = "All at once costs more in all", f"{AT_ONCE}, {SEQUENTIAL}"
    pairs = _paired(found, AT_ONCE, SEQUENTIAL, "cumulative_s")
    if not pairs:
        return _not_measured(text, arms)
    interval = mean_interval([a.cumulative_s / max(b.cumulative_s, 1e-9) for a, b in pairs])
    label = inside(interval, 1.0, ANY)
    ua = ", ".join(f"{mean([pair[side].ua for pair in pairs]):.0f}" for side in (0, 1))
    return line(text, arms, _within(interval, "times", len(pairs), 1), "–", ua, f"**{label}**")


def no_collapse(found: States) -> dict[str, str]:
    """RA-I of the plain sequence and of the one without retention; empty if the plain sequence
    collapses, as it does in the paper.
    """
    own = {arm: [end.ra_i for end in _of_arm(_at_last(found), arm)] for arm in (SEQUENTIAL, UNHELD)}
    if not own[SEQUENTIAL] or mean(own[SEQUENTIAL]) < COLLAPSE:
        return {}
    return {arm: with_half(values) for arm, values in own.items() if values}


@dataclass(frozen=True)
class Bar:
    """A bound on a measure after the last request."""

    title: str
    unit: str
    bound: float
    at_most: bool = False
    digits: int = 0

    @property
    def text(self) -> str:
        """The bound with its direction."""
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"

    @property
    def ends(self) -> tuple[float, float]:
        """The range of values that meet it."""
        return (-ANY, self.bound) if self.at_most else (self.bound, ANY)

    def cell(self, found: Interval | None) -> str:
        """A mean, its interval and the verdict; a dash for None, only the mean of one sequence."""
        form = f".{self.digits}f"
        if found is None:
            return "–"
        if found[1] == float("-inf"):
            return format(found[0], form)
        return f"{with_ends(found, form)}, {inside(found, *self.ends, MET)}"


BARS = {
    "ua": Bar("UA", "% of what was asked for", 90.0),
    "ra_i": Bar("RA-I", "% of the original's", 80.0),
    "ra_c": Bar("RA-C", "% of the original's", 90.0),
    "drift": Bar("drift", "% of the plain sequence's", 40.0, at_most=True),
    "growth": Bar("growth", "last request's time by the first's", 1.2, at_most=True, digits=2),
    "seconds": Bar(
        "time", "s of the last request on two cores, without its evaluation", 30.0, at_most=True
    ),
}
STATE = (*RATES, "drift")
"""The bars that decide which arm is best: those on the state of the model, not those on costs."""
Reached = Mapping[str, Interval | None]


def bars(found: States) -> dict[str, Any] | None:
    """The best arm of `HOLDING`, and all arms against every bar; None if the plain sequence, or
    every arm of `HOLDING`, is not measured.
    """
    ends = _at_last(found)
    arms = dict.fromkeys(end.arm for end in ends)
    holding = [arm for arm in HOLDING if arm in arms]
    if not holding or SEQUENTIAL not in arms:
        return None
    reached_by = {arm: reached(found, arm) for arm in arms}
    best, why = best_of({arm: reached_by[arm] for arm in holding})
    ranked = sorted(arms, key=lambda arm: (arm != best, -_middle(reached_by[arm], "ra_i")))
    how = [
        f"{number_of(threads, 'thread')} in {number_of(processes, 'process', 'es')}"
        for threads, processes in sorted({(end.threads, end.processes) for end in ends})
    ]
    return {
        "best": best,
        "why": why,
        "when": number_of(ends[0].number, "request"),
        "bars": BARS,
        "reached": {arm: reached_by[arm] for arm in ranked},
        "how": " and ".join(how),
    }


def reached(found: States, arm: str) -> Reached:
    """The mean and 95 % interval of an arm by bar; None where it is not measured."""
    ends = _of_arm(_at_last(found), arm)
    costs = {
        "drift": drifts(found, arm),
        "growth": growth(_of_arm(found, arm)),
        "seconds": [end.seconds for end in ends],
    }
    return {name: share_interval(ends, name) for name in RATES} | {
        name: mean_interval(values) if values else None for name, values in costs.items()
    }


def best_of(found: Mapping[str, Reached]) -> tuple[str, str]:
    """The best of the arms whose mean UA meets its bar, and why; if there is none, the arm with the
    highest UA.

    The best meets most bars with its whole intervals; ties are decided by the bars met in the mean,
    and then by RA-I plus RA-C.
    """

    def met(arm: str) -> tuple[int, int]:
        known = [(*found[arm][name], *BARS[name].ends) for name in STATE if found[arm][name]]
        sure = [least <= low and high <= most for _, low, high, least, most in known]
        return sum(sure), sum(least <= middle <= most for middle, _, _, least, most in known)

    able = [arm for arm in found if _middle(found[arm], "ua") >= BARS["ua"].bound]
    if not able:
        most = max(found, key=lambda arm: _middle(found[arm], "ua"))
        return most, f"no arm's UA reaches {BARS['ua'].bound:.0f} %, its is highest"
    kept = {arm: _middle(found[arm], "ra_i") + _middle(found[arm], "ra_c") for arm in able}
    best = max(able, key=lambda arm: (met(arm), kept[arm]))
    sure, likely = met(best)
    why = f"{sure} of {len(STATE)} bars met with the whole interval and {likely} in the mean"
    return best, f"{why}, no arm's more"


def drifts(found: States, arm: str) -> list[float]:
    """The drift of every sequence of an arm, in percent of the plain one's."""
    return [100 * a.drift / max(b.drift, 1e-9) for a, b in _paired(found, arm, SEQUENTIAL, "drift")]


def growth(found: States) -> list[float]:
    """The time of the last request over that of the first, for every sequence that has both."""
    first = {state.sequence: state.seconds for state in found if state.number == 1}
    return [end.seconds / first[end.sequence] for end in _at_last(found) if first.get(end.sequence)]


def _middle(found: Reached, name: str) -> float:
    return found[name][0] if found[name] else 0.0


def by_arm(found: States) -> dict[str, list[SequenceState]]:
    """The states of each arm; the arm that keeps most of its own domain comes first."""
    arms = grouped(found, attrgetter("arm")).items()
    return dict(sorted(arms, key=lambda item: -mean([state.ra_i for state in item[1]])))


def _originals(found: States) -> list[dict[str, float | None]]:
    return list({state.sequence: state.original for state in found}.values())


def kept_share(found: States, name: str) -> str:
    """A share relative to the original's, and in brackets the share itself and its pictures."""
    some = [state for state in found if getattr(state, name) is not None]
    if not some:
        return "–"
    plain = [getattr(state, name) * state.original[name] / 100 for state in some]
    count = sum(len(state.pictures.get(name, "")) for state in some)
    shown = _percent(plain) + (f", n = {count}" if count else "")
    return f"{with_half([getattr(state, name) for state in some])} ({shown})"


def _percent(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.0f} %" if known else "–"


def notes(found: States) -> list[str]:
    """The notes of the last request of each sequence, with equal notes of several seeds merged."""
    noted = [(end.arm, note, str(end.seed)) for end in _at_last(found) for note in end.notes]
    return [
        f"{arm}, seed{'s' * (len(own) > 1)} {', '.join(seed for *_, seed in own)}: {note}"
        for (arm, note), own in grouped(noted, itemgetter(0, 1)).items()
    ]


def _last_of_first(found: States) -> dict[str, list[SequenceState]]:
    """The states after the last request of the first order with the first method, by domain."""
    first = [state for state in found if (state.base, state.order) == (FIRST_BASE, 0)]
    domains = grouped(first, attrgetter("domain"))
    return {domain: _at_last(domains[domain]) for domain in SEQUENCES if domain in domains}


def _state_of_arm(ends: States, arm: str) -> list[list[float | None]]:
    """The values of an arm for each of `STATE`; drift is in percent of the plain sequence's."""
    shares = [[getattr(end, name) for end in _of_arm(ends, arm)] for name in RATES]
    return [*shares, drifts(ends, arm)]


def sections(found: States) -> dict[str, list[SequenceState]]:
    """States by title, in the order in which the grid measures them."""
    ranked = sorted(found, key=lambda s: (s.order, s.base != FIRST_BASE, s.domain, s.base))
    return grouped(ranked, attrgetter("title"))


def section(title: str, found: States) -> dict[str, Any]:
    """What the report says of one domain, order and base method."""
    last, *earlier = sorted({state.number for state in found}, reverse=True)
    first = found[0]
    return {
        "title": title,
        "requests": first.requests(smoke=False)[:last],
        "domain": first.domain,
        "kept": first.left_alone,
        "after": number_of(last, "request"),
        "states": [state for state in found if state.number == last],
        "bars": bars(found),
        "no_collapse": no_collapse(found),
        "claims": claims(found),
        "notes": notes(found),
        "earlier": {
            number_of(n, "request"): [state for state in found if state.number == n]
            for n in earlier
        },
    }


def report(folder: Path, found: States) -> str:
    """The report on the states of `folder`, as Markdown."""
    return render(
        "paper3.md",
        name=folder.name,
        base=FIRST_BASE,
        domains=_last_of_first(found),
        bars=[BARS[name] for name in STATE],
        kept=KEPT,
        by_arm=by_arm,
        of_arm=_of_arm,
        originals=_originals,
        percent=_percent,
        kept_share=kept_share,
        state_of_arm=_state_of_arm,
        sections=[section(title, some) for title, some in sections(found).items()],
        plain=SEQUENTIAL,
        unheld=UNHELD,
    )


def write_results(folder: Path) -> str:
    """Write report and figure for the cells in `folder`, and return the report."""
    found = read_states(folder)
    return write_report(folder, report(folder, found), figure(found))


COLOURS = (
    "#c2570c",
    "#0a8062",
    "#0b6fb8",
    "#8a5bd0",
    "#b4231f",
    "#7a8494",
    "#946b00",
    "#e0a800",
    "#111827",
    "#d0588f",
    "#3fb6c8",
)


def figure(found: States) -> str:
    """Curves over the number of requests, a row of panels for every section, one panel per measure;
    an SVG.
    """
    colours = dict(zip(dict.fromkeys(state.arm for state in found), COLOURS, strict=False))
    rows: list[list[Panel]] = []
    for mine in sections(found).values():
        title = mine[0].title.replace(f", {FIRST_BASE}", "")
        shown = {BARS[name].title: _lines(mine, name) for name in STATE}
        largest = max(value for points in shown["drift"].values() for _, value in points) or 1.0
        shown["drift"] = {
            arm: [(n, 100 * value / largest) for n, value in points]
            for arm, points in shown["drift"].items()
        }
        rows.append([(f"{title}: {measure}", lines) for measure, lines in shown.items()])
    return curves(rows, colours, "requests")


def _lines(found: States, name: str) -> dict[str, list[tuple[float, float]]]:
    """Means over sequences by arm and number of requests."""
    return {
        arm: [
            (number, mean([getattr(state, name) for state in own]))
            for number, own in grouped(some, attrgetter("number")).items()
        ]
        for arm, some in grouped(sorted(found, key=attrgetter("number")), attrgetter("arm")).items()
    }
