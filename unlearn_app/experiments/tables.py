"""Reports: numbers as words, Markdown tables, templates and figures, and where they are written.

The text of a report is a template in `texts`; what it is given is computed beside the cells.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.atomic_files import write_bytes
from ..common.paths import ASSETS, POCKET
from ..common.templates import templates
from ..evaluation.statistics import mean_interval, wilson
from ..models.diffusers.model_folder import hash_weights
from .cells import read_cells

Panel = tuple[str, Mapping[str, Sequence[tuple[float, float]]]]
"""A title, and points of each line by name."""
HASH_LENGTH = 64
"""Of a model in the record of a cell, where "base" may also name a method."""
EARLIER_MODEL = (
    "**Measured on an earlier edition of the bundled model, not on the one that ships today.**"
)
BROUGHT = (
    "**Measured on the model {model} (weights {base:.12}), judged by {judge}, on the targets of"
    " {targets} (SHA-256 {targets_sha256:.12}).** What the text below says of PocketCanvas and of"
    " reasons holds for the bundled model."
)
"""The note on a model that the user brings."""
SECOND = (
    "**Measured on `{bundled}`, another model of the bundled world, by the same command with"
    " `--model {bundled}`; its cells lie in `assets/experiments/{name}`.** What the text below says"
    " of reasons holds for the UNet."
)
RESULTS = ASSETS / "results" / "README.md"
"""The page of all results."""
QUOTED = {
    "calibration": "Attacks by steps and rate",
    "judge": "Right answers, and where both judges say the same",
    "paper1": "What the paper claims",
    "paper2": "What the paper claims",
    "paper3": "What the paper claims",
    "lab": "Models whose truth is known",
    "models": "What works",
}
"""The section of each report whose last table the page of all results quotes."""
_TEXTS = templates(Path(__file__).with_name("texts"), lstrip_blocks=True)


def render(template: str, **values: object) -> str:
    """A template of `texts` with `values` in it."""
    return _TEXTS.get_template(template).render(values)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, without a line break at its end."""
    return "\n".join([line(*heads), "|" + "---|" * len(heads), *(line(*row) for row in rows)])


def line(*cells: object) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def with_ends(found: Sequence[float], form: str) -> str:
    """A value and the ends of its interval."""
    middle, low, high = (format(value, form) for value in found)
    return f"{middle} ({low} to {high})"


def bits(values: Iterable[Any]) -> str:
    """A row of 1 for what is true and 0 for what is not."""
    return "".join(str(int(bool(value))) for value in values)


def percent_of(right: str) -> str:
    """The share of ones in a row of 0 and 1."""
    return f"{right.count('1') / len(right):.0%}"


def share(right: float, n: int, digits: int = 1) -> str:
    """A share in percent with its 95 % Wilson interval."""
    low, high = wilson(right, n)
    return with_ends((right / n, max(low, 0.0), high), f".{digits}%")


def with_half(
    values: Sequence[float | None], digits: int = 0, sign: str = "", least: int = 2
) -> str:
    """The mean ± half of the 95 % Student interval of what is known, a dash for nothing; fewer than
    `least` have no interval.
    """
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, low, high = mean_interval(known)
    half = f" ± {(high - low) / 2:.{digits}f}" if len(known) >= least else ""
    return f"{mean:{sign}.{digits}f}{half}"


def median_of(values: Sequence[float], form: str = ".0%") -> str:
    """A median with the lowest and the highest value."""
    if not values:
        return "not measured"
    return with_ends((statistics.median(values), min(values), max(values)), form)


def number_of(count: int, what: str, plural: str = "s") -> str:
    """A number with its noun."""
    return f"{count} {what}{plural if count != 1 else ''}"


_TEXTS.globals["share"] = share
_TEXTS.filters |= {"mean": statistics.mean, "median": statistics.median, "half": with_half}


def write_report(folder: Path, text: str, figure: str = "") -> str:
    """Write `NAME.md` and `NAME.svg` for the cells in `folder` into `assets/results`, or beside a
    folder elsewhere.

    Returns the Markdown as written: where no cell is of the model that ships today, its first
    paragraph says so. The page of all results quotes those of `assets/results`.
    """
    folder = folder.resolve()
    title, _, rest = text.partition("\n")
    note = _earlier_model(folder)
    configs = [config for config, _ in read_cells(folder).values()]
    if own := next((config["brought"] for config in configs if "brought" in config), {}):
        title, note = title.replace("PocketCanvas", own["model"]), BROUGHT.format(**own)
    elif configs and "bundled" in configs[0]:
        title, note = (
            f"{title}, on {configs[0]['bundled']}",
            SECOND.format(name=folder.name, **configs[0]),
        )
    text = (f"{title}\n\n{note}\n{rest}" if note else text).rstrip("\n") + "\n"
    out = folder.parents[1] / "results" if folder.parent.name == "experiments" else folder.parent
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / f"{folder.name}.md", text.encode())
    if figure:
        write_bytes(out / f"{folder.name}.svg", figure.encode())
    if out == RESULTS.parent and folder.name in QUOTED:
        quoted = last_table(text, QUOTED[folder.name])
        if not configs:
            quoted = waiting(folder.name, quoted)
        quote(folder.name, f"{note}\n\n{quoted}" if note else quoted)
    return text


def _earlier_model(folder: Path) -> str:
    """A sentence where the cells of `folder` were measured on another model than the one that ships
    today.
    """
    configs = [config for config, _ in read_cells(folder).values()]
    named = {str(config.get("base_model") or config.get("base")) for config in configs}
    measured = {name for name in named if len(name) == HASH_LENGTH}
    return "" if measured <= {hash_weights(POCKET / "pipeline")} else EARLIER_MODEL


def last_table(text: str, section: str) -> str:
    """The last table under the heading `section` of a Markdown text; empty where there is none."""
    within = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    tables = [part.strip() for part in within.split("\n\n") if part.strip().startswith("|")]
    return tables[-1] if tables else ""


def waiting(name: str, rows: str) -> str:
    """What stands for a table of claims, given in Markdown, of which no cell is measured yet."""
    count = number_of(rows.count("\n") - 1, "claim")
    return f"**Not measured yet.** [{name}.md]({name}.md) names the {count}."


def quote(name: str, quoted: str) -> None:
    """Put a table between its markers on the page of all results, so that the two cannot drift
    apart.
    """
    begin, end = (f"<!-- {name} table: {word} -->" for word in ("begin", "end"))
    before, rest = RESULTS.read_text(encoding="utf-8").split(begin)
    write_bytes(RESULTS, f"{before}{begin}\n{quoted}\n{end}{rest.split(end)[1]}".encode())


def curves(rows: Sequence[Sequence[Panel]], colours: Mapping[str, str], unit: str) -> str:
    """Rows of panels with curves over `unit`, in percent, as an SVG."""
    panels = []
    for top, row in enumerate(rows):
        for left, (title, lines) in enumerate(row):
            last = max((x for points in lines.values() for x, _ in points), default=1) or 1
            paths = {
                name: " ".join(f"{40 + 200 * x / last:.1f},{150 - 1.2 * y:.1f}" for x, y in points)
                for name, points in lines.items()
            }
            place = {"left": 270 * left, "top": 190 * top}
            panels.append({"name": title, **place, "lines": paths, "last": last})
    return render("curves.svg", panels=panels, colours=colours, unit=unit)
