"""From the rows of paper 2 to tables and the figure of relearn curves."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evaluation.relearn_curve import area_under
from ..evaluation.statistics import mean_interval
from ..evaluation.verdict import steps_to_recovery
from . import cells
from .paper2_claims import CLAIMS, Pair, Row, by_target, judged, read_rows, target_mean
from .paper2_grid import (
    BASES,
    FAST_META,
    FAST_PLAIN,
    FRESH,
    HARMLESS,
    M0,
    MARKS,
    META,
    ORIGINAL,
    PLAIN,
    STRONG,
)
from .paper2_why import INTRODUCTION, TRIED, scope


def curve_line(
    name: str, rows: Sequence[Row], known: Mapping[Pair, float], marks: Sequence[int] = MARKS
) -> str:
    """Means over targets by mark, area under the curve, steps to 80 % of what the original shows
    (`known`), the rest.

    A curve that never gets there counts as beyond its last step; without the original's share, 80 %
    of the pictures.
    """
    cells, last = [name], min(row.last for row in rows)
    for step in marks:
        seen = [row for row in rows if step in row.forget]
        cells.append(_share(seen, step, aligned=step in (0, marks[-1])) if seen else "")
    curves = {row.pair: sorted(row.forget.items()) for row in rows}
    if last:
        cells.append(
            f"{target_mean({pair: area_under(curve) for pair, curve in curves.items()}):.0f}"
        )
        steps = [steps_to_recovery(curve, known.get(pair, 100.0)) for pair, curve in curves.items()]
        middle = statistics.median(math.inf if step is None else step for step in steps)
        reached = sum(step is not None for step in steps)
        cells.append(
            f"{f'{middle:.0f}' if math.isfinite(middle) else f'> {last}'} ({reached} of"
            f" {len(steps)})"
        )
    else:
        cells += ["", ""]
    for group in ("near", "far"):
        ends = sorted({0, last})
        shares = [
            f"{target_mean({row.pair: getattr(row, group)[at] for row in rows}):.0f}" for at in ends
        ]
        aligned = [
            f"{target_mean({row.pair: row.alignment[group][at] for row in rows}):.2f}"
            for at in ends
        ]
        cells.append(f"{' → '.join(shares)} ({' → '.join(aligned)})")
    return "| " + " | ".join([*cells, str(len(rows))]) + " |"


def _share(rows: Sequence[Row], step: int, aligned: bool) -> str:
    """The mean share of the concept at `step`, its interval from three targets on, and the mean
    alignment.
    """
    values = by_target({row.pair: row.forget[step] for row in rows})
    mean, low, high = mean_interval(values)
    half = f" ± {(high - low) / 2:.0f}" if len(values) > 2 else ""
    alignment = (
        target_mean({row.pair: row.alignment["forget"][step] for row in rows}) if aligned else 0.0
    )
    return f"{mean:.0f}{half}" + (f" ({alignment:.2f})" if aligned else "")


def head(marks: Sequence[int]) -> str:
    """The first two lines of a table of curves."""
    names = [
        "defence, attack",
        "before",
        *(f"{step} steps" for step in marks[1:]),
        "area",
        "steps to 80 %",
    ]
    names += ["relatives", "everything else", "cells"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def write_results(folder: Path) -> str:
    """Write `NAME.md` and `NAME.svg` for the cells in `folder` into `assets/results`, or beside a
    folder elsewhere.
    """
    rows = read_rows(folder)
    known = {row.pair: row.forget[0] for row in rows if row.base == ORIGINAL}
    marks = [step for step in MARKS if any(step in row.forget for row in rows)] or [0]
    bases = [base for base in BASES if any(row.base == base for row in rows)]
    parts = ["# Paper 2 (2410.12777) on PocketCanvas", "", INTRODUCTION + _without(rows, known), ""]
    parts += [
        "## What was measured",
        "",
        scope({row.job for row in rows}, max((r.last for r in rows), default=0)),
        "",
    ]
    parts += [
        f"![How often the concept is back, over the steps of each attack]({folder.name}.svg)",
        "",
    ]
    originals = [row for row in rows if row.base == ORIGINAL]
    for base in [*bases, FRESH]:
        mine = [row for row in rows if row.base == base]
        groups = {
            (r.defence, r.attack): [
                o for o in mine if (o.defence, o.attack) == (r.defence, r.attack)
            ]
            for r in mine
        }
        ends = {
            name: target_mean({row.pair: row.forget[row.last] for row in some})
            for name, some in groups.items()
        }
        ranked = sorted(groups.items(), key=lambda item: (item[0][1] == HARMLESS, -ends[item[0]]))
        parts += [f"## {base}", "", head(marks)]
        parts += (
            [curve_line(ORIGINAL, originals, known, marks)] if originals and base != FRESH else []
        )
        parts += [curve_line(", ".join(name), some, known, marks) for name, some in ranked] + [""]
    parts += [
        "## What is claimed",
        "",
        "| claim | base | means, and their paired difference | verdict |",
    ]
    parts += [
        "|---|---|---|---|",
        *(judged(claim, rows, base) for base in bases for claim in CLAIMS),
        "",
    ]
    text = "\n".join([*parts, "## What was tried for the bar", "", TRIED]) + "\n"
    return cells.write_results(folder, text, figure(rows))


def _without(rows: Sequence[Row], known: Mapping[Pair, float]) -> str:
    """A sentence on the targets and seeds whose share of the original is not measured; empty where
    there are none.
    """
    pairs = {row.pair for row in rows if row.base in BASES}
    missing = len(pairs - known.keys())
    said = (
        f"The original is not measured yet for {missing} of {len(pairs)} pairs of target and seed"
    )
    return f"\n\n{said}: there the steps are those to 80 % of the pictures." if missing else ""


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
    mine = [row for row in rows if row.base == next((r.base for r in rows if r.base in BASES), "")]
    panels: list[cells.Panel] = []
    for attack in dict.fromkeys(row.attack for row in mine):
        lines = {}
        for defence in dict.fromkeys(row.defence for row in mine):
            some = [row for row in mine if (row.attack, row.defence) == (attack, defence)]
            if some:
                means = {
                    step: target_mean({row.pair: row.forget[step] for row in some})
                    for step in some[0].forget
                }
                lines[defence] = list(means.items())
        panels.append((attack, 0, lines))
    return cells.drawn(panels, COLOURS, "steps")
