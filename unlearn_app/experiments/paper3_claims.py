"""What the cells of paper 3 say about its claims, each with its intervals."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.statistics import mean_interval, paired_change, wilson
from .paper3_grid import AT_ONCE, BOTH, HOLDING, PLAIN, PROJECTION, SMALL, UNHELD

RATES = ("ua", "ra_i", "ra_c")
SHARES = (*RATES, "ra_c_official")
KEPT = SHARES[1:]
"""Shares that are said in percent of the original's."""
COLLAPSE = 50.0
"""What keeps less than this percent of the original's has collapsed."""
MATCHED = 5.0
"""Points of UA that an arm may lack before keeping more is no news."""
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """The state after some requests: shares in percent, those of what is kept relative to the
    original's.
    """

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
    original: dict[str, float | None]
    """The original's own shares of the same pictures, in percent."""
    pictures: dict[str, str]
    """Which pictures show what their prompt asks for, 0 or 1 each: of what is erased, and of what
    is kept.
    """
    notes: tuple[str, ...] = ()
    threads: int = 1
    processes: int = 1
    left_alone: tuple[str, ...] = ()
    """What is kept of the own domain."""

    @property
    def sequence(self) -> tuple[str, int, int]:
        """What is compared with the same of another arm."""
        return self.domain, self.order, self.seed


def read_rows(folder: Path) -> list[Row]:
    """The states of all measured cells of `folder`."""
    stored = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    ]
    rows = []
    for asked, found in (
        (cell["config"], state) for cell in stored for state in cell["values"].values()
    ):
        original = {
            name: None if (share := found["original"][name]) is None else 100 * share
            for name in SHARES
        }
        kept = {name: _relative(found[name], original[name]) for name in KEPT}
        named = {name: asked[name] for name in ("domain", "order", "seed", "base", "arm")}
        same = {
            name: found[name]
            for name in (
                "number",
                "drift",
                "seconds",
                "cumulative_s",
                "pictures",
                "threads",
                "processes",
            )
        }
        shares = {
            "ua": 100 * found["ua"],
            "relapse": 100 * found["relapse"],
            "notes": tuple(found["notes"]),
        }
        rows.append(
            Row(
                **named,
                **kept,
                **same,
                **shares,
                original=original,
                left_alone=tuple(asked["kept"]),
            )
        )
    return rows


def _relative(share: float | None, original: float | None) -> float | None:
    return None if share is None or not original else 1e4 * share / original


def mean(values: Sequence[float | None]) -> float:
    """The mean of what is known, 0 of nothing."""
    return statistics.mean([value for value in values if value is not None] or [0.0])


