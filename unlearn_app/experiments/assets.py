"""Rebuilds what ships and depends on defaults: the model card, base rates, what the original model
generates for a few concepts, the recorded run and README's picture.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ..attacks.relearn import adversary_pictures
from ..attacks.runner import result_of
from ..common import registry
from ..common.atomic_files import replacement
from ..common.errors import never
from ..common.paths import ASSETS, POCKET
from ..common.registry import DEFAULT_MODEL
from ..concepts.catalog import preview_concept
from ..continual.ledger import Ledger
from ..continual.panel import evaluate_panel, panel_prompts
from ..continual.sequence import new_ledger, run_request
from ..evaluation.base_rates import record
from ..evaluation.collapse_monitor import CollapseMonitor
from ..evaluation.comparison import comparison_prompts, generate_column
from ..evaluation.judges.loading import load_scorer
from ..models.catalog import load_model
from ..models.latent_store import SHIPPED, Recorder
from ..pocket.card import CardSizes, write_card
from ..runs.folder import Run
from ..runs.workflow import run
from ..settings.events import GROUPS
from ..settings.groups import CompareConfig
from ..settings.presets import DEFAULT_SEQUENCE_OBJECTIVE, request_settings
from ..settings.run_config import make_config, make_plan
from ..training.unlearning import training_terms
from .cells import SMOKE, Extent, run_cells
from .lab.measure import Controls
from .main_job import MainJob
from .page import write_screenshot

RECORDED = "cat"
STORED = ("cat", "dog", "car", "pizza", "van gogh")
"""Concepts for which the original's latents ship: room is for about five."""
REQUESTS = ("cat", "van gogh", "dog")
"""What the recorded ledger forgets, one after the other."""
PANEL = (
    *("cat", "dog", "rabbit", "bear", "car", "pizza", "rose", "robot"),
    *("van gogh", "watercolor", "pointillism", "neon", "sketch", "photo"),
)
"""What it is judged on, part of what a new ledger is: its pictures ship, 9 kB each."""
SMOKE_CARD = CardSizes(
    rendered=16, fresh=16, reconstructed=16, per_pair=1, held_out=4, diverse=4, steps=1
)


def rebuild(extent: Extent) -> Iterator[str]:
    """Rebuild everything in `assets` that follows from defaults and bundled weights, and yield
    lines to print.

    A smoke does the same with small settings in `out`/assets-smoke, and leaves `assets` alone.
    """
    smoke, assets = extent.smoke, ASSETS
    if smoke:
        assets = extent.out / "assets-smoke"
        shutil.rmtree(assets, ignore_errors=True)
        shutil.copytree(POCKET, assets / "pocket")
    yield "card and sheets"
    result_of(write_card(assets=assets, sizes=SMOKE_CARD if smoke else None))
    yield "base rates of what was never seen"
    job, controls = MainJob(extent), Controls(extent)
    for one, cells in ((job, job.base_rates()), (controls, controls.cells())):
        result_of(run_cells(one, cells))
        one.record_base_rates()
    yield f"latents of the original for {', '.join(STORED)} and a ledger"
    _store_latents(assets / "pocket" / SHIPPED, smoke)
    yield f"the recorded run, {RECORDED}"
    pace = _record_run(assets / "recorded" / RECORDED, smoke)
    if not smoke:
        record("pace", pace)
    yield f"the recorded ledger, {', '.join(REQUESTS)}"
    record_ledger(assets / "recorded" / "ledger", smoke)
    yield "README's picture of the page"
    yield write_screenshot(assets / "readme" / "page.png")


def _store_latents(file: Path, smoke: bool) -> None:
    """What a run with default settings, and the panel of a new ledger, ask of the original.

    In float32, which CPUs without bfloat16 compute in: those wait longest.
    """
    model = load_model()
    model.store, model.mixes = Recorder(), False
    small = SMOKE if smoke else {}
    for name in STORED[:1] if smoke else STORED:
        config = make_config(name, **small)
        concept = preview_concept(config)
        scorer = load_scorer(config.model, [concept], config.judge)
        prompts = comparison_prompts(concept, config.compare, config.seed)
        with model.active():
            generate_column(model, "original", prompts, config.compare, None)
        CollapseMonitor(model, concept, config.compare, scorer, never)
        training_terms(model, concept, config, never)
        adversary_pictures(model, concept, config)
    config = make_config(STORED[0], **small)
    with TemporaryDirectory() as folder:
        ledger = new_ledger(Path(folder) / "ledger", config, make_plan())
        result_of(evaluate_panel(config, panel_prompts(ledger), model, None, {}))
    with replacement(file) as partial:
        model.store.save(partial)


def _record_run(folder: Path, smoke: bool) -> float:
    """Replace the recorded run by a new one with default settings; the old one stays until it is
    there.

    Returns the seconds that it took to generate and judge a picture of the comparison.
    """
    config = make_config(RECORDED, **(SMOKE if smoke else {}))
    with replacement(folder) as partial:
        result_of(run(config, partial, model=load_model()))
    compare = Run.open(folder).record["timing"]["compare_s"]
    return compare / sum(getattr(CompareConfig, group) for group in GROUPS)


def record_ledger(folder: Path, smoke: bool) -> None:
    """Replace the recorded ledger by a new one with the settings that the page begins with; the old
    one stays until it is there.
    """
    model, small = load_model(), SMOKE if smoke else {}
    hold = registry.world(DEFAULT_MODEL).regularization_preset(DEFAULT_SEQUENCE_OBJECTIVE)
    changes = {"objective": DEFAULT_SEQUENCE_OBJECTIVE} | request_settings(hold) | small
    plan = make_plan()
    with replacement(folder) as partial:
        Ledger.create(partial, make_config(REQUESTS[0], **changes), plan, PANEL)
        for name in REQUESTS[:1] if smoke else REQUESTS:
            result_of(run_request(make_config(name, **changes), plan, partial, model))
