"""What happens on a click around a finished run: attack it, stop that, delete it, compare it with
others.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gradio as gr

from ..common.errors import OutputError, UnlearnError
from ..continual.ledger import slug
from ..evaluation.finding import Finding
from ..runs.folder import Run
from ..service.engine import Engine, Job
from ..service.jobs import Probe
from ..settings.attacks import kinds_of
from . import board, proofs, render
from .downloads import comparison
from .layout import Page
from .panels import SURE
from .shelf import GONE, Shelf, Updates
from .view import view_of

POLL = 0.25
HEARTBEAT = 0.5


class LabHandlers:
    """The listeners around finished runs; holds no state of any visitor."""

    def __init__(self, engine: Engine, page: Page, shelf: Shelf) -> None:
        self._engine, self._page, self._shelf = engine, page, shelf

    def probe(self, request: gr.Request, key: str | None, kind: str) -> Iterator[Updates]:
        """Queue attacks on the run on screen and show what they find; leaving in any way ends
        them.
        """
        session, said = request.session_hash or "", self._page.lab.said
        folder = self._shelf.own(key, session)
        if folder is None:
            yield {said: render.hint(GONE)}
            return
        try:
            job = self._engine.submit(
                Probe(folder, Run.open(folder).config, kinds_of(kind)), session
            )
        except UnlearnError as error:
            yield {said: render.hint(str(error))}
            return
        try:
            yield from self._follow(job)
        finally:
            job.cancel.set()

    def _follow(self, job: Job) -> Iterator[Updates]:
        page, lab, hunt = self._page, self._page.lab, proofs.Hunt(job.asked_for.kinds)
        buttons = {
            lab.go: gr.Button(visible=False),
            lab.quit: gr.Button("Stop", visible=True, interactive=True),
        }
        fixed = {lab.kind: gr.Dropdown(interactive=False), page.run: gr.Button(interactive=False)}
        yield buttons | fixed | self._shelf.put_away() | {lab.said: hunt.html()}
        beat = 0.0
        while not job.over:
            changed: Updates = {}
            for event in job.take(POLL):
                hunt.apply(event)
                if isinstance(event, Finding):
                    changed = self._judged(job.folder)
            hunt.stopping, hunt.position = job.cancel.is_set(), self._engine.position(job)
            if changed or time.monotonic() - beat >= HEARTBEAT:
                beat = time.monotonic()
                yield changed | {lab.said: hunt.html()}
        yield self._finish(job)

    def _judged(self, folder: Path) -> Updates:
        """What was found out about a run so far, and what that makes of its verdict."""
        view = view_of(Run.open(folder))
        return {
            self._page.status: render.status(view),
            self._page.lab.found: proofs.findings(view.findings),
            self._page.summary: board.summary(view),
        }

    def _finish(self, job: Job) -> Updates:
        page, lab = self._page, self._page.lab
        folder = self._shelf.own(job.id, job.session)
        done: Updates = {page.run: gr.Button(interactive=True)}
        if folder is None:
            idle = {lab.quit: gr.Button(visible=False), lab.said: render.failed(GONE)}
            return done | idle | self._shelf.choices(job.session, None)
        view, said = view_of(Run.open(folder)), ""
        if job.cancel.is_set():
            said = proofs.note("Stopped. What was found until then is kept.")
        elif job.error:
            said = render.failed(job.error)
        shown = {page.status: render.status(view), **self._shelf.lab(view, folder, said)}
        return done | shown | self._shelf.choices(job.session, job.id) | self._shelf.links(folder)

    def stop(self, request: gr.Request) -> gr.Button:
        """Ask the visitor's attacks to end, and say so at once."""
        if not self._engine.stop(request.session_hash or ""):
            return gr.skip()
        return gr.Button("Stopping…", interactive=False)

    def delete(self, request: gr.Request, key: str | None, label: str) -> Updates:
        """Ask whether that was meant; then delete the run on screen for good, and show another."""
        session, history = request.session_hash or "", self._page.history
        if label != SURE:
            return {history.delete: history.asking(sure=True)}
        try:
            self._engine.delete(key or "", session)
        except UnlearnError as error:
            return {history.said: render.hint(str(error)), history.delete: history.asking()}
        name = next(iter(self._shelf.names(session)), ("", None))[1]
        said = {history.said: proofs.note("Deleted.")}
        return self._shelf.drawn(name, session) | self._shelf.choices(session, name) | said

    def compare(self, request: gr.Request, key: str | None, others: Sequence[str]) -> Updates:
        """Make the page that shows the run on screen beside others, ready to be downloaded."""
        session, history = request.session_hash or "", self._page.history
        hidden = {history.compared: gr.DownloadButton(visible=False), history.said: ""}
        if not others:
            return hidden
        texts, runs = {value: text for text, value in self._shelf.names(session)}, {}
        for one in dict.fromkeys((key, *others)):
            folder = self._shelf.find(one, session)
            if folder is None or one not in texts:
                return hidden | {history.said: render.hint(GONE)}
            runs[slug(texts[one])[:60]] = folder
        try:
            made = comparison(runs, self._engine.scratch_dir(session))
        except OutputError:
            return hidden | {
                history.said: render.hint(
                    "These runs cannot be compared: one of them is not whole."
                )
            }
        return {
            history.compared: gr.DownloadButton(value=str(made), visible=True),
            history.said: "",
        }
