"""From the cells of paper 3 to tables over the number of requests, claims with their verdicts, and curves."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..metrics import mean_interval
from . import cells

BASES: dict[str, dict[str, Any]] = {
    "concept ablation": {"objective": "concept_ablation"},
    "EraseDiff": {"objective": "erasediff"},
    "ESD": {"objective": "esd"},
}
MARKS = (1, 3, 6, 9, 12)
"""Requests after which the state is a cell."""
PLAIN = "sequential"
RETAINED_WITHIN, RETAINED_ACROSS, DRIFT, ERASED = 80.0, 90.0, 40.0, 90.0
"""Bars in percent: of the original's accuracy, of the plain sequence's drift, and of erased pictures."""
MATCHED = 5.0
"""Points of UA within which two arms count as forgetting alike."""


KEPT = ("ra_i", "ra_c", "ra_c_official")
"""Shares that are said in percent of the original's."""


@dataclass(frozen=True)
class Row:
    """The state after some requests: shares in percent, those of what is kept relative to the original's."""

    domain: str
    order: int
    seed: int
    base: str
    arm: str
    number: int
    ua: float
    ra_i: float | None
    ra_c: float | None
    ra_c_official: float | None
    drift: float
    relapse: float
    seconds: float
    cumulative_s: float
    notes: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[str, int, int]:
        """What is compared with the same of another arm."""
        return self.domain, self.order, self.seed


def read_rows(folder: Path) -> list[Row]:
    """All measured cells of `folder`."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        asked, found = cell["config"], cell["values"]
        kept = {name: _relative(found[name], found["original"][name]) for name in KEPT}
        named = {name: asked[name] for name in ("domain", "order", "seed", "base", "arm", "number")}
        costs = {name: found[name] for name in ("drift", "seconds", "cumulative_s")}
        shares = {"ua": 100 * found["ua"], "relapse": 100 * found["relapse"], "notes": tuple(found["notes"])}
        rows.append(Row(**named, **kept, **costs, **shares))
    return rows


def _relative(share: float | None, original: float | None) -> float | None:
    return None if share is None or not original else 100 * share / original


def said(values: Sequence[float | None], digits: int = 0) -> str:
    """Mean ± half of the 95 % Student interval, a dash for nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, low, high = mean_interval(known)
    return f"{mean:.{digits}f}" + (f" ± {(high - low) / 2:.{digits}f}" if len(known) > 1 else "")


HEAD = ("arm", "UA", "RA-I", "RA-C", "RA-C, official", "drift", "worst relapse", "s a request", "s in all", "sequences")


def table(rows: Sequence[Row], number: int) -> list[str]:
    """One line per arm after `number` requests, best kept in its own domain first."""
    arms = {r.arm: [o for o in rows if o.arm == r.arm and o.number == number] for r in rows if r.number == number}
    ranked = sorted(arms.items(), key=lambda item: -_mean([r.ra_i for r in item[1]]))
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for arm, some in ranked:
        shares = [said([getattr(r, name) for r in some]) for name in ("ua", *KEPT)]
        costs = [said([r.drift for r in some], 2), said([r.relapse for r in some])]
        costs += [said([r.seconds for r in some]), said([r.cumulative_s for r in some])]
        lines.append(f"| {' | '.join([arm, *shares, *costs])} | {len(some)} |")
    return lines


def _mean(values: Sequence[float | None]) -> float:
    return statistics.mean([value for value in values if value is not None] or [0.0])


def judged(rows: Sequence[Row], arm: str, measure: Callable[[Row], float | None], text: str) -> str:
    """One line of claims: an arm against the plain sequence, paired, at the last request.

    What forgets less keeps more for free, so nothing is decided where the UA of the two lie apart.
    """
    last = max((row.number for row in rows), default=0)
    sides = [{r.pair: r for r in rows if (r.arm, r.number) == (name, last)} for name in (arm, PLAIN)]
    both = sorted(sides[0].keys() & sides[1].keys())
    pairs = [p for p in both if None not in (measure(sides[0][p]), measure(sides[1][p]))]
    if not pairs:
        return f"| {text} | {arm} | not measured | – | – |"
    mean, low, high = mean_interval([measure(sides[0][pair]) - measure(sides[1][pair]) for pair in pairs])
    ua = [_mean([side[pair].ua for pair in pairs]) for side in sides]
    label = "held" if low > 0 else "not held" if high < 0 else "undecided"
    label = label if abs(ua[0] - ua[1]) <= MATCHED else "not comparable"
    difference = f"{mean:+.1f} ({low:+.1f} to {high:+.1f}) points, {len(pairs)} pairs"
    return f"| {text} | {arm} | {difference} | {ua[0]:.0f} / {ua[1]:.0f} | **{label}** |"


