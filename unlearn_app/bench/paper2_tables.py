"""From the cells of paper 2 to tables, claims with their verdicts, and the figure of relearn curves."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..curves import area_under, first_reaching
from ..events import GROUPS
from ..metrics import mean_interval
from . import cells

MARKS = (0, 10, 25, 50, 100, 200, 300)
FRESH = "fresh concept"
HARMLESS = "clean"
"""The attack that is none: an honest user fine-tunes on other pictures."""


@dataclass(frozen=True)
class Row:
    """One attack on one defended model: shares in percent by attack step, of concept, relatives and the rest."""

    target: str
    seed: int
    base: str
    defence: str
    attack: str
    forget: dict[int, float]
    near: dict[int, float]
    far: dict[int, float]
    alignment: dict[str, dict[int, float]]
    """Mean alignment by group and attack step."""
    unlearn_s: float

    @property
    def last(self) -> int:
        """The last attack step that was judged."""
        return max(self.forget)


def read_rows(folder: Path) -> list[Row]:
    """All measured cells of `folder`."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        marks = sorted((int(step), seen) for step, seen in cell["values"]["marks"].items())
        shares = {
            group: {step: 100 * (own := seen["right"][group]).count("1") / len(own) for step, seen in marks}
            for group in GROUPS
        }
        alignment = {group: {step: seen["alignment"][group] for step, seen in marks} for group in GROUPS}
        named = {name: cell["config"][name] for name in ("target", "seed", "base", "defence", "attack")}
        rows.append(Row(**named, **shares, alignment=alignment, unlearn_s=cell["values"]["unlearn_s"]))
    return rows


def worst(rows: Sequence[Row], step: int = 100) -> dict[tuple[str, int], float]:
    """By target and seed, the largest share of the concept after `step` steps of any attack but the harmless one."""
    found: dict[tuple[str, int], float] = {}
    for row in rows:
        if row.attack != HARMLESS:
            key, share = (row.target, row.seed), row.forget.get(step, row.forget[row.last])
            found[key] = max(found.get(key, 0.0), share)
    return found


@dataclass(frozen=True)
class Claim:
    """A sentence about two defences of one base: a paired number, and what its 95 % interval must lie in."""

    text: str
    better: str
    worse: str
    measure: Callable[[Sequence[Row]], dict[tuple[str, int], float]]
    low: float
    high: float
    unit: str = "points"


def _before(group: str) -> Callable[[Sequence[Row]], dict[tuple[str, int], float]]:
    return lambda rows: {(row.target, row.seed): getattr(row, group)[0] for row in rows}


def _worst_after(step: int) -> Callable[[Sequence[Row]], dict[tuple[str, int], float]]:
    return lambda rows: worst(rows, step)


