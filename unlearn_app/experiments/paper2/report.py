"""The report on paper 2: what was chosen, claims with their verdicts, relearn curves, and the
mechanism.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...evaluation.statistics import mean_interval
from ..calibration import BROUGHT_BACK, NEVER_SEEN
from ..cells import read_cells
from ..claims import Pair, by_target, grouped, target_mean
from ..decisions import NOT_TESTED, Estimate, mean_difference, paired_mean, verdicts
from ..tables import Panel, curves, number_of, render, table, with_ends, with_half, write_report
from .arms import (
    ADVERSE,
    ALONE,
    BASE_TRIALS,
    BASES,
    DEFENCE_TRIALS,
    DEFENCES,
    DEVELOPED,
    FACTORS,
    FIRST_BASE,
    HARMLESS,
    LAST,
    LENGTHS,
    LORA,
    M0,
    META,
    NONE,
    ORIGINAL,
    RENDERINGS,
    STRONG,
    UNSEEN,
    WEIGHTS,
    Attacked,
    Settings,
    kind_of,
)
from .choices import (
    Choices,
    Trial,
    arms_of,
    choices_of,
    last_mark,
    reaches,
    share,
    trials_of,
)
from .claims import (
    EXPLORED_CLAIMS,
    OWN_BARS,
    PAPER_CLAIMS,
    WORST,
    Resisted,
    area,
    fall,
    points,
    seconds,
)
from .measure import COUNT, declared_cut

Values = Mapping[str, Any]
Found = Mapping[Attacked, Values]
Arm = dict[Pair, Values]
"""The values of an arm by target and seed."""


def read_found(folder: Path) -> dict[Attacked, Values]:
    """All measured cells of `folder`."""
    found = {}
    for config, values in read_cells(folder).values():
        cell = Attacked(**{item.name: config[item.name] for item in fields(Attacked)})
        found[cell] = values
    return found


def current(found: Found, choices: Choices) -> dict[Attacked, Values]:
    """The test cells that have what is chosen; others are of an earlier choice."""
    return {
        cell: values
        for cell, values in found.items()
        if cell.seed < DEVELOPED
        and cell
        == choices.cell(cell.target, cell.seed, cell.base, cell.defence, cell.attack, cell.rate)
    }


class Results:
    """Test cells by arm."""

    def __init__(self, found: Found, choices: Choices) -> None:
        self.cells, self.choices = current(found, choices), choices

    def arm(self, base: str, defence: str, attack: str, rate: str = "") -> Arm:
        """The cells of an arm at the reference rate, or at another one. What is measured before any
        attack is the same in every cell of a model.
        """
        return {
            (cell.target, cell.seed): values
            for cell, values in self.cells.items()
            if (cell.base, cell.defence) == (base, defence)
            and (
                attack == NONE
                or (cell.attack == attack and cell.rate == (rate or self._reference(cell)))
            )
        }

    def _reference(self, cell: Attacked) -> str:
        return "" if cell.attack == NONE else self.choices.rate(cell.target, cell.attack)

    def worst(self, base: str, defence: str) -> dict[Pair, float]:
        """The largest area under any curve of `ADVERSE`, where all are measured."""
        arms = [self.arm(base, defence, attack) for attack in ADVERSE]
        pairs = set.intersection(*(set(arm) for arm in arms))
        return {pair: max(area(arm[pair]) for arm in arms) for pair in pairs}

    def numbers(self, claim: Resisted, defence: str) -> dict[Pair, float]:
        """The number of one side of a claim, by target and seed."""
        if claim.attack == WORST:
            return self.worst(claim.base, defence)
        base, own = (UNSEEN, NONE) if defence == UNSEEN else (claim.base, defence)
        arm = self.arm(base, own, claim.attack, claim.rate)
        return {pair: claim.statistic(values) for pair, values in arm.items()}


def compared(results: Results, claim: Resisted) -> tuple[Estimate | None, str, str]:
    """The estimate of a claim's number, both means, and how many targets and seeds."""
    better, worse = (results.numbers(claim, side) for side in (claim.better, claim.worse))
    if claim.worse == UNSEEN:
        objects = {pair: v for pair, v in better.items() if kind_of(pair[0]) == "object"}
        taught = {pair: v for pair, v in worse.items() if kind_of(pair[0]) == "object"}
        if not objects or not taught:
            return None, "–", "–"
        estimate = mean_difference(by_target(objects), by_target(taught))
        counted = f"{_counted(objects)}; {number_of(len(by_target(taught)), 'never-seen object')}"
        return estimate, _means(claim, objects, taught), counted
    pairs = sorted(better.keys() & worse.keys())
    if not pairs:
        return None, "–", "–"
    own, other = ({pair: side[pair] for pair in pairs} for side in (better, worse))
    estimate = paired_mean(by_target({p: own[p] - claim.factor * other[p] for p in pairs}))
    return estimate, _means(claim, own, other), _counted(own)


