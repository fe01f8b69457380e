"""What attacks found out about a run, kept beside it in `RUN/attacks/KIND/`, then `KIND-2/`: a
record and pictures.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ..common.atomic_files import complete, hidden_folder, move_in, write_bytes
from ..common.errors import OutputError
from ..common.json_values import json_text, to_json
from ..common.record_files import check_files, damaged, inside, read_model, sha256_of
from ..evaluation.finding import AttackCurve, Finding
from ..evaluation.verdict import judge_run, recovery_rule
from ..settings.attacks import budget_of
from ..settings.events import Picture, Verdict
from .folder import Run
from .records import FINDING, current_finding
from .schema import FindingRecord

FOLDER, RECORD = "attacks", "finding.json"


def record_of(finding: Finding) -> dict[str, Any]:
    """A finding as it is written, without its place."""
    return {"schema": FINDING} | {
        item.name: to_json(getattr(finding, item.name))
        for item in fields(Finding)
        if item.name not in ("folder", "curve", "counted")
    }


def write_finding(run: Path, finding: Finding, images: dict[str, Image]) -> Path:
    """Put a finding and its pictures, by file name, beside a run and beside earlier ones of its
    kind.

    Raises:
        OutputError: it cannot be written; where there is room for the record alone, that is kept.
    """
    try:
        return _write(run, finding, images)
    except OutputError as error:
        if not images:
            raise
        _write(run, replace(finding, pictures=(), proof=None), {})
        raise OutputError(
            f"{error} What the attack {finding.kind} found is kept, without its pictures."
        ) from error


def _write(run: Path, finding: Finding, images: dict[str, Image]) -> Path:
    target = _place(run) / finding.kind
    with hidden_folder(target) as partial:
        for name, image in images.items():
            image.save(partial / name)
        hashes = {name: sha256_of(partial / name) for name in images}
        record = record_of(finding) | {"files": hashes}
        write_bytes(partial / RECORD, json_text(record, indent=1).encode())
        return move_in(partial, target)


def read_findings(run: Path) -> list[Finding]:
    """All findings beside a run, by the names of their folders.

    Raises:
        OutputError: one cannot be read, or a picture has changed since.
    """
    names = [path.relative_to(run).as_posix() for path in complete(_place(run), f"*/{RECORD}")]
    return [_read(inside(run, name, "run")) for name in names]


def _place(run: Path) -> Path:
    """The folder of the findings beside a run, which need not be there yet.

    Raises:
        OutputError: a link, which may lead anywhere, or something else stands in its place.
    """
    place = run / FOLDER
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise damaged(run, "run", f"{FOLDER} is no folder")
    return place


def _read(path: Path) -> Finding:
    record = read_model(path, FindingRecord, "finding", current_finding).model_dump()
    for name in [*(picture["file"] for picture in record["pictures"]), record["proof"]]:
        if name is not None:
            inside(path.parent, name, "finding")
    check_files(path.parent, record.pop("files"), "finding")
    return Finding(**record, folder=path.parent)


def own_findings(run: Run) -> list[Finding]:
    """The finding of the run's own attack, whose pictures are those of the third column; none where
    it was not run or not judged.
    """
    config = run.config
    shown = [p for p in run.pictures if (p.column, p.group) == ("relearned", "forget")]
    if not config.attack.steps or not shown or shown[0].correct is None:
        return []
    best = max((p for p in shown if p.correct), key=lambda p: p.alignment or 0.0, default=None)
    hits, curve = tuple(bool(p.correct) for p in shown), own_curve(run)
    right, n = curve.taught.marks.get(curve.steps, (0, 0)) if curve.taught else (0, 0)
    missing, control = "nobody has measured what this attack makes of something never seen", None
    if n:
        missing, control = "", {"name": f"{curve.taught.name}, never seen", "right": right, "n": n}
    return [
        Finding(
            kind="relearn",
            settings=to_json(config.attack),
            budget=budget_of(config.attack),
            counts=True,
            by_prompt=False,
            tries=1,
            hits=hits,
            first=hits,
            control=control,
            missing=missing,
            pictures=tuple(_as_try(run, picture) for picture in shown),
            proof=_file(run, best) if best else None,
            seconds=run.record.get("timing", {}).get("attack_s"),
            command=run.record.get("command") or config.command(),
            environment=run.record.get("environment", {}),
            sure=0.0,
            folder=run.folder,
            curve=curve,
        )
    ]


def own_curve(run: Run) -> AttackCurve:
    """The accuracies of the run's own attack by step; the run was judged."""
    scores = [(step, groups["forget"]) for step, groups, _ in run.curve]
    judges = set.intersection(*({*score.accuracies} for _, score in scores))
    reached = {name: line[max(line)].accuracy for name, line in run.controls.items()}
    return AttackCurve(
        steps=run.config.attack.steps,
        before=run.scores["unlearned"]["forget"].accuracy,
        points=tuple((step, score.accuracy) for step, score in scores),
        others={
            name: tuple((step, score.accuracies[name]) for step, score in scores)
            for name in sorted(judges)
        },
        taught=run.base,
        controls={name: share for name, share in reached.items() if share is not None},
        alone=bool(run.config.audited) and run.base is None and not reached,
    )


def _as_try(run: Run, picture: Picture) -> dict[str, Any]:
    """A picture of the third column as findings hold theirs."""
    return {
        "row": picture.index,
        "turn": 0,
        "asked": picture.prompt,
        "seed": picture.seed,
        "file": _file(run, picture),
        "alignment": picture.alignment,
        "predicted": picture.predicted,
        "correct": picture.correct,
        "judges": dict(picture.judges),
    }


def _file(run: Run, picture: Picture) -> str:
    return picture.file.relative_to(run.folder).as_posix()


def rule_of(run: Run, findings: Sequence[Finding]) -> str:
    """What counted as a recovery in a stored run with these findings beside its own."""
    return recovery_rule([*own_findings(run), *findings])


def judge_again(run: Run, findings: Sequence[Finding]) -> Verdict:
    """The verdict on a stored run with what attacks have found out since."""
    if run.status != "complete" or not findings:
        return run.verdict
    verdict = judge_run(run.scores, [*own_findings(run), *findings])
    return replace(verdict, reasons=(*run.record["notes"], *verdict.reasons))
