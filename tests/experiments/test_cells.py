"""Cells are measured once, kept whole, and measured again when what they depend on changes; reports
say what the cells say.
"""

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sums import Sum, Sums

from unlearn_app.common.errors import OutputError
from unlearn_app.experiments.cells import Experiment, Extent, bench, run_cells, stored

ROOT = Path(__file__).resolve().parents[2]


def test_a_cell_is_measured_once_and_again_when_its_config_changes(tmp_path: Path) -> None:
    sums = Sums(Extent(tmp_path))
    lines = ["1/3 up to 3: 103", "2/3 up to 1: 1", "3/3 up to 5: 205", "report"]
    assert list(bench(sums)) == lines
    assert len(sums.counted) == 9
    assert list(bench(sums)) == lines
    assert len(sums.counted) == 9
    sums.version = 2
    assert list(bench(sums)) == lines
    assert len(sums.counted) == 18


def test_what_cells_share_is_made_once_and_only_where_it_is_needed(tmp_path: Path) -> None:
    sums = Sums(Extent(tmp_path))
    cells = [Sum(3), Sum(1), Sum(2)]
    found = dict(run_cells(sums, cells))
    assert found[Sum(2)]["2"] == 102
    assert sums.prepared == [3]
    list(run_cells(sums, cells))
    assert sums.prepared == [3]


def test_a_cell_keeps_every_part_and_grows_by_what_it_lacks(tmp_path: Path) -> None:
    sums = Sums(Extent(tmp_path))

    def dies(experiment: Experiment, work: dict) -> Iterator[Any]:
        from unlearn_app.experiments.cells import measured

        for cell, known in work.items():
            for found in measured(experiment, cell, known, 0):
                if len(found.values) == 3:
                    return
                yield cell, found

    assert list(run_cells(sums, [Sum(5)], dies)) == []
    assert stored(sums, Sum(5))[0] == {"1": 1, "2": 2}
    (found,) = run_cells(sums, [Sum(5)])
    assert found[1] == {"1": 1, "2": 2, "3": 203, "4": 204, "5": 205}
    assert sums.counted == [1, 2, 3, 3, 4, 5]


def test_a_stored_cell_says_where_it_comes_from(tmp_path: Path) -> None:
    list(run_cells(Sums(Extent(tmp_path)), [Sum(1)]))
    record = json.loads((tmp_path / "sums" / "1.json").read_text())
    assert record["config"] == {"last": [1], "version": 1}
    assert record["values"] == {"1": 1}
    assert record["status"] == "complete"
    known = json.loads((tmp_path / "environments" / f"{record['environment']}.json").read_text())
    assert {"commit", "packages", "cpus", "platform"} <= set(known)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("judge", "judge"),
        ("paper1", "paper1.report"),
        ("paper2", "paper2.report"),
        ("paper3", "paper3.report"),
        ("lab", "lab.report"),
        ("lab-pocket-flow", "lab.report"),
        ("models", "models.measure"),
    ],
)
def test_the_shipped_report_and_figure_are_those_of_the_shipped_cells(
    name: str, module: str, tmp_path: Path
) -> None:
    """Where no cells ship, it says that nothing is tested."""
    if (cells := ROOT / "assets" / "experiments" / name).exists():
        shutil.copytree(cells, tmp_path / name)
    results = ROOT / "assets" / "results"
    write_results = importlib.import_module(f"unlearn_app.experiments.{module}").write_results
    shipped = (results / f"{name}.md").read_text(encoding="utf-8")
    assert write_results(tmp_path / name) == shipped
    figures = [path.name for path in tmp_path.glob("*.svg")]
    assert figures == [path.name for path in results.glob(f"{name}.svg")]
    for figure in figures:
        assert (tmp_path / figure).read_bytes() == (results / figure).read_bytes()


class Narrowing(Sums):
    """Counts as far as the first count went, and then one further."""

    def cells(self) -> list[Sum]:
        known, _ = stored(self, Sum(2))
        return [Sum(2), Sum(len(known) + 1)] if known else [Sum(2)]


def test_cells_may_follow_from_the_values_of_others(tmp_path: Path) -> None:
    lines = list(bench(Narrowing(Extent(tmp_path))))
    assert lines == ["1/1 up to 2: 102", "2/2 up to 3: 103", "report"]
    again = Narrowing(Extent(tmp_path))
    assert list(bench(again)) == ["1/2 up to 2: 102", "2/2 up to 3: 103", "report"]
    assert again.counted == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 5000, '{"config": {}, "values": []}'])
def test_nonsense_in_place_of_a_cell_is_a_sentence(tmp_path: Path, text: str) -> None:
    sums = Sums(Extent(tmp_path))
    list(bench(sums))
    next(sums.folder.glob("*.json")).write_text(text)
    with pytest.raises(OutputError, match="benchmark"):
        list(bench(sums))
