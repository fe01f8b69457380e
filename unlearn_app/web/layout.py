"""The components of the page's first tab and where they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..common import registry
from ..common.registry import DEFAULT_MODEL
from ..runs.folder import ADAPTER, REPLACEMENT
from ..service.pace import Pace
from ..settings.attacks import QUICK
from ..settings.run_config import make_config
from .html import estimate, note, render
from .options import EXAMPLE, Options, kind_choice
from .plots import angle_plot, curve_plot, loss_plot
from .recordings import Recorded, recorded_cards
from .run_html import attack_cards, chart_text, comparison_table, score_table, status
from .share import share
from .stage import stage
from .view_state import ViewState

BOX: dict[str, Any] = {"scale": 6, "min_width": 240, "container": False, "max_lines": 1}
START: dict[str, Any] = {"scale": 0, "min_width": 170}
STOP: dict[str, Any] = {"variant": "stop", "scale": 0, "min_width": 110, "visible": False}
"""How boxes for a concept, and buttons that start or stop a job, look in both tabs."""
INVITATION = (
    '<p class="u-hint u-ok">Type a thing or a style; synonyms and capitals do not matter.</p>'
)
PICK_CARD = """element.addEventListener("click", (event) => {
  const card = event.target.closest("[data-recorded]");
  if (!card) return;
  document.getElementById("cards").dataset.picked = card.dataset.recorded;
  trigger("select");
});"""
PICKED = '(key) => [key, document.getElementById("cards").dataset.picked]'
"""Read when the event is sent: Gradio repeats a deferred event with the data of the one before."""
DELETE, SURE = "Delete this run", "Really delete it?"
DOWNLOADS = {
    "adapter": "LoRA weights",
    "others": "LoRA for ComfyUI and A1111",
    "strip": "Slide image",
    "folder": "All files (zip)",
    "report": "Report",
}


class AttackPanel:
    """The choice of an attack and its progress; the findings of all attacks, which the page renders
    where it has room for them. `state` is that of the recorded run on screen, if there is one.
    """

    def __init__(self, state: ViewState | None) -> None:
        why = obstacle(state, None) if state else ""
        names = [
            (f"{name.replace('_', ' ').capitalize()}: {registry.describe('attack', name)}", name)
            for name in registry.names("attack")
        ]
        quick = (f"A quick look ({len(QUICK)} attacks)", "quick")
        with gr.Row(elem_id="lab", visible=state is not None and not why) as self.row:
            self.kind = gr.Dropdown(
                [quick, ("Every attack", "all"), *names],
                value="quick",
                label="How to try",
                elem_id="kind",
                container=False,
                scale=6,
                min_width=240,
                filterable=False,
            )
            self.start = gr.Button("Try to get it back", elem_id="go", **START)
            self.stop = gr.Button("Stop", elem_id="quit", **STOP)
        self.message = gr.HTML(note(why), elem_id="lab-said")
        found = attack_cards(state.findings if state else ())
        self.findings = gr.HTML(found, elem_id="found", render=False)


class RunActions:
    """Under the list of runs: delete the one on screen, or compare it with `others`."""

    def __init__(self, others: Sequence[tuple[str, str]]) -> None:
        self.others = gr.Dropdown(
            list(others),
            value=[],
            multiselect=True,
            max_choices=5,
            label="Compare it with",
            info="other runs; the page that comes is a file to keep",
            elem_id="others",
            visible=bool(others),
        )
        with gr.Row(elem_id="history"):
            self.compared = gr.DownloadButton(
                "Comparison", size="sm", visible=False, min_width=120, elem_id="get-comparison"
            )
            self.delete = gr.Button(
                DELETE, size="sm", visible=False, min_width=120, elem_id="delete"
            )
        self.message = gr.HTML("", elem_id="history-said")

    def delete_button(self, sure: bool = False, visible: bool = True) -> gr.Button:
        """The button, or its question that asks for a second click."""
        return gr.Button(
            SURE if sure else DELETE, variant="stop" if sure else "secondary", visible=visible
        )


def obstacle(state: ViewState, folder: Path | None) -> str:
    """Why this run cannot be attacked here; empty when it can."""
    if state.recorded:
        return (
            "This run came with the app. Make it forget something yourself, and you can try to get"
            " it back here."
        )
    if folder is None or not any((folder / name).exists() for name in (ADAPTER, REPLACEMENT)):
        return "Nothing to get back: this run ended before anything was forgotten."
    known = state.scores.get("original", {}).get("forget")
    if known is not None and known.accuracy is None:
        return "There is no judge for this model, so nobody could say whether an attack succeeds."
    return ""


class Page:
    """The components that listeners read or write, created inside the current `gr.Blocks`.

    `names` are the known concepts of `model` with their kinds. `runs` are the choices of recorded
    runs, and `cards` show them; the page opens with the first one, whose state is `state`. `pace`
    tells how long runs take.
    """

    def __init__(
        self,
        names: Sequence[tuple[str, str]],
        runs: Sequence[tuple[str, str]],
        state: ViewState | None,
        pace: Pace,
        model: str = DEFAULT_MODEL,
        cards: Sequence[Recorded] = (),
    ) -> None:
        self.came_back = gr.State(False)
        self._add_question(names, model, pace)
        self.share = gr.HTML(share(None, None), elem_id="share")
        with gr.Row(elem_id="first"):
            with gr.Column(elem_id="scene"):
                self.stage = gr.HTML(stage(state), elem_id="stage")
                self.attacks = AttackPanel(state)
            with gr.Column(elem_id="outcome"):
                self.status = gr.HTML(status(state), elem_id="status")
                self.cards = gr.HTML(recorded_cards(cards), elem_id="cards", js_on_load=PICK_CARD)
        self.attacks.findings.render()
        with gr.Row(elem_id="result"):
            with gr.Column(scale=12, min_width=300):
                self.comparison = gr.HTML(comparison_table(state), elem_id="board")
            with gr.Column(scale=8, min_width=300, elem_id="rail"):
                self._add_rail(runs, state)

    def _add_question(self, names: Sequence[tuple[str, str]], model: str, pace: Pace) -> None:
        with gr.Row(elem_id="ask"):
            self.concept = gr.Textbox(
                label="What should the model forget?",
                placeholder="What should it forget? For example cat, or Van Gogh style",
                elem_id="concept",
                autofocus=True,
                **BOX,
            )
            usual = pace.total(make_config(EXAMPLE, model=model))
            self.estimate = gr.HTML(estimate(usual), elem_id="estimate")
            self.run = gr.Button("Make it forget", variant="primary", elem_id="run", **START)
            self.stop = gr.Button("Stop", elem_id="stop", **STOP)
        self.hint = gr.HTML(INVITATION, elem_id="hint")
        kind = kind_choice()
        gr.HTML(known_concepts(names), elem_id="chips")
        with gr.Accordion("Options", open=False, elem_id="options") as self.folded:
            self.options = Options(kind, pace, model)
            self.command = gr.Textbox(
                label="The same run from a terminal",
                interactive=False,
                buttons=["copy"],
                elem_id="command",
                max_lines=4,
            )
            self.prompts = gr.HTML("", elem_id="prompts")

    def _add_rail(self, runs: Sequence[tuple[str, str]], state: ViewState | None) -> None:
        self.scores = gr.HTML(score_table(state), elem_id="summary")
        self.curve = curve_plot(state)
        self.losses = loss_plot(state)
        self.in_words = gr.HTML(chart_text(state), elem_id="chart-text")
        with gr.Row(elem_id="downloads"):
            self.downloads = {
                kind: gr.DownloadButton(
                    text, size="sm", visible=False, min_width=90, elem_id=f"get-{kind}"
                )
                for kind, text in DOWNLOADS.items()
            }
        self.shown = gr.Dropdown(
            list(runs),
            value=runs[0][1] if runs else None,
            label="Shown run",
            info="recorded runs, and yours of this visit",
            elem_id="shown",
            visible=bool(runs),
        )
        self.actions = RunActions(runs[1:])
        self.angles = angle_plot(state)

    @property
    def of_one_run(self) -> list[Any]:
        """The components that show a run, or act on it."""
        shown = [self.stage, self.comparison, self.scores, self.curve, self.losses, self.angles]
        shown += [self.in_words, self.status, self.shown, self.share, *self.downloads.values()]
        return [*shown, *vars(self.attacks).values(), *vars(self.actions).values()]


def known_concepts(names: Sequence[tuple[str, str]]) -> str:
    """Buttons for names, given with their kinds: objects, then styles, most in a folded part."""
    kinds = {kind: [name for name, own in names if own == kind] for kind in ("object", "style")}
    return render("known_concepts", kinds=kinds) if names else ""