def _means(claim: Resisted, own: Mapping[Pair, float], other: Mapping[Pair, float]) -> str:
    factor = "" if claim.factor == 1 else f"{claim.factor:g} × "
    return f"{target_mean(own):.3g} against {factor}{target_mean(other):.3g}"


def _counted(own: Mapping[Pair, Any]) -> str:
    seeds = len({seed for _, seed in own})
    return f"{number_of(len(by_target(dict.fromkeys(own, 0.0))), 'target')}, " + number_of(
        seeds, "seed"
    )


def claims_table(results: Results, claims: Sequence[Resisted], paper: bool = False) -> str:
    """Every claim of a table with its numbers and its verdict, corrected over the table."""
    rows = [compared(results, claim) for claim in claims]
    estimates = [estimate for estimate, _, _ in rows]
    decided = verdicts([(e, c.low, c.high) for e, c in zip(estimates, claims, strict=True)])
    lines = []
    for claim, (estimate, means, counted), verdict in zip(claims, rows, decided, strict=True):
        attack = _attack_said(claim)
        said = f"{with_ends(estimate.interval, '+.3g')} {claim.unit}" if estimate else "–"
        own = [claim.paper] if paper else []
        sides = f"{claim.better} against {claim.worse}"
        lines.append(
            [claim.text, claim.base, sides, attack, means, said, counted, *own, f"**{verdict}**"]
        )
    heads = ["claim", "base", "arms", "attack", "means", "difference", "measured"]
    return table([*heads, *(["the paper's"] if paper else []), "verdict"], lines)


def _attack_said(claim: Resisted) -> str:
    if claim.attack == NONE:
        return "before any"
    return f"{claim.attack}{f', rate x {claim.rate}' if claim.rate else ''}"


def rates_table(found: Found, choices: Choices) -> str:
    """What each rate teaches of what was never seen and brings back of what the first base
    unlearned, with the reference in bold.
    """
    rows = []
    for (kind, trained), reached in reaches(found, choices.bases).items():
        chosen = choices.rates.get((kind, trained))
        attack = {"lora": LORA, "full": WEIGHTS}[trained]
        for what in ("taught", "back"):
            shares = {rate: getattr(reach, what) for rate, reach in reached.items()}
            said = {rate: "" if s is None else f"{s:.0f}%" for rate, s in shares.items()}
            shown = [f"**{s}**" if s and rate == chosen else s for rate, s in said.items()]
            rows.append([kind, attack, _REACHED[what], *shown])
    return table(["kind", "attack", "of what", *(f"rate x {rate}" for rate in FACTORS)], rows)


_REACHED = {"taught": "never seen", "back": f"unlearned by {FIRST_BASE}, no defence"}


def weak_rates(found: Found, choices: Choices) -> list[str]:
    """The attacks whose reference rate misses a bar, each with its kind of concept."""
    return [
        f"{LORA if trained == 'lora' else WEIGHTS} on {kind}s"
        for (kind, trained), reached in reaches(found, choices.bases).items()
        for reach in [reached[choices.rates[kind, trained]]]
        if not (reach.fair and reach.strong)
    ]


def trials_table(found: Found, choices: Choices) -> str:
    """Every trial of every base and defence on development targets, the chosen one in bold."""
    mine = {c: v for c, v in found.items() if c.seed >= DEVELOPED and c.base in BASES}
    rows = []
    for (base, defence), own in arms_of(mine).items():
        plain = defence == ALONE
        settings = BASE_TRIALS[base] if plain else DEFENCE_TRIALS[defence]
        chosen = choices.bases.get(base) if plain else choices.defences.get((base, defence))
        kept = {
            c: v
            for c, v in own.items()
            if (c.attack == NONE if plain else c.tried == choices.bases.get(base))
        }
        trials = trials_of(kept, lambda c, plain=plain: c.tried if plain else c.chosen)
        rows += [
            _trial_line(base, defence, _said(settings[n]), trial, n == chosen)
            for n, trial in trials.items()
        ]
    heads = ["base", "defence", "trial", "shown before, %", "kept before, %", "back, %"]
    return table(heads, rows)


