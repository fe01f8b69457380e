"""Several finished runs beside each other: what differs in settings, scores and attacks, and the
same pictures.
"""

from collections.abc import Sequence
from itertools import product

from ..common.record_files import shown
from ..settings.events import COLUMNS, GROUPS
from .findings import read_findings
from .folder import Run
from .report import (
    Record,
    all_settings,
    curve_of,
    hard_pixels,
    percent,
    plain,
    rendered,
    report_json,
    span,
)


def comparison_html(runs: Sequence[Run]) -> str:
    """Several runs beside each other, as one self-contained HTML page."""
    reports, names = _reports(runs), [shown(run.folder.resolve().name) for run in runs]
    shared: dict[tuple[str, str, int], dict[int, Record]] = {}
    for number, report in enumerate(reports):
        for entry in report["pictures"]:
            place = shared.setdefault((entry["group"], entry["prompt"], entry["seed"]), {})
            place.setdefault(number, {})[entry["column"]] = entry
    return rendered(
        "comparison",
        where=lambda number, file: (runs[number], file),
        hard=all(hard_pixels(run) for run in runs),
        reports=reports,
        names=names,
        rows=comparison_rows(runs),
        lines=[
            curve_of(f"{n + 1} · {names[n]}", f"run{n % 6}", r["curve"], "forget")
            for n, r in enumerate(reports)
        ],
        shared={place: found for place, found in shared.items() if len(found) > 1},
    )


def comparison_rows(runs: Sequence[Run]) -> list[tuple[str, str, list[str]]]:
    """Part, name and one cell per run: verdicts, the settings that differ, scores and attacks."""
    reports = _reports(runs)
    labels = [r["verdict"]["label"] if r["status"] == "complete" else r["status"] for r in reports]
    reached = [r["relearning"]["steps_to_recovery"] for r in reports]
    steps = ["–" if step is None else f"{step:.0f}" for step in reached]
    rows = [("Result", "verdict", labels), ("Result", "attack steps to recovery", steps)]
    chosen = [_settings(run) for run in runs]
    for name in dict.fromkeys(name for settings in chosen for name in settings):
        values = [settings.get(name) for settings in chosen]
        if any(value != values[0] for value in values):
            rows.append(("Settings that differ", name, [plain(value) for value in values]))
    for group, column in product(GROUPS, COLUMNS):
        scores = [r["scores"].get(column, {}).get(group, {}) for r in reports]
        cells = [_cell(score.get("accuracy"), score.get("interval")) for score in scores]
        rows.append((f"{group.capitalize()} prompts: shows what was asked", column, cells))
    attacks = [
        {a["name"]: _cell(a["hits"]["share"], a["hits"]["interval"]) for a in r["attacks"]}
        for r in reports
    ]
    for kind in dict.fromkeys(kind for cells in attacks for kind in cells):
        part, name = "Attacks: prompts that show the concept again", kind.replace("_", " ")
        rows.append((part, name, [cells.get(kind, "not run") for cells in attacks]))
    return rows


def _reports(runs: Sequence[Run]) -> list[Record]:
    return [report_json(run, read_findings(run.folder)) for run in runs]


def _settings(run: Run) -> Record:
    """All settings by dotted name, and the model and judge that were really used."""
    used = run.record["environment"]
    flat = all_settings(run)
    flat |= {"judge used": used.get("judge"), "weights used": (used.get("base_sha256") or "")[:12]}
    if run.config.audited:  # nothing was trained here
        unused = ("objective", "rule", "preset", *run.config.methods.values())
        parts = ("unlearn", "regularize", "resist", *unused)
        flat = {name: value for name, value in flat.items() if name.partition(".")[0] not in parts}
    return flat


def _cell(share: float | None, interval: Sequence[float] | None) -> str:
    return f"{percent(share)} ({span(interval)})" if interval else percent(share)
