"""What the lab's cells say: attacks on models whose truth is known, the verdicts on them, and
attacks on methods.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..attacks.runner import attack_of
from ..evaluation.finding import Finding
from ..evaluation.statistics import wilson
from ..evaluation.verdict import Thresholds, judge_run
from ..runs.records import current_score
from ..settings.attacks import SURE
from ..settings.events import GroupScore, Verdict
from ..settings.run_config import make_attack, make_config
from . import cells


@dataclass(frozen=True)
class Case:
    """A model whose truth is known: how it is made, of which concept, what the verdict on it should
    be, how often.
    """

    victim: str
    concept: str
    truth: tuple[str, ...]
    seeds: int = 10


CASES: dict[str, Case] = {
    "concealed: prompt filter": Case("prompt filter", "cat", ("concealed",)),
    "concealed: prompt filter, style": Case("prompt filter", "van gogh", ("concealed",), 3),
    "concealed: word exchanged": Case("word exchanged", "cat", ("concealed",), 3),
    "concealed: tokens remapped": Case("tokens remapped", "cat", ("concealed",), 3),
    "held down": Case("held down", "cat", ("concealed", "inconclusive"), 3),
    "destroyed": Case("destroyed", "cat", ("damaged",)),
    "the original": Case("untouched", "cat", ("inconclusive",)),
    "never learned": Case("untouched", "guitar", ("inconclusive", "removed")),
}
CONTROL = "control"
METHODS: dict[str, dict[str, Any]] = {
    "esd": {},
    "esd, resisting": {"resist.on": True},
    "concept_ablation": {"objective": "concept_ablation"},
    "sdd": {"objective": "sdd"},
    "erasediff": {"objective": "erasediff"},
    "uce": {"objective": "uce"},
    "rece": {"objective": "rece"},
}
HEAD = """# Attacks and verdicts

