"""Benchmarks: cells that survive a kill, tables and claims computed right, and one small run of
each kind.
"""

import dataclasses
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from unlearn_app.experiments.cells import Extent
from unlearn_app.experiments.claims import Claim
from unlearn_app.experiments.paper1 import measure as paper1
from unlearn_app.experiments.paper1.report import (
    CLAIMS,
    RemovalResult,
    best_arm,
    figure,
    judged,
    read_results,
    report,
    short_of,
    step_cost,
)
from unlearn_app.settings.run_config import make_config

BASE = RemovalResult(("class",), "cat", "a", 0, 90.0, 5.0, -0.01, 0.0, 0.1, 0.02, 0.5, 40.0, 10.0)


def rows(better: list[float], worse: list[float]) -> list[RemovalResult]:
    """UA of two arms on the same targets."""
    return [
        dataclasses.replace(BASE, target=str(n), arm=arm, ua=value)
        for arm, values in (("a", better), ("b", worse))
        for n, value in enumerate(values)
    ]


CLAIM = Claim("a forgets more", "a", "b", lambda found: found.ua, task="class")


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
    assert "+1.33 (-0.101 to +2.77)" in line
    assert "3 pairs" in line


def test_claims_name_arms_and_tasks_that_exist() -> None:
    assert {arm for claim in CLAIMS for arm in (claim.better, claim.worse)} <= set(paper1.ARMS)
    assert {claim.task for claim in CLAIMS} <= set(paper1.TASKS)


def test_the_cut_holds_every_class_on_the_main_arms_and_every_seed() -> None:
    cells = [cell for cell in paper1.grid(3) if cell.cut]
    for arm in paper1.MAIN:
        mine = {
            (cell.target, cell.seed) for cell in cells if "class" in cell.tasks and cell.arm == arm
        }
        assert mine == {(target, seed) for target in paper1.TASKS["class"] for seed in range(3)}
    for arm, task in itertools.product(paper1.ARMS, paper1.TASKS):
        assert {cell.seed for cell in cells if cell.arm == arm and task in cell.tasks} == {0, 1, 2}
    assert len(cells) < len(paper1.grid(3))
    assert [cell.arm for cell in cells if cell.target == "cat" and cell.seed == 0][:2] == list(
        paper1.MAIN
    )
    assert len({dataclasses.astuple(cell) for cell in cells}) == len(cells)


def test_every_arm_has_the_same_budget() -> None:
    configs = [paper1.Removal("cat", arm, 0).config(smoke=False).unlearn for arm in paper1.ARMS]
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
    (row,) = read_results(tmp_path)
    assert (row.ua, row.ra_loss) == (75.0, 25.0)
    assert row.held_out == pytest.approx(-0.05)
    assert row.train == pytest.approx(-0.05)
    assert row.conflict == 25.0
    assert row.rises == 50.0
    assert "| 75.0 | +25.0 | 75 / +25 | -0.050 |" in report(tmp_path, [row])
    assert figure([row]).count("<circle") == 2


def test_the_cost_of_a_rule_is_the_mean_of_ratios_within_rounds(tmp_path: Path) -> None:
    """Rounds slow down together, so ratios agree where times do not."""
    seconds = {"sum + diversified": [1.0, 2.0, 4.0], "restricted + diversified": [1.1, 2.2, 4.4]}
    (tmp_path / "step-time.json").write_text(json.dumps({"config": {}, "values": seconds}))
    cost = step_cost(tmp_path)
    assert [cost[end] for end in ("mean", "low", "high")] == pytest.approx([10, 10, 10])
    line = report(tmp_path, [])
    assert "+10.0 % (+10.0 to +10.0)" in line
    assert "2.20 s against 2.00 s" in line
    assert step_cost(tmp_path / "elsewhere") is None
    assert "A step under" not in report(tmp_path / "elsewhere", [])


