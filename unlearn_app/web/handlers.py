"""The listeners of the first tab: check and explain the typed concept; queue, show and stop runs
and attacks.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from ..common import registry
from ..common.errors import ConfigError, UnlearnError
from ..concepts.catalog import preview_concept
from ..concepts.concept import Concept, evenly_spaced, kept_whole
from ..evaluation.finding import Finding
from ..runs.findings import rule_of
from ..runs.folder import Run
from ..service.engine import Engine, Job
from ..service.jobs import AttackRequest, AuditRequest
from ..settings.attacks import kinds_of
from ..settings.events import AttackCheckpoint, Event, Images, Preview, Step
from ..settings.run_config import BY_WORDS, MAX_TEXT, RunConfig
from .boundary import visitor_address
from .following import Updates, follow, visitor_of
from .html import alert, estimate, failed, note, render
from .layout import INVITATION, Page
from .options import BASIC, elem_id_of, plain
from .plots import angle_table, curve_plot, loss_table
from .run_html import (
    SAVED,
    STOP_ASKED,
    attack_cards,
    comparison_table,
    score_table,
    status,
)
from .run_list import GONE, RunList
from .stage import stage
from .view_state import AttackProgress, ViewState, stored_state

ABOUT_CONCEPT = ("", "concept", "concept_kind")
"""Fields of errors that stand beside the box for the concept."""
MOST_OFFERED = 8
"""If there are more concepts to pick instead, only the message names them."""


class RunHandlers:
    """The listeners of the first tab's box and buttons; holds no state of any visitor."""

    def __init__(self, engine: Engine, page: Page, model: str, runs: RunList) -> None:
        self._engine, self._page, self._model, self._runs = engine, page, model, runs

    def check(self, _key: str, concept: str, *values: Any) -> list[dict]:
        """Validate the fields before anything is queued; an error is shown at its field."""
        error = self._mistake(concept, values)
        names = ["key", "concept", *self._page.options.components]
        at = error.field if error and error.field in names else "concept"
        said = plain(str(error)) if error else ""
        return [gr.validate(not error or name != at, said) for name in names]

    def explain(self, concept: str, *values: Any) -> Updates:
        """Show under the box how the text was understood, or the error and concepts to pick
        instead.
        """
        page = self._page
        if not (concept or "").strip():
            return {page.hint: INVITATION, page.prompts: "", page.command: ""}
        kind = page.options.components["concept_kind"]
        try:
            config, known = self._parse(concept, values)
        except ConfigError as error:
            return {
                page.hint: self._alert(concept, error),
                page.prompts: "",
                page.command: "",
                kind: self._kind(values, error.field),
            }
        advice = registry.advice(config.objective, known.kind)
        return {
            kind: self._kind(values),
            page.hint: render("understood", concept=known, advice=advice, kept=kept_whole(known)),
            page.prompts: render("prompts", concept=known, evenly_spaced=evenly_spaced),
            page.command: config.command(),
            page.estimate: estimate(self._engine.pace.total(config)),
        }

    def _kind(self, values: tuple, field: str = "") -> gr.Radio:
        """The choice of the kind, shown where it is needed."""
        chosen = dict(zip(self._page.options.components, values, strict=True))["concept_kind"]
        return gr.Radio(visible=field == "concept_kind" or chosen != BY_WORDS)

    def refuse(self, concept: str, *values: Any) -> tuple[Any, Any, Any]:
        """Show an error under the box, and open the options if it is about one of them."""
        error = self._mistake(concept, values)
        if not error:
            return gr.skip(), gr.skip(), gr.skip()
        if error.field in ABOUT_CONCEPT:
            return self._alert(concept, error), gr.skip(), gr.skip()
        expert = gr.skip() if error.field in BASIC else gr.Accordion(open=True)
        return self._alert(concept, error), gr.Accordion(open=True), expert

    def _parse(self, concept: str, values: tuple) -> tuple[RunConfig, Concept]:
        config = self._page.options.config(concept, values)
        return config, preview_concept(config)

    def _mistake(self, concept: str, values: tuple) -> ConfigError | None:
        try:
            self._parse(concept, values)
        except ConfigError as error:
            return error
        return None

    def _alert(self, concept: str, error: ConfigError) -> str:
        """The error, with what its field is called; if it is about the concept, with concepts to
        pick instead.
        """
        about_concept = error.field in ABOUT_CONCEPT
        asked = about_concept and 0 < len((concept or "").strip()) <= MAX_TEXT
        offered = registry.world(self._model).nearest_known(concept) if asked else []
        at = elem_id_of(error.field or "concept")
        return alert(plain(str(error)), offered if len(offered) <= MOST_OFFERED else (), at)

    def run(self, request: gr.Request, key: str, concept: str, *values: Any) -> Iterator[Updates]:
        """Queue a run and show it until it ends."""
        try:
            config, _ = self._parse(concept, values)
            visitor = visitor_of(self._engine, request, key)
            job = self._engine.submit(config, visitor, visitor_address(request))
        except UnlearnError as error:
            yield {self._page.hint: alert(str(error))}
            return
        yield from self.follow(job)

    def follow(self, job: Job) -> Iterator[Updates]:
        """Show a run until it ends."""
        state = ViewState(job.config, job.id)
        update, last = partial(self._update, state, job), partial(self._ended, state, job)
        yield from follow(job, self._begun(state), update, last)

    def _begun(self, state: ViewState) -> Updates:
        page = self._page
        return {
            page.run: gr.Button(visible=False),
            page.stop: gr.Button("Stop", visible=True, interactive=True),
            page.concept: gr.Textbox(interactive=False),
            **self._runs.on_screen(state, None),
            **self._runs.locked(),
        }

    def _update(self, state: ViewState, job: Job, events: list[Event]) -> Updates:
        page = self._page
        for event in events:
            state.apply(event)
        kinds = {type(event) for event in events}
        state.left = job.schedule.left() if job.schedule else None
        state.stopping, state.position = job.cancel.is_set(), self._engine.position(job)
        changed: Updates = {page.status: status(state)}
        if AttackCheckpoint in kinds:
            changed[page.curve] = curve_plot(state)
        if Images in kinds:
            changed[page.comparison] = comparison_table(state)
        if kinds & {Images, Preview, AttackCheckpoint}:
            changed[page.stage] = stage(state)
        if Step in kinds:
            changed |= {page.losses: loss_table(state), page.angles: angle_table(state)}
        return changed

    def _ended(self, state: ViewState, job: Job) -> Updates:
        page, folder = self._page, self._engine.runs.get(job.id, job.visitor)
        state.over, state.error = True, job.error
        state.stopped = state.stopped or job.cancel.is_set()
        if folder and isinstance(job.request, AuditRequest) and not state.error:
            state = stored_state(Run.open(folder))  # with what the attacks beside its own found
        elif folder and not state.error:
            run = Run.open(folder)
            state.timing, state.rule = dict(run.record.get("timing") or {}), rule_of(run, ())
        return {
            page.run: gr.Button(visible=True),
            page.stop: gr.Button(visible=False),
            page.concept: gr.Textbox(interactive=True),
            **self._runs.choices(job.visitor, job.id if folder else None),
            **self._runs.on_screen(state, folder),
        }

    def stop(self, request: gr.Request, key: str) -> tuple[Any, Any]:
        """Ask the visitor's run to end, and show that at once."""
        if not self._engine.stop(visitor_of(self._engine, request, key)):
            return gr.skip(), gr.skip()
        return gr.Button("Stopping…", interactive=False), STOP_ASKED

    def arrive(self, request: gr.Request, key: str, shown: str | None) -> Updates:
        """The page has opened: let the model load, offer the files of the recorded run, fill in
        what the link names, and set `came_back` if the visitor has data from earlier.
        """
        engine, visitor = self._engine, visitor_of(self._engine, request, key)
        engine.arrive()
        has = engine.runs.of(visitor) or engine.job_of(visitor) or engine.home(visitor).exists()
        links = self._runs.links(self._runs.recorded.get(shown or ""))
        return links | self._linked(request) | {self._page.came_back: bool(has)}

    def _linked(self, request: gr.Request) -> Updates:
        """The fields that a link such as `?concept=cat&seed=1&method=esd` fills in; values that are
        not accepted are left out.
        """
        page, asked = self._page, dict(getattr(request, "query_params", None) or {})
        found: Updates = {}
        concept = str(asked.get("concept", ""))
        if 0 < len(concept.strip()) <= MAX_TEXT:
            found[page.concept] = concept
        seed = str(asked.get("seed", ""))
        if seed.isdecimal() and len(seed) < 10:
            found[page.options.components["seed"]] = int(seed)
        if asked.get("method") in registry.methods():
            found[page.options.components["objective"]] = asked["method"]
        return found

    def come_back(self, visitor: str) -> Updates:
        """Show the visitor's latest run, if there is one."""
        try:
            own = self._engine.runs.of(visitor)
            return self._runs.put(own[-1].id, visitor) if own else {}
        except UnlearnError as error:
            return {self._page.hint: alert(str(error))}

    def stay(self, request: gr.Request, key: str, shown: str | None) -> None:
        """The page is still open: mark its visitor as active and the shown run as used."""
        self._engine.runs.get(shown, visitor_of(self._engine, request, key))

    def readiness(self) -> tuple[str, gr.Timer]:
        """The header with its badge, polled until the model is loaded."""
        done = self._engine.ready.is_set()
        header = render("header", ready=done, error=self._engine.load_error)
        return header, gr.Timer(active=not done)


