"""The report by which the defaults of forgetting are chosen: medians over targets, and the front of
cost against share.
"""

import json
from operator import attrgetter
from pathlib import Path

from unlearn_app.experiments.tradeoff import PARTS, front, name_of, write_results
from unlearn_app.settings.run_config import make_config


def store(folder: Path, concept: str, seed: int, settings: dict[str, dict]) -> None:
    original = {"forget": 100.0, "near": 90.0, "far": 80.0}
    record = {"config": {"concept": concept, "seed": seed}, "values": settings}
    record["values"]["original"] = original
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{concept}-{seed}.json").write_text(json.dumps(record))


def measured(forget: float, near: float, far: float, back: float, cost: int) -> dict:
    shares = {"forget": forget, "near": near, "far": far, "relearned": back}
    return shares | {"cost": cost, "run": "0"}


def row_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


def test_a_setting_is_within_the_bars_where_every_measure_is(tmp_path: Path) -> None:
    good, broad = measured(0, 90, 80, 70, 1000), measured(0, 50, 80, 70, 1000)
    store(tmp_path / "tradeoff", "cat", 0, {"15 x 0.001": good})
    store(tmp_path / "tradeoff", "car", 0, {"15 x 0.001": broad})
    row = row_of(write_results(tmp_path / "tradeoff"), "15 x 0.001")
    assert "| 0 (0 to 0) | 20 (0 to 40) | 0 (0 to 0) | 70 (70 to 70) | 50% |" in row


def test_seeds_are_averaged_inside_a_target(tmp_path: Path) -> None:
    for seed, forget in enumerate((0, 60)):
        store(tmp_path / "tradeoff", "cat", seed, {"a": measured(forget, 90, 80, 70, 1000)})
    assert "| 30 (30 to 30) |" in row_of(write_results(tmp_path / "tradeoff"), "a")


def test_the_front_holds_what_nothing_beats_at_its_cost() -> None:
    found = {"cheap": (1, 0.5), "dear": (3, 0.9), "beaten": (3, 0.5), "worse": (2, 0.4)}
    assert front(found) == {"cheap", "dear"}


def test_equals_are_both_on_the_front() -> None:
    assert front({"a": (1, 0.5), "b": (1, 0.5)}) == {"a", "b"}


def test_each_kind_has_a_table_with_its_own_default_and_front(tmp_path: Path) -> None:
    folder, names = tmp_path / "tradeoff", {}
    for kind, concept in (("Objects", "cat"), ("Styles", "van gogh")):
        names[kind] = name_of(attrgetter(*PARTS)(make_config(concept).unlearn))
        better = measured(0, 90, 80, 70, 1000), measured(90, 90, 80, 70, 2000)
        store(folder, concept, 0, dict(zip((names[kind], "worse"), better, strict=True)))
    parts = write_results(folder).split("## ")[1:]
    assert [part.partition(":")[0] for part in parts] == list(names)
    for part, name in zip(parts, names.values(), strict=True):
        assert f"| **{name}** |" in part
        assert row_of(part, "worse").endswith("0% |  |")
