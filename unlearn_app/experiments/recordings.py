"""The recorded runs and the recorded ledger that ship with the page: what is recorded, and how it
is made small.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..attacks.runner import result_of
from ..common import registry
from ..common.atomic_files import replacement, write_bytes
from ..common.images import open_png
from ..common.json_values import json_text
from ..common.new_folder import reserved
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
"""Folders of recorded runs, with what is asked for beyond a click on the button: nothing, where the
folder is named as the concept. Things and styles that come back, a ship with which other things go,
a defence, and a method without training.
"""
REQUESTS = ("cat", "van gogh", "dog")
"""What the recorded ledger forgets, one after the other."""
PANEL = (
    *("cat", "dog", "rabbit", "bear", "car", "pizza", "rose", "robot"),
    *("van gogh", "watercolor", "pointillism", "neon", "sketch", "photo"),
)
"""What it is judged on, part of what a new ledger is."""
COLORS = 128
"""Colours of a recorded picture: on average 3 of 255 from what was sampled, at half the size."""
LEFT_OUT = ("relearn.safetensors", FOR_OTHERS, "comparison.png")
"""Files of a run that the page does not show, or makes again from the others."""


def record_missing(extent: Extent) -> Iterator[str]:
    """Record what is not there yet, and yield lines to print; delete a folder to make it again.

    Raises:
        OutputError: another process is recording the next one.
    """
    model, shipped = load_model(), ASSETS / "recorded"
    if extent.smoke:
        shipped = extent.out / "recorded-smoke"
    for name in RUNS:
        if not (shipped / name).exists():
            with reserved(shipped / name):
                record_run(shipped / name, model, extent.smoke)
            yield f"{name}: {Run.open(shipped / name).verdict.label}"
    if not (shipped / "ledger").exists():
        with reserved(shipped / "ledger"):
            record_ledger(shipped / "ledger", model, extent.smoke)
        yield f"ledger: {', '.join(REQUESTS)}"


def record_run(folder: Path, model: Model, smoke: bool = False) -> float:
    """Replace a recorded run by a new one; the old one stays until it is there.

    Returns the seconds that it took to generate and judge a picture of the comparison.
    """
    asked = {"concept": folder.name} | dict(RUNS[folder.name]) | (SMOKE if smoke else {})
    with replacement(folder) as partial:
        result_of(run(make_config(**asked), partial, model=model))
        slim(partial, weights=folder.name == FIRST)
    compare = Run.open(folder).record["timing"]["compare_s"]
    return compare / sum(getattr(CompareConfig, group) for group in GROUPS)


def slim(folder: Path, weights: bool) -> None:
    """Keep of a run what the page shows: pictures in `COLORS` colours, and with `weights` the
    adapter that has forgotten.
    """
    for name in LEFT_OUT if weights else (*LEFT_OUT, ADAPTER):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / "images").glob("*.png"):
        few = open_png(path).convert("RGB").quantize(COLORS, dither=0)
        few.save(path, optimize=True)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    files = {name: folder / name for name in record["files"]}
    record["files"] = {name: sha256_of(path) for name, path in files.items() if path.exists()}
    text = json_text(record, ensure_ascii=False, separators=(",", ":"))
    write_bytes(folder / "run.json", text.encode())


def record_ledger(folder: Path, model: Model, smoke: bool = False) -> None:
    """Replace the recorded ledger by a new one with the settings that the page begins with; the old
    one stays until it is there.
    """
    hold = registry.world(DEFAULT_MODEL).regularization_preset(DEFAULT_SEQUENCE_OBJECTIVE)
    changes = {"objective": DEFAULT_SEQUENCE_OBJECTIVE} | request_settings(hold)
    changes |= SMOKE if smoke else {}
    plan = make_plan()
    with replacement(folder) as partial:
        Ledger.create(partial, make_config(REQUESTS[0], **changes), plan, PANEL)
        for name in REQUESTS[:1] if smoke else REQUESTS:
            result_of(run_request(make_config(name, **changes), plan, partial, model))
