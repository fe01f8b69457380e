"""A finished run as one page and one JSON file for others, and several runs beside each other."""

import base64
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from ..common.atomic_files import write_bytes
from ..common.errors import OutputError
from ..common.images import open_png, pixels_of
from ..common.json_values import json_text, to_json
from ..common.record_files import check_files, damaged, shown
from ..common.templates import templates
from ..evaluation.base_rates import RECORDED, scores_of
from ..evaluation.finding import Finding, other_classes
from ..evaluation.statistics import harmonic, wilson
from ..evaluation.verdict import AXES, Thresholds, ranked, recovery_rule
from ..settings.events import COLUMNS, GROUPS, GroupScore
from .findings import judge_again, own_findings, read_findings, record_of
from .folder import Run

SCHEMA = "unlearn-report/2"
OWN = "own relearning"
"""What the report calls the run's own attack."""
LARGEST, QUALITY = 256, 80
"""Pictures are embedded as WebP of at most this many pixels a side: those that may show their
pixels exactly, others with this quality.
"""
MOST_PIXELS = 5_000 * 2_048**2
"""The most pixels of a run's pictures on a page together; more than those of the largest settings,
whose columns have 4,500 pictures, and marks and findings a few.
"""
KEPT = (
    "kind",
    "counts",
    "budget",
    "tries",
    "missing",
    "seconds",
    "settings",
    "command",
    "environment",
)
"""The fields of a finding that the report copies."""
FILM = 4
"""Prompts whose pictures the report shows at every mark of the attack."""

Record = dict[str, Any]


def open_run(folder: Path) -> Run:
    """The run in `folder`, whose files are those that were recorded.

    Raises:
        OutputError: there is no run, or a file has changed since.
    """
    run = Run.open(folder)
    check_files(run.folder, run.record["files"], "run")
    return run


