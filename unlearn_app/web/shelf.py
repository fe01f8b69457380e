"""Finished runs on the page: finding one, what is on screen of it, its files, and the list of
all.
"""

import threading
from pathlib import Path
from typing import Any

import gradio as gr

from ..runs.folder import Run
from ..service.engine import Engine
from . import board, proofs, render
from .downloads import KINDS, exports
from .layout import Page, angle_table, curve_plot, loss_table
from .panels import obstacle
from .view import View, view_of

Updates = dict[Any, Any]
GONE = "That run is no longer kept; run it again."


class Shelf:
    """Runs that ship with the app, and those of each visitor, which are nobody else's."""

    def __init__(self, engine: Engine, page: Page, recorded: dict[str, Path]) -> None:
        self._engine, self._page, self.recorded = engine, page, recorded
        self._exporting = threading.Lock()

    def own(self, key: str | None, session: str) -> Path | None:
        """The folder of a visitor's own run."""
        return None if key in self.recorded else self._engine.runs.get(key or "", session)

    def find(self, key: str | None, session: str) -> Path | None:
        """The folder of a run that this visitor may see."""
        return self.recorded.get(key or "") or self.own(key, session)

    def names(self, session: str) -> list[tuple[str, str]]:
        """All runs that this visitor may see: their own, the latest first, then the recorded
        ones.
        """
        jobs = self._engine.runs.of(session)
        own = [(f"{job.config.concept} (your run {n})", job.id) for n, job in enumerate(jobs, 1)]
        return own[::-1] + recorded_choices(self.recorded)

    def choices(self, session: str, value: str | None) -> Updates:
        """The lists of runs when `value` is on screen, and what may be done with it."""
        page, names = self._page, self.names(session)
        others = [(text, key) for text, key in names if key != value]
        return {
            page.shown: gr.Dropdown(
                choices=names, value=value, visible=bool(names), interactive=True
            ),
            page.history.others: gr.Dropdown(
                choices=others, value=[], multiselect=True, visible=bool(others), interactive=True
            ),
            page.history.compared: gr.DownloadButton(visible=False),
            page.history.delete: page.history.asking(visible=self.own(value, session) is not None),
            page.history.said: "",
        }

    def put_away(self) -> Updates:
        """Nothing may be done with stored runs while a job of this visitor goes on."""
        page = self._page
        return {
            page.shown: gr.Dropdown(interactive=False),
            page.history.others: gr.Dropdown(interactive=False),
            page.history.compared: gr.DownloadButton(visible=False),
            page.history.delete: page.history.asking(visible=False),
            page.history.said: "",
        }

    def plots(self, view: View) -> Updates:
        """The plots of a view, with their axes."""
        return {
            self._page.curve: curve_plot(view),
            self._page.plot: gr.LinePlot(loss_table(view), x_lim=[0, view.total_steps]),
            self._page.angle: gr.LinePlot(angle_table(view), x_lim=[0, view.config.unlearn.steps]),
        }

    def drawn(self, key: str | None, session: str) -> Updates:
        """Everything on screen about a stored run; an invitation where there is none."""
        page, folder = self._page, self.find(key, session)
        if folder is None:
            empty = dict.fromkeys((page.film, page.board, page.summary), "") | {
                page.curve: curve_plot(None)
            }
            empty |= {
                page.plot: loss_table(None),
                page.angle: angle_table(None),
                page.status: render.welcome(),
            }
            return empty | self.lab(None, None) | self.links(None)
        view = view_of(Run.open(folder), recorded=key in self.recorded)
        return {
            page.status: render.status(view),
            page.film: board.film(view),
            page.board: board.comparison(view),
            page.summary: board.summary(view),
            **self.plots(view),
            **self.lab(view, folder),
            **self.links(folder),
        }

    def lab(self, view: View | None, folder: Path | None, said: str = "") -> Updates:
        """The findings about a run, and the button that asks for more of them, or a word why there
        is none.
        """
        lab = self._page.lab
        why = obstacle(view, folder) if view else ""
        return {
            lab.row: gr.Row(visible=view is not None and not why),
            lab.kind: gr.Dropdown(interactive=True),
            lab.go: gr.Button(visible=True),
            lab.quit: gr.Button(visible=False),
            lab.said: said or proofs.note(why or (proofs.cost(view) if view else "")),
            lab.found: proofs.findings(view.findings) if view else "",
        }

    def links(self, folder: Path | None) -> Updates:
        """The download buttons of a run, hidden where it lacks the file."""
        made: dict[str, Path | None] = dict.fromkeys(KINDS)
        if folder:
            root = self._engine.root
            with self._exporting:
                made = exports(
                    folder,
                    (folder if folder.is_relative_to(root) else root / folder.name) / "exports",
                )
        return {
            button: gr.DownloadButton(value=made[kind], visible=made[kind] is not None)
            for button, kind in zip(self._page.downloads, KINDS, strict=True)
        }


def recorded_choices(recorded: dict[str, Path]) -> list[tuple[str, str]]:
    """The recorded runs as choices of the dropdown."""
    return [(f"{name} (recorded)", name) for name in recorded]
