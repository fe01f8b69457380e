"""The benchmark of paper 2: rows, claims and curves computed right, and one small run of each kind."""

import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_app.bench import paper2
from unlearn_app.bench.paper2_tables import (
    CLAIMS,
    FAST_META,
    FAST_PLAIN,
    FRESH,
    HARMLESS,
    META,
    PLAIN,
    Row,
    curve_line,
    figure,
    halved,
    judged,
    price,
    read_rows,
    worst,
)
from unlearn_app.config import make_config
from unlearn_app.settings import RESIST_SECONDS, UnlearnConfig

ROOT = Path(__file__).resolve().parent.parent
BASE = Row("cat", 0, "ESD", PLAIN, "LoRA 16", {0: 0, 50: 60, 100: 90}, {0: 90, 50: 90, 100: 80},
           {0: 95, 50: 95, 100: 95}, {g: {0: 0.75, 100: 0.5} for g in ("near", "far")}, 20.0)  # fmt: skip


def rows(plain: dict[str, list[float]], meta: dict[str, list[float]]) -> list[Row]:
    """The share after 100 steps by attack, one value per target."""
    return [
        dataclasses.replace(BASE, target=str(n), defence=defence, attack=attack, forget={0: 0, 100: share})
        for defence, shares in ((PLAIN, plain), (META, meta))
        for attack, values in shares.items()
        for n, share in enumerate(values)
    ]


CLAIM = next(claim for claim in CLAIMS if claim.measure is worst)


def test_the_worst_attack_counts_and_the_harmless_one_does_not() -> None:
    found = worst(rows({"LoRA 16": [50, 20], "all weights": [30, 80], "clean": [100, 100]}, {}))
    assert found == {("0", 0): 50, ("1", 0): 80}


@pytest.mark.parametrize(
    ("plain", "meta", "label", "word"),
    [
        ([90, 92, 94], [10, 12, 20], "**held**", "100 steps 14 % against 92 %, at most half"),
        ([90, 92, 94], [60, 70, 60], "**held**", "100 steps 63 % against 92 %, more than half"),
        ([90, 10, 50], [20, 60, 50], "**undecided**", "more than half"),
        ([10, 12, 14], [80, 84, 85], "**not held**", "more than half"),
        ([90], [10], "**undecided**", "at most half"),
        ([90, 92, 94], [90, 92, 94], "**not held**", "more than half"),
        ([90], [], "not measured", "not measured"),
    ],
)
def test_resistance_is_decided_by_the_paired_interval(plain, meta, label, word) -> None:
    shown = rows({"LoRA 16": plain}, {"LoRA 16": meta})
    assert label in judged(CLAIM, shown, "ESD") and word in halved(shown, "ESD")


def test_an_equality_needs_the_whole_interval_inside_its_range() -> None:
    """A wide interval around zero shows nothing: it is undecided, not held."""
    same = next(claim for claim in CLAIMS if (claim.low, claim.high) == (-3, 3))
    narrow = [dataclasses.replace(BASE, target=str(n), defence=d) for n in range(4) for d in (PLAIN, META)]
    assert "**held**" in judged(same, narrow, "ESD")
    wide = [dataclasses.replace(r, forget={0: 40.0 * (i % 4 == 1), 100: 0}) for i, r in enumerate(narrow)]
    assert "**undecided**" in judged(same, wide, "ESD")


def test_a_curve_line_says_where_it_passes_eighty_percent_and_its_area() -> None:
    line = curve_line("meta, LoRA 16", [BASE])
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    shown = ["90 → 80 (0.75 → 0.50)", "95 → 95 (0.75 → 0.50)"]
    assert cells == ["meta, LoRA 16", "0", "", "", "60", "90", "", "", "52", "83 (1 of 1)", *shown, "1"]
    assert "never" in curve_line("x", [dataclasses.replace(BASE, forget={0: 0, 100: 10})])
    assert figure([BASE]).count("<polyline") == 1


def test_the_price_is_paired_by_target_and_seed() -> None:
    times = {("cat", FAST_PLAIN): 10.0, ("cat", FAST_META): 20.0, ("dog", FAST_PLAIN): 20.0, ("dog", FAST_META): 60.0}
    shown = [dataclasses.replace(BASE, target=t, defence=d, unlearn_s=s) for (t, d), s in times.items()]
    assert "40 s" in price(shown, "ESD") and "2.5 times (2.0 to 3.0)" in price(shown, "ESD")
    assert "not measured" in price([BASE], "ESD")