def _trial_line(base: str, defence: str, said: str, trial: Trial, chosen: bool) -> list[str]:
    after = "–" if trial.back is None else f"{trial.back:.0f}"
    name = f"**{said}**" if chosen else said
    return [base, defence, name, f"{trial.forget:.0f}", f"{trial.kept:.0f}", after]


def _said(settings: Settings) -> str:
    return ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                     for name, value in settings.items()) or "as it is"  # fmt: skip


def curves_table(results: Results, base: str) -> str:
    """A row per defence and attack of a base, at every rate that is measured."""
    rows = []
    mine = {c: v for c, v in results.cells.items() if c.base == base and c.attack != NONE}
    for key, cells in grouped(mine, attrgetter("defence", "attack")).items():
        defence, attack = key
        rates = {c.rate for c in cells} - {results.choices.rate(c.target, attack) for c in cells}
        for rate in ["", *(rate for rate in FACTORS if rate in rates)]:
            if arm := results.arm(base, defence, attack, rate):
                rows.append(_curve_line(results, base, defence, attack, rate, arm))
    heads = ["defence, attack", "before", *(f"{step} steps" for step in LENGTHS), "area",
             "relatives", "everything else", "forwards: defender, adversary",
             "seconds over plain", "peak, GB", "measured"]  # fmt: skip
    return table(heads, rows)


def _curve_line(
    results: Results, base: str, defence: str, attack: str, rate: str, arm: Arm
) -> list[str]:
    def mean(of: Callable[[Values], float]) -> float:
        return target_mean({pair: of(values) for pair, values in arm.items()})

    shares = []
    for mark in (0, *LENGTHS):
        seen = {pair: share(v, mark) for pair, v in arm.items() if str(mark) in v["marks"]}
        shares.append(with_half(by_target(seen), least=3) if seen else "")
    whole = all(len(points(values)) > 2 for values in arm.values())
    kept = [
        f"{mean(lambda v, g=g: share(v, 0, g)):.0f} → "
        f"{mean(lambda v, g=g: share(v, 0, g) - fall(g)(v)):.0f}"
        for g in ("near", "far")
    ]
    defender = mean(lambda v: v["forwards"]["defender"])
    adversary = mean(lambda v: v["forwards"]["adversary"][str(last_mark(v))])
    return [
        f"{defence}, {attack}{f', rate x {rate}' if rate else ''}",
        *shares,
        f"{mean(area):.0f}" if whole else "",
        *kept,
        f"{defender:,.0f}, {adversary:,.0f}",
        *_cost(results, base, defence, arm),
        _counted(arm),
    ]


def _cost(results: Results, base: str, defence: str, arm: Arm) -> list[str]:
    """Seconds of training over those without a defence, and the most memory; empty where nothing
    forgets.
    """
    plain = results.arm(base, ALONE, NONE)
    pairs = arm.keys() & plain.keys()
    peaks = [v["unlearn_peak_gb"] for v in arm.values() if v.get("unlearn_peak_gb")]
    over = {pair: seconds(arm[pair]) - seconds(plain[pair]) for pair in pairs}
    return [
        f"{target_mean(over):+.0f}" if over and defence != ALONE else "",
        f"{statistics.mean(peaks):.2f}" if peaks else "",
    ]


