"""The cells of the benchmark of the page, and its tables."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.errors import UnlearnError
from ...common.paths import POCKET
from ...models.device import processor
from ...models.diffusers.model_folder import hash_weights
from ...settings.run_config import make_config
from ..cells import SMOKE, Experiment, read_cells, run_settings
from ..tables import render, table, write_report
from .time_left import EVERY_S, REMAINDER_S, RISE_S, judged
from .visit import (
    DESKTOP,
    SETTLED_S,
    arrival,
    missing,
    seconds_to_stop,
    set_options,
    visit,
    whole_run,
)

ARRIVAL, RUNS = "arrival", "runs"
PHONE = (390, 844)
ASKED = {
    "first run": "rabbit",
    "second run": "rose",
    "same again": "rose",
}
"""What is asked for, one after the other, of one process: concepts whose pictures do not ship."""
STOPPED = "rabbit"
"""The concept of the run that is stopped."""
BARS = {"ready": 8, "picture": 1, "stop": 1, "shift": 0.05, "error": 0.25}
"""The most that is accepted: seconds, the sum of layout shifts, and the share of the true time that
the time left is off.
"""
NOT_KNOWN = "–"


@dataclass(frozen=True)
class PagePart:
    """Arrival in a window of a size in pixels, or the runs."""

    kind: str
    width: int = DESKTOP[0]
    height: int = DESKTOP[1]


class PageBench(Experiment):
    """How the page arrives, and what it says of runs."""

    name = "page"

    def cells(self) -> list[PagePart]:
        arrivals = [PagePart(ARRIVAL, *size) for size in (DESKTOP, PHONE)]
        return [*arrivals, PagePart(RUNS)]

    def config(self, cell: PagePart) -> dict[str, Any]:
        own = {"kind": cell.kind, "window": (cell.width, cell.height)}
        if cell.kind == ARRIVAL:
            return own
        asked = {
            row: run_settings(make_config(name, **(SMOKE if self.smoke else {})))
            for row, name in ASKED.items()
        }
        return own | {"base": hash_weights(POCKET / "pipeline"), "runs": asked}

    def alone(self, cell: PagePart) -> bool:
        return True

    def measure(
        self, cell: PagePart, known: dict[str, Any], shared: None
    ) -> Iterator[Mapping[str, Any]]:
        if reason := missing():
            raise UnlearnError(f"The page cannot be measured: {reason}.")
        if cell.kind == ARRIVAL:
            yield arrival((cell.width, cell.height)) | {"processor": processor()}
        else:
            yield runs(self.smoke)

    def line(self, cell: PagePart, values: Mapping[str, Any]) -> str:
        if cell.kind == RUNS:
            return f"{len(values['runs'])} runs"
        return f"arrival at {cell.width} x {cell.height}: first picture {values['picture_s']:.1f} s"

    def report(self) -> str:
        return write_results(self.folder)


def runs(smoke: bool) -> dict[str, Any]:
    """What the page says of every run of `ASKED`, how soon it answers a Stop, and the most memory
    that the app held.
    """
    found = {}
    with visit() as own:
        own.open()
        if smoke:
            set_options(own.tab, SMOKE)
        for row, concept in ASKED.items():
            picture, over, shown = whole_run(own, concept)
            found[row] = {
                "concept": concept,
                "picture_s": picture,
                "seconds": over,
                **judged(shown, over),
                "shown": shown,
            }
        stop = seconds_to_stop(own, STOPPED)
        return {"runs": found, "stop_s": stop, "peak_gb": own.app.peak_gb()}


def write_results(folder: Path) -> str:
    """Write the tables over the stored cells; returns the Markdown."""
    cells = list(read_cells(folder).values())
    arrivals = {tuple(own["window"]): found for own, found in cells if own["kind"] == ARRIVAL}
    (ran,) = (found for own, found in cells if own["kind"] == RUNS)
    text = render(
        "page.md",
        arrived=_arrived({size: arrivals[size] for size in sorted(arrivals, reverse=True)}),
        ran=_ran(ran["runs"]),
        stop=ran["stop_s"],
        peak=ran["peak_gb"],
        bars=BARS,
        every=EVERY_S,
        remainder=REMAINDER_S,
        rise=RISE_S,
        settled=SETTLED_S,
        measured_on=next(iter(arrivals.values())),
    )
    return write_report(folder, text)


def _arrived(found: Mapping[tuple[int, int], Mapping[str, Any]]) -> str:
    """A table of what it takes to arrive, by the size of the window."""
    rows: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "served after the start of the process, s": (
            f"≤ {BARS['ready']}",
            lambda one: f"{one['ready_s']:.1f}",
        ),
        "first picture after opening, s": (
            f"≤ {BARS['picture']}",
            lambda one: f"{one['picture_s']:.1f}",
        ),
        "layout shift": (f"≤ {BARS['shift']}", lambda one: f"{one['shift']:.3f}"),
        "weight, kB": (NOT_KNOWN, lambda one: f"{one['bytes'] / 1000:,.0f}"),
        "requests": (NOT_KNOWN, lambda one: one["requests"]),
        "requests elsewhere": ("0", lambda one: one["elsewhere"]),
    }
    lines = [(what, bar, *map(said, found.values())) for what, (bar, said) in rows.items()]
    return table(("arrival", "bar", *(f"{wide} x {high}" for wide, high in found)), lines)


def _ran(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of what the page said of each run."""
    heads = (
        "run",
        "concept",
        "seconds",
        "first picture, s",
        "time left off by at most",
        "by mean",
        "looks, without a word",
        "rises",
        "stages that moved the bar",
    )
    lines = [
        (
            row,
            one["concept"],
            f"{one['seconds']:.0f}",
            f"{one['picture_s']:.1f}",
            _percent(one["worst"], "+"),
            _percent(one["mean"]),
            f"{one['judged']}, {one['unsaid']}",
            one["rises"],
            f"{one['stages_moved']} of {one['stages']}",
        )
        for row, one in found.items()
    ]
    return table(heads, lines)


def _percent(share: float | None, sign: str = "") -> str:
    return NOT_KNOWN if share is None else f"{100 * share:{sign}.0f} %"
