"""Benchmark cells: one JSON file per measurement, kept when a benchmark is killed and resumed.

A cell names the machine and versions that it was measured with; they stand once, beside the tables.
"""

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

from ..backend import choose_device
from ..provenance import environment
from ..runs import to_json, write_bytes

Job = TypeVar("Job")
Panel = tuple[str, int, Mapping[str, Sequence[tuple[float, float]]]]
ROOT = Path(__file__).resolve().parents[2]
CURVES = Path(__file__).with_name("curves.svg")
"""Panels of curves, as a template."""


def cell(folder: Path, name: str, config: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The stored values of cell `name`, measured now unless a cell with the same config is there already."""
    path = folder / f"{name}.json"
    wanted = json.loads(json.dumps(to_json(config)))
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["config"] == wanted:
            return stored["values"]
    started = time.perf_counter()
    values = json.loads(json.dumps(to_json(measure())))
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "config": wanted,
        "values": values,
        "seconds": round(time.perf_counter() - started, 2),
        "environment": _environment(folder.parent / "environments"),
    }
    write_bytes(path, _compact(record))
    return values


def own_share(jobs: Sequence[Job], model: Callable[[Job], Hashable]) -> list[Job]:
    """The jobs of this process when several share the work (`torchrun --nproc-per-node N -m unlearn_app bench ...`).

    Jobs of the same `model` stay together. To be asked before a model is loaded, because it gives each process its GPU.
    Nobody waits for the others: whoever ends last writes the whole table.
    """
    shared = PartialState(cpu=choose_device().type == "cpu", timeout=timedelta(days=30))
    models = list(dict.fromkeys(map(model, jobs)))
    own = set(models[shared.process_index :: shared.num_processes])
    return [job for job in jobs if model(job) in own]


def write_results(folder: Path, text: str, figure: str = "") -> None:
    """Write `NAME.md` and `NAME.svg` for the cells in `folder` into `assets/results`, or beside a folder elsewhere."""
    out = folder.parents[1] / "results" if folder.parent.name == "experiments" else folder.parent
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / f"{folder.name}.md", text.encode())
    if figure:
        write_bytes(out / f"{folder.name}.svg", figure.encode())


def drawn(panels: Sequence[Panel], colours: Mapping[str, str], unit: str) -> str:
    """Panels of curves over `unit`, in percent, as an SVG: each has a title, a row and its lines by name."""
    places: dict[int, int] = {}
    made = []
    for title, row, lines in panels:
        places[row] = places.get(row, -1) + 1
        last = max((x for points in lines.values() for x, _ in points), default=1) or 1
        paths = [
            {
                "colour": colours[name],
                "points": " ".join(f"{40 + 200 * x / last:.1f},{150 - 1.2 * y:.1f}" for x, y in points),
            }
            for name, points in lines.items()
        ]
        made.append({"name": title, "left": 270 * places[row], "top": 190 * row, "lines": paths, "last": last})
    return Template(CURVES.read_text(encoding="utf-8")).render(panels=made, colours=colours, unit=unit)


def share(right: str) -> str:
    """The share of ones in a row of 0 and 1."""
    return f"{right.count('1') / len(right):.0%}"


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _environment(folder: Path) -> str:
    """Write this machine, its versions and the commit into `folder`, and return the name they stand under."""
    known = environment(None, None) | {"commit": _commit()}
    content = _compact({name: value for name, value in known.items() if value is not None and name != "judge_note"})
    name = hashlib.sha256(content).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.json", content)
    return name


def _commit() -> str | None:
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()
