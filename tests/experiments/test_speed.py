"""What the cost of a click is counted by, and how it is told."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from unlearn_app.experiments.speed import counted, write_results
from unlearn_app.settings.events import Images, Stage


def test_forward_passes_are_counted_by_stage_and_gradients_three_times() -> None:
    network = nn.Linear(2, 2)

    def work():
        yield Stage("retain", "", 0.0)
        with torch.no_grad():
            network(torch.zeros(5, 2))
        yield Images("original", ())
        yield Stage("unlearn", "", 0.5)
        network(torch.zeros(4, 2))
        yield Stage("write", "", 1.0)

    found = counted(network, work())
    assert found["forwards_by_stage"] == {"retain": 5, "unlearn": 12}
    assert found["forwards"] == 17
    assert found["first_picture"] is not None
    network(torch.zeros(1, 2))
    assert found["forwards"] == 17, "the count ends with the work"


def test_work_without_pictures_has_no_first_one() -> None:
    found = counted(nn.Linear(1, 1), iter([Stage("load", "", 0.0)]))
    assert found["first_picture"] is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = {
        "forwards": 1000,
        "seconds": 3.0,
        "first_picture": 0.5,
        "forwards_by_stage": {"retain": 400, "unlearn": 600},
        "seconds_by_stage": {"load": 0.1, "retain": 1.0, "unlearn": 1.9},
    }
    bare = {"seconds": 0.002, "gflop": 0.5, "machine_gflops": 500.0, "bfloat16": False}
    bare["processor"] = "A CPU, AVX2"
    cells = tmp_path / "speed"
    cells.mkdir()
    for name, values in {"bare": bare, "run-that-resists-empty": run}.items():
        record = {"config": {"base": "0" * 64}, "values": values}
        (cells / f"{name}.json").write_text(json.dumps(record))
    return cells


def test_a_row_tells_cost_and_time(folder: Path) -> None:
    (row,) = [
        line for line in write_results(folder).splitlines() if line.startswith("| run that resists")
    ]
    assert row == (
        "| run that resists | empty | 1,000 | 0.50 | 3.0 | 1.50 | 0.5 |"
        " retain 400 (1.0 s), unlearn 600 (1.9 s) |"
    )


def test_the_machine_is_named(folder: Path) -> None:
    text = " ".join(write_results(folder).split())
    assert "on A CPU, AVX2." in text
    assert "with 500 GFLOP/s in float32" in text
    assert "runs the bare forward pass with 250" in text


def test_sentences_stand_only_where_their_rows_do(folder: Path) -> None:
    """The shared store and a first picture are spoken of where something was measured with them."""
    text = " ".join(write_results(folder).split())
    assert "nothing (empty)." in text
    assert "shared" not in text
    assert "The first picture" in text
    row = json.loads((folder / "run-that-resists-empty.json").read_text())
    row["values"]["first_picture"] = None
    (folder / "run-that-resists-empty.json").write_text(json.dumps(row))
    (folder / "run-shared.json").write_text(json.dumps(row))
    text = " ".join(write_results(folder).split())
    assert "nothing (empty); or what a run of the same concept by another gradient rule" in text
    assert "The first picture" not in text
