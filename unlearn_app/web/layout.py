"""Where everything stands on the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from ..evaluation.base_rates import RECORDED
from ..settings.events import FRESH, GROUPS, UNRESISTING
from . import board, render
from .options import Options, build_options, build_switch
from .panels import HistoryPanel, LabPanel, history_panel, lab_panel
from .sequence_tab import SequenceTab
from .view import View

GROUP_COLORS = {"forget": "#d96a10", "near": "#2a86d1", "far": "#7a8494"}
CURVE_COLORS = GROUP_COLORS | {UNRESISTING: "#b4231f", FRESH: "#8a5bd0", RECORDED: "#8a5bd0"}
TERM_COLORS = {"forget": "#d96a10", "retain": "#2a86d1", "relearn": "#159a76", "resist": "#8a5bd0"}


@dataclass(frozen=True)
class Page:
    """The components that listeners read or write."""

    head: gr.HTML
    concept: gr.Textbox
    run: gr.Button
    stop: gr.Button
    hint: gr.HTML
    folded: gr.Accordion
    options: Options
    prompts: gr.HTML
    command: gr.Textbox
    status: gr.HTML
    lab: LabPanel
    film: gr.HTML
    board: gr.HTML
    summary: gr.HTML
    curve: gr.LinePlot
    plot: gr.LinePlot
    angle: gr.LinePlot
    downloads: tuple[gr.DownloadButton, ...]
    shown: gr.Dropdown
    history: HistoryPanel
    ready: gr.Timer
    sequence: SequenceTab


def lay_out(
    names: Sequence[tuple[str, str]],
    runs: Sequence[tuple[str, str]],
    view: View | None,
    sequence: Callable[[], SequenceTab],
) -> Page:
    """Create the components inside the current `gr.Blocks`; `view`, the first of `runs`, is on
    screen on arrival.

    `sequence` makes the second tab.
    """
    made: dict[str, Any] = {
        "ready": gr.Timer(0.5),
        "head": gr.HTML(render.header(False, ""), elem_id="head"),
    }
    with gr.Tabs(elem_id="tabs"):
        with gr.Tab("One concept"):
            made |= _one_concept(names, runs, view)
        with gr.Tab("One after the other"):
            made["sequence"] = sequence()
    return Page(**made)


def _one_concept(
    names: Sequence[tuple[str, str]], runs: Sequence[tuple[str, str]], view: View | None
) -> dict[str, Any]:
    made = _ask()
    gr.HTML(render.chips(names), elem_id="chips")
    made["switch"] = build_switch()
    with gr.Accordion("Options", open=False, elem_id="options") as made["folded"]:
        made["options"] = build_options(made.pop("switch"))
        made["command"] = gr.Textbox(
            label="The same run from a terminal",
            interactive=False,
            buttons=["copy"],
            elem_id="command",
            max_lines=4,
        )
        made["prompts"] = gr.HTML("", elem_id="prompts")
    made["status"] = gr.HTML(render.status(view) if view else render.welcome(), elem_id="status")
    made["lab"] = lab_panel(view)
    with gr.Row(elem_id="result"):
        with gr.Column(scale=12, min_width=300):
            made["board"] = gr.HTML(board.comparison(view) if view else "", elem_id="board")
            made["film"] = gr.HTML(board.film(view) if view else "", elem_id="film")
        with gr.Column(scale=8, min_width=300, elem_id="rail"):
            made["summary"] = gr.HTML(board.summary(view) if view else "", elem_id="summary")
            made["curve"] = curve_plot(view)
            made["plot"] = _plot(view)
            made |= _takeaway(runs)
            made["angle"] = _angle(view)
    return made


def _ask() -> dict[str, Any]:
    made: dict[str, Any] = {}
    with gr.Row(elem_id="ask"):
        made["concept"] = gr.Textbox(
            label="What should the model forget?",
            placeholder="What should it forget? For example cat, or Van Gogh style",
            elem_id="concept",
            scale=6,
            min_width=240,
            container=False,
            autofocus=True,
            max_lines=1,
        )
        made["run"] = gr.Button(
            "Make it forget", variant="primary", elem_id="run", scale=0, min_width=170
        )
        made["stop"] = gr.Button(
            "Stop", variant="stop", elem_id="stop", scale=0, min_width=110, visible=False
        )
    made["hint"] = gr.HTML(render.hint(""), elem_id="hint")
    return made


def _plot(view: View | None) -> gr.LinePlot:
    return gr.LinePlot(
        loss_table(view),
        x="step",
        y="loss",
        color="term",
        color_map=TERM_COLORS,
        x_lim=[0, view.total_steps] if view else None,
        title="Loss: forgetting, then the attack",
        x_title="optimizer step",
        y_title="loss",
        color_title=" ",
        height=260,
        buttons=[],
        elem_id="plot",
    )


def curve_plot(view: View | None) -> gr.LinePlot:
    """How the concept comes back under attack; hidden until the attack has come somewhere."""
    table = curve_table(view)
    return gr.LinePlot(
        table,
        x="step",
        y="share",
        color="group",
        color_map=CURVE_COLORS,
        y_lim=render.PERCENT_AXIS,
        title="What comes back under attack",
        x_title="attack step",
        y_title="show what was asked, %",
        color_title=" ",
        height=260,
        buttons=[],
        visible=table["step"].nunique() > 1,
        elem_id="curve",
    )


def _angle(view: View | None) -> gr.LinePlot:
    return gr.LinePlot(
        angle_table(view),
        x="step",
        y="angle",
        x_lim=[0, view.config.unlearn.steps] if view else None,
        y_lim=[0, 180],
        title="Angle between the two gradients",
        x_title="step of forgetting (above 90° keeping opposes it)",
        y_title="degrees",
        height=230,
        buttons=[],
        elem_id="angle",
    )


def _takeaway(runs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    names = (
        ("adapter", "Adapter"),
        ("strip", "Picture strip"),
        ("folder", "Whole run (zip)"),
        ("report", "Report"),
    )
    with gr.Row(elem_id="downloads"):
        buttons = tuple(
            gr.DownloadButton(text, size="sm", visible=False, min_width=90, elem_id=f"get-{kind}")
            for kind, text in names
        )
    shown = gr.Dropdown(
        list(runs),
        value=runs[0][1] if runs else None,
        label="Shown run",
        info="recorded runs, and yours of this visit",
        elem_id="shown",
        visible=bool(runs),
    )
    return {"downloads": buttons, "shown": shown, "history": history_panel(runs[1:])}


def loss_table(view: View | None) -> pd.DataFrame:
    """The loss points as the plot wants them.

    A point without a loss per term comes first: the plot learns its colours when it is mounted,
    from what is there.
    """
    terms = [name for name in TERM_COLORS if name != "resist" or (view and view.config.resist.on)]
    table = {"step": [0] * len(terms), "loss": [None] * len(terms), "term": terms}
    for name, values in (view.table() if view else {}).items():
        table[name] += values
    return pd.DataFrame(table).astype({"step": "float64", "loss": "float64", "term": "str"})


def curve_table(view: View | None) -> pd.DataFrame:
    """The relearn curve as the plot wants it; see `loss_table` for the first rows."""
    lines = [name for name in CURVE_COLORS if name in GROUPS or (view and name in view.controls)]
    table = {"step": [0] * len(lines), "share": [None] * len(lines), "group": lines}
    for name, values in (view.curve_table() if view else {}).items():
        table[name] += values
    return pd.DataFrame(table).astype({"step": "float64", "share": "float64", "group": "str"})


def angle_table(view: View | None) -> pd.DataFrame:
    """The angles as the plot wants them; see `loss_table` for the first row."""
    table = {"step": [0], "angle": [None]}
    for name, values in (view.angle_table() if view else {}).items():
        table[name] += values
    return pd.DataFrame(table).astype("float64")
