"""The files for download: copies of a run's files, its report, and pages that compare runs."""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gradio.utils import get_upload_folder
from PIL import Image

from ..common.atomic_files import replacement, write_bytes
from ..common.errors import ModelError, OutputError
from ..common.images import open_png, png_bytes
from ..continual.ledger import slug
from ..models.diffusers.adapter_files import converted
from ..runs.compare_runs import comparison_html
from ..runs.comparison_strip import comparison_strip, heading
from ..runs.findings import FOLDER
from ..runs.folder import ADAPTER, FOR_OTHERS, Run
from ..runs.report import open_run, write_report
from ..service.jobs import folder_size
from .share import picture_card


def download_folder(owner: str) -> Path:
    """The folder for the downloads of `owner`, the name of a run's or a visitor's folder.

    Gradio serves files from there directly; files elsewhere it copies, and keeps the copies.
    """
    return Path(get_upload_folder()).resolve() / "downloads" / owner


def copied_bytes(owner: str) -> int:
    """The bytes of all downloads of `owner`."""
    return folder_size(download_folder(owner))


def exports(folder: Path, into: Path) -> dict[str, Path]:
    """Write the adapter in two formats, the comparison strip, the picture card, the zipped folder
    and the report of a run to `into`, as far as the run has them; return them by kind.

    Each is written once, card, report and zip again after an attack. The strip is drawn anew where
    the folder has none, as in the runs that ship with the app. The run's own files do not change.
    """
    run = Run.open(folder)
    name = slug(run.config.concept)[:40] or "concept"
    targets = {
        "adapter": into / f"{name}-unlearn.safetensors",
        "others": into / f"{name}-unlearn-comfyui.safetensors",
        "strip": into / f"{name}-comparison.png",
        "card": into / f"{name}-card.png",
        "folder": into / f"{name}-run.zip",
        "report": into / f"{name}-report.html",
    }
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    copied = {"adapter": ADAPTER, "others": FOR_OTHERS, "strip": "comparison.png"}
    for kind, file in copied.items():
        if (folder / file).is_file() and not targets[kind].exists():
            _copy_whole(folder / file, targets[kind])
    if (folder / ADAPTER).is_file() and not targets["others"].exists():  # an earlier version's run
        with suppress(ModelError):  # the file is damaged
            write_bytes(targets["others"], converted(folder / ADAPTER, "kohya"))
    if run.pictures and not targets["strip"].exists():
        with suppress(OutputError):  # a picture is damaged
            write_bytes(targets["strip"], png_bytes(_strip(run)))
    found, packed = folder / FOLDER, targets["folder"]
    if not packed.exists() or (
        found.is_dir() and found.stat().st_mtime_ns > packed.stat().st_mtime_ns
    ):
        if run.pictures:
            with suppress(OutputError):  # a picture is damaged
                write_bytes(targets["card"], png_bytes(picture_card(run)))
        _pack(run, into, targets)
    return {kind: target for kind, target in targets.items() if target.exists()}


def _pack(run: Run, into: Path, targets: Mapping[str, Path]) -> None:
    """Write the report, then the archive with it, both from a copy of the run."""
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        copy = _copy(run, Path(scratch) / run.folder.name)
        try:
            page, _ = write_report(copy.folder)
            _copy_whole(page, targets["report"])
        except OutputError:  # a run that was stopped early has nothing to report
            targets["report"].unlink(missing_ok=True)
        copy.zip(targets["folder"])


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file; a full disk leaves no part of it, which would be offered later."""
    with replacement(target) as partial:
        shutil.copyfile(source, partial)


def comparison(runs: Mapping[str, Path], into: Path) -> Path:
    """Write a page to `into` that compares the `runs`, folders by the names to show. It replaces
    the page there.

    Raises:
        OutputError: one of them cannot be compared.
    """
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        copies = [_copy(Run.open(path), Path(scratch) / name) for name, path in runs.items()]
        page = comparison_html([open_run(copy.folder) for copy in copies])
    content = page.encode()
    # Names are cut, and browsers keep what they have fetched: other pages get another address.
    mark = hashlib.sha256(content).hexdigest()[:8]
    target = into / f"{'-and-'.join(runs)[:80]}-{mark}.html"
    write_only(target, content)
    return target


def write_only(target: Path, content: bytes) -> None:
    """Write a download in place of all others of its kind in the folder."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(target, content)
    for other in target.parent.glob(f"*{target.suffix}"):
        if other != target:
            other.unlink(missing_ok=True)


def _copy(run: Run, to: Path) -> Run:
    to.mkdir(mode=0o700)
    for name in run.names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.folder / name, to / name)
    return replace(run, folder=to)


def _strip(run: Run) -> Image.Image:
    pictures = [
        replace(stored, image=open_png(stored.file).convert("RGB")) for stored in run.pictures
    ]
    name = (run.record["concept"] or {}).get("name", run.config.concept)
    return comparison_strip(*heading(run.config, name, run.verdict.label), pictures)