class AttackHandlers:
    """The listeners of the attacks' buttons; holds no state of any visitor."""

    def __init__(self, engine: Engine, page: Page, runs: RunList) -> None:
        self._engine, self._page, self._runs = engine, page, runs

    def try_attacks(
        self, request: gr.Request, key: str, shown: str | None, kind: str
    ) -> Iterator[Updates]:
        """Queue attacks on the run on screen and show what they find."""
        visitor, message = visitor_of(self._engine, request, key), self._page.attacks.message
        folder = self._engine.runs.get(shown, visitor)
        if folder is None:
            yield {message: alert(GONE)}
            return
        try:
            asked = AttackRequest(folder, Run.open(folder).config, kinds_of(kind))
            job = self._engine.submit(asked, visitor, visitor_address(request))
        except UnlearnError as error:
            yield {message: alert(str(error))}
            return
        yield from self._follow(job)

    def resume(self, job: Job) -> Iterator[Updates]:
        """Show attacks that were started in another tab, or before the page was closed."""
        yield self._runs.put(job.id, job.visitor)
        yield from self._follow(job)

    def _follow(self, job: Job) -> Iterator[Updates]:
        progress = AttackProgress(job.request.kinds)
        update, last = partial(self._update, progress, job), partial(self._ended, job)
        yield from follow(job, self._begun(progress), update, last)

    def _begun(self, progress: AttackProgress) -> Updates:
        page, panel = self._page, self._page.attacks
        return {
            **self._runs.locked(),
            page.run: gr.Button(interactive=False),
            panel.kind: gr.Dropdown(interactive=False),
            panel.start: gr.Button(visible=False),
            panel.stop: gr.Button("Stop", visible=True, interactive=True),
            panel.message: progress.html(),
        }

    def _update(self, progress: AttackProgress, job: Job, events: list[Event]) -> Updates:
        page = self._page
        for event in events:
            progress.apply(event)
        progress.stopping, progress.position = job.cancel.is_set(), self._engine.position(job)
        changed: Updates = {page.attacks.message: progress.html()}
        if any(isinstance(event, Finding) for event in events):
            state = stored_state(Run.open(job.folder))
            changed[page.status] = status(state)
            changed[page.scores] = score_table(state)
            changed[page.attacks.findings] = attack_cards(state.findings)
        return changed

    def _ended(self, job: Job) -> Updates:
        page, panel = self._page, self._page.attacks
        folder = self._engine.runs.get(job.id, job.visitor)
        if folder is None:
            return {
                page.run: gr.Button(interactive=True),
                panel.stop: gr.Button(visible=False),
                panel.message: failed(GONE),
                **self._runs.choices(job.visitor, None),
            }
        state, message = stored_state(Run.open(folder)), ""
        if job.cancel.is_set():
            message = note(f"Stopped. {SAVED}")
        elif job.error:
            message = failed(job.error)
        return {
            page.run: gr.Button(interactive=True),
            page.status: status(state),
            **self._runs.attacks(state, folder, message),
            **self._runs.choices(job.visitor, job.id),
            **self._runs.links(folder),
        }

    def stop(self, request: gr.Request, key: str) -> gr.Button:
        """Ask the visitor's attacks to end, and show that at once."""
        if not self._engine.stop(visitor_of(self._engine, request, key)):
            return gr.skip()
        return gr.Button("Stopping…", interactive=False)
