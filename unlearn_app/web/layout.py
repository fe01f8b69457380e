"""The components of the page and where they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from .concept_box import WIDE, concept_box, stop_button
from .concept_texts import INVITATION, header, known_concepts
from .options import Options, build_options, build_switch
from .plots import angle_plot, curve_plot, loss_plot
from .run_html import comparison_table, preview_strip, score_table
from .run_panels import AttackPanel, RunActions, attack_panel, run_actions
from .sequence_tab import SequenceTab
from .status import WELCOME, status
from .view_state import ViewState

DOWNLOADS = {
    "adapter": "LoRA weights",
    "strip": "Slide image",
    "folder": "All files (zip)",
    "report": "Report",
}


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
    attacks: AttackPanel
    previews: gr.HTML
    comparison: gr.HTML
    scores: gr.HTML
    curve: gr.LinePlot
    losses: gr.LinePlot
    angles: gr.LinePlot
    downloads: tuple[gr.DownloadButton, ...]
    shown: gr.Dropdown
    actions: RunActions
    ready: gr.Timer
    sequence: SequenceTab

    @property
    def of_one_run(self) -> list[Any]:
        """The components that show a run, or what may be done with it."""
        shown = [self.previews, self.comparison, self.scores, self.curve, self.losses, self.angles]
        shown += [self.status, self.shown, *self.downloads]
        return [*shown, *vars(self.attacks).values(), *vars(self.actions).values()]


def lay_out(
    names: Sequence[tuple[str, str]],
    runs: Sequence[tuple[str, str]],
    state: ViewState | None,
    sequence: Callable[[], SequenceTab],
) -> Page:
    """Create the components inside the current `gr.Blocks`; `state`, of the first of `runs`, is on
    screen on arrival.

    `sequence` makes the second tab.
    """
    made: dict[str, Any] = {
        "ready": gr.Timer(0.5),
        "head": gr.HTML(header(False, ""), elem_id="head"),
    }
    with gr.Tabs(elem_id="tabs"):
        with gr.Tab("One concept"):
            made |= _question(names) | _result(runs, state)
        with gr.Tab("Several requests"):
            made["sequence"] = sequence()
    return Page(**made)


def _question(names: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The box, the buttons, and everything that may be chosen."""
    made: dict[str, Any] = {}
    with gr.Row(elem_id="ask"):
        made["concept"] = concept_box(
            label="What should the model forget?",
            placeholder="What should it forget? For example cat, or Van Gogh style",
            elem_id="concept",
            autofocus=True,
        )
        made["run"] = gr.Button("Make it forget", variant="primary", elem_id="run", **WIDE)
        made["stop"] = stop_button("stop")
    made["hint"] = gr.HTML(INVITATION, elem_id="hint")
    gr.HTML(known_concepts(names), elem_id="chips")
    switch = build_switch()
    with gr.Accordion("Options", open=False, elem_id="options") as made["folded"]:
        made["options"] = build_options(switch)
        made["command"] = gr.Textbox(
            label="The same run from a terminal",
            interactive=False,
            buttons=["copy"],
            elem_id="command",
            max_lines=4,
        )
        made["prompts"] = gr.HTML("", elem_id="prompts")
    return made


def _result(runs: Sequence[tuple[str, str]], state: ViewState | None) -> dict[str, Any]:
    """Verdict, attacks, pictures, scores, plots and files of a run."""
    made: dict[str, Any] = {
        "status": gr.HTML(status(state) if state else WELCOME, elem_id="status"),
        "attacks": attack_panel(state),
    }
    with gr.Row(elem_id="result"):
        with gr.Column(scale=12, min_width=300):
            made["comparison"] = gr.HTML(comparison_table(state) if state else "", elem_id="board")
            made["previews"] = gr.HTML(preview_strip(state) if state else "", elem_id="film")
        with gr.Column(scale=8, min_width=300, elem_id="rail"):
            made["scores"] = gr.HTML(score_table(state) if state else "", elem_id="summary")
            made["curve"] = curve_plot(state)
            made["losses"] = loss_plot(state)
            with gr.Row(elem_id="downloads"):
                made["downloads"] = tuple(
                    gr.DownloadButton(
                        text, size="sm", visible=False, min_width=90, elem_id=f"get-{kind}"
                    )
                    for kind, text in DOWNLOADS.items()
                )
            made["shown"] = gr.Dropdown(
                list(runs),
                value=runs[0][1] if runs else None,
                label="Shown run",
                info="recorded runs, and yours of this visit",
                elem_id="shown",
                visible=bool(runs),
            )
            made["actions"] = run_actions(runs[1:])
            made["angles"] = angle_plot(state)
    return made