def bars(rows: Sequence[Row]) -> list[str]:
    """What the best arm reaches against the bars, and whether the plain sequence collapses."""
    last = max((row.number for row in rows), default=0)
    ends = [row for row in rows if row.number == last]
    plain = [row for row in ends if row.arm == PLAIN]
    arms = {row.arm: [o for o in ends if o.arm == row.arm] for row in ends}
    able = {arm: some for arm, some in arms.items() if _mean([r.ua for r in some]) >= ERASED}
    if not able or not plain:
        return ["No arm erases 90 % of what was asked for." if plain else "The plain sequence is not measured."]
    best = max(able, key=lambda arm: _mean([r.ra_i for r in able[arm]]) + _mean([r.ra_c for r in able[arm]]))
    within, across = (_mean([getattr(r, name) for r in able[best]]) for name in ("ra_i", "ra_c"))
    drift = 100 * _mean([r.drift for r in able[best]]) / max(_mean([r.drift for r in plain]), 1e-9)
    met = within >= RETAINED_WITHIN and across >= RETAINED_ACROSS and drift <= DRIFT
    kept = [said([getattr(r, name) for r in plain]) for name in ("ra_i", "ra_c")]
    return [
        f"- Best of the arms with UA of at least 90 % after {last} requests: **{best}**, RA-I {within:.0f} % and RA-C "
        f"{across:.0f} % of the original's, drift {drift:.0f} % of the plain sequence's; the bars are 80, 90 and 40: "
        f"{'met' if met else 'not met'}.",
        f"- The plain sequence keeps RA-I {kept[0]} % and RA-C {kept[1]} % of the original's.",
        f"- A request costs {growth(rows)} of the first one's time at the last (bar 1.2 times).",
    ]


def growth(rows: Sequence[Row]) -> str:
    """How much longer the last request takes than the first, by sequence on top of what is there."""
    first, last = ({(*r.pair, r.arm): r.seconds for r in rows if r.number == number} for number in
                   (1, max((row.number for row in rows), default=0)))  # fmt: skip
    ratios = [last[key] / first[key] for key in first.keys() & last.keys() if first[key] and key[3] != "simultaneous"]
    return f"{statistics.median(ratios):.2f} times" if ratios else "an unknown share"


INTRODUCTION = (
    "Requests to forget, one after the other, on one model. UA is the share of held-out pictures of everything erased "
    "so far that no longer show it; RA-I and RA-C are the shares of pictures of concepts that the sequence never "
    "touches, in the same domain and in the other one, in percent of the original's; no anchor is among them. The "
    "official RA-C also counts pictures whose prompts name something erased. Every "
    "picture has the same prompt and seed after every request. Drift is the Frobenius norm of the whole update; a "
    "relapse is the largest rise of an erased concept above what its own request left. Means over sequences, ± half of "
    "the 95 % Student interval."
)


def write_results(folder: Path) -> str:
    """Write `paper3.md` and `paper3.svg` into `assets/results`, or beside a folder elsewhere; the Markdown."""
    rows = read_rows(folder)
    parts = ["# Paper 3 (2511.07970) on PocketCanvas", "", INTRODUCTION, ""]
    for domain, base in dict.fromkeys((row.domain, row.base) for row in rows):
        mine = [row for row in rows if (row.domain, row.base) == (domain, base)]
        parts += [f"## {domain.capitalize()}, {base}", ""]
        for number in sorted({row.number for row in mine}, reverse=True):
            parts += [f"### After {number} requests", "", *table(mine, number), ""]
        parts += [*bars(mine), "", "| claim | arm | paired difference | UA, of both | verdict |"]
        parts.append("|---|---|---|---|---|")
        for arm in [arm for arm in dict.fromkeys(row.arm for row in mine) if arm != PLAIN]:
            parts.append(judged(mine, arm, lambda row: row.ra_i, "Keeps more of its own domain than plain"))
            parts.append(judged(mine, arm, lambda row: row.ra_c, "Keeps more of the other domain"))
        parts.append("")
    text = "\n".join(parts)
    cells.write_results(folder, text, figure(rows))
    return text


COLOURS = ("#c2570c", "#0a8062", "#0b6fb8", "#8a5bd0", "#b4231f", "#7a8494", "#946b00", "#3b4cca", "#d0588f")
PANELS = {"ua": "erased", "ra_i": "kept, same domain", "ra_c": "kept, other domain"}


def figure(rows: Sequence[Row]) -> str:
    """Curves over the number of requests, a row of panels for every domain and base, one panel per measure; an SVG."""
    colours = dict(zip(dict.fromkeys(row.arm for row in rows), COLOURS, strict=False))
    panels: list[cells.Panel] = []
    for place, (domain, base) in enumerate(dict.fromkeys((row.domain, row.base) for row in rows)):
        mine = [row for row in rows if (row.domain, row.base) == (domain, base)]
        panels += [(f"{domain}: {title}", place, _lines(mine, name)) for name, title in PANELS.items()]
        drifts = _lines(mine, "drift")
        largest = max(value for points in drifts.values() for _, value in points) or 1.0
        shares = {arm: [(n, 100 * value / largest) for n, value in points] for arm, points in drifts.items()}
        panels.append((f"{domain}: drift, % of the largest", place, shares))
    return cells.drawn(panels, colours, "requests")


def _lines(rows: Sequence[Row], name: str) -> dict[str, list[tuple[float, float]]]:
    """Means over sequences by arm and number of requests."""
    found: dict[str, dict[int, list[float | None]]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        found.setdefault(row.arm, {}).setdefault(row.number, []).append(getattr(row, name))
    return {arm: [(number, _mean(values)) for number, values in some.items()] for arm, some in found.items()}
