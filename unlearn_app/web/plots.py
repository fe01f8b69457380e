"""The plots of the page and the tables they show.

Every table begins with a row without a value for each line, because a plot takes its colours from
the rows that it is mounted with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
import pandas as pd

from ..continual.ledger import Ledger, Request
from ..continual.metrics import ContinualMetrics, kept_names, request_metrics
from ..evaluation.base_rates import RECORDED
from ..settings.events import FRESH, GROUPS, UNRESISTING
from .view_state import ViewState

ORANGE, BLUE, GREY, RED, VIOLET = "#d96a10", "#2a86d1", "#7a8494", "#b4231f", "#8a5bd0"
TERM_COLORS = {"forget": ORANGE, "retain": BLUE, "relearn": "#159a76", "resist": VIOLET}
GROUP_COLORS = {"forget": ORANGE, "near": BLUE, "far": GREY}
CURVE_COLORS = GROUP_COLORS | {UNRESISTING: RED, FRESH: VIOLET, RECORDED: VIOLET}
REQUEST_COLORS = {"erased": ORANGE, "kept, same kind": BLUE, "kept, other kind": GREY}
PERCENT_AXIS = [0, 103]
"""A little above 100, so that a line there is not cut in half."""
MOST_POINTS = 300
TEXT_COLUMNS = ("term", "group", "request")


def loss_plot(state: ViewState | None) -> gr.LinePlot:
    """The losses of unlearning and attack by step."""
    config = state.config if state else None
    return _plot(
        loss_table(state),
        TERM_COLORS,
        x_lim=[0, config.unlearn.steps + config.attack.steps] if config else None,
        title="Loss: forgetting, then the attack",
        x_title="optimizer step",
        y_title="loss",
        elem_id="plot",
    )


def curve_plot(state: ViewState | None) -> gr.LinePlot:
    """How the concept comes back under attack; hidden until there are points after step 0."""
    table = curve_table(state)
    return _plot(
        table,
        CURVE_COLORS,
        y_lim=PERCENT_AXIS,
        title="What comes back under attack",
        x_title="attack step",
        y_title="show the prompt, %",
        visible=table["step"].nunique() > 1,
        elem_id="curve",
    )


def angle_plot(state: ViewState | None) -> gr.LinePlot:
    """The angle between the gradients of forget and retain loss by step of unlearning."""
    return _plot(
        angle_table(state),
        x_lim=[0, state.config.unlearn.steps] if state else None,
        y_lim=[0, 180],
        title="Gradient angle, opposed above 90°",
        x_title="step of forgetting",
        y_title="degrees",
        height=230,
        elem_id="angle",
    )


def request_plot(ledger: Ledger | None) -> gr.LinePlot:
    """What was erased and kept after every request of a sequence."""
    return _plot(
        request_table(ledger),
        REQUEST_COLORS,
        y_lim=PERCENT_AXIS,
        title="After every request",
        x_title="request",
        y_title="share of pictures, %",
        elem_id="standings",
    )


def _plot(
    table: pd.DataFrame, colors: Mapping[str, str] | None = None, height: int = 260, **more: Any
) -> gr.LinePlot:
    """A plot of the second column against the first, with a line for every value of the third."""
    if colors:
        more |= {"color": table.columns[2], "color_map": colors, "color_title": " "}
    x, y = table.columns[:2]
    return gr.LinePlot(table, x=x, y=y, height=height, buttons=[], **more)


def loss_table(state: ViewState | None) -> pd.DataFrame:
    """Step, loss and term."""
    terms = [name for name in TERM_COLORS if name != "resist" or (state and state.config.resist.on)]
    first = [{"step": 0, "loss": None, "term": term} for term in terms]
    return _table(first + _thinned(state.losses if state else []))


def angle_table(state: ViewState | None) -> pd.DataFrame:
    """Step and angle in degrees."""
    return _table([{"step": 0, "angle": None}, *_thinned(state.angles if state else [])])


def curve_table(state: ViewState | None) -> pd.DataFrame:
    """Attack step, percentage of pictures that show the prompt, and group; each control is another
    group.
    """
    controls = state.controls if state else {}
    names = [name for name in CURVE_COLORS if name in GROUPS or name in controls]
    rows = [{"step": 0, "share": None, "group": name} for name in names]
    lines = {
        group: {step: scores[group] for step, scores in state.curve.items() if group in scores}
        for group in (GROUPS if state else ())
    }
    for name, line in (lines | controls).items():
        for step, score in sorted(line.items()):
            if score.accuracy is not None:
                rows.append({"step": step, "share": 100 * score.accuracy, "group": name})
    return _table(rows)


def request_table(ledger: Ledger | None) -> pd.DataFrame:
    """Request, percentage of pictures, and what they show: erased or kept concepts.

    Requests are text, for a categorical axis, and padded with a blank so that they sort by number.
    """
    rows = [{"request": f"{0:2d}", "share": None, "group": group} for group in REQUEST_COLORS]
    metrics = _from_the_original(ledger.rows) if ledger and ledger.requests else []
    for number, found in enumerate(metrics):
        shares = (found.ua, found.ra_i, found.ra_c)
        for group, share in zip(REQUEST_COLORS, shares, strict=True):
            if share is not None:
                rows.append({"request": f"{number:2d}", "share": 100 * share, "group": group})
    return _table(rows)


def _from_the_original(rows: Sequence[Request]) -> list[ContinualMetrics]:
    """The metrics before the first request, as if it had changed nothing, and after each."""
    kept, asked = kept_names(rows), {row.concept for row in rows[1:]}
    untouched = replace(rows[1], panel=rows[0].panel)
    return [*request_metrics([rows[0], untouched], kept, asked), *request_metrics(rows, kept)]


def _thinned(points: list[dict]) -> list[dict]:
    stride = max(1, -(-len(points) // MOST_POINTS))
    return [point for point in points if point["step"] % stride == 0]


def _table(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype(
        {n: "str" if n in TEXT_COLUMNS else "float64" for n in rows[0]}
    )