def mechanism_table(results: Results) -> str:
    """Norm and angle of the gradients with which the attack begins, in what it trains."""
    rows = []
    arms = [(ORIGINAL, NONE), *((base, defence) for base in BASES for defence in DEFENCES)]
    for (base, defence), (attack, weights) in (
        (arm, way) for arm in arms for way in ((LORA, "lora"), (WEIGHTS, "full"))
    ):
        met = NONE if base == ORIGINAL else attack
        own = _gradients(results.arm(base, defence, met), weights)
        if not own:
            continue
        plain = _gradients(results.arm(base, ALONE, met), weights) if defence != ALONE else {}
        ratios = [
            math.log(own[pair]["forget_norm"] / plain[pair]["forget_norm"])
            for pair in own.keys() & plain.keys()
            if min(own[pair]["forget_norm"], plain[pair]["forget_norm"]) > 0
        ]
        said = [f"{v:.2f}" for v in map(math.exp, mean_interval(ratios))] if ratios else []
        numbers = (
            {pair: v[name] for pair, v in own.items()}
            for name in ("forget_loss", "forget_norm", "related_norm", "cosine")
        )
        loss, norm, related, cosine = (by_target(number) for number in numbers)
        angles = [math.degrees(math.acos(max(-1.0, min(1.0, c)))) for c in cosine]
        rows.append([
            base, defence, attack, with_half(loss, 3, least=3), with_half(norm, 3, least=3),
            f"{said[0]} ({said[1]} to {said[2]})" if len(ratios) > 1 else "",
            with_half(related, 3, least=3), with_half(cosine, 2, least=3),
            with_half(angles, 0, least=3), _counted(own),
        ])  # fmt: skip
    heads = ["base", "defence", "the attack trains", "loss on the concept", "norm of its gradient",
             "over unlearn only", "norm for relatives", "cosine of the two", "angle, degrees",
             "measured"]  # fmt: skip
    return table(heads, rows)


def _gradients(arm: Arm, weights: str) -> dict[Pair, dict[str, float]]:
    return {p: v["gradients"][weights] for p, v in arm.items() if weights in v.get("gradients", {})}


def write_results(folder: Path) -> str:
    """Write report and figure for the cells in `folder`, and return the report."""
    found = read_found(folder)
    results = Results(found, choices_of(found))
    return write_report(folder, report(folder, found, results), figure(results))


def report(folder: Path, found: Found, results: Results) -> str:
    """The report on the cells of `folder`, as Markdown."""
    choices = results.choices
    cut = declared_cut(choices)
    bases = [base for base in (UNSEEN, *BASES) if any(c.base == base for c in results.cells)]
    return render(
        "paper2.md",
        name=folder.name,
        figure=bool(figure(results)),
        done=sum(cell in results.cells for cell in cut),
        wanted=len(cut),
        targets=len({c.target for c in results.cells if c.base in BASES}),
        seeds=len({c.seed for c in results.cells}),
        count=COUNT,
        last=LAST,
        lengths=LENGTHS,
        never_seen=f"{NEVER_SEEN:.0%}",
        attacks=[LORA, RENDERINGS, WEIGHTS, HARMLESS],
        development=any(cell.seed >= DEVELOPED for cell in found),
        rates=rates_table(found, choices),
        weak=weak_rates(found, choices),
        brought_back=f"{BROUGHT_BACK:.0%}",
        trials=trials_table(found, choices),
        sections={base: curves_table(results, base) for base in bases},
        mechanism=mechanism_table(results) if bases else "",
        paper=claims_table(results, PAPER_CLAIMS, paper=True),
        own=claims_table(results, OWN_BARS),
        explored=claims_table(results, EXPLORED_CLAIMS),
        untested=NOT_TESTED,
    )


COLOURS = {
    ALONE: "#c2570c",
    META: "#0a8062",
    M0: "#8a5bd0",
    STRONG: "#7a8494",
    UNSEEN: "#0b6fb8",
}


def figure(results: Results) -> str:
    """Relearn curves of the first base by defence, one panel per attack, with what the attack
    teaches of never-seen concepts; empty without cells.
    """
    panels: list[Panel] = []
    for attack in (*ADVERSE, HARMLESS):
        arms = {name: results.arm(FIRST_BASE, name, attack) for name in (ALONE, META, M0, STRONG)}
        arms[UNSEEN] = results.arm(UNSEEN, NONE, attack)
        lines = {name: _mean_curve(arm.values()) for name, arm in arms.items() if arm}
        if any(results.arm(FIRST_BASE, name, attack) for name in (ALONE, META)):
            panels.append((attack, lines))
    return curves([panels], COLOURS, "steps") if panels else ""


def _mean_curve(arm: Iterable[Values]) -> list[tuple[int, float]]:
    ways = [points(values) for values in arm]
    shared = set.intersection(*({mark for mark, _ in way} for way in ways))
    return [(mark, statistics.mean(dict(way)[mark] for way in ways)) for mark in sorted(shared)]
