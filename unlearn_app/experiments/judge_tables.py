"""What the judges' cells say: a report on accuracy, calibration, confusion, agreement and strange
pictures.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.statistics import wilson
from ..settings.attacks import SURE
from . import cells

BINS = 50
SHOWN_BINS = 10
STRANGE = (
    "noise",
    "one colour",
    "tiles shuffled",
    "two pictures in one",
    "no object asked for",
    "a destroyed model",
)
KNOWN = {
    "renderings": "renderings no training has seen",
    "generated": "pictures by the original model",
    "never-seen": "renderings of the four objects the model was never shown",
}
HEAD = f"""# The judges

Written by `python -m unlearn_app bench judge` from the cells in `assets/experiments/judge`. Two judges of the bundled
world: `pocket-judge`, convolutions with a word tower, which gives every score and verdict, and `pocket-second`, a small
vision transformer, which checks it. Both learned from disturbed renderings, never from what the model paints. Intervals
are 95 % Wilson. An attack's try counts from a probability of {SURE:.0%} on, a picture of a comparison from the best
guess on.
"""


def write_results(folder: Path) -> str:
    """Write the report for the cells in `folder`, and return it."""
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))["values"]
        for path in folder.glob("*.json")
    }
    known = {name: found[name] for name in KNOWN if name in found}
    parts = [HEAD]
    if known:
        parts += ["## Right answers, and where both judges say the same", _accuracies(known)]
        parts += ["## Is a probability of 80 % right in 80 %?", _calibration(known)]
        parts += ["## Most frequent confusions of objects", _confusions(known)]
    if "strange" in found:
        parts += ["## Pictures that show no object, or none that can be told", _rejections(found)]
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    return cells.write_results(folder, text)


def _accuracies(known: Mapping[str, Any]) -> str:
    names = list(next(iter(known.values()))["judges"])
    lines = [
        f"| pictures | axis | {' | '.join(names)} | alike |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for name, values in known.items():
        for axis, alike in values["alike"].items():
            shares = [
                _share(values["judges"][judge][axis]["right"], values["n"]) for judge in names
            ]
            lines.append(
                f"| {KNOWN[name]} | {axis} | {' | '.join(shares)} | {_share(alike, values['n'])} |"
            )
    return (
        "\n".join(lines)
        + "\n\n"
        + ", ".join(f"{KNOWN[name]}: {v['n']}" for name, v in known.items())
        + "."
    )


def _share(right: int, n: int) -> str:
    low, high = wilson(right, n)
    return f"{right / n:.1%} ({low:.1%} to {high:.1%})"


def calibration_error(stored: Mapping[str, Any]) -> float:
    """Expected calibration error over `SHOWN_BINS` bins: mean distance of probability and share of
    right answers.

    1706.04599, with the middle of each of the finer `BINS` for the probabilities in it.
    """
    rows = coarse(stored)
    total = sum(n for n, _, _ in rows)
    return sum(n / total * abs(mean - share) for n, mean, share in rows if n)


def coarse(stored: Mapping[str, Any]) -> list[tuple[int, float, float]]:
    """Pictures, mean probability and share of right answers by bin of probability, empty ones with
    zeros.
    """
    width, rows = BINS // SHOWN_BINS, []
    for start in range(0, BINS, width):
        counts, right = (
            stored["bins"][start : start + width],
            sum(stored["right_bins"][start : start + width]),
        )
        n = sum(counts)
        middle = sum(count * (start + place + 0.5) / BINS for place, count in enumerate(counts))
        rows.append((n, middle / n, right / n) if n else (0, 0.0, 0.0))
    return rows


def _calibration(known: Mapping[str, Any]) -> str:
    lines = [
        "| pictures | judge | object: error | style: error | object, by probability: right of"
        " pictures |"
    ]
    lines.append("|---|---|---|---|---|")
    for name, values in known.items():
        for judge, axes in values["judges"].items():
            errors = [
                f"{100 * calibration_error(axes[axis]):.1f} points" for axis in ("object", "style")
            ]
            rows = enumerate(coarse(axes["object"]))
            bins = [
                f"{row * 10}–{row * 10 + 10} %: {share:.0%} of {n}"
                for row, (n, _, share) in rows
                if n
            ]
            lines.append(f"| {KNOWN[name]} | {judge} | {' | '.join(errors)} | {', '.join(bins)} |")
    note = "The error is the expected calibration error over ten bins."
    return "\n".join(lines) + f"\n\n{note}"


def _confusions(known: Mapping[str, Any]) -> str:
    lines = ["| pictures | judge | asked for → seen, how often |", "|---|---|---|"]
    for name, values in known.items():
        for judge, axes in values["judges"].items():
            worst = [
                f"{wanted} → {seen} {count}"
                for wanted, seen, count in axes["object"]["confused"][:6]
            ]
            lines.append(f"| {KNOWN[name]} | {judge} | {', '.join(worst) or 'none'} |")
    return "\n".join(lines)


def _rejections(found: Mapping[str, Any]) -> str:
    strange, generated = found["strange"], found.get("generated", {}).get("judges", {})
    names = list(next(iter(strange["bins"].values())))
    heads = [f"{name}: {what}" for name in names for what in ("refused", "AUROC")]
    lines = [f"| what is shown | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for kind in STRANGE:
        row = []
        for name in names:
            bins = strange["bins"][kind][name]
            row.append(_share(sum(bins[: round(SURE * BINS)]), sum(bins)))
            row.append(
                f"{auroc(generated[name]['object']['bins'], bins):.2f}"
                if name in generated
                else "–"
            )
        lines.append(f"| {kind} | {' | '.join(row)} |")
    sure = [
        f"{name}"
        f" {_share(sum(axes['object']['bins'][: round(SURE * BINS)]), sum(axes['object']['bins']))}"
        for name, axes in generated.items()
    ]
    note = (
        f"Refused: the likeliest object has less than {SURE:.0%}. AUROC: how often a picture by the"
        " original gets a higher probability than one of these; 0.5 is chance."
    )
    return (
        "\n".join(lines)
        + f"\n\n{note} Of the original's own pictures are refused: {', '.join(sure) or '–'}."
    )


def auroc(known: Sequence[int], strange: Sequence[int]) -> float:
    """Probability that a draw of the histogram `known` lies above one of `strange`, ties as halves
    (Mann-Whitney).
    """
    below, won = 0, 0.0
    for mine, other in zip(known, strange, strict=True):
        won += mine * (below + other / 2)
        below += other
    return won / (sum(known) * sum(strange))