def all_settings(run: Run) -> Record:
    """Every setting of a run by dotted name, also those that its record leaves out because they
    have their defaults.
    """
    config, flat = dataclasses.asdict(run.config), {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{leaf}": own for leaf, own in value.items()}
        elif name != "options":
            flat[name] = value
    return flat | dict(config["options"])


def write_report(folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.json into the run folder `folder`.

    Raises:
        OutputError: there is no whole run, or the folder cannot be written.
    """
    run = open_run(folder)
    findings = read_findings(run.folder)
    page, values = run.folder / "report.html", run.folder / "report.json"
    text = json_text(report_json(run, findings), indent=1)
    try:
        write_bytes(page, report_html(run, findings).encode())
        write_bytes(values, text.encode())
    except OSError as error:
        raise OutputError(
            f"The run in {str(folder)!r} cannot be written: {error.strerror or error}."
        ) from error
    return page, values


def report_json(run: Run, findings: Sequence[Finding] = ()) -> Record:
    """What there is to know of a run but its pictures, as report.schema.json describes it."""
    record, config = run.record, run.config
    found = [*own_findings(run), *findings]
    worst = next(iter(ranked(found)), None)
    verdict = judge_again(run, findings)
    axes = verdict.axes
    typed = {"text": config.concept, "name": config.concept, "kind": None, "anchor": config.anchor}
    concept = typed | (record["concept"] or {})
    return {
        "schema": SCHEMA,
        "status": run.status,
        "concept": {name: concept[name] for name in typed},
        "verdict": {
            "label": verdict.label,
            "headline": verdict.headline,
            "reasons": list(verdict.reasons),
            "thresholds": record["thresholds"] or to_json(Thresholds()),
        },
        "worst_attack": worst and _called(worst),
        "scores": {column: _scored(groups) for column, groups in run.scores.items()},
        "agreement": _agreement(record["pictures"]),
        "differences": record["differences"],
        "summary": {
            "axes": dict(axes),
            "harmonic": harmonic(list(axes.values())) if "forgotten" in axes else None,
        },
        "curve": [{"step": step, "scores": _scored(groups)} for step, groups, _ in run.curve],
        "relearning": record["relearning"] or dict.fromkeys(("area", "steps_to_recovery")),
        "controls": {
            name: [{"step": n} | _score(score) for n, score in points.items()]
            for name, points in run.controls.items()
        },
        "attacks": [_attack(run, one) for one in found],
        "pictures": record["pictures"],
        "config": record["config"],
        "command": record["command"] or config.command(),
        "environment": record["environment"],
        "timing": record["timing"],
        "files": record["files"],
    }


def _agreement(pictures: Sequence[Record]) -> Record | None:
    """On how many pictures all judges see the same class; None where there is but one judge."""
    checked = [
        {picture["predicted"], *others}
        for picture in pictures
        if (others := other_classes(picture["judges"]))
    ]
    alike = sum(len(classes) == 1 for classes in checked)
    return {"alike": alike, "n": len(checked)} if checked else None


def _interval(right: int, n: int) -> list[float]:
    low, high = wilson(right, n)
    return [round(max(low, 0.0), 6), round(min(high, 1.0), 6)]


def _counts(right: int, n: int) -> Record:
    return {"right": right, "n": n, "share": right / n, "interval": _interval(right, n)}


def _score(score: GroupScore) -> Record:
    known = score.accuracy is not None
    interval = _interval(score.hits, score.n) if known else None
    return {"interval": interval} | to_json(score)


def _scored(groups: Mapping[str, GroupScore]) -> Record:
    return {group: _score(score) for group, score in groups.items()}


def _attack(run: Run, found: Finding) -> Record:
    record, control = record_of(found), found.control
    pictures = [] if found.curve else found.pictures  # those of the run stand with its own
    return {name: record[name] for name in KEPT} | {
        "name": _called(found),
        "hits": _counts(found.right, found.n),
        "by_row": list(found.hits),
        "first": _counts(sum(found.first), len(found.first)),
        "seconded": found.confirmed,
        "control": control and {"name": control["name"]} | _counts(*found.control_counts),
        "excess": found.points,
        "outcome": found.outcome(Thresholds().back) if found.counts else None,
        "proof": _name(run, found.folder / found.proof) if found.proof else None,
        "pictures": [
            entry | {"file": _name(run, found.folder / entry["file"])} for entry in pictures
        ],
    }


def _called(found: Finding) -> str:
    return OWN if found.curve else shown(found.folder.name)


def report_html(run: Run, findings: Sequence[Finding] = ()) -> str:
    """The run as one self-contained HTML page."""
    report, marks = report_json(run, findings), run.record["curve"]
    cards: dict[str, dict[int, Record]] = {}
    for entry in report["pictures"]:
        cards.setdefault(entry["group"], {}).setdefault(entry["index"], {})[entry["column"]] = entry
    found = [*own_findings(run), *findings]
    lines = [curve_of(group.capitalize(), group, report["curve"], group) for group in GROUPS]
    taught = [{"step": n} | _score(s) for n, s in scores_of(run.base).items()]
    known = report["controls"] or ({RECORDED: taught} if taught else {})
    lines += [
        curve_of(f"Control: {name}", f"control{n}", points)
        for n, (name, points) in enumerate(known.items())
    ]
    return rendered(
        "report",
        where=lambda file: (run, file),
        hard=hard_pixels(run),
        report=report,
        cards=cards,
        film=[
            (m["step"], [p for p in m["pictures"] if p["group"] == "forget"][:FILM]) for m in marks
        ],
        lines=lines,
        rule=recovery_rule(found, report["verdict"]["thresholds"]["back"]),
        worst=next((a for a in report["attacks"] if a["name"] == report["worst_attack"]), None),
    )


def curve_of(name: str, style: str, points: Sequence[Record], group: str = "") -> Record:
    """A named curve of a chart through those of `points` that were judged."""
    judged = [
        {"step": point["step"]} | (point["scores"][group] if group else point)
        for point in points
        if not group or group in point["scores"]
    ]
    return {
        "name": name,
        "style": style,
        "points": [point for point in judged if point["accuracy"] is not None],
    }


def plain(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value in (None, "") else str(value)


def percent(share: float | None) -> str:
    """A share as whole per cent, or a dash."""
    return "–" if share is None else f"{100 * share:.0f}\u00a0%"


def _points(change: float) -> str:
    return f"{100 * change:+.0f}".replace("-", "−") if round(100 * change) else "0"


def span(interval: Sequence[float]) -> str:
    """The ends of an interval of shares."""
    return f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f}\u00a0%"


def _name(run: Run, path: Path) -> str:
    """A file of the run by its place in the folder."""
    try:
        return path.resolve().relative_to(run.folder.resolve()).as_posix()
    except ValueError:
        raise damaged(run.folder, "run", f"{path.name} lies outside of it") from None


def _read(run: Run, file: str, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of a picture of the run folder."""
    path = run.folder / _name(run, run.folder / file)
    try:
        return read(path)
    except OutputError as error:
        raise damaged(run.folder, "run", f"{file} is no readable picture") from error


def embedded(run: Run, file: str) -> str:
    """A picture of the run folder as a data URI."""
    stream, small = io.BytesIO(), _read(run, file, open_png).convert("RGB")
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    small.save(stream, "WEBP", lossless=_shows_pixels(small), quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def hard_pixels(run: Run) -> bool:
    """Whether the run's pictures are so small that their pixels are to be seen."""
    try:
        return _shows_pixels(open_png(run.pictures[0].file))
    except (OutputError, IndexError):
        return False


def _shows_pixels(image: Image.Image) -> bool:
    return 2 * max(image.size) <= LARGEST


def _best(tried: Sequence[Record]) -> Record:
    """The last of the pictures that shows the concept most, or else of those nearest to it."""
    return max(
        reversed(tried), key=lambda entry: (bool(entry["correct"]), entry["alignment"] or 0.0)
    )


def rendered(kind: str, where: Callable[..., tuple[Run, str]], **values: Any) -> str:
    """The page of that kind, from the template, which embeds what `where` makes a run and a file.

    Raises:
        OutputError: a picture cannot be read, or those of a run have more than `MOST_PIXELS`.
    """
    pages = templates(Path(__file__).parent, autoescape=True)
    pages.filters |= {"percent": percent, "span": span, "plain": plain}
    pages.filters |= {"points": _points, "best": _best}
    pages.globals["other_classes"] = other_classes
    made = partial(
        pages.get_template("report.html").render,
        **{"kind": kind, "columns": COLUMNS, "groups": GROUPS, "axes": AXES},
        **values,
    )
    pixels: Counter[Path] = Counter()

    @cache
    def counted(*asked: Any) -> str:
        run, file = where(*asked)
        pixels[run.folder] += _read(run, file, pixels_of)
        return ""

    made(embed=counted)
    total = max(pixels.values(), default=0)
    if total > MOST_PIXELS:
        raise OutputError(
            f"The pictures of a run have {total:,} pixels; up to {MOST_PIXELS:,} are accepted."
        )
    return made(embed=cache(lambda *asked: embedded(*where(*asked)))).lstrip()
