"""The tab for a sequence of requests: its components, its listeners, and the ledger as HTML."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import gradio as gr

from ..common import registry
from ..common.errors import OutputError, UnlearnError, check_known
from ..concepts.catalog import preview_concept
from ..continual.events import TRAINED, Added
from ..continual.ledger import Ledger
from ..continual.metrics import request_metrics
from ..service.engine import Engine
from ..service.jobs import Job, LedgerRequest
from ..settings.events import Event, PanelProgress, Stage, Step
from ..settings.groups import REGIMES
from ..settings.presets import (
    DEFAULT_SEQUENCE_OBJECTIVE,
    REGULARIZATION_PRESETS,
    request_settings,
)
from ..settings.run_config import make_config, make_plan
from .boundary import visitor_address
from .downloads import download_folder, write_only
from .following import LATEST, QUIET, WORKING, Updates, follow, visitor_of
from .html import alert, failed, progress, render
from .layout import BOX, START, STOP
from .pictures import address
from .plots import request_plot, request_table
from .view_state import Progress

REGIME_TEXT = {
    "sequential": "one on top of the other",
    "independent": "each alone, then merged",
    "simultaneous": "all at once, again and again",
}
HOLD_TEXT = {
    "nothing": "none: requests may undo each other",
    "l1": "change few weights",
    "l2": "change little",
    "selective": "change only what matters most",
    "projection": "keep other words",
    "projection+l2": "keep other words, change little",
}
FIRST_KEPT = 8
"""How many concepts that should stay are not folded."""


@dataclass(kw_only=True)
class RequestProgress(Progress):
    """How far a request has come."""

    fraction: float = 0.0
    """Share of the request that is done, in [0, 1]."""
    seen: list[PanelProgress] = field(default_factory=list)
    """The concepts of the panel that have their pictures in this stage."""

    def apply(self, event: Event | Added) -> None:
        """Take in one event."""
        super().apply(event)
        if isinstance(event, Stage):
            self.seen = []
        elif isinstance(event, PanelProgress):
            self.seen.append(event)
        begin = self.stage.fraction if self.stage else 0.0
        if isinstance(event, PanelProgress):
            self.fraction = begin + event.done / event.total * (1 - begin)
        elif isinstance(event, Stage | Step):
            self.fraction = self.within * TRAINED if self.step else begin


class SequenceTab:
    """Components and listeners; holds no state of any visitor, whose ledger is in the engine's
    folder.
    """

    def __init__(
        self, engine: Engine, model: str, key: gr.BrowserState, recorded: Ledger | None = None
    ) -> None:
        self._engine, self._model, self._key = engine, model, key
        world = registry.world(model)
        asked = "What should it forget next?"
        with gr.Row(elem_id="ask-next"):
            self.concept = gr.Textbox(label=asked, placeholder=asked, elem_id="next", **BOX)
            self.add = gr.Button("Forget this too", variant="primary", elem_id="add", **START)
            self.halt = gr.Button("Stop", elem_id="halt", **STOP)
        self.hint = gr.HTML("", elem_id="next-hint")
        gr.HTML(next_concepts(recorded), elem_id="next-chips")
        self.undo = gr.Button("Undo the rollback", visible=False, size="sm", elem_id="undo")
        with gr.Row():
            self.regime = gr.Dropdown(
                [(REGIME_TEXT[name], name) for name in REGIMES],
                value=REGIMES[0],
                label="Requests",
                min_width=240,
            )
            self.hold = gr.Dropdown(
                [(HOLD_TEXT[name], name) for name in REGULARIZATION_PRESETS],
                value=world.regularization_preset(DEFAULT_SEQUENCE_OBJECTIVE),
                label="Protection",
                min_width=240,
            )
            self.objective = gr.Dropdown(
                list(registry.methods()),
                value=DEFAULT_SEQUENCE_OBJECTIVE,
                label="Method",
                min_width=240,
            )
        self._recorded = recorded
        shown = ledger_status(recorded, recorded=recorded is not None)
        self.status = gr.HTML(shown, elem_id="sequence-status")
        with gr.Row():
            with gr.Column(scale=12, min_width=300):
                self.table = gr.HTML(ledger_table(recorded), elem_id="ledger")
            with gr.Column(scale=8, min_width=300, visible=recorded is not None) as self.rail:
                self.plot = request_plot(recorded)
                with gr.Row(visible=False) as self.way_back:
                    self.to = gr.Dropdown([], label="Go back to", elem_id="back-to", scale=2)
                    self.back = gr.Button("Roll back", elem_id="back", scale=1)
                self.adapter = gr.DownloadButton(
                    "LoRA weights of all requests", size="sm", elem_id="get-all", visible=False
                )
        self._wire()

    def _wire(self) -> None:
        asked = [self.concept, self.regime, self.hold, self.objective]
        self.shown = [self.status, self.table, self.rail, self.plot, self.to, self.adapter]
        self.shown += [self.way_back, self.hint, self.undo, self.add, self.halt, *asked]
        begin = [self.add.click, self.concept.submit]
        gr.on(begin, self.run, [self._key, *asked], self.shown, **WORKING)
        suggested = registry.world(self._model).regularization_preset
        self.objective.input(suggested, self.objective, self.hold, **LATEST)
        self.halt.click(self.stop, self._key, [self.halt], **QUIET)
        self.back.click(self.roll_back, [self._key, self.to], self.shown, **QUIET)
        self.undo.click(self.undo_rollback, self._key, self.shown, **QUIET)

    def run(
        self, request: gr.Request, key: str, concept: str, regime: str, hold: str, objective: str
    ) -> Iterator[Updates]:
        """Queue a request and show it until it is in the ledger."""
        visitor = visitor_of(self._engine, request, key)
        try:
            check_known("protection", hold, tuple(REGULARIZATION_PRESETS))
            changes = request_settings(hold)
            config = make_config(concept, objective=objective, model=self._model, **changes)
            preview_concept(config)
            ledger = self._open(visitor)
            earlier = len(ledger.requests) if ledger else 0
            asked = LedgerRequest(config, make_plan(regime=regime), earlier)
            job = self._engine.submit(asked, visitor, visitor_address(request))
        except UnlearnError as error:
            yield {self.hint: alert(str(error))}
            return
        # Emptied now, not at the end, when it may hold the next concept already.
        yield {self.concept: ""}
        yield from self.follow(job)

    def come_back(self, visitor: str) -> Updates:
        """Show the visitor's ledger, if they have one."""
        try:
            return self._ledger(visitor) if self._open(visitor) else {}
        except UnlearnError as error:
            return {self.hint: alert(str(error))}

    def follow(self, job: Job) -> Iterator[Updates]:
        """Show a request until it is in the ledger or has failed, beside the visitor's own ledger
        alone.
        """
        own = self._open(job.visitor)
        begun = {
            self.table: ledger_table(own),
            self.rail: gr.Column(visible=bool(own and own.requests)),
            self.add: gr.Button(visible=False),
            self.halt: gr.Button("Stop", visible=True),
            self.hint: "",
        }
        update, last = partial(self._update, RequestProgress(), job), partial(self._ended, job)
        yield from follow(job, begun, update, last)

    def _update(self, done: RequestProgress, job: Job, events: list[Event]) -> Updates:
        for event in events:
            done.apply(event)
        added = any(isinstance(event, Added) for event in events)
        text = done.stage.text if done.stage else "Waiting for its turn"
        status = progress(text, (), done.fraction, "the request")
        if done.seen:
            where = partial(address, owner=self._engine.home(job.visitor).name)
            status += render("panel_progress", seen=done.seen, address=where)
        return (self._ledger(job.visitor) if added else {}) | {self.status: status}

    def _ended(self, job: Job) -> Updates:
        ended = self._ledger(job.visitor) | {
            self.add: gr.Button(visible=True),
            self.halt: gr.Button(visible=False),
        }
        if job.error and not job.cancel.is_set():
            ended[self.status] = failed(job.error)
        return ended

    def stop(self, request: gr.Request, key: str) -> gr.Button:
        """Ask the visitor's request to end; the ledger stays as it was."""
        self._engine.stop(visitor_of(self._engine, request, key))
        return gr.Button("Stopping…")

    def roll_back(self, request: gr.Request, key: str, to: int | None) -> Updates:
        """Take back every request after number `to`."""
        return self._changed(request, key, lambda ledger: ledger.rollback(int(to or 0)))

    def undo_rollback(self, request: gr.Request, key: str) -> Updates:
        """Bring back what was taken back since the last request."""
        return self._changed(request, key, Ledger.undo_rollback)

    def _changed(self, request: gr.Request, key: str, change: Callable[[Ledger], None]) -> Updates:
        visitor = visitor_of(self._engine, request, key)
        if self._engine.job_of(visitor):
            return {self.hint: alert("A request is being served; stop it before you roll back.")}
        try:
            change(Ledger.open(self._engine.ledger(visitor)))
        except UnlearnError as error:
            return {self.hint: alert(str(error))}
        return self._ledger(visitor) | {self.hint: ""}

    def _open(self, visitor: str) -> Ledger | None:
        folder = self._engine.ledger(visitor)
        return Ledger.open(folder) if (folder / "ledger.json").exists() else None

    def _ledger(self, visitor: str) -> Updates:
        """The visitor's own ledger, or the recorded one where they have none."""
        own = self._open(visitor)
        ledger, recorded = own or self._recorded, not own and self._recorded is not None
        count = len(own.requests) if own else 0
        copy = self._copy(own) if count else None
        earlier = ["the original", *(f"{n} · {own.rows[n].concept}" for n in range(1, count))]
        return {
            self.status: ledger_status(ledger, recorded),
            self.table: ledger_table(ledger),
            self.plot: request_table(ledger),
            self.rail: gr.Column(visible=count > 0 or recorded),
            self.way_back: gr.Row(visible=count > 0),
            self.undo: gr.Button(visible=bool(own and own.rolled_back)),
            self.to: gr.Dropdown(
                [(text, n) for n, text in enumerate(earlier[:count])],
                value=count - 1 if count else None,
            ),
            self.adapter: gr.DownloadButton(value=copy, visible=copy is not None),
            self.regime: gr.Dropdown(interactive=not count),
            self.hold: gr.Dropdown(interactive=not count),
            self.objective: gr.Dropdown(interactive=not count),
        }

    def _copy(self, ledger: Ledger) -> str | None:
        """The adapter of all requests, where it can be downloaded; None if it cannot be written."""
        source = ledger.path(len(ledger.requests))
        target = download_folder(ledger.folder.parent.name) / source.name
        with suppress(OSError):
            write_only(target, source.read_bytes())
            return str(target)
        return None


