"""Copies of a run's files under names worth keeping."""

import shutil
from dataclasses import fields
from pathlib import Path

from PIL import Image

from ..events import Picture
from ..ledger import slug
from ..runs import Run
from ..strip import comparison_strip, heading

KINDS = ("adapter", "strip", "folder")


def exports(folder: Path, into: Path) -> dict[str, Path | None]:
    """The adapter, the comparison strip and the zipped folder, each None when the run has none; made once.

    The strip is drawn from the pictures where the folder keeps none, as those that ship with the app.
    """
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
        elif kind == "strip" and run.pictures and not target.exists():
            _strip(run).save(target)
    return {kind: target if target.exists() else None for kind, (_, target) in sources.items()}


def _strip(run: Run) -> Image.Image:
    pictures = []
    for stored in run.pictures:
        known = {item.name: getattr(stored, item.name) for item in fields(stored) if item.name != "path"}
        with Image.open(stored.path) as image:
            pictures.append(Picture(image=image.convert("RGB"), **known))
    return comparison_strip(*heading(run.config, run.record["concept"]["name"], run.verdict.label), pictures)
