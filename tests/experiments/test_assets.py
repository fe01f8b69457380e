"""One command rebuilds what ships and depends on defaults; a smoke of it leaves what ships
alone.
"""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearn_app.common.packed_folder import unpacked
from unlearn_app.common.paths import ASSETS, POCKET
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.continual.ledger import Ledger
from unlearn_app.evaluation.comparison import column_state, comparison_prompts, generate_column
from unlearn_app.experiments import assets
from unlearn_app.experiments.cells import Extent
from unlearn_app.models.catalog import load_model
from unlearn_app.models.latent_store import SHIPPED, VARIABLE, ShippedLatents
from unlearn_app.pocket import measures
from unlearn_app.pocket.world.rendering import PLACEMENTS
from unlearn_app.runs.folder import Run
from unlearn_app.runs.workflow import run
from unlearn_app.settings.events import Images, Step
from unlearn_app.settings.run_config import make_config

pytestmark = pytest.mark.slow


def shipped() -> dict[str, str]:
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_smoke_makes_everything_and_touches_nothing_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, made = shipped(), tmp_path / "assets-smoke"
    # Each of 384 pictures would be compared with 72 renderings.
    monkeypatch.setattr(measures, "PLACEMENTS", PLACEMENTS[::36])
    said = list(assets.rebuild(Extent(tmp_path, seeds=1, smoke=True)))
    assert said[-1].startswith("timeline.webp, ")
    assert "384" in (made / "pocket" / "README.md").read_text(encoding="utf-8")
    with unpacked(made / "recorded" / "cat.tar.xz") as folder:
        assert Run.open(folder).verdict.label
    with unpacked(made / "recorded" / "ledger.tar.xz") as folder:
        assert [row.concept for row in Ledger.open(folder).requests] == ["cat"]
    assert np.load(made / "pocket" / SHIPPED).files
    assert {path.name for path in tmp_path.glob("*-smoke/*.json")} >= {
        "base-object-0.json",
        "base-style-0.json",
    }
    assert shipped() == before


def test_what_ships_looks_like_what_is_sampled_here() -> None:
    model, apart = load_model(), []

    def recall(exact: bytes, portable: str, sample: Callable[[], Tensor]) -> Tensor:
        stored, sampled = shipped.recall(b"", portable, missing), sample()
        apart.append((model.decode(stored) - model.decode(sampled)).abs().max() / 2)
        return stored

    def missing() -> Tensor:
        raise AssertionError("the store asks behind for what should ship")

    shipped = ShippedLatents(POCKET / SHIPPED, SimpleNamespace(recall=lambda *_: missing()))
    model.store = SimpleNamespace(recall=recall)
    config = make_config(assets.STORED[0])
    prompts = comparison_prompts(preview_concept(config), config.compare, config.seed)
    with column_state(model, "original"):
        generate_column(model, "original", prompts, config.compare, None)
    assert apart
    assert max(apart) <= 1 / 255


def test_what_ships_is_all_that_a_click_asks_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32; the tests compute in nothing else."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    model = load_model()
    asked = []

    def sampled(*_: Any, **__: Any) -> None:
        if model.is_original and not torch.is_grad_enabled():
            asked.append(1)

    monkeypatch.setattr(model, "_sampled", sampled)
    events = run(make_config(assets.STORED[0]), tmp_path / "run", model=model)
    columns = list(itertools.takewhile(lambda event: not isinstance(event, Step), events))
    events.close()
    assert any(isinstance(event, Images) for event in columns)
    assert not asked
