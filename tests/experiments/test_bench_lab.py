"""The lab's benchmark: it runs, resumes, and its tables say what the cells say."""

import json
from pathlib import Path
from types import SimpleNamespace

from unlearn_app.common import registry
from unlearn_app.common.paths import ROOT
from unlearn_app.experiments.cells import Extent, measuring, run_cells
from unlearn_app.experiments.lab import measure as lab
from unlearn_app.experiments.lab.report import (
    CASES,
    CONTROL,
    METHODS,
    read_results,
    verdicts,
    write_results,
)
from unlearn_app.settings.attacks import QUICK
from unlearn_app.settings.run_config import make_attack, make_config


def shares(forget: float, near: float = 1.0) -> dict:
    values = {"forget": forget, "near": near, "far": 1.0}
    return {
        group: {"accuracy": share, "alignment": 0.5, "n": 12} for group, share in values.items()
    }


def store(
    folder: Path, row: str, concept: str, seed: int, hits: dict[str, int], unlearned: dict | None
) -> None:
    attacks = {
        kind: {"settings": "", "hits": "1" * n + "0" * (12 - n), "first": "0" * 12, "seconds": 1.0}
        for kind, n in hits.items()
    }
    values = {"attacks": attacks} | (
        {"scores": {"original": shares(1.0), "unlearned": unlearned}} if unlearned else {}
    )
    asked = {"row": row, "concept": concept, "seed": seed}
    folder.mkdir(exist_ok=True)
    (folder / f"{row}-{concept}-{seed}.json".replace(" ", "-")).write_text(
        json.dumps({"config": asked, "values": values, "seconds": 1.0, "environment": "x"})
    )


def test_the_tables_say_what_the_cells_say(tmp_path) -> None:
    folder = tmp_path / "lab"
    for seed in (0, 1):
        store(folder, CONTROL, "pumpkin", seed, {"inversion": 0, "relearn": 11}, None)
        store(
            folder,
            "concealed: prompt filter",
            "cat",
            seed,
            {"inversion": 9, "relearn": 12},
            shares(0.0),
        )
        store(
            folder, "destroyed", "cat", seed, {"inversion": 9, "relearn": 12}, shares(0.0, near=0.2)
        )
        store(folder, "esd", "cat", seed, {"inversion": 9 * seed, "relearn": 12}, shares(0.0))
    found = read_results(folder)
    assert [v.label for v in verdicts(found, "concealed: prompt filter")] == ["concealed"] * 2
    assert [v.label for v in verdicts(found, "destroyed")] == ["damaged"] * 2
    assert [v.label for v in verdicts(found, "esd")] == ["removed", "concealed"]
    text = write_results(folder)
    assert (
        "| concealed: prompt filter | concealed | concealed 2 | 2 of 2 | inversion 2 of 2 |" in text
    )
    assert "| esd | 2 | removed 1, concealed 1 | inversion 1 of 2 |" in text
    assert "| esd | 2 | 75% (55% to 88%) |" not in text
    assert "| esd | 2 | 38% (21% to 57%) | 100% (86% to 100%) |" in text
    assert "| control, never seen | 2 | 0% (0% to 14%) | 92% (74% to 98%) |" in text
    assert (tmp_path / "lab.md").read_text() == text


def test_an_attack_without_its_control_and_one_that_proves_nothing_decide_nothing(tmp_path) -> None:
    """As where the full grid has gone on with one model and not yet with its control."""
    folder = tmp_path / "lab"
    store(folder, CONTROL, "pumpkin", 0, {"inversion": 0}, None)
    store(folder, "esd", "cat", 0, {"inversion": 0, "completion": 12, "scale": 12}, shares(0.0))
    store(folder, "esd", "cat", 1, {"inversion": 12}, shares(0.0))
    found = read_results(folder)
    assert [verdict.label for verdict in verdicts(found, "esd")] == ["removed"]
    assert "| esd | 1 | removed 1 | none of 1 |" in write_results(folder)


