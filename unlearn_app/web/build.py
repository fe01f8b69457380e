"""The page as a `gr.Blocks`, and how it is launched; building it does no work and starts
nothing.
"""

import warnings
from pathlib import Path
from typing import Any

import gradio as gr

from ..common.errors import OutputError
from ..common.paths import ASSETS
from ..concepts import catalog
from ..runs.findings import read_findings
from ..runs.folder import Run
from ..service.engine import Engine
from .api import attack_endpoint, unlearn_endpoint
from .handlers import Handlers
from .lab_handlers import LabHandlers
from .layout import lay_out
from .sequence_tab import SequenceTab
from .shelf import Shelf, recorded_choices
from .view import view_of

HERE = Path(__file__).parent
RECORDED = ASSETS / "recorded"
VISITORS = 32


def build_demo(
    engine: Engine, *, model: str = "pocket", core: Any = catalog, recorded: Path = RECORDED
) -> gr.Blocks:
    """The page around `engine`; `core` knows the concepts, as `concepts.catalog` does; `recorded`
    holds runs.
    """
    runs = _readable(recorded)
    first = view_of(Run.open(next(iter(runs.values()))), recorded=True) if runs else None
    names = [(known.name, known.kind) for known in core.known_concepts(model) if not known.fresh]
    with gr.Blocks(
        title="Can it really forget?", analytics_enabled=False, delete_cache=(600, 3600)
    ) as demo:
        page = lay_out(
            names, recorded_choices(runs), first, lambda: SequenceTab(engine, core, model)
        )
        shelf = Shelf(engine, page, runs)
        _wire(demo, page, Handlers(engine, core, page, model, shelf))
        _wire_lab(page, LabHandlers(engine, page, shelf))
        gr.api(
            unlearn_endpoint(engine, core, model), api_name="unlearn", concurrency_limit=VISITORS
        )
        gr.api(attack_endpoint(engine), api_name="attack", concurrency_limit=VISITORS)
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


QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def _on_screen(page: Any) -> list[Any]:
    """What shows one run."""
    shown = [
        page.film,
        page.board,
        page.summary,
        page.curve,
        page.plot,
        page.angle,
        page.status,
        page.shown,
    ]
    return [*shown, *page.downloads, *vars(page.lab).values(), *vars(page.history).values()]


def _wire_lab(page: Any, does: LabHandlers) -> None:
    lab, history, shown = page.lab, page.history, [page.run, *_on_screen(page)]
    lab.go.click(
        does.probe,
        [page.shown, lab.kind],
        shown,
        show_progress="hidden",
        concurrency_limit=VISITORS,
        api_visibility="private",
    )
    lab.quit.click(does.stop, None, lab.quit, **QUIET)
    history.delete.click(does.delete, [page.shown, history.delete], shown, **QUIET)
    compared = [history.compared, history.said]
    history.others.input(
        does.compare, [page.shown, history.others], compared, trigger_mode="always_last", **QUIET
    )


def _wire(demo: gr.Blocks, page: Any, does: Handlers) -> None:
    fields = [page.concept, *page.options.components.values()]
    asked = [page.run.click, page.concept.submit]
    result = [*_on_screen(page), page.hint]
    # One after the other: whenever a listener starts, Gradio clears what a validator said of the same inputs.
    refused = gr.on(asked, does.refuse, fields, [page.hint, page.folded], **QUIET)
    refused.then(
        does.run,
        fields,
        [*result, page.run, page.stop, page.concept],
        validator=does.check,
        show_progress="hidden",
        concurrency_limit=VISITORS,
        api_visibility="private",
    )
    page.stop.click(does.stop, None, [page.stop, page.status], **QUIET)
    said = [page.hint, page.prompts, page.command]
    gr.on(
        [field.change for field in fields],
        does.explain,
        fields,
        said,
        trigger_mode="always_last",
        **QUIET,
    )
    asks = [page.options.components[name] for name in ("preset", "objective")]
    gr.on(
        [part.input for part in asks],
        page.options.defaults,
        asks,
        page.options.suggested_fields,
        **QUIET,
    )
    chosen = [page.options.components[name] for name in ("objective", "rule")]
    gr.on(
        [part.change for part in chosen],
        page.options.reveal,
        chosen,
        list(page.options.rows.values()),
        **QUIET,
    )
    page.shown.input(does.show, page.shown, result, **QUIET)
    page.ready.tick(does.readiness, None, [page.head, page.ready], **QUIET)
    demo.load(does.arrive, page.shown, list(page.downloads), **QUIET)
    demo.unload(does.leave)
