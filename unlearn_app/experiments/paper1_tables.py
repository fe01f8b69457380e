"""From the cells of paper 1 to tables, claims with their verdicts, and a figure."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Template

from ..evaluation.statistics import mean_interval
from . import cells
from .paper1_why import WHY

RETAIN = ("near", "far")


@dataclass(frozen=True)
class Row:
    """One cell beside the original's pictures of the same prompts and seeds; shares in points."""

    tasks: tuple[str, ...]
    target: str
    arm: str
    seed: int
    known: float
    """Share of forget pictures in which the original paints the concept."""
    ua: float
    ra_loss: float
    held_out: float
    """Change of the alignment on held-out retain prompts, and below on training ones."""
    train: float
    kid: float
    """Above that of the original's own pictures, and the standard error of both."""
    kid_se: float
    step_s: float
    conflict: float
    rises: float


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as a paired difference of two arms that should be positive."""

    text: str
    task: str
    better: str
    worse: str
    value: Callable[[Row], float]
    unit: str = "points"


def _kept(row: Row) -> float:
    return -row.ra_loss


def _forgotten(row: Row) -> float:
    return row.ua


def _close(row: Row) -> float:
    return -row.kid


def _aligned(row: Row) -> float:
    return 100 * row.held_out


SUM, NEAR, RESTRICTED = "sum + diversified", "restricted", "restricted + diversified"
CLAIMS = (
    Claim("The restricted gradient keeps more than the sum", "class", RESTRICTED, SUM, _kept),
    Claim("It forgets no less than the sum", "class", RESTRICTED, SUM, _forgotten),
    Claim(
        "A diversified retain set keeps more than near neighbours", "class", RESTRICTED, NEAR, _kept
    ),
    Claim("The same without the restriction", "class", SUM, "sum", _kept),
    Claim(
        "It stays closer to the original's distribution than the sum",
        "class",
        RESTRICTED,
        SUM,
        _close,
        "KID",
    ),
    Claim("It forgets more than SalUn", "class", RESTRICTED, "SalUn", _forgotten),
    Claim("It keeps more than SalUn", "class", RESTRICTED, "SalUn", _kept),
    Claim(
        "Its held-out alignment is better than the sum's",
        "style",
        RESTRICTED,
        SUM,
        _aligned,
        "0.01",
    ),
    Claim(
        "Its held-out alignment is better than the sum's",
        "unsafe",
        RESTRICTED,
        SUM,
        _aligned,
        "0.01",
    ),
)


def read_rows(folder: Path) -> list[Row]:
    """All measured cells of `folder`."""
    stored = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    ]
    originals = {
        (cell["config"]["target"], cell["config"]["seed"]): cell["values"]
        for cell in stored
        if "target" in cell["config"] and "arm" not in cell["config"]
    }
    rows = []
    for cell in stored:
        config, values = cell["config"], cell["values"]
        base = originals.get((config.get("target"), config.get("seed")))
        if "arm" in config and base:
            rows.append(_row(config, values, base))
    return rows


def _row(config: dict[str, Any], values: dict[str, Any], base: dict[str, Any]) -> Row:
    def accuracy(stored: dict[str, Any], groups: Sequence[str]) -> float:
        right = "".join(stored["right"][group] for group in groups)
        return 100 * right.count("1") / len(right)

    def change(groups: Sequence[str]) -> float:
        pairs = [zip(values["alignment"][g], base["alignment"][g], strict=True) for g in groups]
        return statistics.mean(after - before for pair in pairs for after, before in pair)

    return Row(
        tuple(config["tasks"]),
        config["target"],
        config["arm"],
        config["seed"],
        known=accuracy(base, ["forget"]),
        ua=100 - accuracy(values, ["forget"]),
        ra_loss=accuracy(base, RETAIN) - accuracy(values, RETAIN),
        held_out=change(RETAIN),
        train=change(["train"]),
        kid=values["kid"] - base["kid"],
        kid_se=math.hypot(values["kid_se"], base["kid_se"]),
        step_s=values["step_s"],
        conflict=100 * values["conflict"],
        rises=100 * max(values["rises"].values()),
    )


def judged(claim: Claim, rows: Sequence[Row]) -> str:
    """One line: the paired difference by target and seed, its 95 % interval, and what it
    decides.
    """
    by_arm = {(r.arm, r.target, r.seed): claim.value(r) for r in rows if claim.task in r.tasks}
    pairs = sorted(
        (target, seed)
        for arm, target, seed in by_arm
        if arm == claim.better and (claim.worse, target, seed) in by_arm
    )
    if not pairs:
        return f"| {claim.text} | {claim.task} | not measured | – |"
    differences = [by_arm[(claim.better, *p)] - by_arm[(claim.worse, *p)] for p in pairs]
    mean, low, high = mean_interval(differences)
    label = "held" if low > 0 else "not held" if high < 0 else "undecided"
    said = f"{mean:+.3g} ({low:+.3g} to {high:+.3g}) {claim.unit}, {len(pairs)} pairs"
    return f"| {claim.text} | {claim.task} | {said} | **{label}** |"


def arm_line(arm: str, rows: Sequence[Row]) -> str:
    """One arm of one task: means over targets and seeds with 95 % intervals, and how many cells."""

    def spread(name: str, digits: int = 1, sign: str = "") -> str:
        mean, low, high = mean_interval([getattr(row, name) for row in rows])
        half = f" ± {(high - low) / 2:.{digits}f}" if len(rows) > 1 else ""
        return f"{mean:{sign}.{digits}f}{half}"

    error = statistics.mean(row.kid_se**2 for row in rows) ** 0.5
    reached = 100 * statistics.mean(_reaches(many) for many in by_target(rows).values())
    cells = [
        arm,
        spread("ua"),
        spread("ra_loss", sign="+"),
        (
            f"{statistics.median(r.ua for r in rows):.0f} /"
            f" {statistics.median(r.ra_loss for r in rows):+.0f}"
        ),
        spread("held_out", 3, "+"),
        spread("train", 3, "+"),
        f"{statistics.mean(row.kid for row in rows):.3f} (se {error:.3f})",
        f"{statistics.mean(row.conflict for row in rows):.0f}",
        f"{statistics.mean(row.rises for row in rows):.0f}",
        f"{statistics.median(row.step_s for row in rows):.2f}",
        f"{reached:.0f}",
        str(len(rows)),
    ]
    return "| " + " | ".join(cells) + " |"


def _best_first(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The rows of each arm, by what it forgets less what it costs."""
    arms = {
        arm: [r for r in rows if r.arm == arm] for arm in dict.fromkeys(row.arm for row in rows)
    }
    return sorted(
        arms.items(), key=lambda item: statistics.mean(max(r.ra_loss, 0) - r.ua for r in item[1])
    )


