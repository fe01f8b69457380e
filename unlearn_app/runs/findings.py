"""What attacks found out about a run, kept beside it in `RUN/attacks/KIND/`, then `KIND-2/`: a
record and pictures.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ..common.atomic_files import whole_folder, write_bytes
from ..common.errors import OutputError
from ..common.json_values import to_json
from ..evaluation.finding import Finding
from ..evaluation.verdict import Evidence, judge_run
from ..settings.events import Verdict
from .folder import Run

SCHEMA = "unlearn-finding/1"
FOLDER, RECORD = "attacks", "finding.json"


def record_of(finding: Finding) -> dict[str, Any]:
    """A finding as it is written, without its place."""
    record = {
        item.name: to_json(getattr(finding, item.name))
        for item in fields(Finding)
        if item.name != "folder"
    }
    return {"schema": SCHEMA} | record


def write_finding(run: Path, finding: Finding, images: dict[str, Image]) -> Path:
    """Put a finding and its pictures, by file name, beside a run and beside earlier ones of its
    kind.

    Raises:
        OutputError: it cannot be written.
    """
    names = (f"{finding.kind}{f'-{row}' if row > 1 else ''}" for row in itertools.count(1))
    target = next(run / FOLDER / name for name in names if not (run / FOLDER / name).exists())
    with whole_folder(target) as partial:
        for name, image in images.items():
            image.save(partial / name)
        content = json.dumps(record_of(finding), indent=1, allow_nan=False)
        write_bytes(partial / RECORD, content.encode())
    return target


def read_findings(run: Path) -> list[Finding]:
    """All findings beside a run, by the names of their folders.

    Raises:
        OutputError: one cannot be read.
    """
    return [_read(path) for path in sorted((run / FOLDER).glob(f"*/{RECORD}"))]


def _read(path: Path) -> Finding:
    unreadable = OutputError(f"There is no readable finding in {str(path.parent)!r}.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.pop("schema") != SCHEMA:
            raise unreadable
        lists = {name: tuple(record.pop(name)) for name in ("hits", "first", "pictures")}
        found = Finding(**record, **lists, folder=path.parent)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable from error
    if missing := [
        picture for picture in found.pictures if not (found.folder / picture["file"]).is_file()
    ]:
        raise OutputError(
            f"The finding in {str(path.parent)!r} is damaged: {missing[0]['file']} is missing."
        )
    return found


def judge_again(run: Run, findings: Sequence[Finding]) -> Verdict:
    """The verdict on a stored run with what attacks have found out since."""
    if run.status != "complete" or not findings:
        return run.verdict
    curve = [(step, groups["forget"].accuracy) for step, groups, _ in run.curve]
    judged = all(accuracy is not None for _, accuracy in curve)
    reached = {name: points[max(points)].accuracy for name, points in run.controls.items()}
    known = {name: share for name, share in reached.items() if share is not None}
    return judge_run(
        run.scores,
        Evidence(run.config.attack.steps, curve if judged else (), run.base, known, findings),
    )
