"""The report on paper 3: claims, bars, what is left after the last request, what the trials chose,
and a figure of curves and relapses.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...evaluation.statistics import mean_interval
from ..claims import MET, grouped
from ..tables import line, render, table, write_report
from .claims import MATCHED, Row, claims_table, judged, own_claims, paper_claims
from .measure import (
    APART,
    ARMS,
    AT_ONCE,
    FIRST_BASE,
    L2,
    MIDDLE,
    MIXED,
    PLAIN,
    REHEARSED,
    RequestSequence,
    best_trial,
    shares,
)
from .states import (
    KIND_DOMAINS,
    RATES,
    WAY,
    Results,
    State,
    States,
    Statistic,
    by_concept,
    mean,
    moved,
    rate,
    read_refusals,
    read_states,
    relapse,
    statistic_of,
    units,
)

Refusals = Sequence[tuple[RequestSequence, str]]
"""Cells that ended before their last request, and why."""
BACK = 20.0
"""A target whose accuracy has risen by more points since its own request has come back."""


@dataclass(frozen=True)
class Bar:
    """A bound on a rate after the last request; nothing of the paper's."""

    name: str
    title: str
    bound: float
    sign: int = 1

    @property
    def text(self) -> str:
        """The bound with its direction."""
        return f"{self.title} {'≥' if self.sign > 0 else '≤'} {self.bound:g}"


BARS = (
    Bar("ua", "UA", 90.0),
    Bar("ra_i", "RA-I", 80.0),
    Bar("ra_c", "RA-C", 90.0),
    Bar("relapse", "relapse", 5.0, -1),
)


def bars_table(results: Results, way: tuple[str, str], domain: str) -> str:
    """The arms of a way in a domain against every bar: the mean over concepts and the verdict."""
    arms = [arm for arm in ARMS if results.of(way, arm, domain)]
    rows = {
        (arm, bar): Row(
            "", "", "", "",
            tuple(by_concept(units(results.of(way, arm, domain), statistic_of(bar.name)))),
            bar.bound, bar.sign, words=MET,
        )
        for arm in arms
        for bar in BARS
    }  # fmt: skip
    verdicts = dict(zip(rows, judged(list(rows.values())), strict=True))
    lines = [
        (
            arm,
            *(
                f"{row.ends[0]:.0f}, {verdicts[arm, bar]}" if (row := rows[arm, bar]).ends else "–"
                for bar in BARS
            ),
        )
        for arm in arms
    ]
    return table(("arm", *(bar.text for bar in BARS)), lines)


def _named(way: tuple[str, str], arm: str) -> tuple[str, str]:
    """An arm and its way, in words."""
    return arm, f"{way[0]}, {'with' if way[1] == REHEARSED else 'without'} rehearsal"


def state_lines(results: Results, way: tuple[str, str], domain: str) -> list[tuple[str, ...]]:
    """A row of each arm after the last request of a domain: rates, relapse, movement and cost."""
    lines = []
    for arm in ARMS:
        own = results.of(way, arm, domain)
        if not own:
            continue
        lines.append(
            (
                arm,
                *(_half(by_concept(units(own, rate(name)))) for name in RATES),
                _half(by_concept(units(own, relapse)), sign="+"),
                *(
                    _half(by_concept(units(own, moved(role))), 1)
                    for role in ("target", "erased", "kept")
                ),
                f"{statistics.mean(state.found['drift'] for state in own):.2f}",
                f"{statistics.mean(s.forwards / len(s.requests) for s in own):,.0f}",
                str(len(own)),
            )
        )
    return lines


STATE_HEADS = (
    "arm", "UA, %", "RA-I, %", "RA-C, %", "relapse, points",
    "moved: target, %", "erased before, %", "kept, %", "drift", "forwards a request", "sequences",
)  # fmt: skip


def relapse_table(results: Results) -> str:
    """What comes back by itself, for every arm and domain: the mean over targets, how many of them
    are back, and the one that rose most.
    """
    lines = []
    for domain in (*KIND_DOMAINS, MIXED):
        for way in results.ways:
            for arm in ARMS:
                found = units(results.of(way, arm, domain), relapse)
                back = by_concept(found)
                if not back:
                    continue
                worst = max(found, key=lambda unit: found[unit])
                lines.append(
                    (
                        domain,
                        *_named(way, arm),
                        _half(back, sign="+"),
                        f"{sum(value > BACK for value in back)} of {len(back)}",
                        f"{worst[2]}, {found[worst]:+.0f}",
                    )
                )
    heads = ("domain", "arm", "way", "mean, points", "came back", "rose most in a sequence")
    return table(heads, lines) if lines else ""


