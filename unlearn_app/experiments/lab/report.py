"""The lab's report: attacks and verdicts on models whose true verdict is known, and attacks on
unlearned models.
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
from ...settings.run_config import make_attack
from ..cells import read_cells, settings
from ..tables import render, write_report


@dataclass(frozen=True)
class Case:
    """A model whose true verdict is known: its name for `known_outcome_model`, the concept, the
    verdicts that are true of it, and how many seeds it has.
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
    """One model: its scores by column (a control has none), and the result of each attack on it."""

    row: str
    concept: str
    seed: int
    scores: dict[str, dict[str, GroupScore]]
    attacks: dict[str, dict[str, Any]]


Results = Sequence[AttackedResult]


def read_results(folder: Path) -> list[AttackedResult]:
    """All measured models of `folder`."""
    results = []
    for config, values in read_cells(folder).values():
        scores = {
            column: {group: GroupScore(**current_score(score)) for group, score in groups.items()}
            for column, groups in values.get("scores", {}).items()
        }
        asked = config["row"], config["concept"], config["seed"]
        results.append(AttackedResult(*asked, scores, values["attacks"]))
    return results


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
    """What the report says of all models of a row: hits by attack, the number of models with each
    verdict, and on how many models each attack recovers the concept.
    """
    own = [each for each in found if each.row == row]
    judged = [finding for _, some in findings(found, row) for finding in some]
    back = Counter(finding.kind for finding in judged if finding.recovers(Thresholds().back))
    labels = Counter(verdict.label for verdict in verdicts(found, row))
    return {
        "models": len(own),
        "hits": {
            kind: "".join(each.attacks[kind]["hits"] for each in own if kind in each.attacks)
            for kind in _kinds(own, [row])
        },
        "labels": dict(labels.most_common()),
        "right": sum(labels[label] for label in CASES[row].truth) if row in CASES else 0,
        "tried": Counter(finding.kind for finding in judged),
        "back": dict(back.most_common()),
    }


def _kinds(found: Results, rows: Collection[str]) -> list[str]:
    return sorted({kind for each in found if each.row in rows for kind in each.attacks})


def findings(found: Results, row: str) -> list[tuple[AttackedResult, list[Finding]]]:
    """Every model of a row, with a finding for each attack that counts and was also made on the
    control with the same seed.
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
    config = settings(each.concept)
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
