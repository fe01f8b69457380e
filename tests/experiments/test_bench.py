"""Benchmarks: cells that survive a kill, tables and claims computed right, and one small run of
each kind.
"""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from unlearn_app.experiments import (
    judge_tables,
    lab_tables,
    paper1,
    paper1_tables,
    paper2_tables,
    paper3_tables,
)
from unlearn_app.experiments.cells import cell
from unlearn_app.experiments.paper1_tables import (
    CLAIMS,
    Claim,
    Row,
    arm_line,
    best_arm,
    figure,
    judged,
    read_rows,
    short_of,
    step_time,
)

ROOT = Path(__file__).resolve().parents[2]
BASE = Row(("class",), "cat", "a", 0, 95.0, 90.0, 5.0, -0.01, 0.0, 0.1, 0.02, 0.5, 40.0, 10.0)


def rows(better: list[float], worse: list[float]) -> list[Row]:
    """UA of two arms on the same targets."""
    return [
        dataclasses.replace(BASE, target=str(n), arm=arm, ua=value)
        for arm, values in (("a", better), ("b", worse))
        for n, value in enumerate(values)
    ]


CLAIM = Claim("a forgets more", "class", "a", "b", lambda row: row.ua)


@pytest.mark.parametrize(
    ("better", "worse", "label"),
    [
        ([90, 92, 94], [80, 81, 85], "**held**"),
        ([80, 81, 85], [90, 92, 94], "**not held**"),
        ([90, 80, 94], [80, 92, 90], "**undecided**"),
        ([90], [10], "**undecided**"),
        ([90], [], "not measured"),
    ],
)
def test_a_claim_is_decided_by_the_paired_interval(better, worse, label) -> None:
    assert label in judged(CLAIM, rows(better, worse))


def test_pairs_beat_a_comparison_of_means() -> None:
    """Targets differ far more than arms: the paired interval sees the difference, two separate ones
    would not.
    """
    line = judged(CLAIM, rows([11, 51, 92], [10, 50, 90]))
    assert "+1.33 (-0.101 to +2.77)" in line and "3 pairs" in line


def test_claims_name_arms_and_tasks_that_exist() -> None:
    assert {arm for claim in CLAIMS for arm in (claim.better, claim.worse)} <= set(paper1.ARMS)
    assert {claim.task for claim in CLAIMS} <= set(paper1.TASKS)


def test_the_cut_holds_every_class_on_the_main_arms_and_every_seed() -> None:
    jobs = [job for job in paper1.grid(3) if job.cut]
    for arm in paper1.MAIN:
        mine = {(job.target, job.seed) for job in jobs if "class" in job.tasks and job.arm == arm}
        assert mine == {(target, seed) for target in paper1.TASKS["class"] for seed in range(3)}
    for arm, task in itertools.product(paper1.ARMS, paper1.TASKS):
        assert {job.seed for job in jobs if job.arm == arm and task in job.tasks} == {0, 1, 2}
    assert len(jobs) < len(paper1.grid(3))
    assert [job.arm for job in jobs if job.target == "cat" and job.seed == 0][:2] == list(
        paper1.MAIN
    )
    assert len({dataclasses.astuple(job) for job in jobs}) == len(jobs)


def test_every_arm_has_the_same_budget() -> None:
    configs = [paper1.Job("cat", arm, 0).config(smoke=False).unlearn for arm in paper1.ARMS]
    assert len({(c.steps, c.batch_size, c.train_pictures) for c in configs}) == 1


def stored(folder: Path, name: str, config: dict, right: dict[str, str], alignment: float) -> None:
    values = {
        "right": right,
        "alignment": {group: [alignment] * len(text) for group, text in right.items()},
        "kid": 0.1,
        "kid_se": 0.01,
        "step_s": 0.5,
        "conflict": 0.25,
        "rises": {"forget": 0.5, "retain": 0.0},
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"config": config, "values": values}))


def test_rows_are_differences_to_the_original_of_the_same_seed(tmp_path: Path) -> None:
    plain = {"target": "cat", "seed": 1}
    stored(tmp_path, "o1", plain, {"forget": "1110", "near": "11", "far": "11", "train": "11"}, 0.7)
    stored(
        tmp_path,
        "o2",
        plain | {"seed": 2},
        {"forget": "0000", "near": "00", "far": "00", "train": "00"},
        0.1,
    )
    arm = plain | {"tasks": ["class"], "arm": "sum", "cut": True}
    stored(tmp_path, "a", arm, {"forget": "1000", "near": "01", "far": "11", "train": "11"}, 0.65)
    (row,) = read_rows(tmp_path)
    assert (row.known, row.ua, row.ra_loss) == (75.0, 75.0, 25.0)
    assert row.held_out == pytest.approx(-0.05) and row.train == pytest.approx(-0.05)
    assert row.conflict == 25.0 and row.rises == 50.0
    assert "| 75.0 | +25.0 | 75 / +25 | -0.050 |" in arm_line("sum", [row])
    assert figure([row]).count("<circle") == 2


def test_a_cell_is_measured_once_and_again_when_its_config_changes(tmp_path: Path) -> None:
    asked = []

    def measure() -> dict:
        asked.append(1)
        return {"n": len(asked)}

    assert (
        cell(tmp_path, "x", {"a": 1}, measure) == cell(tmp_path, "x", {"a": 1}, measure) == {"n": 1}
    )
    assert cell(tmp_path, "x", {"a": 2}, measure) == {"n": 2}


