"""What the lab's cells say: attacks on models whose truth is known, the verdicts on them, and
attacks on methods.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...attacks.runner import attack_of
from ...evaluation.finding import Finding
from ...evaluation.verdict import Thresholds, judge_run
from ...runs.records import current_score
from ...settings.attacks import SURE
from ...settings.events import GroupScore, Verdict
from ...settings.run_config import make_attack, make_config
from ..cells import read_cells
from ..tables import render, write_report


@dataclass(frozen=True)
class Case:
    """A model whose truth is known: how it is made, of which concept, what the verdict on it should
    be, how often.
    """

    model: str
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


@dataclass(frozen=True)
class AttackedResult:
    """One model: its scores by column (none of a control), and what each attack got out of it."""

    row: str
    concept: str
    seed: int
    scores: dict[str, dict[str, GroupScore]]
    attacks: dict[str, dict[str, Any]]


Results = Sequence[AttackedResult]


def read_results(folder: Path) -> list[AttackedResult]:
    """All measured models of `folder`."""
    return [_result(*stored) for stored in read_cells(folder).values()]


def _result(config: dict[str, Any], values: dict[str, Any]) -> AttackedResult:
    scores = {
        column: {group: GroupScore(**current_score(score)) for group, score in groups.items()}
        for column, groups in values.get("scores", {}).items()
    }
    return AttackedResult(
        config["row"], config["concept"], config["seed"], scores, values["attacks"]
    )


def write_results(folder: Path) -> str:
    """Write the report on the cells in `folder`, and return it."""
    found = read_results(folder)
    rows = {row: _of_row(found, row) for row in (*CASES, *METHODS, CONTROL)}
    text = render(
        "lab.md",
        sure=f"{SURE:.0%}",
        back=f"{100 * Thresholds().back:.0f}",
        cases=CASES,
        methods=METHODS,
        kinds={"cases": _kinds(found, CASES), "methods": _kinds(found, METHODS)},
        control=CONTROL,
        rows={row: own for row, own in rows.items() if own["models"]},
        count=len(found),
    )
    return write_report(folder, text)


def _of_row(found: Results, row: str) -> dict[str, Any]:
    """What the report says of all models of a row: hits by attack, how often each verdict, and on
    how many models each attack shows more than its control.
    """
    own = [each for each in found if each.row == row]
    hits: dict[str, str] = {}
    for each in own:
        for kind, attack in each.attacks.items():
            hits[kind] = hits.get(kind, "") + attack["hits"]
    judged = [finding for _, some in findings(found, row) for finding in some]
    back = Counter(finding.kind for finding in judged if finding.recovers(Thresholds().back))
    labels = Counter(verdict.label for verdict in verdicts(found, row))
    return {
        "models": len(own),
        "hits": hits,
        "labels": dict(labels.most_common()),
        "right": sum(labels[label] for label in CASES[row].truth) if row in CASES else 0,
        "tried": Counter(finding.kind for finding in judged),
        "back": dict(back.most_common()),
    }


def _kinds(found: Results, rows: Collection[str]) -> list[str]:
    return sorted({kind for each in found if each.row in rows for kind in each.attacks})


def findings(found: Results, row: str) -> list[tuple[AttackedResult, list[Finding]]]:
    """Every model of a row, with a finding for each attack that counts and was made on the control
    of its seed too.
    """
    controls = {each.seed: each for each in found if each.row == CONTROL}
    return [
        (
            each,
            [
                _finding(each, kind, control)
                for kind in each.attacks
                if make_attack(kind).counts and kind in control.attacks
            ],
        )
        for each in found
        if each.row == row and (control := controls.get(each.seed))
    ]


def verdicts(found: Results, row: str) -> list[Verdict]:
    """The verdict on every model of a row, one per concept and seed."""
    return [judge_run(each.scores, some) for each, some in findings(found, row)]


def _finding(each: AttackedResult, kind: str, control: AttackedResult) -> Finding:
    config = make_config(each.concept)
    attack, found = attack_of(config, kind), each.attacks[kind]
    hits = _bits(control.attacks[kind]["hits"])
    return Finding(
        kind=kind,
        settings={},
        budget=attack.budget(config.attack),
        counts=attack.counts,
        by_prompt=attack.by_prompt,
        tries=attack.tries,
        hits=_bits(found["hits"]),
        first=_bits(found["first"]),
        control={"name": f"{control.concept}, never seen", "hits": list(hits)},
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
