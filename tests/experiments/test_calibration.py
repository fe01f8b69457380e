"""Which attack may be the default: medians over concepts, seeds averaged inside them, against both
bars.
"""

import json
from pathlib import Path

from unlearn_app.experiments.calibration import report
from unlearn_app.settings.groups import AttackConfig

DEFAULT = f"{AttackConfig.steps} x {AttackConfig.lr:g}"


def store(folder: Path, concept: str, seed: int, values: dict[str, tuple[int, int]]) -> None:
    run = {"concept": concept, "unlearn": {"steps": 3, "batch_size": 2}}
    record = {"config": {"config": run}, "values": values}
    folder.mkdir(exist_ok=True)
    (folder / f"{concept}-{seed}.json").write_text(json.dumps(record))


def lines(folder: Path) -> dict[str, str]:
    rows = [
        line
        for line in report(folder).splitlines()
        if line.startswith("| ") and " x " in line.split("|")[1]
    ]
    return {row.split("|")[1].strip(): row for row in rows[1:]}


def test_an_attack_meets_both_bars_by_its_medians(tmp_path: Path) -> None:
    folder = tmp_path / "calibration"
    for concept, back in (("cat", 6), ("rose", 8), ("car", 1)):
        store(folder, concept, 0, {"unlearned": (0, 10), DEFAULT: (back, 10), "99 x 0.1": (10, 10)})
    for concept, taught in (("penguin", 3), ("crab", 0), ("cake", 9)):
        store(folder, concept, 0, {DEFAULT: (taught, 10), "99 x 0.1": (4, 10)})
    found = lines(folder)
    assert found[f"**{DEFAULT}**"].endswith("| 60% (10% to 80%) | 30% (0% to 90%) | yes |")
    assert found["99 x 0.1"].endswith("| 100% (100% to 100%) | 40% (40% to 40%) | no |")


def test_seeds_are_averaged_inside_a_concept(tmp_path: Path) -> None:
    folder = tmp_path / "calibration"
    for seed, back in enumerate((0, 10, 10)):
        store(folder, "cat", seed, {DEFAULT: (back, 10)})
    store(folder, "rose", 0, {DEFAULT: (0, 10)})
    store(folder, "penguin", 0, {DEFAULT: (0, 10)})
    assert "| 33% (0% to 67%) |" in lines(folder)[f"**{DEFAULT}**"]
