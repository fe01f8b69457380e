"""The choice of the kind of a concept: shown where its words do not tell it, and only there."""

from types import SimpleNamespace

import gradio as gr
import pytest

from unlearn_app.service.pace import Pace
from unlearn_app.web.handlers import RunHandlers
from unlearn_app.web.layout import Page


def explained(model: str, text: str, kind: str) -> tuple[dict[str, object], str]:
    """What `explain` updates by element, and the field at which `check` shows a mistake."""
    with gr.Blocks():
        page = Page([], [], None, Pace(), model)
    handlers = RunHandlers(SimpleNamespace(pace=Pace()), page, model, None)
    fields = page.options.components
    values = [kind if name == "concept_kind" else own.value for name, own in fields.items()]
    shown = {own.elem_id: update for own, update in handlers.explain(text, *values).items()}
    checked = zip(["key", "concept", *fields], handlers.check("", text, *values), strict=True)
    return shown, "".join(name for name, found in checked if not found["is_valid"])


@pytest.mark.parametrize(
    ("model", "text", "kind", "visible", "mistake"),
    [
        ("some/model", "zorblax", "auto", True, "concept_kind"),
        ("some/model", "zorblax", "style", True, ""),
        ("some/model", "red cat", "auto", False, ""),
        ("some/model", "cat, dog", "auto", False, "concept"),
        ("pocket", "cat", "auto", False, ""),
        ("pocket", "zorblax", "auto", False, "concept"),
    ],
)
def test_the_choice_is_shown_where_it_is_needed(
    model: str, text: str, kind: str, visible: bool, mistake: str
) -> None:
    shown, field = explained(model, text, kind)
    assert shown["concept-kind"].visible == visible
    assert field == mistake
    assert bool(shown["prompts"]) == (not mistake)


def test_the_hint_says_what_stays_and_the_preview_what_is_shown_instead() -> None:
    shown, _ = explained("some/model", "a photo of red cats", "auto")
    assert "made of stays: cat" in shown["hint"]
    assert "Instead" in shown["prompts"]
    assert "<b>red cat</b>" in shown["hint"]


def test_no_seconds_are_told_of_a_model_whose_pace_nobody_knows() -> None:
    assert "about" in explained("pocket", "cat", "auto")[0]["estimate"]
    assert explained("some/model", "red cat", "auto")[0]["estimate"] == ""


def test_a_list_names_the_command_on_the_page_too() -> None:
    shown, _ = explained("pocket", "cat and dog", "auto")
    assert "continual --concepts cat,dog" in shown["hint"]
