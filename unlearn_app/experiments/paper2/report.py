"""The report on paper 2: relearn curves, claims with their verdicts, and what is missing."""

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...evaluation.relearn_curve import area_under
from ...evaluation.verdict import steps_to_recovery
from ...settings.events import GROUPS
from ..cells import read_cells
from ..claims import ANY, Claim, Pair, by_target, grouped, paired, rounded_interval, target_mean
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
    ALONE,
    ATTACKS,
    BASES,
    CONTROLS,
    COUNT,
    CUT_STEPS,
    DEFENCES,
    FAST_ALONE,
    FAST_META,
    HARMLESS,
    M0,
    MARKS,
    META,
    NONE,
    ORIGINAL,
    SEEDS,
    SHORT,
    STRONG,
    UNSEEN,
    DefendedAttack,
    grid,
)


@dataclass(frozen=True)
class RelearnCurve:
    """One attack on one defended model: by attack step, the shares in percent of the concept
    (`forget`), its relatives (`near`) and everything else (`far`).
    """

    cell: DefendedAttack
    forget: dict[int, float]
    near: dict[int, float]
    far: dict[int, float]
    alignment: dict[str, dict[int, float]]
    """Mean alignment by group and attack step."""
    unlearn_s: float

    @property
    def pair(self) -> Pair:
        """Target and seed, by which the curves of two models are paired."""
        return self.cell.target, self.cell.seed

    @property
    def last(self) -> int:
        """The last attack step that was judged."""
        return max(self.forget)

    def at(self, step: int, group: str = "forget") -> float:
        """The share of a group after `step` steps, or after the last step where that one was not
        judged.
        """
        shares = getattr(self, group)
        return shares.get(step, shares[self.last])


Curves = Sequence[RelearnCurve]


def read_curves(folder: Path) -> list[RelearnCurve]:
    """All measured cells of `folder`."""
    return [_curve(*stored) for stored in read_cells(folder).values()]


def _curve(config: dict[str, Any], values: dict[str, Any]) -> RelearnCurve:
    marks = sorted((int(step), seen) for step, seen in values["marks"].items())
    shares = {
        group: {
            step: 100 * (own := seen["right"][group]).count("1") / len(own) for step, seen in marks
        }
        for group in GROUPS
    }
    alignment = {
        group: {step: seen["alignment"][group] for step, seen in marks} for group in GROUPS
    }
    cell = DefendedAttack(**{item.name: config[item.name] for item in fields(DefendedAttack)})
    return RelearnCurve(cell, **shares, alignment=alignment, unlearn_s=values["unlearn_s"])


Statistic = Callable[[Curves, int], dict[Pair, float]]
"""From the curves of a model and an attack step, a number for each target and seed."""


def _statistic(
    of: Callable[[RelearnCurve, int], float],
    harmless: bool | None = None,
    over: Callable[[Iterable[float]], float] = max,
) -> Statistic:
    """For each target and seed the number `of` a curve, combined by `over` over attacks: the
    harmless one alone, all others, or every attack if `harmless` is None.
    """

    def measured(found: Curves, step: int) -> dict[Pair, float]:
        counted = [c for c in found if harmless in (None, c.cell.attack == HARMLESS)]
        return {
            pair: over([of(curve, step) for curve in own])
            for pair, own in grouped(counted, attrgetter("pair")).items()
        }

    return measured


def _before(group: str) -> Statistic:
    return _statistic(lambda curve, step: curve.at(0, group))


def _fall(group: str, harmless: bool) -> Statistic:
    """How many points of a group's share are lost to an attack, in the mean over attacks."""
    return _statistic(
        lambda curve, step: curve.at(0, group) - curve.at(step, group), harmless, statistics.mean
    )


