"""A finished run as one page and one JSON file for others, and several runs beside each other."""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from .controls import FRESH
from .errors import OutputError
from .events import COLUMNS, GROUPS, GroupScore
from .findings import Finding, read_findings
from .metrics import harmonic, wilson
from .runs import Run, to_json, write_bytes
from .verdict import AXES, Thresholds, axes, judge_again

SCHEMA = "unlearn-report/1"
NEEDED = ("config", "pictures", "curve", "scores", "verdict")
LARGEST, QUALITY = 256, 80
"""Pictures are embedded as WebP of this quality and at most this many pixels a side."""
FILM = 4
"""Prompts whose pictures the report shows at every mark of the attack."""

Record = dict[str, Any]


def open_run(folder: Path) -> Run:
    """The run in `folder`, whose files are those that were recorded.

    Raises:
        OutputError: there is no run, it lacks something, or a file has changed since.
    """
    run = Run.open(folder)
    for name, digest in run.record.get("files", {}).items():
        if hashlib.sha256((run.folder / name).read_bytes()).hexdigest() != digest:
            raise _damaged(run, f"{name} is not the file that was recorded")
    for name in NEEDED:
        if name not in run.record:
            raise _damaged(run, f"run.json holds no {name}")
    return run


def write_report(folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.json into the run folder `folder`.

    Raises:
        OutputError: there is no whole run, or the folder cannot be written.
    """
    run = open_run(folder)
    findings = read_findings(run.folder)
    page, values = run.folder / "report.html", run.folder / "report.json"
    text = json.dumps(report_json(run, findings), indent=1, allow_nan=False)
    try:
        write_bytes(page, report_html(run, findings).encode())
        write_bytes(values, text.encode())
    except OSError as error:
        raise OutputError(f"The run in {str(folder)!r} cannot be written: {error.strerror or error}.") from error
    return page, values


def report_json(run: Run, findings: Sequence[Finding] = ()) -> Record:
    """What there is to know of a run but its pictures, as report.schema.json describes it."""
    record, config = run.record, run.config
    own = [] if any(found.counts and found.kind == "relearn" for found in findings) else _relearning(run)
    attacks = [_attack(run, found) for found in (*own, *findings)]
    shares = axes(run.scores, findings)
    counted = [attack for attack in attacks if attack["counts"]]
    worst = max(counted, key=lambda attack: attack["excess"], default={"name": None})
    return {
        "schema": SCHEMA,
        "status": run.status,
        "concept": {"text": config.concept, "name": config.concept, "kind": None, "anchor": config.anchor}
        | {k: v for k, v in (record.get("concept") or {}).items() if k in ("text", "name", "kind", "anchor")},
        "verdict": to_json(judge_again(run, findings))
        | {"thresholds": record.get("thresholds") or to_json(Thresholds())},
        "worst_attack": worst["name"],
        "scores": {column: _scored(groups) for column, groups in run.scores.items()},
        "differences": record.get("differences", {}),
        "summary": {"axes": shares, "harmonic": harmonic(list(shares.values())) if "forgotten" in shares else None},
        "curve": [{"step": step, "scores": _scored(groups)} for step, groups, _ in run.curve],
        "relearning": record.get("relearning") or dict.fromkeys(("area", "steps_to_recovery")),
        "controls": {
            name: [{"step": n} | _score(score) for n, score in points.items()] for name, points in run.controls.items()
        },
        "attacks": attacks,
        "pictures": record["pictures"],
        "config": record["config"],
        "command": record.get("command") or config.command(),
        "environment": record.get("environment", {}),
        "timing": record.get("timing", {}),
        "files": record.get("files", {}),
    }


def _share(right: int, n: int) -> Record:
    low, high = wilson(right, n)
    interval = [round(max(low, 0.0), 6), round(min(high, 1.0), 6)]
    return {"right": right, "n": n, "share": right / n, "interval": interval}


def _hits(hits: Sequence[bool]) -> Record:
    return _share(sum(hits), len(hits))


def _score(score: GroupScore) -> Record:
    known = score.accuracy is not None
    interval = _share(round(score.accuracy * score.n), score.n)["interval"] if known else None
    return {"accuracy": score.accuracy, "interval": interval, "alignment": score.alignment, "n": score.n}


def _scored(groups: Mapping[str, GroupScore]) -> Record:
    return {group: _score(score) for group, score in groups.items()}


def _relearning(run: Run) -> list[SimpleNamespace]:
    """The run's own attack in the shape of a finding; nothing when it was not run or not judged."""
    config, shown = run.config.attack, [p for p in run.pictures if (p.column, p.group) == ("relearned", "forget")]
    if not shown or not config.steps or shown[0].correct is None:
        return []
    best = max((p for p in shown if p.correct), key=lambda p: p.alignment or 0.0, default=None)
    hits, taught = tuple(bool(p.correct) for p in shown), run.controls.get(FRESH, {})
    last = taught[max(taught)] if taught else None
    return [
        SimpleNamespace(
            kind="relearn",
            settings=to_json(config),
            budget=f"{config.steps} training steps on {config.pictures} pictures",
            counts=True,
            tries=1,
            hits=hits,
            first=hits,
            control={"name": FRESH, "hits": [n < round(last.accuracy * last.n) for n in range(last.n)]}
            if last
            else None,
            missing="" if last else "the run was made without attack.controls",
            pictures=(),
            proof=best.path.relative_to(run.folder).as_posix() if best else None,
            seconds=run.record.get("timing", {}).get("attack_s"),
            command=run.record.get("command") or run.config.command(),
            environment=run.record.get("environment", {}),
            folder=run.folder,
        )
    ]


def _attack(run: Run, found: Finding | SimpleNamespace) -> Record:
    hits, first, base = _hits(found.hits), _hits(found.first), found.control and _hits(found.control["hits"])
    names = ("kind", "counts", "budget", "tries", "missing", "seconds", "settings", "command", "environment")
    return {name: to_json(getattr(found, name)) for name in names} | {
        "name": found.kind if found.folder == run.folder else found.folder.name,
        "hits": hits,
        "by_row": list(found.hits),
        "first": first,
        "control": {"name": found.control["name"]} | base if base else None,
        "excess": hits["share"] - (base["share"] if base else 0.0),
        "proof": _name(run, found.folder / found.proof) if found.proof else None,
        "pictures": [entry | {"file": _name(run, found.folder / entry["file"])} for entry in found.pictures],
    }


def report_html(run: Run, findings: Sequence[Finding] = ()) -> str:
    """The run as a page of one file that asks for nothing else."""
    report, marks = report_json(run, findings), run.record["curve"]
    cards: dict[str, dict[int, Record]] = {}
    for entry in report["pictures"]:
        cards.setdefault(entry["group"], {}).setdefault(entry["index"], {})[entry["column"]] = entry
    lines = [_line(group.capitalize(), group, report["curve"], group) for group in GROUPS]
    lines += [_line(f"Control: {name}", f"control{n}", p) for n, (name, p) in enumerate(report["controls"].items())]
    return _page(
        "report",
        embed=lambda file: _embedded(run, file),
        report=report,
        cards=cards,
        film=[(m["step"], [p for p in m["pictures"] if p["group"] == "forget"][:FILM]) for m in marks],
        lines=lines,
        worst=next((a for a in report["attacks"] if a["name"] == report["worst_attack"]), None),
    )


def comparison_html(runs: Sequence[Run]) -> str:
    """Several runs beside each other, as a page of one file that asks for nothing else."""
    reports, names = _reports(runs), [run.folder.resolve().name for run in runs]
    shared: dict[tuple[str, str, int], dict[int, Record]] = {}
    for number, report in enumerate(reports):
        for entry in report["pictures"]:
            place = shared.setdefault((entry["group"], entry["prompt"], entry["seed"]), {})
            place.setdefault(number, {})[entry["column"]] = entry
    return _page(
        "comparison",
        embed=lambda number, file: _embedded(runs[number], file),
        reports=reports,
        names=names,
        rows=comparison_rows(runs),
        lines=[_line(f"{n + 1} · {names[n]}", f"run{n % 6}", r["curve"], "forget") for n, r in enumerate(reports)],
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
            rows.append(("Settings that differ", name, [_plain(value) for value in values]))
    for group, column in product(GROUPS, COLUMNS):
        scores = [r["scores"].get(column, {}).get(group, {}) for r in reports]
        cells = [_cell(score.get("accuracy"), score.get("interval")) for score in scores]
        rows.append((f"{group.capitalize()} prompts: shows what was asked", column, cells))
    attacks = [{a["name"]: _cell(a["hits"]["share"], a["hits"]["interval"]) for a in r["attacks"]} for r in reports]
    for kind in dict.fromkeys(kind for cells in attacks for kind in cells):
        part, name = "Attacks: prompts that show the concept again", kind.replace("_", " ")
        rows.append((part, name, [cells.get(kind, "not run") for cells in attacks]))
    return rows


def _reports(runs: Sequence[Run]) -> list[Record]:
    return [report_json(run, read_findings(run.folder)) for run in runs]


def _settings(run: Run) -> Record:
    """All settings by dotted name, and the model and judge that were really used."""
    config, used = to_json(run.config), run.record.get("environment", {})
    flat = {name: value for name, value in config.items() if not isinstance(value, (dict, list))}
    for group in (name for name, value in config.items() if isinstance(value, dict)):
        flat |= {f"{group}.{name}": value for name, value in config[group].items()}
    flat |= {"judge used": used.get("judge"), "weights used": (used.get("base_sha256") or "")[:12]}
    return flat | dict(config["options"])


def _line(name: str, style: str, points: Sequence[Record], group: str = "") -> Record:
    """A named curve of a chart through those of `points` that were judged."""
    seen = [{"step": point["step"]} | (point["scores"][group] if group else point) for point in points]
    return {"name": name, "style": style, "points": [point for point in seen if point["accuracy"] is not None]}


def _plain(value: Any) -> str:
    return "–" if value in (None, "") else ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}\u00a0%"


def _points(change: float) -> str:
    return f"{100 * change:+.0f}".replace("-", "−") if round(100 * change) else "0"


def _span(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f}\u00a0%"


def _cell(share: float | None, interval: Sequence[float] | None) -> str:
    return f"{_percent(share)} ({_span(interval)})" if interval else _percent(share)


def _name(run: Run, path: Path) -> str:
    """A file of the run by its place in the folder."""
    try:
        return path.resolve().relative_to(run.folder.resolve()).as_posix()
    except ValueError:
        raise _damaged(run, f"{path.name} lies outside of it") from None


def _embedded(run: Run, file: str) -> str:
    """A picture of the run folder as a data URI."""
    stream, path = io.BytesIO(), run.folder / _name(run, run.folder / file)
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(run, f"{file} is no readable picture") from error
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    small.save(stream, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _page(kind: str, **values: Any) -> str:
    folder = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    templates.filters |= {"percent": _percent, "span": _span, "plain": _plain, "points": _points}
    return templates.get_template("report.html").render(kind=kind, columns=COLUMNS, groups=GROUPS, axes=AXES, **values).lstrip()


def _damaged(run: Run, what: str) -> OutputError:
    return OutputError(f"The run in {str(run.folder)!r} is damaged: {what}.")