def _after_harmless(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    return {(r.target, r.seed): r.forget[min(100, r.last)] for r in rows if r.attack == HARMLESS}


def _fall(group: str, harmless: bool) -> Callable[[Sequence[Row]], dict[tuple[str, int], float]]:
    """How much of a group an attack costs, the mean over attacks."""

    def measured(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
        falls: dict[tuple[str, int], list[float]] = {}
        for row in rows:
            if (row.attack == HARMLESS) == harmless:
                shares = getattr(row, group)
                falls.setdefault((row.target, row.seed), []).append(shares[0] - shares[min(100, row.last)])
        return {key: statistics.mean(values) for key, values in falls.items()}

    return measured


PLAIN, META, M0, STRONG = "unlearn only", "meta", "no look ahead (M = 0)", "stronger unlearning"
FAST_PLAIN, FAST_META = "unlearn only, fast", "meta, fast"
EVER, SOME = float("inf"), 1e-9
"""Bounds of claims: none, and more than nothing."""
CLAIMS = (
    Claim("Before the attack both have forgotten as much", META, PLAIN, _before("forget"), -3, 3),
    Claim("Before the attack relatives stand as well", META, PLAIN, _before("near"), -3, EVER),
    Claim("Before the attack everything else stands as well", META, PLAIN, _before("far"), -3, EVER),
    Claim("The worst attack brings back less in 100 steps", META, PLAIN, worst, -EVER, -SOME),
    Claim("The worst attack brings back less in 25 steps", META, PLAIN, _worst_after(25), -EVER, -SOME),
    Claim("The worst attack brings back less in 10 steps", META, PLAIN, _worst_after(10), -EVER, -SOME),
    Claim("Less in 25 steps than without the look ahead", META, M0, _worst_after(25), -EVER, -SOME),
    Claim("Less in 25 steps than after stronger unlearning", META, STRONG, _worst_after(25), -EVER, -SOME),
    Claim("Preset fast: less in 25 steps", FAST_META, FAST_PLAIN, _worst_after(25), -EVER, -SOME),
    Claim("Preset fast: less in 100 steps", FAST_META, FAST_PLAIN, worst, -EVER, -SOME),
    Claim("The attack costs relatives more (self-destruct)", META, PLAIN, _fall("near", False), SOME, EVER),
    Claim("Harmless fine-tuning costs everything else no more", META, PLAIN, _fall("far", True), -EVER, 3),
    Claim("Harmless fine-tuning brings back no more", META, PLAIN, _after_harmless, -EVER, 3),
)


def judged(claim: Claim, rows: Sequence[Row], base: str) -> str:
    """One line: the paired difference, its 95 % interval, and what it decides."""
    sides = [[r for r in rows if r.base == base and r.defence == d] for d in (claim.better, claim.worse)]
    better, other = (claim.measure(side) for side in sides)
    pairs = sorted(better.keys() & other.keys())
    if not pairs:
        return f"| {claim.text} | {base} | not measured | – |"
    mean, low, high = mean_interval([better[pair] - other[pair] for pair in pairs])
    inside, outside = claim.low <= low and high <= claim.high, high < claim.low or low > claim.high
    label = "held" if inside else "not held" if outside else "undecided"
    said = f"{mean:+.3g} ({low:+.3g} to {high:+.3g}) {claim.unit}, {len(pairs)} pairs"
    return f"| {claim.text} | {base} | {said} | **{label}** |"


def halved(rows: Sequence[Row], base: str) -> str:
    """Whether the worst attack brings back at most half of what it brings back without meta-unlearning."""
    sides = [[r for r in rows if r.base == base and r.defence == d] for d in (META, PLAIN)]
    found = []
    for step in (100, 50, 25, 10):
        meta, plain = (worst(side, step) for side in sides)
        pairs = sorted(meta.keys() & plain.keys())
        if not pairs:
            return f"{base}: not measured."
        ours, theirs = (statistics.mean(side[pair] for pair in pairs) for side in (meta, plain))
        word = "at most half" if ours <= theirs / 2 else "more than half"
        found.append(f"after {step} steps {ours:.0f} % against {theirs:.0f} %, {word}")
    return f"{base}, worst attack: {'; '.join(found)}."


def price(rows: Sequence[Row], base: str) -> str:
    """How much longer forgetting takes with the look ahead in the preset fast, by target and seed."""
    meta, plain = (
        {(r.target, r.seed): r.unlearn_s for r in rows if (r.base, r.defence) == (base, d)}
        for d in (FAST_META, FAST_PLAIN)
    )
    ratios = sorted(meta[pair] / plain[pair] for pair in meta.keys() & plain.keys() if plain[pair])
    if not ratios:
        return f"{base}: time not measured."
    seconds = [statistics.median(side.values()) for side in (meta, plain)]
    said = f"forgetting takes {seconds[0]:.0f} s with the look ahead and {seconds[1]:.0f} s without"
    return f"{base}: {said}, {statistics.median(ratios):.1f} times ({ratios[0]:.1f} to {ratios[-1]:.1f})."


def curve_line(name: str, rows: Sequence[Row], marks: Sequence[int] = MARKS) -> str:
    """Means over targets and seeds by mark, the area under the curve, and the steps to 80 % of the original's share."""
    cells = [name]
    for step in marks:
        values = [row.forget[step] for row in rows if step in row.forget]
        mean, low, high = mean_interval(values) if values else (0.0, 0.0, 0.0)
        half = f" ± {(high - low) / 2:.0f}" if len(values) > 1 else ""
        cells.append(f"{mean:.0f}{half}" if values else "")
    cells.append(f"{statistics.mean(area_under(sorted(row.forget.items())) for row in rows):.0f}")
    steps = [first_reaching(sorted(row.forget.items()), 80.0) for row in rows]
    reached = [step for step in steps if step is not None]
    cells.append(f"{statistics.median(reached):.0f} ({len(reached)} of {len(steps)})" if reached else "never")
    ends = 0, min(row.last for row in rows)
    for group in ("near", "far"):
        shares = [f"{statistics.mean(getattr(row, group)[at] for row in rows):.0f}" for at in ends]
        aligned = [f"{statistics.mean(row.alignment[group][at] for row in rows):.2f}" for at in ends]
        cells.append(f"{' → '.join(shares)} ({' → '.join(aligned)})")
    return "| " + " | ".join([*cells, str(len(rows))]) + " |"


def head(marks: Sequence[int]) -> str:
    """The first two lines of a table of curves."""
    names = ["defence, attack", "before", *(f"{step} steps" for step in marks[1:]), "area", "steps to 80 %"]
    names += ["relatives", "everything else", "cells"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


INTRODUCTION = (
    "Share of held-out pictures in which the judge sees the concept, in percent: means over targets and seeds, ± half "
    "of the 95 % Student interval. The worst attack stands first. `clean` is an honest user who fine-tunes on other "
    "pictures; the fresh concept is one that pre-training never showed, taught to the original model by the same "
    "attack. Relatives and everything else: share that shows what was asked, before → after the attack, and mean "
    "alignment in brackets. Differences below are paired by target and seed; a claim is decided by whether its 95 % "
    "interval lies inside the range it states. Forgetting takes the steps and retain pictures of the preset full, but "
    "for the two that say fast. Settings of meta at that length were chosen from a dozen by cat with seed 0 on the "
    "prompts judged here, so that row flatters it; the other defences were not tuned. The claims after 10 and 25 steps "
    "were added once it was seen that 100 steps show no difference; they explore, and do not confirm."
)


def write_results(folder: Path) -> str:
    """Write `paper2.md` and `paper2.svg` into `assets/results`, or beside a folder elsewhere; the Markdown."""
    rows = read_rows(folder)
    marks = [step for step in MARKS if any(step in row.forget for row in rows)] or [0]
    parts = ["# Paper 2 (2410.12777) on PocketCanvas", "", INTRODUCTION, ""]
    bases = list(dict.fromkeys(row.base for row in rows if row.base != FRESH))
    for base in [*bases, FRESH]:
        mine = [row for row in rows if row.base == base]
        groups = {
            (r.defence, r.attack): [o for o in mine if (o.defence, o.attack) == (r.defence, r.attack)] for r in mine
        }
        ranked = sorted(groups.items(), key=lambda item: (item[0][1] == HARMLESS, -_end(item[1])))
        parts += [f"## {base}", "", head(marks)]
        parts += [curve_line(", ".join(name), some, marks) for name, some in ranked] + [""]
    parts += ["## What is claimed", "", "| claim | base | paired difference | verdict |", "|---|---|---|---|"]
    parts += [judged(claim, rows, base) for base in bases for claim in CLAIMS] + [""]
    parts += [f"- {said(rows, base)}" for base in bases for said in (halved, price)]
    text = "\n".join(parts) + "\n"
    cells.write_results(folder, text, figure(rows))
    return text


def _end(rows: Sequence[Row]) -> float:
    return statistics.mean(row.forget[row.last] for row in rows)


COLOURS = {
    PLAIN: "#c2570c",
    META: "#0a8062",
    M0: "#8a5bd0",
    STRONG: "#7a8494",
    FAST_PLAIN: "#b4231f",
    FAST_META: "#0b6fb8",
}


def figure(rows: Sequence[Row]) -> str:
    """Relearn curves of the first base by defence, one panel per attack, as an SVG."""
    mine = [row for row in rows if row.base == next((r.base for r in rows if r.base != FRESH), "")]
    panels: list[cells.Panel] = []
    for attack in dict.fromkeys(row.attack for row in mine):
        lines = {}
        for defence in dict.fromkeys(row.defence for row in mine):
            some = [row for row in mine if (row.attack, row.defence) == (attack, defence)]
            if some:
                lines[defence] = [(step, statistics.mean(r.forget[step] for r in some)) for step in some[0].forget]
        panels.append((attack, 0, lines))
    return cells.drawn(panels, COLOURS, "steps")
