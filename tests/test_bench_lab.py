"""The lab's benchmark: it runs, resumes, and its tables say what the cells say."""

import json
from pathlib import Path

from unlearn_app.bench import lab
from unlearn_app.bench.lab_tables import CASES, CONTROL, METHODS, read_cells, verdicts, write_results
from unlearn_app.config import make_attack, make_config
from unlearn_app.lab import QUICK


def shares(forget: float, near: float = 1.0) -> dict:
    values = {"forget": forget, "near": near, "far": 1.0}
    return {group: {"accuracy": share, "alignment": 0.5, "n": 12} for group, share in values.items()}


def store(folder: Path, row: str, concept: str, seed: int, hits: dict[str, int], unlearned: dict | None) -> None:
    attacks = {kind: {"hits": "1" * n + "0" * (12 - n), "first": "0" * 12, "seconds": 1.0} for kind, n in hits.items()}
    values = {"attacks": attacks} | ({"scores": {"original": shares(1.0), "unlearned": unlearned}} if unlearned else {})
    asked = {"row": row, "concept": concept, "seed": seed}
    folder.mkdir(exist_ok=True)
    (folder / f"{row}-{concept}-{seed}.json".replace(" ", "-")).write_text(
        json.dumps({"config": asked, "values": values, "seconds": 1.0, "environment": "x"})
    )


def test_the_tables_say_what_the_cells_say(tmp_path) -> None:
    folder = tmp_path / "lab"
    for seed in (0, 1):
        store(folder, CONTROL, "pumpkin", seed, {"inversion": 0, "relearn": 11}, None)
        store(folder, "concealed: prompt filter", "cat", seed, {"inversion": 9, "relearn": 12}, shares(0.0))
        store(folder, "destroyed", "cat", seed, {"inversion": 9, "relearn": 12}, shares(0.0, near=0.2))
        store(folder, "esd", "cat", seed, {"inversion": 9 * seed, "relearn": 12}, shares(0.0))
    found = read_cells(folder)
    assert [v.label for v in verdicts(found, "concealed: prompt filter")] == ["concealed"] * 2
    assert [v.label for v in verdicts(found, "destroyed")] == ["damaged"] * 2
    assert [v.label for v in verdicts(found, "esd")] == ["removed", "concealed"]
    text = write_results(folder)
    assert "| concealed: prompt filter | concealed | concealed 2 | 2 of 2 |" in text
    assert (
        "| esd | 2 | 75% (55% to 88%) |" not in text and "| esd | 2 | 38% (21% to 57%) | 100% (86% to 100%) |" in text
    )
    assert "| control, never seen | 2 | 0% (0% to 14%) | 92% (74% to 98%) |" in text
    assert (tmp_path / "lab.md").read_text() == text


def test_the_cut_has_every_case_ten_times_and_every_method(tmp_path) -> None:
    cut = [job for job in lab.grid(3, smoke=False) if job.cut]
    four = ("concealed: prompt filter", "destroyed", "the original", "never learned")
    assert all(len({job.seed for job in cut if job.row == row}) == 10 for row in four)
    assert {job.row for job in cut} == {*CASES, *METHODS}
    assert all(make_attack(kind).counts for kind in QUICK) and not all(make_attack(kind).by_prompt for kind in QUICK)
    for settings in METHODS.values():
        make_config("cat", **settings)
