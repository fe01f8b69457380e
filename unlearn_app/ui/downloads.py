"""Copies of a run's files under names worth keeping, made for the visitor who asked."""

import re
import shutil
from pathlib import Path

from ..runs import Run

KINDS = ("adapter", "strip", "folder")


def exports(folder: Path, into: Path) -> dict[str, Path | None]:
    """The adapter, the comparison strip and the zipped folder, each None when the run has none."""
    run = Run.open(folder)
    name = re.sub(r"[^a-z0-9]+", "-", run.config.concept.lower()).strip("-")[:40] or "concept"
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    made: dict[str, Path | None] = {}
    for kind, source, target in (
        ("adapter", folder / "unlearn.safetensors", into / f"{name}-unlearn.safetensors"),
        ("strip", folder / "comparison.png", into / f"{name}-comparison.png"),
    ):
        made[kind] = Path(shutil.copyfile(source, target)) if source.is_file() else None
    archive = into / f"{name}-run.zip"
    run.zip(archive)
    made["folder"] = archive
    return made
