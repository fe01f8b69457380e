"""The finished runs that a visitor may see: the list of them, the one on screen, and its files."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import gradio as gr

from ..common.errors import OutputError, UnlearnError
from ..continual.ledger import slug
from ..runs.folder import Run
from ..service.engine import Engine, RunGone
from ..service.jobs import folder_size
from .downloads import comparison, download_folder, exports
from .following import Updates, visitor_of
from .html import alert, note
from .layout import SURE, Page, obstacle
from .plots import angle_plot, curve_plot, loss_plot
from .run_html import attack_cards, chart_text, comparison_table, cost, score_table, status
from .share import share
from .stage import stage
from .view_state import ViewState, stored_state

GONE = str(RunGone())
DAMAGED = "These runs cannot be compared: one of them is not whole."
NOT_WRITTEN = "The comparison could not be written; free some space on the disk and try again."


class RunList:
    """The runs that ship with the app, and each visitor's own, which nobody else sees."""

    def __init__(self, engine: Engine, page: Page, recorded: dict[str, Path]) -> None:
        self._engine, self._page, self.recorded = engine, page, recorded
        self._exporting = threading.Lock()
        self._compared: dict[str, Path] = {}
        """The comparison that each visitor has made last, the oldest first."""

    def find(self, name: str | None, visitor: str) -> Path | None:
        """The folder of a run that this visitor may see."""
        return self.recorded.get(name or "") or self._engine.runs.get(name, visitor)

    def names(self, visitor: str) -> list[tuple[str, str]]:
        """Title and name of all runs that this visitor may see: their own, the latest first, then
        the recorded ones.
        """
        runs = self._engine.runs.of(visitor)
        own = [(f"{run.config.concept} (your run {n})", run.id) for n, run in enumerate(runs, 1)]
        return own[::-1] + recorded_choices(self.recorded)

    def choices(self, visitor: str, shown: str | None) -> Updates:
        """The lists of runs while `shown` is on screen, and the actions on it."""
        page, names = self._page, self.names(visitor)
        others = [(text, name) for text, name in names if name != shown]
        return self._actions(self._engine.runs.get(shown, visitor) is not None) | {
            page.shown: gr.Dropdown(
                choices=names, value=shown, visible=bool(names), interactive=True
            ),
            page.actions.others: gr.Dropdown(
                choices=others, value=[], multiselect=True, visible=bool(others), interactive=True
            ),
        }

    def locked(self) -> Updates:
        """The lists of runs, locked while a job of this visitor is going on."""
        return self._actions(False) | {
            self._page.shown: gr.Dropdown(interactive=False),
            self._page.actions.others: gr.Dropdown(interactive=False),
        }

    def _actions(self, deletable: bool) -> Updates:
        actions = self._page.actions
        return {
            actions.compared: gr.DownloadButton(visible=False),
            actions.delete: actions.delete_button(visible=deletable),
            actions.message: "",
        }

    def put(self, name: str | None, visitor: str) -> Updates:
        """Put this run on screen; without a run, an invitation."""
        folder = self.find(name, visitor)
        state = stored_state(Run.open(folder), name in self.recorded) if folder else None
        return self.on_screen(state, folder) | self.choices(visitor, name)

    def on_screen(self, state: ViewState | None, folder: Path | None) -> Updates:
        """Everything on screen about a run, which is kept in `folder` once it is over."""
        page = self._page
        return {
            page.status: status(state),
            page.stage: stage(state),
            page.comparison: comparison_table(state),
            page.scores: score_table(state),
            page.curve: curve_plot(state),
            page.losses: loss_plot(state),
            page.in_words: chart_text(state),
            page.angles: angle_plot(state),
            **self.attacks(state if folder else None, folder),
            **self.links(folder),
        }

    def attacks(self, state: ViewState | None, folder: Path | None, message: str = "") -> Updates:
        """The findings about a run, and the button that starts attacks, or why it is missing."""
        panel = self._page.attacks
        why = obstacle(state, folder) if state else ""
        return {
            panel.row: gr.Row(visible=state is not None and not why),
            panel.kind: gr.Dropdown(interactive=True),
            panel.start: gr.Button(visible=True),
            panel.stop: gr.Button(visible=False),
            panel.message: message or note(why or (cost(state) if state else "")),
            panel.findings: attack_cards(state.findings if state else ()),
        }

    def links(self, folder: Path | None) -> Updates:
        """What is downloaded or shared of a run; buttons are hidden where it lacks the file."""
        made: dict[str, Path] = {}
        if folder:
            place = download_folder(folder.name)
            if folder in self.recorded.values():
                # A recorded run is never deleted: Gradio copies its files once, while the app runs.
                place = self._engine.root / f"recorded-{folder.name}"
            # Nothing is offered where it cannot be written, as on a full disk.
            with self._exporting, suppress(OSError):
                made = exports(folder, place)
        return {self._page.share: share(folder, made.get("card"))} | {
            button: gr.DownloadButton(value=made.get(kind), visible=kind in made)
            for kind, button in self._page.downloads.items()
        }

    def show(self, request: gr.Request, key: str, shown: str | None) -> Updates:
        """Put a finished run on screen again."""
        visitor = visitor_of(self._engine, request, key)
        if self.find(shown, visitor) is None:
            return {self._page.hint: alert(GONE)}
        return self.put(shown, visitor)

    def show_recorded(self, request: gr.Request, key: str, picked: str | None) -> Updates:
        """Put the recorded run of a card on screen, unless something of this visitor is going
        on.
        """
        if self._engine.job_of(visitor_of(self._engine, request, key)):
            return {self._page.hint: gr.skip()}
        return self.show(request, key, picked)

    def delete(self, request: gr.Request, key: str, shown: str | None, label: str) -> Updates:
        """Ask for confirmation; at the second click delete the run on screen and show another."""
        visitor, actions = visitor_of(self._engine, request, key), self._page.actions
        if label != SURE:
            return {actions.delete: actions.delete_button(sure=True)}
        try:
            self._engine.delete(shown or "", visitor)
        except UnlearnError as error:
            return {actions.message: alert(str(error)), actions.delete: actions.delete_button()}
        name = next(iter(self.names(visitor)), ("", None))[1]
        return self.put(name, visitor) | {actions.message: note("Deleted.")}

    def compare(
        self, request: gr.Request, key: str, shown: str | None, others: Sequence[str]
    ) -> Updates:
        """Make the page that shows the run on screen beside others, ready to be downloaded."""
        visitor, actions = visitor_of(self._engine, request, key), self._page.actions
        hidden = {actions.compared: gr.DownloadButton(visible=False), actions.message: ""}
        if not others:
            return hidden
        titles, runs = {value: title for title, value in self.names(visitor)}, {}
        for one in dict.fromkeys((shown, *others)):
            folder = self.find(one, visitor)
            if folder is None:
                return hidden | {actions.message: alert(GONE)}
            runs[slug(titles[one])[-60:].strip("-")] = folder  # its end tells it apart
        try:
            with self._exporting:
                made = comparison(runs, download_folder(self._engine.home(visitor).name))
                self._bound_comparisons(visitor, made)
        except OutputError:
            return hidden | {actions.message: alert(DAMAGED)}
        except OSError:
            return hidden | {actions.message: alert(NOT_WRITTEN)}
        return hidden | {actions.compared: gr.DownloadButton(value=str(made), visible=True)}

    def _bound_comparisons(self, visitor: str, latest: Path) -> None:
        """Keep no more bytes of all visitors' comparisons than of their runs: the oldest go first,
        but never the latest.
        """
        self._compared.pop(visitor, None)
        others = {v: path for v, path in self._compared.items() if path.exists()}
        self._compared = others | {visitor: latest}
        sizes = {v: folder_size(path.parent) for v, path in self._compared.items()}
        for name, path in others.items():
            if sum(sizes.values()) > self._engine.keep_bytes:
                path.unlink(missing_ok=True)
                del sizes[name]


def recorded_choices(recorded: dict[str, Path]) -> list[tuple[str, str]]:
    """The recorded runs as choices of the dropdown."""
    return [(f"{name} (recorded)", name) for name in recorded]
