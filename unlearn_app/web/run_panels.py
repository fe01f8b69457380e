"""The panels of a finished run: the attacks to try on it, and what can be done with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from ..common import registry
from ..settings.attacks import QUICK
from .concept_box import WIDE, stop_button
from .html import note
from .run_html import attack_cards
from .view_state import ViewState

COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
DELETE, SURE = "Delete this run", "Really delete it?"


@dataclass(frozen=True)
class AttackPanel:
    """Under the verdict: which attack to try, its progress, and what all of them found."""

    row: gr.Row
    kind: gr.Dropdown
    go: gr.Button
    quit: gr.Button
    said: gr.HTML
    found: gr.HTML


@dataclass(frozen=True)
class RunActions:
    """Under the list of runs: delete the one on screen, or compare it with others."""

    others: gr.Dropdown
    compared: gr.DownloadButton
    delete: gr.Button
    said: gr.HTML

    def delete_button(self, sure: bool = False, visible: bool = True) -> gr.Button:
        """The button as it is, or as it asks whether that was meant."""
        return gr.Button(
            SURE if sure else DELETE, variant="stop" if sure else "secondary", visible=visible
        )


def attack_choices() -> list[tuple[str, str]]:
    """What may be tried: a few attacks, all, or one by name."""
    few = COUNTS.get(len(QUICK), str(len(QUICK)))
    names = [
        (f"{name.replace('_', ' ').capitalize()}: {registry.describe('attack', name)}", name)
        for name in registry.names("attack")
    ]
    return [(f"A quick look ({few} attacks)", "quick"), ("Every attack", "all"), *names]


def obstacle(state: ViewState, folder: Path | None) -> str:
    """Why this run cannot be attacked here; empty when it can."""
    if state.recorded:
        return (
            "This run came with the app. Make it forget something yourself, and you can try to get"
            " it back here."
        )
    if folder is None or not (folder / "unlearn.safetensors").is_file():
        return "Nothing to get back: this run ended before anything was forgotten."
    known = state.scores.get("original", {}).get("forget")
    if known is not None and known.accuracy is None:
        return "There is no judge for this model, so nobody could say whether an attack succeeds."
    return ""


def attack_panel(state: ViewState | None) -> AttackPanel:
    """Create the panel in the current `gr.Blocks`; `state` is of a run that came with the app."""
    why = obstacle(state, None) if state else ""
    with gr.Row(elem_id="lab", visible=state is not None and not why) as row:
        kind = gr.Dropdown(
            attack_choices(),
            value="quick",
            label="How to try",
            elem_id="kind",
            container=False,
            scale=6,
            min_width=240,
            filterable=False,
        )
        go = gr.Button("Try to get it back", elem_id="go", **WIDE)
        quit_ = stop_button("quit")
    said = gr.HTML(note(why), elem_id="lab-said")
    found = gr.HTML(attack_cards(state.findings) if state else "", elem_id="found")
    return AttackPanel(row, kind, go, quit_, said, found)


def run_actions(others: Sequence[tuple[str, str]]) -> RunActions:
    """Create the panel in the current `gr.Blocks`; `others` are runs to compare with the one on
    screen.
    """
    chosen = gr.Dropdown(
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
        compared = gr.DownloadButton(
            "Comparison", size="sm", visible=False, min_width=120, elem_id="get-comparison"
        )
        delete = gr.Button(DELETE, size="sm", visible=False, min_width=120, elem_id="delete")
    return RunActions(chosen, compared, delete, gr.HTML("", elem_id="history-said"))
