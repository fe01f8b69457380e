"""What stands around a finished run: the attacks that may be tried on it, and the list of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..common import registry
from ..settings.attacks import QUICK
from . import proofs
from .view import View

COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
DELETE, SURE = "Delete this run", "Really delete it?"


@dataclass(frozen=True)
class LabPanel:
    """Under the verdict: which attack to try, its progress, and what all of them found."""

    row: gr.Row
    kind: gr.Dropdown
    go: gr.Button
    quit: gr.Button
    said: gr.HTML
    found: gr.HTML


@dataclass(frozen=True)
class HistoryPanel:
    """Under the list of runs: delete the one on screen, or compare it with others."""

    others: gr.Dropdown
    compared: gr.DownloadButton
    delete: gr.Button
    said: gr.HTML

    def asking(self, sure: bool = False, visible: bool = True) -> gr.Button:
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


def obstacle(view: View, folder: Path | None) -> str:
    """Why this run cannot be attacked here; empty when it can."""
    if view.recorded:
        return (
            "This run came with the app. Make it forget something yourself, and you can try to get"
            " it back here."
        )
    if folder is None or not (folder / "unlearn.safetensors").is_file():
        return "Nothing to get back: this run ended before anything was forgotten."
    known = view.scores.get("original", {}).get("forget")
    if known is not None and known.accuracy is None:
        return "There is no judge for this model, so nobody could say whether an attack succeeds."
    return ""


def lab_panel(view: View | None) -> LabPanel:
    """Create the panel in the current `gr.Blocks`; the run in `view`, if any, came with the app."""
    why = obstacle(view, None) if view else ""
    with gr.Row(elem_id="lab", visible=view is not None and not why) as row:
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
        go = gr.Button("Try to get it back", elem_id="go", scale=0, min_width=170)
        quit_ = gr.Button(
            "Stop", variant="stop", elem_id="quit", scale=0, min_width=110, visible=False
        )
    said = gr.HTML(proofs.note(why), elem_id="lab-said")
    found = gr.HTML(proofs.findings(view.findings) if view else "", elem_id="found")
    return LabPanel(row, kind, go, quit_, said, found)


def history_panel(others: Sequence[tuple[str, str]]) -> HistoryPanel:
    """Create the panel in the current `gr.Blocks`; `others` are runs to compare with the one on
    screen.
    """
    parts: dict[str, Any] = {
        "others": gr.Dropdown(
            list(others),
            value=[],
            multiselect=True,
            max_choices=5,
            label="Compare it with",
            info="other runs; the page that comes is a file to keep",
            elem_id="others",
            visible=bool(others),
        )
    }
    with gr.Row(elem_id="history"):
        parts["compared"] = gr.DownloadButton(
            "Comparison", size="sm", visible=False, min_width=120, elem_id="get-comparison"
        )
        parts["delete"] = gr.Button(
            DELETE, size="sm", visible=False, min_width=120, elem_id="delete"
        )
    parts["said"] = gr.HTML("", elem_id="history-said")
    return HistoryPanel(**parts)