def _half(values: Sequence[float], digits: int = 0, sign: str = "") -> str:
    """A mean ± half of its interval over concepts; a dash for nothing."""
    if not values:
        return "–"
    middle, low, high = mean_interval(values)
    half = f" ± {(high - low) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{middle:{sign}.{digits}f}{half}"


def original_line(results: Results, way: tuple[str, str], domain: str) -> str:
    """The original's own rates on the same pictures."""
    own = {s.cell.sequence: s for s in results.ends if (s.way, s.domain) == (way, domain)}
    before = [
        State(**vars(s) | {"found": s.found | {"right": s.found["original"]}}) for s in own.values()
    ]
    rates = [_half(by_concept(units(before, rate(name)))) for name in RATES]
    return line("original", *rates, *["–"] * (len(STATE_HEADS) - 4))


def layer_table(results: Results) -> str:
    """The norm of the whole update by layer, for the arms whose drift the paper compares."""
    arms = [arm for arm in (PLAIN, L2, MIDDLE, AT_ONCE, APART) if results.of(WAY, arm, "objects")]
    found = {
        arm: [state.found["layers"] for state in results.of(WAY, arm, "objects")] for arm in arms
    }
    layers = dict.fromkeys(layer for own in found.values() for one in own for layer in one)
    rows = [
        (
            f"`{layer}`",
            *(f"{statistics.mean(one.get(layer, 0.0) for one in found[arm]):.2f}" for arm in arms),
        )
        for layer in sorted(layers)
    ]
    return table(("layer", *arms), rows) if rows else ""


def trial_table(results: Results) -> str:
    """Every trial with what it changes and what was found, the chosen one of each arm bold."""
    lines = []
    keys = grouped(results.trials, lambda s: (s.way, s.arm, s.cell.teacher, s.domain))
    order = {arm: at for at, arm in enumerate(ARMS)}
    for (way, arm, teacher, domain), own in sorted(
        keys.items(), key=lambda item: (item[0][0], order[item[0][1]], item[0][2:])
    ):
        chosen = best_trial(results.scores(way, arm, teacher, domain))
        if arm == PLAIN and teacher != results.teachers[way]:
            chosen = -1
        said = []
        for state in sorted(own, key=lambda s: s.cell.tried):
            rates = shares(state.found, state.requests, state.kept)
            shown = " / ".join("–" if v is None else f"{100 * v:.0f}" for v in rates.values())
            text = f"{varied(arm, state.cell.tried[0])}: {shown}"
            said.append(f"**{text}**" if state.cell.tried[0] == chosen else text)
        lines.append((*_named(way, arm), teacher, domain, "; ".join(said)))
    heads = ("arm", "way", "teacher", "domain", "trials: UA / RA-I / RA-C, %")
    return table(heads, lines) if lines else ""


def varied(arm: str, trial: int) -> str:
    """What a trial of an arm sets that not all of them set alike."""
    own, every = ARMS[arm][trial], ARMS[arm]
    names = [name for name in own if len({row[name] for row in every}) > 1]
    return ", ".join(f"{name.partition('.')[2]} {own[name]:g}" for name in names)


def refusal_table(refused: Refusals) -> str:
    """The cells that ended before their last request, and why; empty for none."""
    lines = [
        (
            cell.sequence,
            *_named(cell.way, cell.arm),
            f"{cell.teacher}, trial {'/'.join(map(str, cell.tried))}, seed {cell.seed}",
            text,
        )
        for cell, text in refused
    ]
    return (
        table(("sequence", "arm", "way", "teacher, trial and seed", "why"), lines) if lines else ""
    )


def report(folder: Path, found: States, refused: Refusals = ()) -> str:
    """The report on the states of `folder`, and on its cells that ended early, as Markdown."""
    results = Results(found)
    sections = {
        (domain, way): state_lines(results, way, domain)
        for domain in (*KIND_DOMAINS, MIXED)
        for way in results.ways
    }
    return render(
        "paper3.md",
        name=folder.name,
        shown=bool(results.ends),
        claims=claims_table(paper_claims(results)),
        own=claims_table(own_claims(results)),
        sections=[
            {
                "title": f"{domain.capitalize()}, {_named(way, '')[1]}",
                "bars": bars_table(results, way, domain),
                "table": f"{table(STATE_HEADS, lines)}\n{original_line(results, way, domain)}",
            }
            for (domain, way), lines in sections.items()
            if lines
        ],
        layers=layer_table(results),
        trials=trial_table(results),
        teachers=[(_named(way, "")[1], teacher) for way, teacher in results.teachers.items()],
        matched=f"{MATCHED:g}",
        back=f"{BACK:g}",
        costs=costs(results),
        relapses=relapse_table(results),
        refused=len(refused),
        refusals=refusal_table(refused),
    )