def recorded_ledger(folder: Path) -> Ledger | None:
    """The ledger that ships with the app, if it is there; a damaged one is left out with a
    warning.
    """
    if not (folder / "ledger.json").exists():
        return None
    try:
        return Ledger.open(folder)
    except OutputError as error:
        warnings.warn(str(error), stacklevel=2)
        return None


def next_concepts(recorded: Ledger | None) -> str:
    """The concepts of the recorded ledger as buttons, each with what the original model draws."""
    if not recorded or not recorded.rows:
        return ""
    pictures = [(name, recorded.picture(0, name)) for name in recorded.rows[0].panel]
    where = partial(address, owner=recorded.folder.parent.name)
    return render("next_concepts", pictures=pictures, address=where)


def ledger_status(ledger: Ledger | None, recorded: bool = False) -> str:
    """The metrics after the last request; the purpose of the tab if there is none. `recorded` says
    that the ledger came with the app.
    """
    if not ledger or not ledger.requests:
        return render("ledger_status", count=0)
    found, row = request_metrics(ledger.rows)[-1], ledger.rows[-1]
    return render(
        "ledger_status", count=len(ledger.requests), found=found, row=row, recorded=recorded
    )


def ledger_table(ledger: Ledger | None) -> str:
    """One row per concept, one column per request; erased concepts first, in the order of the
    requests.
    """
    if not ledger or not ledger.rows:
        return ""
    erased: dict[str, int] = {}
    for number, row in enumerate(ledger.requests, 1):
        erased.setdefault(row.concept, number)
    kept = [name for name in ledger.names if name not in erased]
    return render(
        "ledger",
        ledger=ledger,
        erased=erased,
        shown=[*erased, *kept[:FIRST_KEPT]],
        rest=kept[FIRST_KEPT:],
        address=partial(address, owner=ledger.folder.parent.name),
    )
