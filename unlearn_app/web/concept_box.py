"""The box for a concept, and the buttons beside such boxes."""

from typing import Any

import gradio as gr

WIDE: dict[str, Any] = {"scale": 0, "min_width": 170}
"""The size of a button that starts something."""


def concept_box(**more: Any) -> gr.Textbox:
    """A box of one line for the name of a concept."""
    return gr.Textbox(scale=6, min_width=240, container=False, max_lines=1, **more)


def stop_button(name: str) -> gr.Button:
    """The button that stops a job, which is hidden until there is one; `name` is its element."""
    return gr.Button("Stop", variant="stop", elem_id=name, scale=0, min_width=110, visible=False)
