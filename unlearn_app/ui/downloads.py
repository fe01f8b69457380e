"""Copies of a run's files under names worth keeping."""

import shutil
from pathlib import Path

from ..ledger import slug
from ..runs import Run

KINDS = ("adapter", "strip", "folder")


def exports(folder: Path, into: Path) -> dict[str, Path | None]:
    """The adapter, the comparison strip and the zipped folder, each None when the run has none; made once."""
    run = Run.open(folder)
    name = slug(run.config.concept)[:40] or "concept"
    sources = {
        "adapter": (folder / "unlearn.safetensors", into / f"{name}-unlearn.safetensors"),
        "strip": (folder / "comparison.png", into / f"{name}-comparison.png"),
        "folder": (folder / "run.json", into / f"{name}-run.zip"),
    }
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    for kind, (source, target) in sources.items():
        if kind == "folder" and not target.exists():
            run.zip(target)
        elif source.is_file() and not target.exists():
            shutil.copyfile(source, target)
    return {kind: target if target.exists() else None for kind, (_, target) in sources.items()}
