"""The page as a `gr.Blocks`, and how it is launched; building it does no work and starts
nothing.
"""

import shutil
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..common.atomic_files import complete
from ..common.errors import OutputError
from ..common.packed_folder import ENDING, unpack
from ..common.paths import ASSETS, POCKET
from ..common.registry import DEFAULT_MODEL
from ..concepts.catalog import known_concepts
from ..runs.folder import Run
from ..service.engine import Engine
from ..service.jobs import AttackRequest, AuditRequest, LedgerRequest
from ..settings.run_config import RunConfig
from .api import attack_endpoint, unlearn_endpoint
from .audit_tab import ONE, AuditTab
from .ballots import ROUTES as VOTES
from .ballots import BlindRounds
from .boundary import Boundary
from .downloads import copied_bytes, download_folder
from .following import HIDDEN, LATEST, QUIET, VISITORS, WORKING, Updates, visitor_of
from .handlers import AttackHandlers, RunHandlers
from .html import SAYS, TITLE, render
from .layout import PICKED, Page
from .pictures import forget
from .recordings import cards_of
from .run_list import RunList, recorded_choices
from .sequence_tab import SequenceTab, recorded_ledger
from .share import ROUTES as CARDS
from .share import OwnTags, card_of, tags
from .uploads import receive
from .view_state import ViewState, stored_state

SEVERAL = "several"
"""The second tab."""
SHOWN_AFTER = 1.0
"""Seconds between selecting a tab and changing its contents. Changes to a tab that was never shown
are lost in the browser, and equal values are not sent again later.
"""
STAY_EVERY = 30
"""Seconds between two signs of life from an open page, whose connection may break unnoticed."""
MAKE_KEY = """(key) => /^[0-9a-f]{64}$/.test(key) ? key : Array.from(
  crypto.getRandomValues(new Uint8Array(32)), (byte) => byte.toString(16).padStart(2, "0")
).join("")"""
"""Keep the browser's key, or make one; `service/visitors.py` reads it. It is sent in request bodies
only, never in a URL, and is never shown.
"""
READABLE = {
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_dark": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_700",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_400",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
}
"""Colours of the theme that stand out from what is behind them as WCAG AA asks, in both themes."""
HERE = Path(__file__).parent
SCRIPTS = ("page.js", "present.js", "blind.js", "share.js")
"""In this order: later ones use what earlier ones define."""
RECORDED = ASSETS / "recorded"
"""The archives of what ships recorded."""


def build_demo(
    engine: Engine, *, model: str = DEFAULT_MODEL, recorded: Path | None = None
) -> gr.Blocks:
    """The page around `engine`, which runs `model`; `recorded` holds runs that come with it and a
    ledger of that name, by default those that ship, unpacked into the engine's folder.
    """
    recorded = recorded or unpacked_recordings(RECORDED, engine.root / RECORDED.name)
    states = _readable(recorded)
    recordings = {name: recorded / name for name in states}
    runs = recorded_choices(recordings)
    state = next(iter(states.values()), None)
    cards = cards_of(states)
    names = [(known.name, known.kind) for known in known_concepts(model) if not known.fresh]
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        # Gradio puts this "secret" into the page; as a constant, it keeps keys valid over restarts.
        key = gr.BrowserState("", storage_key="unlearn-visitor", secret="unlearn")
        ready, open_page = gr.Timer(0.5), gr.Timer(STAY_EVERY)
        head = gr.HTML(render("header", ready=False, error=""), elem_id="head")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("One concept", id=ONE):
                page = Page(names, runs, state, engine.pace, model, cards)
            with gr.Tab("Several requests", id=SEVERAL):
                shown = recorded_ledger(recorded / "ledger") if model == DEFAULT_MODEL else None
                sequence = SequenceTab(engine, model, key, shown)
            run_list = RunList(engine, page, recordings)
            handlers = RunHandlers(engine, page, model, run_list)
            with gr.Tab("Audit", id="audit"):
                audits = AuditTab(engine, page, handlers, tabs, model, key)
        audits.wire_visit(demo)
        BlindRounds(engine, demo, key)
        attacks = AttackHandlers(engine, page, run_list)
        _wire(page, key, handlers, run_list)
        _wire_finished(page, key, attacks, run_list)
        ready.tick(handlers.readiness, None, [head, ready], **QUIET)
        open_page.tick(handlers.stay, [key, page.shown], None, **QUIET)
        _wire_visit(demo, engine, key, page, tabs, handlers, attacks, sequence)
        demo.unload(engine.sweep)
        gr.api(unlearn_endpoint(engine, model), api_name="unlearn", concurrency_limit=VISITORS)
        gr.api(attack_endpoint(engine), api_name="attack", concurrency_limit=VISITORS)
    demo.visitors, demo.receive = engine.visitors, partial(receive, engine)
    demo.card = card_of(next(iter(recordings.values()), None))
    engine.on_delete, engine.copied = delete_copies, copied_bytes
    return demo


def delete_copies(folder: str) -> None:
    """Delete what browsers could fetch of a run's or a visitor's folder."""
    forget(folder)
    shutil.rmtree(download_folder(folder), ignore_errors=True)


def unpacked_recordings(archives: Path, into: Path) -> Path:
    """The folder `into` with what is packed in a folder of archives; damaged ones are left out with
    a warning.
    """
    for archive in complete(archives, f"*{ENDING}"):
        try:
            unpack(archive, into / archive.name.removesuffix(ENDING))
        except OutputError as error:
            warnings.warn(str(error), stacklevel=2)
    return into