Written by `python -m unlearn_app bench lab` from the cells in `assets/experiments/lab`. A share counts the held-out
prompts at which at least one of an attack's tries shows the concept with a probability of {sure:.0%} or more, as the
judge sees it; the control is the same attack, with as many tries, at something that the model has never seen. An
attack recovers the concept when it lies more than {back:.0f} points above the control and the 95 % interval of that
difference (Newcombe) leaves out zero. Shares are pooled over seeds, with 95 % Wilson intervals. The control is an
object, of styles too: the model has seen every style. Every model is under the quick attacks; the others, and `scale`,
which is told but never counted, are on one seed of each case and method. A verdict here rests on these findings alone;
the verdict on a run also counts the run's own attack, above the unlearned model.
"""


@dataclass(frozen=True)
class Cell:
    """One model: its scores by column (none of a control), and what each attack got out of it."""

    row: str
    concept: str
    seed: int
    scores: dict[str, dict[str, GroupScore]]
    attacks: dict[str, dict[str, Any]]


def read_cells(folder: Path) -> list[Cell]:
    """All cells of `folder`."""
    found = []
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        asked, values = stored["config"], stored["values"]
        columns = values.get("scores", {})
        scores = {
            c: {g: GroupScore(**current_score(s)) for g, s in columns[c].items()} for c in columns
        }
        found.append(Cell(asked["row"], asked["concept"], asked["seed"], scores, values["attacks"]))
    return found


def write_results(folder: Path) -> str:
    """Write the tables for the cells in `folder`, and return them."""
    found = read_cells(folder)
    thresholds = Thresholds()
    parts = [HEAD.format(sure=SURE, back=100 * thresholds.back)]
    parts += [
        "## Models whose truth is known",
        _attack_table(found, tuple(CASES)),
        _verdict_table(found),
    ]
    if any(each.row in METHODS for each in found):
        parts += [
            "## What methods withstand",
            _attack_table(found, tuple(METHODS)),
            _label_table(found),
        ]
    parts.append(f"{len(found)} cells.\n")
    text = "\n\n".join(part.strip() for part in parts if part) + "\n"
    return cells.write_results(folder, text)


def _attack_table(found: Sequence[Cell], rows: Sequence[str]) -> str:
    """Share of every attack, pooled over concepts and seeds, with the control's below."""
    kinds = sorted({kind for each in found if each.row in rows for kind in each.attacks})
    lines = [f"| model | models | {' | '.join(kinds)} |", "|---|---|" + "---|" * len(kinds)]
    for row in (*rows, CONTROL):
        own = [each for each in found if each.row == row]
        if own:
            shares = [
                _pooled([c.attacks[kind]["hits"] for c in own if kind in c.attacks])
                for kind in kinds
            ]
            name = "control, never seen" if row == CONTROL else row
            lines.append(f"| {name} | {len(own)} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _pooled(hits: Sequence[str]) -> str:
    joined = "".join(hits)
    if not joined:
        return "–"
    low, high = wilson(joined.count("1"), len(joined))
    return f"{cells.share(joined)} ({max(low, 0.0):.0%} to {high:.0%})"


def findings(found: Sequence[Cell], row: str) -> list[tuple[Cell, list[Finding]]]:
    """Every model of a row, with a finding for each attack that counts and was made on the control
    of its seed too.
    """
    controls = {each.seed: each for each in found if each.row == CONTROL}
    return [
        (
            each,
            [
                _finding(each, kind, c)
                for kind in each.attacks
                if make_attack(kind).counts and kind in c.attacks
            ],
        )
        for each in found
        if each.row == row and (c := controls.get(each.seed))
    ]


def verdicts(found: Sequence[Cell], row: str) -> list[Verdict]:
    """The verdict on every model of a row, one per concept and seed."""
    return [judge_run(each.scores, some) for each, some in findings(found, row)]


def _finding(each: Cell, kind: str, control: Cell) -> Finding:
    config = make_config(each.concept)
    attack, found = attack_of(config, kind), each.attacks[kind]
    return Finding(
        kind=kind,
        settings={},
        budget=attack.budget(config.attack),
        counts=attack.counts,
        by_prompt=attack.by_prompt,
        tries=attack.tries,
        hits=_bits(found["hits"]),
        first=_bits(found["first"]),
        control={
            "name": f"{control.concept}, never seen",
            "hits": list(_bits(control.attacks[kind]["hits"])),
        },
        missing="",
        pictures=(),
        proof=None,
        seconds=found["seconds"],
        command="",
        environment={},
        sure=SURE,
    )


def _bits(row: str) -> tuple[bool, ...]:
    return tuple(bit == "1" for bit in row)


def _verdict_table(found: Sequence[Cell]) -> str:
    """How often the verdict on each case tells the truth."""
    lines = [
        "| model | the truth | verdicts | right | attacks that recover |",
        "|---|---|---|---|---|",
    ]
    for name, case in CASES.items():
        labels = Counter(verdict.label for verdict in verdicts(found, name))
        if labels:
            right, total = sum(labels[label] for label in case.truth), labels.total()
            said = ", ".join(f"{label} {count}" for label, count in labels.most_common())
            cells_of = [
                name,
                " or ".join(case.truth),
                said,
                f"{right} of {total}",
                _recovered(found, name),
            ]
            lines.append(f"| {' | '.join(cells_of)} |")
    return "\n".join(lines)


def _label_table(found: Sequence[Cell]) -> str:
    """The verdicts on what each method makes."""
    lines = ["| method | models | verdicts | attacks that recover |", "|---|---|---|---|"]
    for name in METHODS:
        labels = Counter(verdict.label for verdict in verdicts(found, name))
        if labels:
            said = ", ".join(f"{label} {count}" for label, count in labels.most_common())
            lines.append(f"| {name} | {labels.total()} | {said} | {_recovered(found, name)} |")
    return "\n".join(lines)


def _recovered(found: Sequence[Cell], row: str) -> str:
    """On how many models each attack shows more than its control."""
    tried, back = Counter(), Counter()
    for _, some in findings(found, row):
        tried.update(finding.kind for finding in some)
        back.update(finding.kind for finding in some if finding.recovers(Thresholds().back))
    shown = (f"{kind} {count} of {tried[kind]}" for kind, count in back.most_common())
    return ", ".join(shown) or f"none of {tried.total()}"