def said(values: Sequence[float | None], digits: int = 0) -> str:
    """Mean ± half of the 95 % Student interval, a dash for nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    middle, low, high = mean_interval(known)
    return f"{middle:.{digits}f}" + (f" ± {(high - low) / 2:.{digits}f}" if len(known) > 1 else "")


def within(found: Interval, unit: str, digits: int = 0) -> str:
    """A mean with its interval, which a single sequence has not."""
    middle, low, high = (f"{value:.{digits}f}" for value in found)
    return (
        f"{middle} {unit} (one sequence)"
        if found[1] == float("-inf")
        else f"{middle} {unit} ({low} to {high})"
    )


def number_of(count: int, what: str, plural: str = "s") -> str:
    """A number with its noun."""
    return f"{count} {what}{plural if count != 1 else ''}"


def share_interval(rows: Sequence[Row], name: str) -> Interval | None:
    """The 95 % interval of a share over sequences, and never narrower than its pictures allow
    (Wilson).
    """
    known = [row for row in rows if getattr(row, name) is not None]
    if not known:
        return None
    middle, low, high = mean_interval([getattr(row, name) for row in known])
    right = "".join(row.pictures[name] for row in known)
    shown = "0" if name == "ua" else "1"
    scale = 100 if name == "ua" else 1e4 / mean([row.original[name] for row in known])
    least, most = (scale * bound for bound in wilson(right.count(shown), len(right)))
    return middle, min(low, least), max(high, most)


def at_last(rows: Sequence[Row]) -> list[Row]:
    """The rows of the last request."""
    last = max((row.number for row in rows), default=0)
    return [row for row in rows if row.number == last]


def paired(rows: Sequence[Row], arm: str, other: str, name: str) -> list[tuple[Row, Row]]:
    """The same sequences under two arms after the last request, where both have a value."""
    one, two = (
        {row.sequence: row for row in at_last(rows) if row.arm == side} for side in (arm, other)
    )
    both = [(one[key], two[key]) for key in sorted(one.keys() & two.keys())]
    return [pair for pair in both if None not in (getattr(pair[0], name), getattr(pair[1], name))]


def judged(rows: Sequence[Row], text: str, arm: str, other: str, name: str) -> str:
    """One line of claims: an arm keeps more than another, over sequences and over their pictures in
    pairs.

    Decided where both intervals leave out zero: three equal values have no spread, and pictures of
    one sequence are not independent. What forgets less keeps more for free, so that is no news
    where UA is lower by more than a few points, and keeping less at a higher UA is none either.
    """
    pairs = paired(rows, arm, other, name)
    if not pairs:
        return f"| {text} | {arm}, {other} | not measured | – | – | – |"
    middle, low, high = mean_interval([getattr(a, name) - getattr(b, name) for a, b in pairs])
    sides = [[c == "1" for pair in pairs for c in pair[side].pictures[name]] for side in (1, 0)]
    change, least, most, _ = paired_change(*sides)
    ua = [mean([pair[side].ua for pair in pairs]) for side in (0, 1)]
    label = "held" if min(low, least) > 0 else "not held" if max(high, most) < 0 else "undecided"
    if (label == "held" and ua[0] < ua[1] - MATCHED) or (
        label == "not held" and ua[0] > ua[1] + MATCHED
    ):
        label = "not comparable"
    over = f"{middle:+.1f} ({low:+.1f} to {high:+.1f}) points, {len(pairs)} sequences"
    over = over if len(pairs) > 1 else f"{middle:+.1f} points, 1 sequence"
    shown = (
        f"{100 * change:+.1f} ({100 * least:+.1f} to {100 * most:+.1f}) points,"
        f" {number_of(len(sides[0]), 'picture')}"
    )
    return (
        f"| {text} | {arm}, {other} | {over} | {shown} | {ua[0]:.0f}, {ua[1]:.0f} | **{label}** |"
    )


def claims(rows: Sequence[Row]) -> list[str]:
    """All claims of the paper for one domain, order and base method, one line each."""
    arms = dict.fromkeys(row.arm for row in rows)
    lines = []
    for arm in [arm for arm in HOLDING if arm in arms]:
        lines.append(judged(rows, "Keeps more of its own domain than plain", arm, PLAIN, "ra_i"))
        lines.append(judged(rows, "Keeps more of the other domain than plain", arm, PLAIN, "ra_c"))
    ends = at_last(rows)
    others = [arm for arm in HOLDING if arm in arms and arm not in (PROJECTION, BOTH, SMALL)]
    if others:
        second = max(others, key=lambda arm: mean([row.ra_i for row in ends if row.arm == arm]))
        lines.append(
            judged(rows, "Projection keeps most of its own domain", PROJECTION, second, "ra_i")
        )
    for arm in [arm for arm in (BOTH, SMALL) if arm in arms]:
        lines.append(judged(rows, "What is combined adds to projection", arm, PROJECTION, "ra_i"))
    lines += [collapse(rows, arm) for arm in (PLAIN, UNHELD) if arm in arms]
    return lines + ([cost(rows)] if AT_ONCE in arms else [])


def collapse(rows: Sequence[Row], arm: str) -> str:
    """Whether a sequence that nothing holds back loses its own domain."""
    ends = [row for row in at_last(rows) if row.arm == arm]
    found, text = (
        share_interval(ends, "ra_i"),
        f"Keeps less than {COLLAPSE:.0f} % of its own domain",
    )
    if found is None:
        return f"| {text} | {arm} | not measured | – | – | – |"
    label = label_of(found, COLLAPSE, at_most=True, yes="held", no="not held")
    count = sum(len(row.pictures["ra_i"]) for row in ends)
    ua = mean([row.ua for row in ends])
    over = f"{within(found, '%')}, {number_of(len(ends), 'sequence')}"
    return f"| {text} | {arm} | {over} | {number_of(count, 'picture')} | {ua:.0f} | **{label}** |"


def cost(rows: Sequence[Row]) -> str:
    """Whether forgetting all at once again and again costs more in all than one on top of the
    other.
    """
    pairs = paired(rows, AT_ONCE, PLAIN, "cumulative_s")
    text = "All at once costs more in all"
    if not pairs:
        return f"| {text} | {AT_ONCE}, {PLAIN} | not measured | – | – | – |"
    found = mean_interval([a.cumulative_s / max(b.cumulative_s, 1e-9) for a, b in pairs])
    label = label_of(found, 1.0, at_most=False, yes="held", no="not held")
    ua = ", ".join(f"{mean([pair[side].ua for pair in pairs]):.0f}" for side in (0, 1))
    said_of = f"{within(found, 'times', 1)}, {number_of(len(pairs), 'sequence')}"
    return f"| {text} | {AT_ONCE}, {PLAIN} | {said_of} | – | {ua} | **{label}** |"


def label_of(
    found: Interval, bar: float, at_most: bool, yes: str = "met", no: str = "not met"
) -> str:
    """Whether an interval lies on the right side of a bar, on the wrong one, or across."""
    _, low, high = found
    below, above = (
        high < bar or (at_most and high == bar),
        low > bar or (not at_most and low == bar),
    )
    if not below and not above:
        return "undecided"
    return yes if below == at_most else no


def why_no_collapse(rows: Sequence[Row]) -> str:
    """Why a plain sequence stands where the paper's falls; empty where it falls too."""
    plain, free = ([row for row in at_last(rows) if row.arm == arm] for arm in (PLAIN, UNHELD))
    kept = said([row.ra_i for row in plain])
    if not plain or mean([row.ra_i for row in plain]) < COLLAPSE:
        return ""
    text = (
        f"The plain sequence keeps {kept} % of its own domain and does not collapse as the paper's:"
        " every request here also rehearses what is kept nearby, with weight 3 and the restricted"
        " rule, which the paper's has not."
    )
    return (
        f"{text} “{UNHELD}” is without both and keeps {said([row.ra_i for row in free])} %."
        if free
        else text
    )