worst = _statistic(RelearnCurve.at, harmless=False)
"""The largest share of the concept after any attack but the harmless one."""
_AFTER_HARMLESS = _statistic(RelearnCurve.at, harmless=True)
_SECONDS = _statistic(lambda curve, step: curve.unlearn_s)
SOME = 1e-9
"""The smallest difference that counts."""
LESS = -ANY, -SOME
_FALL = _fall("near", harmless=False)
CLAIMS = (
    Claim("Before the attack both have forgotten as much", META, ALONE, _before("forget"), -3, 3),
    Claim("Before the attack relatives stand as well", META, ALONE, _before("near"), -3),
    Claim("Before the attack everything else stands as well", META, ALONE, _before("far"), -3),
    Claim("The worst attack brings back at most half", META, ALONE, worst, -ANY, 0, factor=0.5),
    *(
        Claim("The worst attack brings back less", META, ALONE, worst, *LESS, step=step)
        for step in (100, 25, 10)
    ),
    Claim("As much is forgotten as with M = 0", META, M0, _before("forget"), -3, 3),
    *(
        Claim("The worst attack brings back less than with M = 0", META, M0, worst, *LESS,
              step=step)
        for step in (100, 25)
    ),
    Claim("As much is forgotten as by stronger unlearning", META, STRONG, _before("forget"), -3, 3),
    *(
        Claim("The worst attack brings back less than after stronger unlearning", META, STRONG,
              worst, *LESS, step=step)
        for step in (100, 25)
    ),
    Claim("Attacks cost relatives more (self-destruct)", META, ALONE, _FALL, SOME),
    Claim("Attacks cost relatives more than with M = 0", META, M0, _FALL, SOME),
    Claim("Attacks cost relatives more than after stronger unlearning", META, STRONG, _FALL, SOME),
    Claim("Harmless fine-tuning costs everything else no more", META, ALONE, _fall("far", True),
          -ANY, 3),
    Claim("Harmless fine-tuning brings back no more", META, ALONE, _AFTER_HARMLESS, -ANY, 3),
    *(
        Claim("Preset fast: the worst attack brings back less", FAST_META, FAST_ALONE, worst, *LESS,
              step=step)
        for step in (100, 25)
    ),
    Claim("Forgetting takes at most three times as long (preset fast)", FAST_META, FAST_ALONE,
          _SECONDS, -ANY, 0, factor=3, unit="s"),
)  # fmt: skip


def judged(claim: Claim, found: Curves, base: str) -> str:
    """One line: both means, the paired difference with its 95 % interval over targets, and the
    verdict. Only attacks that were measured on both models count.
    """
    defence, key = attrgetter("cell.defence"), attrgetter("pair", "cell.attack")
    met = paired(_of_base(found, base), defence, (claim.better, claim.worse), key)
    better, worse = (claim.statistic([one[side] for one in met], claim.step) for side in (0, 1))
    if not better:
        return line(claim.text, base, "not measured", "–")
    text = claim.text + _when(claim, max(curve.last for curve, _ in met))
    targets = by_target({pair: better[pair] - claim.factor * worse[pair] for pair in better})
    interval = rounded_interval(targets)
    factor = "" if claim.factor == 1 else f"{claim.factor:g} × "
    said = f"{target_mean(better):.3g} against {factor}{target_mean(worse):.3g}: "
    said += f"{with_ends(interval, '+.3g')} {claim.unit}"
    counted = f"{number_of(len(targets), 'target')}, {number_of(len(better), 'pair')}"
    return line(text, base, f"{said}, {counted}", f"**{claim.label(interval)}**")


def _when(claim: Claim, last: int) -> str:
    """The attack steps that a claim is about. Claims about fewer than 100 steps are exploratory:
    they were added after the results were seen.
    """
    if claim.statistic is not worst:
        return ""
    within = f"the first {claim.step} of its {last}" if claim.step < last else last
    return f" in {within} steps{' (exploratory)' if claim.step < 100 else ''}"


def curve_line(
    name: str, found: Curves, known: Mapping[Pair, float], marks: Sequence[int] = MARKS
) -> str:
    """One row: means over targets by mark, area under the curve, steps to 80 % of the original's
    share (`known`; of all pictures where that is missing), and the shares of what was kept.

    A curve that never reaches 80 % counts as beyond its last step.
    """
    last, ends = min(curve.last for curve in found), (0, marks[-1])
    shares = [_share(found, step, aligned=step in ends) for step in marks]
    way = _area_and_recovery(found, known, last) if last else ["", ""]
    kept = [_kept(found, group, sorted({0, last})) for group in ("near", "far")]
    return line(name, *shares, *way, *kept, len(found))


def _area_and_recovery(found: Curves, known: Mapping[Pair, float], last: int) -> list[str]:
    ways = {curve.pair: sorted(curve.forget.items()) for curve in found}
    area = target_mean({pair: area_under(way) for pair, way in ways.items()})
    steps = [steps_to_recovery(way, known.get(pair, 100.0)) for pair, way in ways.items()]
    middle = statistics.median(math.inf if step is None else step for step in steps)
    reached = sum(step is not None for step in steps)
    when = f"{middle:.0f}" if math.isfinite(middle) else f"> {last}"
    return [f"{area:.0f}", f"{when} ({reached} of {len(steps)})"]


def _kept(found: Curves, group: str, steps: Sequence[int]) -> str:
    """Share and alignment of a group at `steps` of the attack."""
    shares = " → ".join(f"{_mean(found, step, group):.0f}" for step in steps)
    aligned = " → ".join(f"{_mean_alignment(found, step, group):.2f}" for step in steps)
    return f"{shares} ({aligned})"


def _mean(found: Curves, step: int, group: str = "forget") -> float:
    return target_mean({curve.pair: curve.at(step, group) for curve in found})


def _mean_alignment(found: Curves, step: int, group: str = "forget") -> float:
    return target_mean({curve.pair: curve.alignment[group][step] for curve in found})


