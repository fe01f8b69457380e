"""Benchmark cells: one JSON file per measurement, kept when a benchmark is killed and resumed.

A cell names the machine and versions that it was measured with; they stand once, beside the tables.
"""

import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from jinja2 import Template

from ..common.atomic_files import write_bytes
from ..common.json_values import to_json
from ..common.paths import POCKET, ROOT
from ..models.device import choose_device
from ..models.diffusers.model_folder import hash_weights
from ..runs.provenance import environment, peak_memory_gb

Job = TypeVar("Job")
Panel = tuple[str, int, Mapping[str, Sequence[tuple[float, float]]]]
CURVES = Path(__file__).with_name("curves.svg")
"""Panels of curves, as a template."""
HASH_LENGTH = 64
"""Of a model in the record of a cell, where "base" may also name a method."""
QUOTED = {
    "judge": "Right answers, and where both judges say the same",
    "paper1": "What the paper claims",
    "paper2": "What is claimed",
    "paper3": "In short",
    "lab": "Models whose truth is known",
}
"""The section of each report whose last table README quotes."""
SMOKE = {
    "unlearn.steps": 2,
    "unlearn.train_pictures": 4,
    "unlearn.batch_size": 2,
    "resist.steps": 1,
    "resist.batch_size": 2,
    "attack.steps": 2,
    "attack.pictures": 2,
    "attack.batch_size": 2,
    "compare.forget": 2,
    "compare.near": 1,
    "compare.far": 1,
    "compare.sampling_steps": 2,
}
"""Settings that show that a benchmark works and not what it measures."""


def cell(
    folder: Path, name: str, config: dict[str, Any], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The stored values of cell `name`, measured now unless a cell with the same config is there
    already.
    """
    return grown(folder, name, config, lambda values: values or measure())


def grown(
    folder: Path,
    name: str,
    config: dict[str, Any],
    measure: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """The values of cell `name` after `measure` has added what it lacks; it is given those of the
    same config, or {}.

    `seconds` counts all that was ever spent on them; `peak_gb` is the most that the process had
    held until then.
    """
    path, wanted = folder / f"{name}.json", json.loads(json.dumps(to_json(config)))
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known, spent = (
        (stored["values"], stored["seconds"]) if stored.get("config") == wanted else ({}, 0.0)
    )
    started = time.perf_counter()
    values = json.loads(json.dumps(to_json(measure(known))))
    if values == known:
        return known
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "config": wanted,
        "values": values,
        "seconds": round(spent + time.perf_counter() - started, 2),
        "peak_gb": peak_memory_gb(),
        "status": "complete",
        "environment": _environment(folder.parent / "environments"),
    }
    write_bytes(path, _compact(record))
    return values


def own_share(jobs: Sequence[Job], model: Callable[[Job], Hashable]) -> list[Job]:
    """The jobs of this process when several share the work (`torchrun --nproc-per-node N -m
    unlearn_app bench ...`).

    Jobs of the same `model` stay together. To be asked before a model is loaded, because it gives
    each process its GPU. Nobody waits for the others: whoever ends last writes the whole table.
    """
    _commit()
    shared = PartialState(cpu=choose_device().type == "cpu", timeout=timedelta(days=30))
    models = list(dict.fromkeys(map(model, jobs)))
    own = set(models[shared.process_index :: shared.num_processes])
    return [job for job in jobs if model(job) in own]


def write_results(folder: Path, text: str, figure: str = "") -> str:
    """Write `NAME.md` and `NAME.svg` for the cells in `folder` into `assets/results`, or beside a
    folder elsewhere.

    The Markdown as written: where no cell is of the model that ships today, its first paragraph
    says so. README quotes those of `assets/results`.
    """
    folder = folder.resolve()
    title, _, rest = text.partition("\n")
    note = _earlier_model(folder)
    text = f"{title}\n\n{note}\n{rest}" if note else text
    out = folder.parents[1] / "results" if folder.parent.name == "experiments" else folder.parent
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / f"{folder.name}.md", text.encode())
    if figure:
        write_bytes(out / f"{folder.name}.svg", figure.encode())
    if out == ROOT / "assets" / "results" and folder.name in QUOTED:
        table = last_table(text, QUOTED[folder.name])
        quote_in_readme(folder.name, f"{note}\n\n{table}" if note else table)
    return text


def _earlier_model(folder: Path) -> str:
    """A sentence where the cells of `folder` were measured on another model than the one that ships
    today.
    """
    configs = [
        json.loads(path.read_text(encoding="utf-8"))["config"]
        for path in sorted(folder.glob("*.json"))
    ]
    named = {str(config.get("base_model") or config.get("base")) for config in configs}
    measured = {name for name in named if len(name) == HASH_LENGTH}
    if measured <= {hash_weights(POCKET / "pipeline")}:
        return ""
    return (
        "**Measured on an earlier edition of the bundled model, not on the one that ships today.**"
    )


def last_table(text: str, section: str) -> str:
    """The last table under the heading `section` of a Markdown text; empty where there is none."""
    within = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    tables = [part.strip() for part in within.split("\n\n") if part.strip().startswith("|")]
    return tables[-1] if tables else ""


def quote_in_readme(name: str, table: str) -> None:
    """Put a table between its markers in README, so that the two cannot drift apart."""
    readme, (begin, end) = (
        ROOT / "README.md",
        (f"<!-- {name} table: {word} -->" for word in ("begin", "end")),
    )
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    write_bytes(readme, f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}".encode())


def drawn(panels: Sequence[Panel], colours: Mapping[str, str], unit: str) -> str:
    """Panels of curves over `unit`, in percent, as an SVG: each has a title, a row and its lines by
    name.
    """
    places: dict[int, int] = {}
    made = []
    for title, row, lines in panels:
        places[row] = places.get(row, -1) + 1
        last = max((x for points in lines.values() for x, _ in points), default=1) or 1
        paths = [
            {
                "colour": colours[name],
                "points": " ".join(
                    f"{40 + 200 * x / last:.1f},{150 - 1.2 * y:.1f}" for x, y in points
                ),
            }
            for name, points in lines.items()
        ]
        made.append(
            {
                "name": title,
                "left": 270 * places[row],
                "top": 190 * row,
                "lines": paths,
                "last": last,
            }
        )
    return Template(CURVES.read_text(encoding="utf-8")).render(
        panels=made, colours=colours, unit=unit
    )


def short_hash(value: Any) -> str:
    """Sixteen digits that change with any part of `value`, for what a cell depends on."""
    return hashlib.sha256(json.dumps(to_json(value)).encode()).hexdigest()[:16]


def share(right: str) -> str:
    """The share of ones in a row of 0 and 1."""
    return f"{right.count('1') / len(right):.0%}"


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _environment(folder: Path) -> str:
    """Write this machine, its versions and the commit into `folder`, and return the name they stand
    under.
    """
    known = environment(None, None) | {"commit": _commit()}
    content = _compact(
        {name: value for name, value in known.items() if value is not None and name != "judge_note"}
    )
    name = hashlib.sha256(content).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.json", content)
    return name


@functools.cache
def _commit() -> str | None:
    """The commit whose code this process has loaded, with a plus sign where that was changed
    since.
    """
    try:
        head, changed = (
            subprocess.run(
                ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "-uno", "--", "unlearn_app"),
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)