def test_claims_name_defences_that_exist() -> None:
    known = {*paper2.DEFENCES, *paper2.CONTROLS, *paper2.SHORT}
    assert {name for claim in CLAIMS for name in (claim.better, claim.worse)} <= known
    assert set(paper2.CUT_ATTACKS) <= set(paper2.ATTACKS)


def test_the_cut_keeps_every_seed_and_control() -> None:
    jobs = [job for job in paper2.grid(3) if job.cut]
    known = {(job.defence, job.attack) for job in jobs if job.base == "ESD"}
    defences = (*paper2.DEFENCES, *paper2.CONTROLS, *paper2.SHORT)
    left = {attack for defence, attack in set(itertools.product(defences, paper2.CUT_ATTACKS)) - known}
    assert left == {HARMLESS, "all weights"} and ("meta", HARMLESS) in known
    assert {(control, attack) for control in paper2.CONTROLS for attack in paper2.CUT_ATTACKS[:2]} <= known
    for target, defence in itertools.product(paper2.TARGETS, defences):
        assert {job.seed for job in jobs if (job.target, job.defence) == (target, defence)} == {0, 1, 2}
    assert len({job.target for job in jobs if job.base == FRESH}) >= 2
    assert len(set(paper2.grid(3))) == len(paper2.grid(3)) > len(jobs)
    models = [(job.target, job.seed, job.base, job.defence) for job in jobs]
    assert len([key for key, _ in itertools.groupby(models)]) == len(set(models)), "a model is defended once"


def test_defences_differ_in_what_they_should(tmp_path: Path) -> None:
    plain, meta, none, strong, short, rehearsed = (
        paper2.Job("cat", 0, "ESD", defence, "LoRA 16").config(False)
        for defence in (*paper2.DEFENCES, *paper2.CONTROLS, *paper2.SHORT)
    )
    assert (plain.resist.on, meta.resist.on, none.resist.on, strong.resist.on) == (False, True, True, False)
    assert meta.resist.steps > none.resist.steps == 0 and dict(strong.options)["esd.eta"] == 3.0
    assert plain.unlearn == meta.unlearn == none.unlearn == strong.unlearn and meta.resist.goal == "lose"
    assert meta.unlearn == make_config("cat", preset="full").unlearn
    assert dataclasses.replace(rehearsed, resist=short.resist) == short
    assert short.unlearn == make_config("cat").unlearn and (short.resist.on, rehearsed.resist.on) == (False, True)
    fresh = paper2.Job("penguin", 0, FRESH, "none", "LoRA 16").config(False)
    assert fresh.attack == plain.attack == short.attack


def test_two_processes_measure_every_defence_and_one_alone_finds_the_same_numbers(tmp_path: Path) -> None:
    asked = ["unlearn_app", "bench", "paper2", "--smoke", "--out", str(tmp_path)]
    alone, way = [sys.executable, "-m", *asked], {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", *asked]
    first = subprocess.run(both, capture_output=True, text=True, check=True, **way).stdout
    assert all(f", {defence}, " in first for defence in (*paper2.DEFENCES, *paper2.CONTROLS, *paper2.SHORT, "none"))
    text = (tmp_path / "paper2-smoke.md").read_text()
    assert "What is claimed" in text and f"## {FRESH}" in text
    assert (tmp_path / "paper2-smoke.svg").read_text().startswith("<svg")
    cells = sorted((tmp_path / "paper2-smoke").iterdir())
    assert len(cells) == 14 and len(read_rows(tmp_path / "paper2-smoke")) == 14
    last = next(path for path in cells if path.name == "cat-0-esd-meta-lora-16.json")
    values = json.loads(last.read_text())["values"]["marks"]
    assert set(values) == {"0", "2"}
    before = {path: path.stat().st_mtime_ns for path in cells}
    last.unlink()
    subprocess.run(alone, capture_output=True, check=True, **way)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "paper2-smoke").iterdir()}
    assert after.keys() == before.keys() and {path for path in after if after[path] != before[path]} == {last}
    assert json.loads(last.read_text())["values"]["marks"] == values


def test_the_price_on_the_page_is_the_measured_one() -> None:
    rows = [row for row in read_rows(ROOT / "assets" / "experiments" / "paper2") if row.base == "ESD"]
    meta, plain = (statistics.median(r.unlearn_s for r in rows if r.defence == d) for d in (FAST_META, FAST_PLAIN))
    assert pytest.approx((meta - plain) / UnlearnConfig.steps, rel=0.25) == RESIST_SECONDS