def by_target(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each target, all seeds together."""
    return {
        target: [r for r in rows if r.target == target]
        for target in dict.fromkeys(row.target for row in rows)
    }


def _reaches(rows: Sequence[Row]) -> bool:
    """Whether a method forgets a target and keeps enough, on the mean over seeds."""
    return (
        statistics.mean(r.ua for r in rows) >= 90 and statistics.mean(r.ra_loss for r in rows) <= 15
    )


def short_of(rows: Sequence[Row]) -> list[str]:
    """Of every arm that reaches less than 80 % of its targets: which it misses, with its means, and
    our reading why.
    """
    lines = []
    for arm, mine in _best_first(rows):
        targets = by_target(mine)
        missed = {name: many for name, many in targets.items() if not _reaches(many)}
        if 5 * len(missed) > len(targets):
            means = ", ".join(
                f"{name} {statistics.mean(r.ua for r in many):.0f} /"
                f" {statistics.mean(r.ra_loss for r in many):+.0f}"
                for name, many in missed.items()
            )
            lines.append(
                f"- **{arm}** misses {len(missed)} of {len(targets)} (UA / RA lost: {means})."
                f" {WHY.get(arm, '')}"
            )
    return lines


def best_arm(rows: Sequence[Row]) -> str:
    """The arm that stands best by medians over classes, and whether it meets the bar for the
    best.
    """
    found = []
    for arm in dict.fromkeys(row.arm for row in rows):
        targets = by_target(
            [row for row in rows if row.arm == arm and "class" in row.tasks]
        ).values()
        if len(targets) >= 3:
            ua, ra, held = (
                statistics.median(
                    statistics.mean(getattr(r, name) for r in many) for many in targets
                )
                for name in ("ua", "ra_loss", "held_out")
            )
            met = ua >= 95 and ra <= 3 and abs(held) <= 0.01
            found.append(
                (met, ua - max(ra, 0.0), arm, f"{ua:.1f} / {ra:+.1f} / {held:+.3f}", len(targets))
            )
    if not found:
        return "No arm was measured on three classes."
    met, _, arm, said, count = max(found)
    return (
        f"Best arm by class medians: **{arm}**, UA / RA lost / change of held-out alignment {said}"
        f" over {count} classes; the bar is ≥ 95 / ≤ 3 / within 0.01:"
        f" {'met' if met else 'not met'}."
    )


HEAD = (
    "| arm | UA, % | RA lost, points | median UA / RA lost | alignment change, held-out | the same,"
    " training | KID to the original | steps in conflict, % | steps with a loss rising, % | s a"
    " step | targets with UA ≥ 90 and RA lost ≤ 15, % | cells |"
)


def write_results(folder: Path) -> str:
    """Write `paper1.md` and `paper1.svg` into `assets/results`, or beside a folder elsewhere; the
    Markdown.
    """
    rows = read_rows(folder)
    parts = [
        "# Paper 1 (2412.07808) on PocketCanvas",
        "",
        f"{INTRODUCTION} {_missing_seeds(rows)}".strip(),
        "",
    ]
    parts += [f"![Class removal: what is forgotten, and what is lost]({folder.name}.svg)", ""]
    for task in dict.fromkeys(task for row in rows for task in row.tasks):
        mine = [row for row in rows if task in row.tasks]
        parts += [
            f"## {task.capitalize()} removal",
            "",
            HEAD,
            "|" + "---|" * HEAD.count(" | ") + "---|",
        ]
        parts += [arm_line(arm, some) for arm, some in _best_first(mine)] + [""]
    parts += ["## Which methods fall short", "", best_arm(rows), "", *short_of(rows), ""]
    parts += [
        "## What the paper claims",
        "",
        "| claim | task | paired difference | verdict |",
        "|---|---|---|---|",
    ]
    parts += [judged(claim, rows) for claim in CLAIMS] + ["", *step_time(folder)]
    text = "\n".join(parts) + "\n"
    return cells.write_results(folder, text, figure(rows))


def _missing_seeds(rows: Sequence[Row]) -> str:
    """Which targets have fewer seeds than the others so far."""
    seeds = {target: len({row.seed for row in many}) for target, many in by_target(rows).items()}
    fewer = ", ".join(
        f"{target} ({count})" for target, count in seeds.items() if count < max(seeds.values())
    )
    return (
        f"Not all is measured yet: of {max(seeds.values())} seeds there are fewer for {fewer}."
        if fewer
        else ""
    )


def step_time(folder: Path) -> list[str]:
    """What the restriction costs, from rounds in which both rules took turns; nothing where that
    was not measured.
    """
    path = folder / "step-time.json"
    if not path.exists():
        return []
    seconds = json.loads(path.read_text(encoding="utf-8"))["values"]
    ratios = [
        100 * (ours / theirs - 1)
        for ours, theirs in zip(seconds[RESTRICTED], seconds[SUM], strict=True)
    ]
    mean, low, high = mean_interval(ratios)
    return [
        f"A step under the restricted gradient takes {mean:+.1f} % ({low:+.1f} to {high:+.1f}) more"
        f" time than under the weighted sum, {statistics.median(seconds[RESTRICTED]):.2f} s against"
        f" {statistics.median(seconds[SUM]):.2f} s: {len(ratios)} rounds in turn, equal batches."
    ]


INTRODUCTION = (
    "Means over targets and seeds, ± half of the 95 % Student interval; differences are paired by"
    " target and seed. All arms share batch sizes, steps and number of retain pictures. UA is the"
    " share of held-out forget pictures in which the judge no longer sees the concept; RA lost is"
    " against the original model on the same prompts and seeds. A loss rises when the step really"
    " taken raises it to first order on its own batch."
)

FIGURE = Path(__file__).with_name("figure.svg")


def figure(rows: Sequence[Row]) -> str:
    """Class removal: forgetting and what was kept, by arm, with 95 % intervals, as an SVG."""
    arms = []
    for arm in dict.fromkeys(row.arm for row in rows if "class" in row.tasks):
        mine = [row for row in rows if "class" in row.tasks and row.arm == arm]
        ua = _mark([row.ua for row in mine], lambda v: 200 + 2.4 * min(max(v, 0), 100), "#d96a10")
        kept = _mark(
            [row.ra_loss for row in mine], lambda v: 510 + 2.4 * min(max(v, -5), 95), "#2a86d1"
        )
        arms.append({"name": arm, "marks": [ua, kept]})
    ticks = [(200 + 2.4 * v, v) for v in (0, 50, 100)] + [
        (510 + 2.4 * v, v) for v in (0, 25, 50, 75)
    ]
    return Template(FIGURE.read_text(encoding="utf-8")).render(arms=arms, ticks=ticks)


def _mark(
    values: Sequence[float], place: Callable[[float], float], colour: str
) -> tuple[float, float, float, str]:
    mean, low, high = mean_interval(values)
    return *(round(place(v), 1) for v in (low, mean, high)), colour
