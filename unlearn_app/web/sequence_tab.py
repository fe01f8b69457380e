"""The tab for requests in a row: its components, and what happens on a click."""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..common import registry
from ..common.errors import UnlearnError
from ..continual.events import TRAINED, Added
from ..continual.ledger import Ledger
from ..service.engine import Engine
from ..service.jobs import Ask
from ..settings.events import PanelProgress, Stage, Step
from ..settings.groups import REGIMES
from ..settings.presets import (
    DEFAULT_SEQUENCE_OBJECTIVE,
    REGULARIZATION_PRESETS,
    suggested_regularization,
)
from ..settings.run_config import make_config, make_plan
from . import render, sequence

POLL = 0.25
REGIME_TEXT = {
    "sequential": "one on top of the other",
    "independent": "each alone, then merged",
    "simultaneous": "all at once, again and again",
}
HOLD_TEXT = {
    "nothing": "nothing",
    "l1": "small changes (L1)",
    "l2": "small changes (L2)",
    "selective": "important rows only",
    "projection": "projection",
    "projection+l2": "projection, small changes",
}


class SequenceTab:
    """Components and listeners; holds no state of any visitor, whose ledger stands in the engine's
    folder.
    """

    def __init__(self, engine: Engine, core: Any, model: str) -> None:
        self._engine, self._core, self._model = engine, core, model
        with gr.Row(elem_id="ask-next"):
            self.concept = gr.Textbox(
                label="What should it forget next?",
                placeholder="What should it forget next?",
                elem_id="next",
                scale=6,
                min_width=240,
                container=False,
                max_lines=1,
            )
            self.add = gr.Button(
                "Forget this too", variant="primary", elem_id="add", scale=0, min_width=170
            )
            self.halt = gr.Button(
                "Stop", variant="stop", elem_id="halt", scale=0, min_width=110, visible=False
            )
        self.hint = gr.HTML("", elem_id="next-hint")
        with gr.Row():
            self.regime = gr.Dropdown(
                [(REGIME_TEXT[name], name) for name in REGIMES],
                value=REGIMES[0],
                label="Requests",
                min_width=240,
            )
            self.hold = gr.Dropdown(
                [(HOLD_TEXT[name], name) for name in REGULARIZATION_PRESETS],
                value=suggested_regularization(DEFAULT_SEQUENCE_OBJECTIVE, model),
                label="Held back by",
                min_width=240,
            )
            self.objective = gr.Dropdown(
                list(registry.methods()),
                value=DEFAULT_SEQUENCE_OBJECTIVE,
                label="Method",
                min_width=240,
            )
        self.status = gr.HTML(sequence.status(None), elem_id="sequence-status")
        with gr.Row():
            with gr.Column(scale=12, min_width=300):
                self.grid = gr.HTML("", elem_id="ledger")
            with gr.Column(scale=8, min_width=300, visible=False) as self.beside:
                self.plot = _plot()
                with gr.Row():
                    self.to = gr.Dropdown([], label="Go back to", elem_id="back-to", scale=2)
                    self.back = gr.Button("Roll back", elem_id="back", scale=1)
                self.adapter = gr.DownloadButton(
                    "Adapter of all requests", size="sm", elem_id="get-all"
                )
        self._wire()

    def _wire(self) -> None:
        quiet: dict[str, Any] = {
            "queue": False,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        shown = [self.status, self.grid, self.beside, self.plot, self.to, self.adapter]
        shown += [
            self.hint,
            self.add,
            self.halt,
            self.concept,
            self.regime,
            self.hold,
            self.objective,
        ]
        asked = [self.concept, self.regime, self.hold, self.objective]
        gr.on(
            [self.add.click, self.concept.submit],
            self.serve,
            asked,
            shown,
            show_progress="hidden",
            concurrency_limit=32,
            api_visibility="private",
        )
        self.objective.input(
            lambda name: suggested_regularization(name, self._model),
            self.objective,
            self.hold,
            **quiet,
        )
        self.halt.click(self.stop, None, [self.halt], **quiet)
        self.back.click(self.roll_back, self.to, shown, **quiet)

    def serve(
        self, request: gr.Request, concept: str, regime: str, hold: str, objective: str
    ) -> Iterator[dict[Any, Any]]:
        """Queue a request and show it until it is in the ledger; leaving in any way ends it."""
        session = request.session_hash or ""
        try:
            config = make_config(
                concept, objective=objective, model=self._model, **REGULARIZATION_PRESETS[hold]
            )
            self._core.preview_concept(config)
            job = self._engine.submit(Ask(config, make_plan(regime=regime)), session)
        except UnlearnError as error:
            yield {self.hint: render.hint(str(error))}
            return
        try:
            # The box is emptied now and not at the end, when the next word may be in it already.
            buttons = {
                self.add: gr.Button(visible=False),
                self.halt: gr.Button("Stop", visible=True),
            }
            yield buttons | {self.hint: "", self.concept: ""}
            yield from self._follow(job, session)
        finally:
            job.cancel.set()

    def _follow(self, job: Any, session: str) -> Iterator[dict[Any, Any]]:
        stage, start, within, shown = "Waiting for its turn", 0.0, 0.0, 0.0
        while not job.over:
            changed: dict[Any, Any] = {}
            for event in job.take(POLL):
                if isinstance(event, Stage):
                    stage, start, within = event.text, event.fraction, event.fraction
                elif isinstance(event, Step):
                    within = event.step / event.total * TRAINED
                elif isinstance(event, PanelProgress):
                    within = start + event.done / event.total * (1 - start)
                elif isinstance(event, Added):
                    changed = self._drawn(session)
            if changed or time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                yield changed | {self.status: sequence.status(None, stage, within)}
        done = {self.add: gr.Button(visible=True), self.halt: gr.Button(visible=False)}
        failed = job.error and not job.cancel.is_set()
        yield (
            self._drawn(session)
            | done
            | ({self.status: sequence.status(None, error=job.error)} if failed else {})
        )

    def stop(self, request: gr.Request) -> Any:
        """Ask the visitor's request to end; the ledger stays as it was."""
        self._engine.stop(request.session_hash or "")
        return gr.Button("Stopping…")

    def roll_back(self, request: gr.Request, to: int | None) -> dict[Any, Any]:
        """Take back every request after number `to`."""
        session = request.session_hash or ""
        if self._engine.busy(session):
            return {
                self.hint: render.hint("A request is being served; stop it before you roll back.")
            }
        try:
            Ledger.open(self._engine.ledger(session)).rollback(int(to or 0))
        except UnlearnError as error:
            return {self.hint: render.hint(str(error))}
        return self._drawn(session) | {self.hint: ""}

    def _drawn(self, session: str) -> dict[Any, Any]:
        """Everything that shows the ledger."""
        folder = self._engine.ledger(session)
        ledger = Ledger.open(folder) if (folder / "ledger.json").exists() else None
        count = len(ledger.requests) if ledger else 0
        choices = (
            [
                (f"{n} · {row.concept}" if n else "the original", n)
                for n, row in enumerate(ledger.rows)
            ]
            if ledger
            else []
        )
        fixed = {
            field: gr.Dropdown(interactive=not count)
            for field in (self.regime, self.hold, self.objective)
        }
        return fixed | {
            self.status: sequence.status(ledger),
            self.grid: sequence.grid(ledger),
            self.plot: sequence.curve_table(ledger),
            self.beside: gr.Column(visible=count > 0),
            self.to: gr.Dropdown(choices[:-1], value=count - 1 if count else None),
            self.adapter: gr.DownloadButton(value=str(ledger.path(count)) if count else None),
        }


def _plot() -> gr.LinePlot:
    return gr.LinePlot(
        sequence.curve_table(None),
        x="request",
        y="share",
        color="group",
        color_map=sequence.LINES,
        y_lim=render.PERCENT_AXIS,
        title="After every request",
        x_title="request",
        y_title="share of pictures, %",
        color_title=" ",
        height=260,
        buttons=[],
        elem_id="standings",
    )
