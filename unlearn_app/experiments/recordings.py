"""The recorded runs and the recorded ledger that ship with the page: what is recorded, and how it
is made small.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..attacks.runner import result_of
from ..common import registry
from ..common.atomic_files import hidden_folder, write_bytes
from ..common.images import open_png
from ..common.json_values import json_text
from ..common.new_folder import reserved
from ..common.packed_folder import ENDING, pack
from ..common.paths import ASSETS
from ..common.record_files import sha256_of
from ..common.registry import DEFAULT_MODEL
from ..continual.ledger import Ledger
from ..continual.sequence import run_request
from ..models.catalog import load_model
from ..models.protocols import Model
from ..runs.folder import ADAPTER, FOR_OTHERS, Run
from ..runs.workflow import run
from ..settings.events import GROUPS
from ..settings.groups import CompareConfig
from ..settings.presets import DEFAULT_SEQUENCE_OBJECTIVE, request_settings
from ..settings.run_config import make_config, make_plan
from .cells import SMOKE, Extent

FIRST = "cat"
"""The run with which the page opens."""
RUNS: Mapping[str, Mapping[str, Any]] = {
    FIRST: {},
    "van-gogh": {"concept": "van gogh"},
    "ship": {},
    "pizza": {},
    "neon": {},
    "knife": {},
    "cat-defended": {"concept": "cat", "resist.on": True},
    "cat-in-closed-form": {"concept": "cat", "objective": "uce"},
}
"""Names of recorded runs, with what is asked for beyond a click on the button: nothing, where the
name is the concept. Things and styles that come back, a ship with which other things go, a defence,
and a method without training.
"""
REQUESTS = ("cat", "van gogh", "dog")
"""What the recorded ledger forgets, one after the other."""
PANEL = (
    *("cat", "dog", "rabbit", "bear", "car", "pizza", "rose", "robot"),
    *("van gogh", "watercolor", "pointillism", "neon", "sketch", "photo"),
)
"""What it is judged on, part of what a new ledger is."""
COLORS = 64
"""Colours of a recorded picture, few so that all recordings fit into what may ship."""
LEFT_OUT = ("relearn.safetensors", FOR_OTHERS, "comparison.png")
"""Files of a run that the page does not show, or makes again from the others."""
LEDGER = "ledger"


def record_missing(extent: Extent) -> Iterator[str]:
    """Record what is not there yet, and yield lines to print; delete an archive to make it again.

    Raises:
        OutputError: another process is recording the next one.
    """
    model, shipped = load_model(), ASSETS / "recorded"
    if extent.smoke:
        shipped = extent.out / "recorded-smoke"
    for name in RUNS:
        archive = packed_in(shipped, name)
        if not archive.exists():
            with reserved(archive):
                recorded = record_run(archive, model, extent.smoke)
            yield f"{name}: {recorded.verdict.label}"
    archive = packed_in(shipped, LEDGER)
    if not archive.exists():
        with reserved(archive):
            record_ledger(archive, model, extent.smoke)
        yield f"{LEDGER}: {', '.join(REQUESTS)}"


def packed_in(shipped: Path, name: str) -> Path:
    """The archive of a recorded run, or of the ledger, among those that ship."""
    return shipped / f"{name}{ENDING}"


def record_run(archive: Path, model: Model, smoke: bool = False) -> Run:
    """Replace a recorded run by a new one, which is returned; its files are in `archive` alone. The
    old one stays until it is there.
    """
    name = archive.name.removesuffix(ENDING)
    asked = {"concept": name} | dict(RUNS[name]) | (SMOKE if smoke else {})
    with hidden_folder(archive) as scratch:
        folder = scratch / name
        result_of(run(make_config(**asked), folder, model=model))
        slim(folder, weights=name == FIRST)
        pack(folder, archive)
        return Run.open(folder)


def pace_of(recorded: Run) -> float:
    """The seconds that it took to generate and judge a picture of the comparison."""
    compare = recorded.record["timing"]["compare_s"]
    return compare / sum(getattr(CompareConfig, group) for group in GROUPS)


def slim(folder: Path, weights: bool) -> None:
    """Keep of a run what the page shows: pictures in `COLORS` colours, and with `weights` the
    adapter that has forgotten.
    """
    for name in LEFT_OUT if weights else (*LEFT_OUT, ADAPTER):
        (folder / name).unlink(missing_ok=True)
    _reduce_colors((folder / "images").glob("*.png"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["files"] = _hashes(folder, record["files"])
    write_bytes(folder / "run.json", json_text(record, ensure_ascii=False).encode())


def slim_ledger(folder: Path) -> None:
    """Keep of a ledger what the page shows: pictures in `COLORS` colours, and no adapters."""
    for path in folder.glob("*/*.safetensors"):
        path.unlink()
    _reduce_colors(folder.glob("*/panel/*.png"))
    record = json.loads((folder / "ledger.json").read_text(encoding="utf-8"))
    for row in record["rows"]:
        row["files"] = _hashes(folder / row["folder"], row["files"])
    text = json_text(record | {"adapters": False}, ensure_ascii=False)
    write_bytes(folder / "ledger.json", text.encode())


def _reduce_colors(pictures: Iterable[Path]) -> None:
    """Reduce PNG files to `COLORS` colours, uncompressed: packed together they take less."""
    for path in pictures:
        few = open_png(path).convert("RGB").quantize(COLORS, dither=0)
        few.save(path, compress_level=0)


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The hashes of those files that are there."""
    return {name: sha256_of(folder / name) for name in names if (folder / name).exists()}


def record_ledger(archive: Path, model: Model, smoke: bool = False) -> None:
    """Replace the recorded ledger by a new one with the settings that the page begins with; the old
    one stays until it is there.
    """
    hold = registry.world(DEFAULT_MODEL).regularization_preset(DEFAULT_SEQUENCE_OBJECTIVE)
    changes = {"objective": DEFAULT_SEQUENCE_OBJECTIVE} | request_settings(hold)
    changes |= SMOKE if smoke else {}
    plan = make_plan()
    with hidden_folder(archive) as scratch:
        folder = scratch / LEDGER
        Ledger.create(folder, make_config(REQUESTS[0], **changes), plan, PANEL)
        for name in REQUESTS[:1] if smoke else REQUESTS:
            result_of(run_request(make_config(name, **changes), plan, folder, model))
        slim_ledger(folder)
        pack(folder, archive)
