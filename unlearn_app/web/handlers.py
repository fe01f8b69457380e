"""What happens around the box and the button: a text is understood or refused, a run is queued,
shown and stopped.
"""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..common import registry
from ..common.errors import ConfigError, UnlearnError
from ..concepts.catalog import nearest_known, preview_concept
from ..runs.folder import Run
from ..service.engine import Engine, Job
from ..settings.events import AttackCheckpoint, Event, Images, Preview
from ..settings.run_config import MAX_TEXT
from .concept_texts import INVITATION, header, prompt_lists, understood
from .following import Updates, follow
from .html import alert
from .layout import Page
from .plots import angle_table, curve_plot, loss_table
from .run_html import comparison_table, preview_strip
from .run_list import RunList
from .status import STOP_ASKED, status
from .view_state import ViewState


class RunHandlers:
    """The listeners of the first tab's box and buttons; holds no state of any visitor."""

    def __init__(self, engine: Engine, page: Page, model: str, runs: RunList) -> None:
        self._engine, self._page, self._model, self._runs = engine, page, model, runs

    def check(self, concept: str, *values: Any) -> list[dict]:
        """Judge the fields before anything is queued; a sentence stands at the field it is
        about.
        """
        message, at = self._refusal(concept, values)
        names = ["concept", *self._page.options.components]
        at = at if at in names else "concept"
        return [gr.validate(not message or name != at, message) for name in names]

    def explain(self, concept: str, *values: Any) -> Updates:
        """Say under the box how the text was understood, or what is wrong and what to pick
        instead.
        """
        page = self._page
        if not (concept or "").strip():
            return {page.hint: INVITATION, page.prompts: "", page.command: ""}
        try:
            config = page.options.config(concept, values, self._model)
            known = preview_concept(config)
        except ConfigError as error:
            hint = alert(str(error), self._nearest(concept, error.field))
            return {page.hint: hint, page.prompts: "", page.command: ""}
        return {
            page.hint: understood(known, registry.advice(config.objective, known.kind)),
            page.prompts: prompt_lists(known),
            page.command: config.command(),
        }

    def refuse(self, concept: str, *values: Any) -> tuple[Any, Any]:
        """Say what is wrong under the box, and open the options when it is there."""
        message, at = self._refusal(concept, values)
        if not message:
            return gr.skip(), gr.skip()
        options = gr.skip() if at == "concept" else gr.Accordion(open=True)
        return alert(message, self._nearest(concept, at)), options

    def _refusal(self, concept: str, values: tuple) -> tuple[str, str]:
        """A sentence and the name of the field it is about; both empty when all is well."""
        try:
            preview_concept(self._page.options.config(concept, values, self._model))
        except ConfigError as error:
            return str(error), error.field or "concept"
        return "", ""

    def _nearest(self, concept: str, at: str) -> list[str]:
        asked = at == "concept" and 0 < len(concept.strip()) <= MAX_TEXT
        return nearest_known(concept) if asked else []

    def run(self, request: gr.Request, concept: str, *values: Any) -> Iterator[Updates]:
        """Queue a run and show it until it ends; leaving in any way ends it."""
        page, session = self._page, request.session_hash or ""
        try:
            config = page.options.config(concept, values, self._model)
            preview_concept(config)
            job = self._engine.submit(config, session)
        except UnlearnError as error:
            yield {page.hint: alert(str(error))}
            return
        state = ViewState(config)
        yield from follow(
            job,
            self._begun(state),
            lambda events: self._take_in(state, events),
            lambda: self._told(state, job),
            lambda: self._ended(state, job),
        )

    def _begun(self, state: ViewState) -> Updates:
        page = self._page
        return {
            page.run: gr.Button(visible=False),
            page.stop: gr.Button("Stop", visible=True, interactive=True),
            page.concept: gr.Textbox(interactive=False),
            **self._runs.on_screen(state, None),
            **self._runs.locked(),
        }

    def _take_in(self, state: ViewState, events: list[Event]) -> Updates:
        page, changed = self._page, {}
        for event in events:
            state.apply(event)
            if isinstance(event, AttackCheckpoint):
                changed[page.curve] = curve_plot(state)
            if isinstance(event, Images):
                changed[page.comparison] = comparison_table(state)
            if isinstance(event, Preview | AttackCheckpoint):
                changed[page.previews] = preview_strip(state)
        return changed

    def _told(self, state: ViewState, job: Job) -> Updates:
        page = self._page
        state.stopping, state.position = job.cancel.is_set(), self._engine.position(job)
        told: Updates = {page.status: status(state)}
        if state.step:
            told |= {page.losses: loss_table(state), page.angles: angle_table(state)}
        return told

    def _ended(self, state: ViewState, job: Job) -> Updates:
        page, folder = self._page, self._engine.runs.get(job.id, job.session)
        state.over, state.error = True, job.error
        state.stopped = state.stopped or job.cancel.is_set()
        if folder and not state.error:
            state.timing = dict(Run.open(folder).record.get("timing") or {})
        return {
            page.run: gr.Button(visible=True),
            page.stop: gr.Button(visible=False),
            page.concept: gr.Textbox(interactive=True),
            **self._runs.choices(job.session, job.id if folder else None),
            **self._runs.on_screen(state, folder),
        }

    def stop(self, request: gr.Request) -> tuple[Any, Any]:
        """Ask the visitor's run to end, and say so at once."""
        if not self._engine.stop(request.session_hash or ""):
            return gr.skip(), gr.skip()
        return gr.Button("Stopping…", interactive=False), STOP_ASKED

    def leave(self, request: gr.Request) -> None:
        """The tab was closed or reloaded."""
        self._engine.leave(request.session_hash or "")

    def arrive(self, key: str | None) -> Updates:
        """The page is on screen: let the model load, and offer the files of the recorded run."""
        self._engine.arrive()
        return self._runs.links(self._runs.recorded.get(key or ""))

    def readiness(self) -> tuple[Any, Any]:
        """The badge in the header, asked for until the model is loaded."""
        done = self._engine.ready.is_set()
        return header(done, self._engine.load_error), gr.Timer(active=not done)