def test_a_model_grows_by_the_attacks_on_it_and_keeps_what_it_has(tmp_path, monkeypatch) -> None:
    """The cut after the full grid measures nothing again, and the full grid after the cut only what
    is new.
    """
    judge = SimpleNamespace(name="judge", version="1")
    bench = lab.Lab(Extent(tmp_path), SimpleNamespace(base_hash="abc"), judge)
    asked = []

    def measure(cell, known, shared):
        kinds = bench._lacking(cell, known)
        asked.append(tuple(kinds))
        made = {
            kind: {"settings": repr(make_attack(kind)), "hits": "1", "seconds": 1.0}
            for kind in kinds
        }
        yield {"attacks": known.get("attacks", {}) | made}

    monkeypatch.setattr(bench, "measure", measure)
    cell = lab.AttackedModel("the original", "cat", 1)

    def found(*kinds: str) -> list[str]:
        monkeypatch.setattr(lab.AttackedModel, "kinds", lambda *_: kinds)
        ((_, values),) = run_cells(bench, [cell])
        return list(values["attacks"])

    found("noise")
    found("noise", "prompts")
    assert found("prompts") == ["noise", "prompts"]
    assert asked == [("noise",), ("prompts",)]
    judge.version = "2"
    assert found("noise") == ["noise"], "another judge begins anew"


def test_what_a_cell_depends_on_is_in_its_hash() -> None:
    cell = lab.AttackedModel("destroyed", "cat", 0)
    config = cell.config(False)
    known = lab.depends_on(cell, config, "judge 1")
    for changes in ({"attack.pictures": 17}, {"compare.forget": 13}, {"unlearn.lr": 1e-3}):
        assert lab.depends_on(cell, make_config("cat", **changes), "judge 1") != known
    assert lab.depends_on(cell, config, "judge 2") != known
    assert lab.depends_on(lab.AttackedModel("the original", "cat", 0), config, "judge 1") != known


def test_the_cut_has_every_case_ten_times_and_every_method(tmp_path) -> None:
    cut = [cell for cell in lab.grid(3, smoke=False) if cell.cut]
    four = ("concealed: prompt filter", "destroyed", "the original", "never learned")
    assert all(len({cell.seed for cell in cut if cell.row == row}) == 10 for row in four)
    assert {cell.row for cell in cut} == {*CASES, *METHODS, CONTROL}
    assert {cell.seed for cell in cut if cell.row == CONTROL} == {cell.seed for cell in cut}
    assert all(make_attack(kind).counts for kind in QUICK)
    assert not all(make_attack(kind).by_prompt for kind in QUICK)
    assert all({*QUICK} <= {*cell.kinds(False, False)} for cell in cut)
    assert {kind for cell in cut for kind in cell.kinds(False, False)} == {
        *registry.names("attack")
    }
    every = {kind for kind in registry.names("attack") if make_attack(kind).counts}
    for row in (CONTROL, "concealed: word exchanged", "destroyed", "never learned", *METHODS):
        assert any(every <= {*cell.kinds(False, False)} for cell in cut if cell.row == row), row
    for settings in METHODS.values():
        make_config("cat", **settings)


def test_of_a_second_bundled_model_nothing_needs_single_tokens() -> None:
    with measuring("pocket-flow"):
        rows = {cell.row for cell in lab.grid(1, smoke=False)}
        kinds = {
            kind
            for cell in lab.grid(1, smoke=False)
            for full in (False, True)
            for kind in cell.kinds(False, full)
        }
    assert rows == {*CASES, *METHODS, CONTROL} - {
        "concealed: word exchanged",
        "concealed: tokens remapped",
        "uce",
        "rece",
    }
    assert kinds == {"prompts", "noise", "relearn"}


def test_a_second_bundled_model_has_a_folder_of_its_own_and_replaces_nothing_that_ships() -> None:
    extent = Extent(ROOT / "assets" / "experiments", bundled="pocket-flow")
    assert lab.Lab(extent).folder.name == "lab-pocket-flow"
    assert lab.Lab(extent).about == {"bundled": "pocket-flow"}
    assert not extent.ships
