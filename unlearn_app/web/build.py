"""The page as a `gr.Blocks`, and how it is launched; building it does no work and starts
nothing.
"""

import warnings
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..common.atomic_files import complete
from ..common.errors import OutputError
from ..common.paths import ASSETS
from ..common.registry import DEFAULT_MODEL
from ..concepts.catalog import known_concepts
from ..runs.findings import read_findings
from ..runs.folder import Run
from ..service.engine import Engine
from .api import attack_endpoint, unlearn_endpoint
from .boundary import Boundary
from .following import QUIET, VISITORS, WORKING
from .handlers import AttackHandlers, RunHandlers
from .html import render
from .layout import Page
from .run_list import RunList, recorded_choices
from .sequence_tab import SequenceTab
from .view_state import stored_state

HERE = Path(__file__).parent
RECORDED = ASSETS / "recorded"


def build_demo(
    engine: Engine, *, model: str = DEFAULT_MODEL, recorded: Path = RECORDED
) -> gr.Blocks:
    """The page around `engine`, which runs `model`; `recorded` holds runs that ship with it."""
    recordings = _readable(recorded)
    runs = recorded_choices(recordings)
    first = next(iter(recordings.values()), None)
    state = stored_state(Run.open(first), recorded=True) if first else None
    names = [(known.name, known.kind) for known in known_concepts(model) if not known.fresh]
    with gr.Blocks(
        title="Can it really forget?", analytics_enabled=False, delete_cache=(600, 3600)
    ) as demo:
        ready = gr.Timer(0.5)
        head = gr.HTML(render("header", ready=False, error=""), elem_id="head")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("One concept"):
                page = Page(names, runs, state)
            with gr.Tab("Several requests"):
                SequenceTab(engine, model)
        run_list = RunList(engine, page, recordings)
        handlers = RunHandlers(engine, page, model, run_list)
        _wire(page, handlers, run_list)
        _wire_finished(page, AttackHandlers(engine, page, run_list), run_list)
        ready.tick(handlers.readiness, None, [head, ready], **QUIET)
        demo.load(handlers.arrive, page.shown, list(page.downloads.values()), **QUIET)
        demo.unload(handlers.leave)
        endpoints = {"unlearn": unlearn_endpoint(engine, model), "attack": attack_endpoint(engine)}
        for name, endpoint in endpoints.items():
            gr.api(endpoint, api_name=name, concurrency_limit=VISITORS)
    return demo


def _readable(recorded: Path) -> dict[str, Path]:
    """The recorded runs by folder name; a damaged one is left out with a warning, not a reason to
    stay closed.
    """
    runs = {}
    for record in complete(recorded, "*/run.json"):
        try:
            run = Run.open(record.parent)
            read_findings(run.folder)
            runs[run.folder.name] = run.folder
        except OutputError as error:
            warnings.warn(str(error), stacklevel=2)
    return runs


def launch_kwargs() -> dict[str, Any]:
    """What `demo.launch` needs for the page to look and behave as meant, and to stay on this
    machine.
    """
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return {
        "theme": gr.themes.Base(
            primary_hue="indigo",
            neutral_hue="slate",
            font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
            font_mono=["ui-monospace", "Consolas", "monospace"],
        ),
        "css_paths": HERE / "page.css",
        "head": (
            f'<script>{script}</script><meta name="viewport" content="width=device-width,'
            ' initial-scale=1">'
        ),
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "max_file_size": "1mb",
        "ssr_mode": False,
        "app_kwargs": {"middleware": [Middleware(Boundary)]},
        "state_session_capacity": 1000,
    }


def _wire(page: Page, handlers: RunHandlers, runs: RunList) -> None:
    options, parts = page.options, page.options.components
    fields, result = [page.concept, *parts.values()], [*page.of_one_run, page.hint]
    # One after the other: a listener that starts clears what a validator said of the same inputs.
    start = [page.run.click, page.concept.submit]
    refused = gr.on(start, handlers.refuse, fields, [page.hint, page.folded], **QUIET)
    shown = [*result, page.run, page.stop, page.concept]
    refused.then(handlers.run, fields, shown, validator=handlers.check, **WORKING)
    page.stop.click(handlers.stop, None, [page.stop, page.status], **QUIET)
    changed, explained = [field.change for field in fields], [page.hint, page.prompts, page.command]
    gr.on(changed, handlers.explain, fields, explained, trigger_mode="always_last", **QUIET)
    preset, objective, rule = (parts[name] for name in ("preset", "objective", "rule"))
    suggested, rows = list(options.suggested.values()), list(options.rows.values())
    picked = [preset.input, objective.input]
    gr.on(picked, options.defaults, [preset, objective], suggested, **QUIET)
    gr.on([objective.change, rule.change], options.reveal, [objective, rule], rows, **QUIET)
    page.shown.input(runs.show, page.shown, result, **QUIET)


def _wire_finished(page: Page, handlers: AttackHandlers, runs: RunList) -> None:
    panel, actions, shown = page.attacks, page.actions, [page.run, *page.of_one_run]
    panel.start.click(handlers.try_attacks, [page.shown, panel.kind], shown, **WORKING)
    panel.stop.click(handlers.stop, None, panel.stop, **QUIET)
    actions.delete.click(runs.delete, [page.shown, actions.delete], shown, **QUIET)
    others, compared = [page.shown, actions.others], [actions.compared, actions.message]
    actions.others.input(runs.compare, others, compared, trigger_mode="always_last", **QUIET)