def test_the_cost_of_a_rule_is_the_mean_of_ratios_within_rounds(tmp_path: Path) -> None:
    """Rounds slow down together, so ratios agree where times do not."""
    seconds = {"sum + diversified": [1.0, 2.0, 4.0], "restricted + diversified": [1.1, 2.2, 4.4]}
    (tmp_path / "step-time.json").write_text(json.dumps({"config": {}, "values": seconds}))
    (line,) = step_time(tmp_path)
    assert "+10.0 % (+10.0 to +10.0)" in line and "2.20 s against 2.00 s" in line
    assert step_time(tmp_path / "elsewhere") == []


def test_unsafe_concepts_are_classes_measured_once() -> None:
    (job,) = [j for j in paper1.grid(1) if (j.target, j.arm) == ("bomb", "ESD")]
    assert job.tasks == ("class", "unsafe") and not job.cut
    assert (
        paper1.Job("bomb", paper1.MAIN[0], 0).cut and not paper1.Job("ink", paper1.MAIN[0], 0).cut
    )


def test_every_arm_is_scored_on_the_same_prompts(tmp_path: Path, monkeypatch) -> None:
    """Held-out and training ones, although arms differ in what they train on."""
    scored, trained = [], set()

    def note(backend, judge, shown, config, count, reference) -> dict:
        scored.append(shown)
        trained.add(paper1.preview_concept(config))
        return {}

    monkeypatch.setattr(paper1, "unlearned", note)
    monkeypatch.setattr(paper1, "scored", lambda *_: ({}, None))
    monkeypatch.setattr(paper1, "kid", lambda *_: (0.0, 0.0))
    backend = SimpleNamespace(drop_adapters=lambda: None, base_hash="0")
    for arm in paper1.ARMS:
        paper1.measure(tmp_path, backend, None, paper1.Job("cat", arm, 0), True, {("cat", 0): None})
    assert len(scored) == len(paper1.ARMS) and len(set(scored)) == 1 and len(trained) == 2


def test_arms_that_fall_short_are_named_with_their_targets() -> None:
    good = [
        dataclasses.replace(BASE, target=name, ua=95.0, ra_loss=2.0)
        for name in ("cat", "ship", "knife")
    ]
    weak = [dataclasses.replace(row, arm="SalUn", ua=60.0) for row in good[:2]]
    weak += [dataclasses.replace(row, arm="SalUn") for row in good[2:]]
    costly = [dataclasses.replace(row, arm="b", ra_loss=16.0) for row in good]
    lines = short_of([*good, *weak, *costly])
    assert [line.split("**")[1] for line in lines] == ["b", "SalUn"], "best first"
    assert "misses 2 of 3 (UA / RA lost: cat 60 / +2, ship 60 / +2). It learns" in lines[1]
    met = best_arm([dataclasses.replace(row, held_out=0.009) for row in good] + weak)
    assert (
        "**a**, UA / RA lost / change of held-out alignment 95.0 / +2.0 / +0.009 over 3 classes"
        in met
    )
    assert (
        met.endswith(": met.")
        and best_arm(weak).endswith("not met.")
        and "three classes" in best_arm(good[:2])
    )


def test_distances_are_counted_from_the_originals_own(tmp_path: Path) -> None:
    """Two sets of the same prompts have a distance below zero, because the cross terms pair equal
    prompts.
    """
    plain, shares = (
        {"target": "cat", "seed": 0},
        {"forget": "1", "near": "1", "far": "1", "train": "1"},
    )
    stored(tmp_path, "original", plain, shares, 0.5)
    arm = plain | {"tasks": ["class"], "arm": "sum", "cut": True}
    stored(tmp_path, "arm", arm, shares, 0.5)
    for name, kid, error in (("original", -0.9, 0.03), ("arm", -0.5, 0.04)):
        path = tmp_path / f"{name}.json"
        kept = json.loads(path.read_text())
        kept["values"] |= {"kid": kid, "kid_se": error}
        path.write_text(json.dumps(kept))
    (row,) = read_rows(tmp_path)
    assert row.kid == pytest.approx(0.4) and row.kid_se == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"unlearn.lr": 1e-4}, False),
        ({"esd.eta": 2.0}, False),
        ({"rule": "weighted_sum"}, False),
        ({"compare.sampling_steps": 5}, False),
        ({"resist.on": True}, False),
        ({"prompts": "forget: a cat\nretain: a dog"}, False),
        ({"resist.lr": 1e-4}, True),
        ({"regularize.l2": 0.1}, False),
        ({"attack.steps": 7}, True),
        ({"compare.forget": 3}, True),
    ],
)
def test_a_cell_is_stale_when_what_it_depends_on_changes(changes, same) -> None:
    plain, changed = paper1.make_config("cat"), paper1.make_config("cat", **changes)
    assert (paper1.digest(plain) == paper1.digest(changed)) == same


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("judge", judge_tables),
        ("paper1", paper1_tables),
        ("paper2", paper2_tables),
        ("paper3", paper3_tables),
        ("lab", lab_tables),
    ],
)
def test_the_shipped_report_and_figure_are_those_of_the_shipped_cells(
    name: str, tables, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "assets" / "experiments" / name, tmp_path / name)
    results = ROOT / "assets" / "results"
    assert tables.write_results(tmp_path / name) == (results / f"{name}.md").read_text(
        encoding="utf-8"
    )
    assert [path.name for path in tmp_path.glob("*.svg")] == [
        path.name for path in results.glob(f"{name}.svg")
    ]
    for path in tmp_path.glob("*.svg"):
        assert path.read_bytes() == (results / path.name).read_bytes()