def _share(found: Curves, step: int, aligned: bool) -> str:
    """The mean share of the concept at `step`, with an interval for three targets or more, and the
    mean alignment if `aligned`; empty where no curve was judged at that step.
    """
    seen = [curve for curve in found if step in curve.forget]
    if not seen:
        return ""
    said = with_half(by_target({curve.pair: curve.forget[step] for curve in seen}), least=3)
    return f"{said} ({_mean_alignment(seen, step):.2f})" if aligned else said


def write_results(folder: Path) -> str:
    """Write report and figure for the cells in `folder`, and return the report."""
    found = read_curves(folder)
    return write_report(folder, report(folder, found), figure(found))


def report(folder: Path, found: Curves) -> str:
    """The report on the curves of `folder`, as Markdown."""
    originals = _of_base(found, ORIGINAL)
    known = {curve.pair: curve.forget[0] for curve in originals}
    marks = [step for step in MARKS if any(step in curve.forget for curve in found)] or [0]
    bases = [base for base in BASES if _of_base(found, base)]
    pairs = {curve.pair for curve in found if curve.cell.base in BASES}
    sections = {base: curve_lines(_of_base(found, base), known, marks) for base in [*bases, UNSEEN]}
    for base in bases if originals else ():
        sections[base].insert(0, curve_line(ORIGINAL, originals, known, marks))
    return render(
        "paper2.md",
        name=folder.name,
        marks=marks[1:],
        sections=sections,
        claims=[judged(claim, found, base) for base in bases for claim in CLAIMS],
        pairs=len(pairs),
        without=len(pairs - known.keys()),
        scope=scope({curve.cell for curve in found}, max((c.last for c in found), default=0)),
    )


def _of_base(found: Curves, base: str) -> list[RelearnCurve]:
    return [curve for curve in found if curve.cell.base == base]


def curve_lines(found: Curves, known: Mapping[Pair, float], marks: Sequence[int]) -> list[str]:
    """A row per defence and attack of one base, the worst attack first and harmless ones last."""
    groups = grouped(found, attrgetter("cell.defence", "cell.attack"))
    end = max((curve.last for curve in found), default=0)
    ends = {name: _mean(own, end) for name, own in groups.items()}
    ranked = sorted(groups, key=lambda name: (name[1] == HARMLESS, -ends[name]))
    return [curve_line(", ".join(name), groups[name], known, marks) for name in ranked]


def scope(measured: Collection[DefendedAttack], last: int) -> dict[str, Any]:
    """Which cells of the grid are measured, with attacks of `last` steps, and what is missing."""
    full = last > CUT_STEPS
    wanted = [cell for cell in grid(SEEDS) if full or cell.cut]
    bases, attacks = {cell.base for cell in measured}, {cell.attack for cell in measured}
    met = {(cell.defence, cell.attack) for cell in measured}
    fresh = {cell.target for cell in measured if cell.base == UNSEEN}
    missing = {
        "bases": [name for name in BASES if name not in bases],
        "attacks": [name for name in ATTACKS if name not in attacks],
        "attack steps": [mark for mark in MARKS if mark > last],
    }
    return {
        "full": full,
        "done": sum(cell in measured for cell in wanted),
        "wanted": len(wanted),
        "bases": [name for name in BASES if name in bases],
        "targets": sorted({cell.target for cell in measured} - fresh),
        "fresh": sorted(fresh),
        "seeds": sorted({cell.seed for cell in measured}),
        "last": last,
        "count": COUNT,
        "attacks": {
            "the fresh concepts" if defence == NONE else defence: [
                attack for attack in ATTACKS if (defence, attack) in met
            ]
            for defence in (NONE, *DEFENCES, *CONTROLS, *SHORT)
        },
        "worst": [name for name in ATTACKS if name in attacks and name != HARMLESS],
        "missing": {name: values for name, values in missing.items() if values},
    }


COLOURS = {
    ALONE: "#c2570c",
    META: "#0a8062",
    M0: "#8a5bd0",
    STRONG: "#7a8494",
    FAST_ALONE: "#b4231f",
    FAST_META: "#0b6fb8",
}


def figure(found: Curves) -> str:
    """Relearn curves of the first base by defence, one panel per attack, as an SVG."""
    first = next((curve.cell.base for curve in found if curve.cell.base in BASES), "")
    mine = _of_base(found, first)
    defences = dict.fromkeys(curve.cell.defence for curve in mine)
    panels: list[Panel] = []
    for attack, some in grouped(mine, attrgetter("cell.attack")).items():
        own = grouped(some, attrgetter("cell.defence"))
        lines = {
            name: [(step, _mean(own[name], step)) for step in own[name][0].forget]
            for name in defences
            if name in own
        }
        panels.append((attack, lines))
    return curves([panels], COLOURS, "steps")
