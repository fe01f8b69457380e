"""What happens when a finished run is attacked: attacks are queued, shown and stopped."""

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from ..common.errors import UnlearnError
from ..evaluation.finding import Finding
from ..runs.folder import Run
from ..service.engine import Engine, Job
from ..service.jobs import AttackRequest
from ..settings.attacks import kinds_of
from ..settings.events import Event
from .attack_progress import AttackProgress
from .following import Updates, follow
from .html import alert, failed, note
from .layout import Page
from .run_html import attack_cards, score_table
from .run_list import GONE, RunList
from .status import SAVED, status
from .view_state import stored_state


class AttackHandlers:
    """The listeners of the attacks' buttons; holds no state of any visitor."""

    def __init__(self, engine: Engine, page: Page, runs: RunList) -> None:
        self._engine, self._page, self._runs = engine, page, runs

    def try_attacks(self, request: gr.Request, key: str | None, kind: str) -> Iterator[Updates]:
        """Queue attacks on the run on screen and show what they find; leaving in any way ends
        them.
        """
        session, said = request.session_hash or "", self._page.attacks.said
        folder = self._runs.own(key, session)
        if folder is None:
            yield {said: alert(GONE)}
            return
        try:
            asked = AttackRequest(folder, Run.open(folder).config, kinds_of(kind))
            job = self._engine.submit(asked, session)
        except UnlearnError as error:
            yield {said: alert(str(error))}
            return
        done = AttackProgress(asked.kinds)
        yield from follow(
            job,
            self._begun(done),
            lambda events: self._take_in(done, events, folder),
            lambda: self._told(done, job),
            lambda: self._ended(job),
        )

    def _begun(self, done: AttackProgress) -> Updates:
        page, panel = self._page, self._page.attacks
        return {
            **self._runs.locked(),
            page.run: gr.Button(interactive=False),
            panel.kind: gr.Dropdown(interactive=False),
            panel.go: gr.Button(visible=False),
            panel.quit: gr.Button("Stop", visible=True, interactive=True),
            panel.said: done.html(),
        }

    def _take_in(self, done: AttackProgress, events: list[Event], folder: Path) -> Updates:
        for event in events:
            done.apply(event)
        if not any(isinstance(event, Finding) for event in events):
            return {}
        state, page = stored_state(Run.open(folder)), self._page
        return {
            page.status: status(state),
            page.scores: score_table(state),
            page.attacks.found: attack_cards(state.findings),
        }

    def _told(self, done: AttackProgress, job: Job) -> Updates:
        done.stopping, done.position = job.cancel.is_set(), self._engine.position(job)
        return {self._page.attacks.said: done.html()}

    def _ended(self, job: Job) -> Updates:
        page, panel = self._page, self._page.attacks
        folder = self._runs.own(job.id, job.session)
        ended: Updates = {page.run: gr.Button(interactive=True)}
        if folder is None:
            ended |= {panel.quit: gr.Button(visible=False), panel.said: failed(GONE)}
            return ended | self._runs.choices(job.session, None)
        state, said = stored_state(Run.open(folder)), ""
        if job.cancel.is_set():
            said = note(f"Stopped. {SAVED}")
        elif job.error:
            said = failed(job.error)
        return {
            **ended,
            page.status: status(state),
            **self._runs.attacks(state, folder, said),
            **self._runs.choices(job.session, job.id),
            **self._runs.links(folder),
        }

    def stop(self, request: gr.Request) -> gr.Button:
        """Ask the visitor's attacks to end, and say so at once."""
        if not self._engine.stop(request.session_hash or ""):
            return gr.skip()
        return gr.Button("Stopping…", interactive=False)
