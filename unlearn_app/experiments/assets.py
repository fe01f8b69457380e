"""Rebuilds what ships and depends on defaults: the model card, base rates, what the original model
generates for a few concepts, what the page shows recorded, and README's moving picture.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ..attacks.relearn import adversary_pictures
from ..attacks.runner import result_of
from ..common.atomic_files import replacement
from ..common.errors import never
from ..common.packed_folder import unpacked
from ..common.paths import ASSETS, POCKET
from ..concepts.catalog import preview_concept
from ..continual.panel import evaluate_panel, panel_prompts
from ..continual.sequence import new_ledger
from ..evaluation.base_rates import record
from ..evaluation.collapse_monitor import CollapseMonitor
from ..evaluation.comparison import comparison_prompts, generate_column
from ..evaluation.judges.loading import load_scorer
from ..models.catalog import load_model
from ..models.latent_store import SHIPPED, Recorder
from ..pocket.card import CardSizes, write_card
from ..runs.folder import Run
from ..settings.run_config import make_config, make_plan
from ..training.unlearning import training_terms
from .cells import SMOKE, Extent, run_cells
from .film import write_film
from .lab.measure import Controls
from .main_job import MainJob
from .recordings import (
    FIRST,
    LEDGER,
    REQUESTS,
    RUNS,
    pace_of,
    packed_in,
    record_ledger,
    record_run,
)

STORED = ("cat", "dog", "car", "pizza", "van gogh")
"""Concepts for which the original's latents ship: room is for about five."""
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
    model = load_model()
    for name in (FIRST,) if smoke else RUNS:
        yield f"the recorded run {name}"
        recorded = record_run(packed_in(assets / "recorded", name), model, smoke)
        if name == FIRST and not smoke:
            record("pace", pace_of(recorded))
    yield f"the recorded ledger, {', '.join(REQUESTS)}"
    record_ledger(packed_in(assets / "recorded", LEDGER), model, smoke)
    yield "README's moving picture"
    with unpacked(packed_in(assets / "recorded", FIRST)) as folder:
        yield write_film(Run.open(folder), assets / "readme" / "timeline.webp")


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