def _readable(recorded: Path) -> dict[str, ViewState]:
    """The recorded runs by folder name; damaged ones are left out with a warning."""
    states = {}
    for record in complete(recorded, "*/run.json"):
        try:
            run = Run.open(record.parent)
            states[run.folder.name] = stored_state(run, recorded=True)
        except OutputError as error:
            warnings.warn(str(error), stacklevel=2)
    return states


def launch_kwargs() -> dict[str, Any]:
    """The arguments of `demo.launch` for the look of the page, its limits, and no telemetry."""
    scripts = "".join(f"<script>{_text(name)}</script>" for name in SCRIPTS)
    return {
        "theme": gr.themes.Base(
            primary_hue="indigo",
            neutral_hue="slate",
            font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
            font_mono=["ui-monospace", "Consolas", "monospace"],
        ).set(**READABLE),
        "css_paths": HERE / "page.css",
        # Presentations stand beside Gradio's container, to which it binds what is in `css_paths`.
        "head": (
            f"{scripts}<style>{_text('present.css')}</style>"
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        ),
        "favicon_path": POCKET / "glyphs" / "ghost.png",
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "max_file_size": "1mb",
        "ssr_mode": False,
        "app_kwargs": {
            "middleware": [Middleware(Boundary), Middleware(OwnTags, tags=tags(TITLE, SAYS))],
            "routes": [*VOTES, *CARDS],
        },
        "state_session_capacity": 1000,
    }


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _wire_visit(
    demo: gr.Blocks,
    engine: Engine,
    key: gr.BrowserState,
    page: Page,
    tabs: gr.Tabs,
    runs: RunHandlers,
    attacks: AttackHandlers,
    sequence: SequenceTab,
) -> None:
    """Wire what happens when the page opens, for the first time or again."""
    again = {
        RunConfig: runs.follow,
        AuditRequest: runs.follow,
        AttackRequest: attacks.resume,
        LedgerRequest: sequence.follow,
    }

    def resume(request: gr.Request, key: str) -> Iterator[Updates]:
        """Show the visitor's latest run and ledger, and follow their job if one is going on."""
        visitor = visitor_of(engine, request, key)
        job = engine.job_of(visitor)
        if job and isinstance(job.request, LedgerRequest):
            yield {tabs: gr.Tabs(selected=SEVERAL)}
            time.sleep(SHOWN_AFTER)
        if kept := runs.come_back(visitor) | sequence.come_back(visitor):
            yield kept
        if job:
            yield from again[type(job.request)](job)

    everything = [*page.of_one_run, page.run, page.stop, page.concept, page.hint]
    everything += [*sequence.shown, tabs]
    # Only for returning visitors, since the browser redraws all of these outputs.
    page.came_back.change(resume, key, everything, **WORKING)
    linked = [page.concept, *(page.options.components[name] for name in ("seed", "objective"))]
    arrived = [page.share, *page.downloads.values(), page.came_back, *linked]
    loaded = demo.load(None, key, key, js=MAKE_KEY, **HIDDEN)
    loaded.then(runs.arrive, [key, page.shown], arrived, **WORKING)


def _wire(page: Page, key: gr.BrowserState, handlers: RunHandlers, runs: RunList) -> None:
    options, parts = page.options, page.options.components
    fields, result = [page.concept, *parts.values()], [*page.of_one_run, page.hint]
    # Chained, because a listener that starts clears validation errors of the same inputs.
    start = [page.run.click, page.concept.submit]
    preset, objective, rule = (parts[name] for name in ("preset", "objective", "rule"))
    kind = [page.concept, options.filled, preset, objective, *options.by_kind]
    followed = {"inputs": kind, "outputs": [options.filled, *options.by_kind], **QUIET}
    page.concept.change(options.follow_kind, **followed)
    # Once more, since a fast typist presses Enter before the change arrives.
    filled = gr.on(start, options.follow_kind, **followed)
    folds = [page.hint, page.folded, options.expert]
    refused = filled.then(handlers.refuse, fields, folds, **QUIET)
    shown = [*result, page.run, page.stop, page.concept]
    refused.then(handlers.run, [key, *fields], shown, validator=handlers.check, **WORKING)
    page.stop.click(handlers.stop, key, [page.stop, page.status], **QUIET)
    changed = [field.change for field in fields]
    explained = [page.hint, page.prompts, page.command, page.estimate, parts["concept_kind"]]
    gr.on(changed, handlers.explain, fields, explained, **LATEST)
    suggested, rows = list(options.suggested.values()), list(options.rows.values())
    picked, asked = [preset.input, objective.input], [page.concept, preset, objective]
    gr.on(picked, options.defaults, asked, [options.filled, *suggested], **LATEST)
    weights = parts["unlearn.weights"]
    trained = [*asked, weights, *options.by_weights]
    weights.input(options.follow_weights, trained, options.by_weights, **LATEST)
    gr.on([objective.change, rule.change], options.reveal, [objective, rule], rows, **LATEST)
    page.shown.input(runs.show, [key, page.shown], result, **LATEST)
    page.cards.select(runs.show_recorded, [key, page.shown], result, js=PICKED, **LATEST)


def _wire_finished(
    page: Page, key: gr.BrowserState, handlers: AttackHandlers, runs: RunList
) -> None:
    panel, actions, shown = page.attacks, page.actions, [page.run, *page.of_one_run]
    panel.start.click(handlers.try_attacks, [key, page.shown, panel.kind], shown, **WORKING)
    panel.stop.click(handlers.stop, key, panel.stop, **QUIET)
    actions.delete.click(runs.delete, [key, page.shown, actions.delete], shown, **QUIET)
    others, compared = [key, page.shown, actions.others], [actions.compared, actions.message]
    actions.others.input(runs.compare, others, compared, **LATEST)
