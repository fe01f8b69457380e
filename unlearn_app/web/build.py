"""The page as a `gr.Blocks`, and how it is launched; building it does no work and starts
nothing.
"""

import warnings
from pathlib import Path
from typing import Any

import gradio as gr

from ..common.errors import OutputError
from ..common.paths import ASSETS
from ..concepts.catalog import known_concepts
from ..runs.findings import read_findings
from ..runs.folder import Run
from ..service.engine import Engine
from .api import attack_endpoint, unlearn_endpoint
from .attack_handlers import AttackHandlers
from .following import QUIET, VISITORS, WORKING
from .handlers import RunHandlers
from .layout import Page, lay_out
from .run_list import RunList, recorded_choices
from .sequence_tab import SequenceTab
from .view_state import stored_state

HERE = Path(__file__).parent
RECORDED = ASSETS / "recorded"


def build_demo(engine: Engine, *, model: str = "pocket", recorded: Path = RECORDED) -> gr.Blocks:
    """The page around `engine`, which runs `model`; `recorded` holds runs that ship with it."""
    recordings = _readable(recorded)
    runs = recorded_choices(recordings)
    first = next(iter(recordings.values()), None)
    state = stored_state(Run.open(first), recorded=True) if first else None
    names = [(known.name, known.kind) for known in known_concepts(model) if not known.fresh]
    with gr.Blocks(
        title="Can it really forget?", analytics_enabled=False, delete_cache=(600, 3600)
    ) as demo:
        page = lay_out(names, runs, state, lambda: SequenceTab(engine, model))
        run_list = RunList(engine, page, recordings)
        _wire(demo, page, RunHandlers(engine, page, model, run_list), run_list)
        _wire_finished(page, AttackHandlers(engine, page, run_list), run_list)
        endpoints = {"unlearn": unlearn_endpoint(engine, model), "attack": attack_endpoint(engine)}
        for name, endpoint in endpoints.items():
            gr.api(endpoint, api_name=name, concurrency_limit=VISITORS)
    return demo


def _readable(recorded: Path) -> dict[str, Path]:
    """The recorded runs by folder name; a damaged one is left out with a warning, not a reason to
    stay closed.
    """
    runs = {}
    for record in sorted(recorded.glob("*/run.json")):
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
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return {
        "theme": gr.themes.Base(
            primary_hue="indigo", neutral_hue="slate", font=font, font_mono=mono
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
    }


def _wire(demo: gr.Blocks, page: Page, does: RunHandlers, runs: RunList) -> None:
    """Connect the box, the buttons, the options and the list of runs with their listeners."""
    parts = page.options.components
    fields = [page.concept, *parts.values()]
    asked = [page.run.click, page.concept.submit]
    result = [*page.of_one_run, page.hint]
    # One after the other: a listener that starts clears what a validator said of the same inputs.
    refused = gr.on(asked, does.refuse, fields, [page.hint, page.folded], **QUIET)
    buttons = [page.run, page.stop, page.concept]
    refused.then(does.run, fields, [*result, *buttons], validator=does.check, **WORKING)
    page.stop.click(does.stop, None, [page.stop, page.status], **QUIET)
    changed, said = [field.change for field in fields], [page.hint, page.prompts, page.command]
    gr.on(changed, does.explain, fields, said, trigger_mode="always_last", **QUIET)
    asks = [parts["preset"], parts["objective"]]
    suggested = page.options.suggested_fields
    gr.on([part.input for part in asks], page.options.defaults, asks, suggested, **QUIET)
    chosen, rows = [parts["objective"], parts["rule"]], list(page.options.rows.values())
    gr.on([part.change for part in chosen], page.options.reveal, chosen, rows, **QUIET)
    page.shown.input(runs.show, page.shown, result, **QUIET)
    page.ready.tick(does.readiness, None, [page.head, page.ready], **QUIET)
    demo.load(does.arrive, page.shown, list(page.downloads), **QUIET)
    demo.unload(does.leave)


def _wire_finished(page: Page, does: AttackHandlers, runs: RunList) -> None:
    """Connect what may be done with a finished run with its listeners."""
    panel, actions, shown = page.attacks, page.actions, [page.run, *page.of_one_run]
    panel.go.click(does.try_attacks, [page.shown, panel.kind], shown, **WORKING)
    panel.quit.click(does.stop, None, panel.quit, **QUIET)
    actions.delete.click(runs.delete, [page.shown, actions.delete], shown, **QUIET)
    others, compared = [page.shown, actions.others], [actions.compared, actions.said]
    actions.others.input(runs.compare, others, compared, trigger_mode="always_last", **QUIET)
