"""What happens on a click: thin generators that queue a job, render its events and set its cancel
flag at the end.
"""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..common import registry
from ..common.errors import ConfigError, UnlearnError
from ..runs.folder import Run
from ..service.engine import Engine, Job
from ..settings.events import AttackCheckpoint, Images, Preview
from ..settings.run_config import MAX_TEXT
from . import board, render
from .layout import Page, angle_table, curve_plot, loss_table
from .shelf import GONE, Shelf, Updates
from .view import View

POLL = 0.25
HEARTBEAT = 0.5


class Handlers:
    """The listeners of one page; holds no state of any visitor."""

    def __init__(self, engine: Engine, core: Any, page: Page, model: str, shelf: Shelf) -> None:
        self._engine, self._core, self._page, self._model, self._shelf = (
            engine,
            core,
            page,
            model,
            shelf,
        )

    def check(self, concept: str, *values: Any) -> list[dict]:
        """Judge the fields before anything is queued; one sentence stands at the field it is
        about.
        """
        message, at = self._trouble(concept, values)
        names = ["concept", *self._page.options.components]
        at = at if at in names else "concept"
        return [gr.validate(not message or name != at, message) for name in names]

    def explain(self, concept: str, *values: Any) -> Updates:
        """Say under the box how the text was understood, or what is wrong and what to pick
        instead.
        """
        page = self._page
        if not (concept or "").strip():
            return {page.hint: render.hint(""), page.prompts: "", page.command: ""}
        try:
            config = page.options.config(concept, values, self._model)
            known = self._core.preview_concept(config)
        except ConfigError as error:
            said = render.hint(str(error), self._near(concept, error.field))
            return {page.hint: said, page.prompts: "", page.command: ""}
        return {
            page.hint: render.understood(
                known.name, known.kind, known.anchor, registry.advice(config.objective, known.kind)
            ),
            page.prompts: render.prompts(known),
            page.command: config.command(),
        }

    def refuse(self, concept: str, *values: Any) -> tuple[Any, Any]:
        """Say what is wrong where it is seen: under the box, and in the options when the trouble is
        there.
        """
        message, at = self._trouble(concept, values)
        if not message:
            return gr.skip(), gr.skip()
        return render.hint(message, self._near(concept, at)), (
            gr.Accordion(open=True) if at != "concept" else gr.skip()
        )

    def run(self, request: gr.Request, concept: str, *values: Any) -> Iterator[Updates]:
        """Queue a run and show it until it ends; leaving in any way ends it."""
        page, session = self._page, request.session_hash or ""
        try:
            config = page.options.config(concept, values, self._model)
            self._core.preview_concept(config)
            job = self._engine.submit(config, session)
        except UnlearnError as error:
            yield {page.hint: render.hint(str(error))}
            return
        try:
            yield from self._follow(job)
        finally:
            job.cancel.set()

    def _follow(self, job: Job) -> Iterator[Updates]:
        page, view = self._page, View(job.config)
        yield self._begin(view)
        beat = 0.0
        while not job.over:
            events = job.take(POLL)
            changed = self._fold(view, events)
            view.stopping, view.position = job.cancel.is_set(), self._engine.position(job)
            if changed or time.monotonic() - beat >= HEARTBEAT:
                beat = time.monotonic()
                yield changed | {page.status: render.status(view)} | self._losses(view)
        view.over, view.error = True, job.error
        view.stopped = view.stopped or job.cancel.is_set()
        yield self._finish(view, job)

    def _fold(self, view: View, events: list) -> Updates:
        page, changed = self._page, {}
        for event in events:
            view.apply(event)
            if isinstance(event, Preview) or (
                isinstance(event, AttackCheckpoint) and not event.control
            ):
                changed[page.film] = board.film(view)
            if isinstance(event, AttackCheckpoint):
                changed[page.curve] = curve_plot(view)
            elif isinstance(event, Images):
                changed[page.board] = board.comparison(view)
        return changed

    def _losses(self, view: View) -> Updates:
        return (
            {self._page.plot: loss_table(view), self._page.angle: angle_table(view)}
            if view.step
            else {}
        )

    def _begin(self, view: View) -> Updates:
        page = self._page
        return {
            page.run: gr.Button(visible=False),
            page.stop: gr.Button("Stop", visible=True, interactive=True),
            page.concept: gr.Textbox(interactive=False),
            page.status: render.status(view),
            page.film: "",
            page.board: board.comparison(view),
            page.summary: "",
            **self._shelf.plots(view),
            **self._shelf.put_away(),
            **self._shelf.lab(None, None),
            **{button: gr.DownloadButton(visible=False) for button in page.downloads},
        }

    def _finish(self, view: View, job: Job) -> Updates:
        page, folder = self._page, self._engine.runs.get(job.id, job.session)
        if folder and not view.error:
            view.timing = dict(Run.open(folder).record.get("timing") or {})
        return {
            page.run: gr.Button(visible=True),
            page.stop: gr.Button(visible=False),
            page.concept: gr.Textbox(interactive=True),
            **self._shelf.choices(job.session, job.id if folder else None),
            page.status: render.status(view),
            page.film: board.film(view),
            page.board: board.comparison(view),
            page.summary: board.summary(view),
            page.curve: curve_plot(view),
            page.plot: loss_table(view),
            page.angle: angle_table(view),
            **self._shelf.lab(view if folder else None, folder),
            **self._shelf.links(folder),
        }

    def stop(self, request: gr.Request) -> tuple[Any, Any]:
        """Ask the visitor's run to end, and say so at once."""
        if not self._engine.stop(request.session_hash or ""):
            return gr.skip(), gr.skip()
        return gr.Button("Stopping…", interactive=False), render.stopping()

    def leave(self, request: gr.Request) -> None:
        """The tab was closed or reloaded."""
        self._engine.leave(request.session_hash or "")

    def show(self, request: gr.Request, key: str | None) -> Updates:
        """Put a finished run on screen again."""
        session = request.session_hash or ""
        if self._shelf.find(key, session) is None:
            return {self._page.hint: render.hint(GONE)}
        return self._shelf.drawn(key, session) | self._shelf.choices(session, key)

    def arrive(self, key: str | None) -> Updates:
        """The page is on screen: let the model load, and offer the files of the recorded run."""
        self._engine.arrive()
        return self._shelf.links(self._shelf.recorded.get(key or ""))

    def readiness(self) -> tuple[Any, Any]:
        """The badge in the header, asked for until the model is loaded."""
        done = self._engine.ready.is_set()
        return render.header(done, self._engine.trouble), gr.Timer(active=not done)

    def _near(self, concept: str, at: str) -> list[str]:
        return (
            self._core.nearest_known(concept)
            if at == "concept" and 0 < len(concept.strip()) <= MAX_TEXT
            else []
        )

    def _trouble(self, concept: str, values: tuple) -> tuple[str, str]:
        try:
            self._core.preview_concept(self._page.options.config(concept, values, self._model))
        except ConfigError as error:
            return str(error), error.field or "concept"
        return "", ""
