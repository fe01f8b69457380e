"""Every family of models can do everything, and the benchmark that says so tells where not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearn_app.common.paths import ASSETS
from unlearn_app.experiments.cells import Extent
from unlearn_app.experiments.models.checks import CHECKS
from unlearn_app.experiments.models.measure import COLUMNS, Kept, ModelCell, Models, write_results
from unlearn_app.experiments.models.shapes import OWNED, REDUCED
from unlearn_app.models.diffusers import adapter_files
from unlearn_app.models.diffusers.tiny_pipelines import FAMILIES

SHIPPED = ASSETS / "experiments" / "models"


@pytest.fixture(scope="module", params=FAMILIES)
def kept(request: pytest.FixtureRequest) -> Kept:
    return Kept(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_every_family_can_do_it(kept: Kept, check: str) -> None:
    found = kept.tried(check)
    assert found["works"], found["note"]


@pytest.fixture
def small() -> Kept:
    return Kept("sd1")


def nudged(model: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a method of `model` return tensors that are a little larger."""
    own = getattr(model, name)
    monkeypatch.setattr(model, name, lambda *given, **named: own(*given, **named) + 1e-3)


def test_latents_that_differ_by_little_are_no_equal_ones(small: Kept, monkeypatch) -> None:
    nudged(small._made.model, monkeypatch, "sample")
    assert small.tried("generate") == {
        "works": False,
        "note": "latents differ from those of plain diffusers",
    }


def test_a_weight_that_is_not_that_of_diffusers_is_told(small: Kept) -> None:
    with torch.no_grad():
        next(small._made.model.pipe.text_encoder.parameters()).add_(1e-6)
    assert small.tried("load") == {"works": False, "note": "text_encoder has other weights"}


def test_a_layer_that_comfyui_does_not_find_is_told(small: Kept, monkeypatch) -> None:
    from unlearn_app.models.diffusers import adapter_formats

    known = adapter_formats.kohya_name
    monkeypatch.setattr(
        adapter_formats, "kohya_name", lambda *named: known(*named).replace("attn2_to_k", "k")
    )
    found = small.tried("to-comfyui")
    assert not found["works"]
    assert found["note"] == "44 of 48 layers are found"


def test_an_adapter_of_half_the_strength_is_told(small: Kept, monkeypatch) -> None:
    own = adapter_files.read_adapter

    def halved(*given: Any, **named: Any) -> dict[str, torch.Tensor]:
        state = own(*given, **named)
        return {n: t / 2 if ".lora_B." in n else t for n, t in state.items()}

    monkeypatch.setattr("unlearn_app.models.generate.read_adapter", halved)
    for check in ("to-diffusers", "from-others"):
        found = small.tried(check)
        assert not found["works"]
        assert "differ by" in found["note"]


def test_what_fails_is_one_sentence_without_the_place(small: Kept, monkeypatch) -> None:
    def fails(made: Any) -> str:
        raise OSError(f"{made.scratch}/model cannot be read\nand more")

    monkeypatch.setitem(CHECKS, "load", ("loads", fails))
    assert small.tried("load") == {"works": False, "note": "DIR/model cannot be read"}


def test_every_family_and_every_model_that_people_own_has_its_cells() -> None:
    assert COLUMNS.keys() == FAMILIES.keys()
    cells = Models(Extent(Path("out"))).cells()
    assert len(cells) == len(FAMILIES) * len(CHECKS) + len(OWNED) + len(REDUCED)
    assert {one.model for one in REDUCED.values()} == OWNED.keys()
    assert len({Models(Extent(Path("out"))).key(cell) for cell in cells}) == len(cells)


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(SHIPPED, tmp_path / "models")
    yield tmp_path / "models"


def changed(folder: Path, cell: ModelCell, **values: Any) -> str:
    """The report once some values of a cell are others."""
    path = folder / f"{Models(Extent(folder)).key(cell)}.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"values": record["values"] | values}))
    return write_results(folder)


def test_a_changed_value_is_a_changed_report(copied: Path) -> None:
    shipped = write_results(copied)
    assert "**no**" not in shipped.split("## Memory")[0]
    worse = changed(copied, ModelCell("works", "sdxl", "ledger"), works=False, note="it broke")
    assert "| a ledger of two requests | yes | yes | **no** (" in worse
    assert "it broke." in worse
    assert "not met" in changed(copied, ModelCell("estimate", "SDXL"), card=16)
    assert worse != shipped


def test_the_shipped_report_lacks_nothing() -> None:
    text = (ASSETS / "results" / "models.md").read_text(encoding="utf-8")
    assert "not measured" not in text
    assert "not met" not in text