def test_unsafe_concepts_are_classes_measured_once() -> None:
    (cell,) = [j for j in paper1.grid(1) if (j.target, j.arm) == ("bomb", "ESD")]
    assert cell.tasks == ("class", "unsafe")
    assert not cell.cut
    assert paper1.Removal("bomb", paper1.MAIN[0], 0).cut
    assert not paper1.Removal("ink", paper1.MAIN[0], 0).cut


def test_every_arm_is_scored_on_the_same_prompts(tmp_path: Path, monkeypatch) -> None:
    """Held-out and training ones, although arms differ in what they train on."""
    scored, trained = [], set()

    def note(model, judge, groups, slots, config) -> tuple[dict, None]:
        scored.append(repr(groups))
        return {}, None

    monkeypatch.setattr(
        paper1, "unlearned", lambda _, config: trained.add(paper1.preview_concept(config)) or {}
    )
    monkeypatch.setattr(paper1, "scored", note)
    monkeypatch.setattr(paper1, "kid", lambda *_: (0.0, 0.0))
    model = SimpleNamespace(drop_adapters=lambda: None, base_hash="0")
    experiment = paper1.Paper1(Extent(tmp_path, smoke=True), model, SimpleNamespace())
    for arm in paper1.ARMS:
        list(experiment.measure(paper1.Removal("cat", arm, 0), {}, (None, None)))
    assert len(scored) == len(paper1.ARMS)
    assert len(set(scored)) == 1
    assert len(trained) == 2


def test_the_original_stands_before_the_arms_of_its_target_and_seed(tmp_path: Path) -> None:
    extent = Extent(tmp_path, seeds=2)
    cells = paper1.Paper1(extent, SimpleNamespace(), SimpleNamespace()).cells()
    assert cells[-1].arm == paper1.STEP_TIME
    assert len(set(cells)) == len(cells)
    known = set()
    for cell in cells[:-1]:
        if cell.arm == paper1.UNTOUCHED:
            known.add((cell.target, cell.seed))
        assert (cell.target, cell.seed) in known


def test_what_needs_no_reference_prepares_none(tmp_path: Path) -> None:
    experiment = paper1.Paper1(Extent(tmp_path), SimpleNamespace(), SimpleNamespace())
    cells = {cell.arm: experiment.shared_by(cell) for cell in experiment.cells()}
    assert [arm for arm, key in cells.items() if key is None] == [paper1.STEP_TIME]


def test_arms_that_fall_short_are_named_with_their_targets(tmp_path: Path) -> None:
    good = [
        dataclasses.replace(BASE, target=name, ua=95.0, ra_loss=2.0)
        for name in ("cat", "ship", "knife")
    ]
    weak = [dataclasses.replace(row, arm="SalUn", ua=60.0) for row in good[:2]]
    weak += [dataclasses.replace(row, arm="SalUn") for row in good[2:]]
    costly = [dataclasses.replace(row, arm="b", ra_loss=16.0) for row in good]
    found = [*good, *weak, *costly]
    assert [short["arm"] for short in short_of(found)] == ["b", "SalUn"], "best first"
    said = "**SalUn** misses 2 of 3 (UA / RA lost: cat 60 / +2, ship 60 / +2). It learns"
    assert said in report(tmp_path, found)
    near = [dataclasses.replace(row, held_out=0.009) for row in good] + weak
    met = {"arm": "a", "medians": "95.0 / +2.0 / +0.009", "classes": 3, "met": True}
    assert best_arm(near) == met
    best = "**a**, UA / RA lost / change of held-out alignment 95.0 / +2.0 / +0.009 over 3 classes"
    assert best in report(tmp_path, near)
    assert "within 0.01: met." in report(tmp_path, near)
    assert not best_arm(weak)["met"]
    assert "within 0.01: not met." in report(tmp_path, weak)
    assert best_arm(good[:2]) is None
    assert "three classes" in report(tmp_path, good[:2])


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
    (row,) = read_results(tmp_path)
    assert row.kid == pytest.approx(0.4)
    assert row.kid_se == pytest.approx(0.05)


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
    plain, changed = make_config("cat"), make_config("cat", **changes)
    assert (paper1.digest(plain) == paper1.digest(changed)) == same