def costs(results: Results) -> list[str]:
    """How many times as many forward passes all at once takes as a plain sequence, by domain."""
    found = []
    for domain in KIND_DOMAINS:
        one, other = (results.of(WAY, arm, domain) for arm in (AT_ONCE, PLAIN))
        if one and other:
            ratio = statistics.mean(s.forwards for s in one) / statistics.mean(
                s.forwards for s in other
            )
            found.append(f"{ratio:.1f} times for {domain}")
    return found


def write_results(folder: Path) -> str:
    """Write report and figure for the cells in `folder`, and return the report."""
    found = read_states(folder)
    return write_report(folder, report(folder, found, read_refusals(folder)), figure(found))


COLOURS = (
    "#8b949e", "#d9730d", "#1a9c74", "#2f81f7", "#a371f7", "#e5534b", "#b08800", "#d2568c",
    "#39a9b8", "#7a9e2c", "#c45c3e", "#5b7cd6", "#b35ec4", "#4d9a4d", "#cc8a2e", "#6b8aa8",
)  # fmt: skip
"""Of the arms; each stands out on a light and on a dark ground."""


def figure(found: States) -> str:
    """Curves over the number of requests by domain, and a map of every target's relapse by arm; an
    SVG. Empty where no test is measured.
    """
    results = Results(found)
    if not results.ends:
        return ""
    arms = [arm for arm in ARMS if any(s.arm == arm and s.way == WAY for s in results.tests)]
    panels = []
    for top, domain in enumerate((*KIND_DOMAINS, MIXED)):
        for left, (name, title) in enumerate((RATES | {"relapse": "relapse"}).items()):
            lines = {arm: _curve(results, arm, domain, statistic_of(name)) for arm in arms}
            known = {arm: points for arm, points in lines.items() if points}
            if known:
                last = max(x for points in known.values() for x, _ in points)
                panels.append(
                    {
                        "name": f"{domain.capitalize()}: {title}",
                        "left": 270 * left,
                        "top": 190 * top,
                        "last": last,
                        "lines": {
                            arm: " ".join(
                                f"{40 + 200 * x / last:.1f},{150 - 1.2 * max(y, 0):.1f}"
                                for x, y in points
                            )
                            for arm, points in known.items()
                        },
                    }
                )
    return render(
        "paper3.svg",
        panels=panels,
        colours=dict(zip(arms, COLOURS, strict=False)),
        targets=_targets(results),
        rows=relapse_rows(results),
    )


def _curve(
    results: Results, arm: str, domain: str, statistic: Statistic
) -> list[tuple[int, float]]:
    """Means over concepts by number of requests, in the paper's own way."""
    own = [s for s in results.tests if (s.way, s.arm, s.domain) == (WAY, arm, domain)]
    marks = grouped(sorted(own, key=attrgetter("number")), attrgetter("number"))
    means = {number: mean(by_concept(units(some, statistic))) for number, some in marks.items()}
    return [(number, value) for number, value in means.items() if value is not None]


def _targets(results: Results) -> list[str]:
    """The erased concepts of the folds, objects first."""
    every = [s for domain in KIND_DOMAINS for s in results.ends if s.domain == domain]
    return list(dict.fromkeys(name for state in every for name in state.requests))


def relapse_rows(results: Results) -> list[dict[str, Any]]:
    """For each way and arm the relapse of every target of the folds, None where it was not
    requested.
    """
    rows = []
    for way in results.ways:
        for arm in ARMS:
            own = [s for domain in KIND_DOMAINS for s in results.of(way, arm, domain)]
            found = grouped(units(own, relapse).items(), lambda item: item[0][2])
            values = {name: statistics.mean(v for _, v in some) for name, some in found.items()}
            if values:
                short = arm + (", rehearsed" if way[1] == REHEARSED else "")
                short += "" if way[0] == FIRST_BASE else f", {way[0]}"
                rows.append({"arm": short, "values": [values.get(n) for n in _targets(results)]})
    return rows
