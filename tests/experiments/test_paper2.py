"""The benchmark of paper 2: rows, claims and curves computed right, and one small run of each
kind.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_app.common.json_values import to_json
from unlearn_app.experiments import paper2, paper2_grid
from unlearn_app.experiments.paper2_claims import CLAIMS, Row, judged, read_rows, worst
from unlearn_app.experiments.paper2_grid import (
    COUNT,
    CUT_STEPS,
    FAST_META,
    FAST_PLAIN,
    FRESH,
    HARMLESS,
    MARKS,
    META,
    NONE,
    ORIGINAL,
    PLAIN,
    Job,
    grid,
)
from unlearn_app.experiments.paper2_tables import curve_line, figure, write_results
from unlearn_app.experiments.paper2_why import scope
from unlearn_app.settings.groups import RESIST_SECONDS, UnlearnConfig
from unlearn_app.settings.run_config import make_config
from unlearn_app.web.options import build_switch

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "assets" / "experiments" / "paper2"
BASE = Row(
    "cat",
    0,
    "ESD",
    PLAIN,
    "LoRA 16",
    {0: 0, 50: 60, 100: 90},
    {0: 90, 50: 90, 100: 80},
    {0: 95, 50: 95, 100: 95},
    {"forget": {0: 0.2, 100: 0.6}, "near": {0: 0.75, 100: 0.5}, "far": {0: 0.75, 100: 0.5}},
    20.0,
)
DEFENCES = (*paper2_grid.DEFENCES, *paper2_grid.CONTROLS, *paper2_grid.SHORT)


def rows(plain: dict[str, list[float]], meta: dict[str, list[float]]) -> list[Row]:
    """The share after 100 steps by attack, one value per target."""
    return [
        dataclasses.replace(
            BASE, target=str(n), defence=defence, attack=attack, forget={0: 0, 100: share}
        )
        for defence, shares in ((PLAIN, plain), (META, meta))
        for attack, values in shares.items()
        for n, share in enumerate(values)
    ]


HALF, LESS = (
    next(
        claim
        for claim in CLAIMS
        if (claim.measure, claim.factor, claim.step) == (worst, factor, 100)
    )
    for factor in (0.5, 1.0)
)


def seen(claim, shown: list[Row]) -> tuple[str, str, str]:
    """The sentence of a claim, what was measured, and the verdict."""
    sentence, base, said, label = (
        cell.strip() for cell in judged(claim, shown, "ESD").strip("| ").split("|")
    )
    assert base == "ESD"
    return sentence, said, label.strip("*")


def test_the_worst_attack_counts_and_the_harmless_one_does_not() -> None:
    found = worst(
        rows({"LoRA 16": [50, 20], "all weights": [30, 80], "clean": [100, 100]}, {}), 100
    )
    assert found == {("0", 0): 50, ("1", 0): 80}


@pytest.mark.parametrize(
    ("plain", "meta", "less", "half"),
    [
        ([90, 92, 94], [10, 12, 20], "held", "held"),
        ([90, 92, 94], [60, 70, 60], "held", "not held"),
        ([90, 10, 50], [20, 60, 50], "undecided", "undecided"),
        ([10, 12, 14], [80, 84, 85], "not held", "not held"),
        ([90], [10], "undecided", "undecided"),
        ([90, 92, 94], [90, 92, 94], "not held", "not held"),
    ],
)
def test_resistance_is_decided_by_the_paired_interval(plain, meta, less, half) -> None:
    shown = rows({"LoRA 16": plain}, {"LoRA 16": meta})
    assert (seen(LESS, shown)[2], seen(HALF, shown)[2]) == (less, half)


def test_the_bar_is_half_of_what_comes_back_without_the_look_ahead() -> None:
    """Differences -35, -34 and -27: mean -32, spread the root of 19, half the interval 4.303 ·
    4.359 / 1.732.
    """
    shown = rows({"LoRA 16": [90, 92, 94]}, {"LoRA 16": [10, 12, 20]})
    said = "14 against 0.5 × 92: -32 (-42.8 to -21.2) points, 3 targets, 3 pairs"
    assert seen(HALF, shown) == (
        "The worst attack brings back at most half in 100 steps",
        said,
        "held",
    )
    assert "not measured" in judged(HALF, rows({"LoRA 16": [90]}, {}), "ESD")


def test_seeds_of_a_target_are_averaged_before_the_interval() -> None:
    """Over six pairs as if they were independent the interval would be -31 to -9, and the claim
    held.
    """
    shares = [[45, 35], [35, 25], [25, 15]]
    shown = [
        dataclasses.replace(
            BASE, target=str(n), seed=seed, defence=defence, forget={0: 0, 100: share}
        )
        for n, own in enumerate(shares)
        for seed, meta in enumerate(own)
        for defence, share in ((PLAIN, 50), (META, meta))
    ]
    said = "30 against 50: -20 (-44.8 to +4.84) points, 3 targets, 6 pairs"
    assert seen(LESS, shown)[1:] == (said, "undecided")


def test_only_attacks_that_both_models_have_met_are_compared() -> None:
    """Else the worst of two attacks would stand against one, and whoever is measured less would
    win.
    """
    shown = rows({"LoRA 16": [50], "all weights": [90]}, {"LoRA 16": [40]})
    assert seen(LESS, shown)[1].startswith("40 against 50: -10 ")


def test_a_claim_on_the_way_says_so_and_that_it_explores() -> None:
    """Ten steps of a schedule of a hundred are no attack of ten steps."""
    shown = rows({"LoRA 16": [90, 92]}, {"LoRA 16": [10, 12]})
    early = [claim for claim in CLAIMS if claim.step < 100]
    assert {claim.step for claim in early} == {10, 25} and all(
        claim.measure is worst for claim in early
    )
    for claim in early:
        named = [
            dataclasses.replace(row, defence=d)
            for row in shown
            for d in {claim.better, claim.worse}
        ]
        assert seen(claim, named)[0].endswith(
            f" in the first {claim.step} of its 100 steps (exploratory)"
        )
    long = [dataclasses.replace(row, forget=row.forget | {300: 90}) for row in shown]
    assert seen(LESS, long)[0].endswith(" in the first 100 of its 300 steps")


def test_an_equality_needs_the_whole_interval_inside_its_range() -> None:
    """A wide interval around zero shows nothing: it is undecided, not held."""
    same = next(claim for claim in CLAIMS if (claim.low, claim.high) == (-3, 3))
    narrow = [
        dataclasses.replace(BASE, target=str(n), defence=d) for n in range(4) for d in (PLAIN, META)
    ]
    assert seen(same, narrow)[2] == "held"
    wide = [
        dataclasses.replace(r, forget={0: 40.0 * (i % 4 == 1), 100: 0})
        for i, r in enumerate(narrow)
    ]
    assert seen(same, wide)[2] == "undecided"


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("| ").removesuffix(" |").split("|")]


def test_a_curve_line_says_where_it_passes_eighty_percent_and_its_area() -> None:
    line = curve_line("meta, LoRA 16", [BASE], {}, (0, 10, 50, 100))
    ends = ["90 → 80 (0.75 → 0.50)", "95 → 95 (0.75 → 0.50)", "1"]
    assert cells_of(line) == [
        "meta, LoRA 16",
        "0 (0.20)",
        "",
        "60",
        "90 (0.60)",
        "52",
        "83 (1 of 1)",
        *ends,
    ]
    assert figure([BASE]).count("<polyline") == 1


def test_eighty_percent_are_of_what_the_original_shows() -> None:
    """Of 50 %: 40 of the first 60 points, which the curve reaches after 33 of its first 50
    steps.
    """
    assert cells_of(curve_line("x", [BASE], {("cat", 0): 50.0}))[9] == "33 (1 of 1)"
    assert cells_of(curve_line("x", [BASE], {("cat", 1): 50.0}))[9] == "83 (1 of 1)"


def test_a_curve_that_never_gets_there_counts_as_beyond_its_end() -> None:
    """The median of those that do would say that one curve in three stands for all."""
    reaching = [{0: 0, 50: 80, 100: 90}, {0: 0, 50: 60, 100: 100}, {0: 0, 50: 0, 100: 10}]
    shown = [
        dataclasses.replace(BASE, target=str(n), forget=forget) for n, forget in enumerate(reaching)
    ]
    assert cells_of(curve_line("x", shown, {}))[9] == "75 (2 of 3)"
    never = dataclasses.replace(shown[2], target="3")
    assert cells_of(curve_line("x", [shown[0], shown[2], never], {}))[9] == "> 100 (1 of 3)"
    assert cells_of(curve_line("x", [shown[2]], {}))[9] == "> 100 (0 of 1)"


def test_the_spread_of_a_curve_is_over_targets() -> None:
    """Means of 90, 90 and 80: spread 5.77, half the interval 4.303 · 5.77 / 1.732; of two targets
    none is said.
    """
    shares = [[80, 100], [90, 90], [80, 80]]
    shown = [
        dataclasses.replace(BASE, target=str(n), seed=seed, forget={0: 0, 100: share})
        for n, own in enumerate(shares)
        for seed, share in enumerate(own)
    ]
    assert cells_of(curve_line("x", shown, {}))[5] == "87 ± 14"
    assert cells_of(curve_line("x", shown[:4], {}))[5] == "90"
    assert cells_of(curve_line("x", shown[:3], {}))[5] == "90", (
        "a target with two seeds weighs no more than one"
    )


def test_forgetting_may_take_three_times_as_long() -> None:
    """Of three times the seconds without there are 10, 20 and 15 left: mean 15, spread 5, half
    4.303 · 5 / 1.732.
    """
    times = {"cat": (10.0, 20.0), "dog": (20.0, 40.0), "ship": (10.0, 15.0)}
    shown = [
        dataclasses.replace(BASE, target=target, defence=defence, unlearn_s=seconds)
        for target, own in times.items()
        for defence, seconds in zip((FAST_PLAIN, FAST_META), own, strict=True)
    ]
    claim = next(claim for claim in CLAIMS if claim.unit == "s")
    said = "25 against 3 × 13.3: -15 (-27.4 to -2.58) s, 3 targets, 3 pairs"
    assert seen(claim, shown)[1:] == (said, "held")


def test_meta_is_compared_with_every_control() -> None:
    """Forgetting before, the worst attack at its end, and the damage to relatives, as against
    unlearning alone.
    """
    against = {
        other: [c for c in CLAIMS if (c.better, c.worse) == (META, other)]
        for other in paper2_grid.CONTROLS
    }
    for claims in against.values():
        assert [(c.low, c.high) for c in claims].count((-3, 3)) == 1
        assert [c.step for c in claims if c.measure is worst] == [100, 25]
        assert sum(c.text.startswith("Attacks cost relatives more") for c in claims) == 1


def test_claims_name_defences_that_exist() -> None:
    assert {name for claim in CLAIMS for name in (claim.better, claim.worse)} <= set(DEFENCES)
    assert set(paper2_grid.CUT_ATTACKS) <= set(paper2_grid.ATTACKS) and paper2_grid.CUT.keys() == {
        *DEFENCES,
        NONE,
    }


def test_the_cut_keeps_every_seed_and_control() -> None:
    jobs = [job for job in grid(3) if job.cut]
    known, attacks = (
        {(job.defence, job.attack) for job in jobs if job.base == "ESD"},
        paper2_grid.CUT_ATTACKS,
    )
    left = {attack for defence, attack in set(itertools.product(DEFENCES, attacks)) - known}
    assert left == {HARMLESS, "all weights"} and ("meta", HARMLESS) in known
    assert {
        (control, attack) for control in paper2_grid.CONTROLS for attack in attacks[:2]
    } <= known
    for target, defence in itertools.product(paper2_grid.TARGETS, (*DEFENCES, NONE)):
        assert {job.seed for job in jobs if (job.target, job.defence) == (target, defence)} == {
            0,
            1,
            2,
        }
    originals = {(job.target, job.defence, job.attack) for job in jobs if job.base == ORIGINAL}
    assert originals == {(target, NONE, NONE) for target in paper2_grid.TARGETS}, (
        "no fresh concept among them"
    )
    assert len({job.target for job in jobs if job.base == FRESH}) >= 2
    assert len(set(grid(3))) == len(grid(3)) > len(jobs) == 192 + 15
    models = [(job.target, job.seed, job.base, job.defence) for job in jobs]
    assert len([key for key, _ in itertools.groupby(models)]) == len(set(models)), (
        "a model is defended once"
    )


def test_one_length_of_attack_for_all() -> None:
    """The learning rate follows the length: cells of two lengths in one table would be two attacks
    under one name.
    """
    jobs = grid(1)
    assert {job.config(smoke=False, full=True).attack.steps for job in jobs} == {MARKS[-1]} == {300}
    assert (
        {job.config(smoke=False, full=False).attack.steps for job in jobs if job.cut}
        == {CUT_STEPS}
        == {100}
    )


def test_stored_cells_are_kept() -> None:
    """Whatever changes what a cell depends on would have the whole cut measured again."""
    cut, found = {job for job in grid(3) if job.cut}, 0
    for path in STORED.glob("*.json"):
        config = json.loads(path.read_text())["config"]
        job = Job(**{field.name: config[field.name] for field in dataclasses.fields(Job)})
        plan = paper2.planned(job, job.config(smoke=False, full=False), COUNT, config["base_model"])
        assert job in cut and json.loads(json.dumps(to_json(plan))) == config, path.name
        found += 1
    assert found >= 156


def test_the_report_says_what_was_not_measured() -> None:
    jobs = {job for job in grid(3) if job.cut and job.seed < 2}
    text = scope(jobs, 100)
    assert text.startswith(
        "138 of the 207 cells of a declared cut of the full grid are measured: unlearning by ESD; "
    )
    assert (
        "seeds 0, 1; attacks of 100 steps; at each mark 24 pictures of the concept, 12 of relatives"
        " and 12 " in text
    )
    assert (
        "- meta: LoRA 16, all weights, clean\n" in text
        and "the one of LoRA 16 or all weights that" in text
    )
    assert "- bases: ESD-x; SDD; concept ablation; UCE; RECE\n" in text and text.endswith(
        "attack steps: 200; 300"
    )
    assert "- attacks: one prompt; mixed; LoRA 4; " in text
    whole = grid(3)
    assert scope(set(whole), 300).startswith(
        f"{len(whole)} of the {len(whole)} cells of the full grid"
    )
    assert "Not measured" not in scope(set(whole), 300)


def test_the_original_stands_above_the_models_made_of_it(tmp_path: Path) -> None:
    """It shows 50 % here, so 40 % are its recovery; where it is not measured the report says what
    counts instead.
    """
    folder = tmp_path / "paper2"
    folder.mkdir()
    mark = {
        "right": {"forget": "01", "near": "01", "far": "01"},
        "alignment": dict.fromkeys(("forget", "near", "far"), 0.5),
    }
    gone = {"right": {"forget": "00", "near": "01", "far": "01"}, "alignment": mark["alignment"]}

    def write(base: str, defence: str, attack: str, marks: dict) -> None:
        config = {"target": "cat", "seed": 0, "base": base, "defence": defence, "attack": attack}
        cell = {"config": config, "values": {"marks": marks, "unlearn_s": 1.0}}
        (folder / f"{base}.json").write_text(json.dumps(cell))

    write("ESD", PLAIN, "LoRA 16", {"0": gone, "100": mark})
    assert "not measured yet for 1 of 1 pairs" in write_results(folder)
    write(ORIGINAL, NONE, NONE, {"0": mark})
    text = write_results(folder)
    assert (
        "not measured yet for" not in text
        and "| unlearn only, LoRA 16 | 0 (0.50) | 50 (0.50) | 25 | 80 (1 of 1) | " in text
    )
    assert (
        "|\n| original | 50 (0.50) |  |  |  | 50 (0.50) | 50 (0.50) | 1 |\n| unlearn only" in text
    )
    assert (tmp_path / "paper2.svg").read_text().count("<polyline") == 1


def test_defences_differ_in_what_they_should(tmp_path: Path) -> None:
    plain, meta, none, strong, short, rehearsed = (
        Job("cat", 0, "ESD", defence, "LoRA 16").config(smoke=False, full=False)
        for defence in DEFENCES
    )
    assert (plain.resist.on, meta.resist.on, none.resist.on, strong.resist.on) == (
        False,
        True,
        True,
        False,
    )
    assert meta.resist.steps > none.resist.steps == 0 and dict(strong.options)["esd.eta"] == 3.0
    assert (
        plain.unlearn == meta.unlearn == none.unlearn == strong.unlearn
        and meta.resist.goal == "lose"
    )
    assert meta.resist.related == 0, "the report says that self-destruct was not trained for"
    assert meta.unlearn == make_config("cat", preset="full").unlearn
    assert dataclasses.replace(rehearsed, resist=short.resist) == short
    assert short.unlearn == make_config("cat").unlearn and (
        short.resist.on,
        rehearsed.resist.on,
    ) == (False, True)
    fresh = Job("penguin", 0, FRESH, NONE, "LoRA 16").config(smoke=False, full=False)
    assert fresh.attack == plain.attack == short.attack


def test_two_processes_measure_every_defence_and_one_alone_finds_the_same_numbers(
    tmp_path: Path,
) -> None:
    asked = ["unlearn_app", "bench", "paper2", "--smoke", "--out", str(tmp_path)]
    alone, way = (
        [sys.executable, "-m", *asked],
        {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}},
    )
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", *asked]
    first = subprocess.run(both, capture_output=True, text=True, check=True, **way).stdout
    assert all(f", {defence}, " in first for defence in (*DEFENCES, NONE))
    text = (tmp_path / "paper2-smoke.md").read_text()
    assert "What is claimed" in text and f"## {FRESH}" in text and "| original | " in text
    assert (tmp_path / "paper2-smoke.svg").read_text().startswith("<svg")
    cells = sorted((tmp_path / "paper2-smoke").iterdir())
    assert len(cells) == 15 and len(read_rows(tmp_path / "paper2-smoke")) == 15
    last = next(path for path in cells if path.name == "cat-0-esd-meta-lora-16.json")
    values = json.loads(last.read_text())["values"]["marks"]
    assert set(values) == {"0", "2"}
    before = {path: path.stat().st_mtime_ns for path in cells}
    last.unlink()
    subprocess.run(alone, capture_output=True, check=True, **way)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "paper2-smoke").iterdir()}
    assert after.keys() == before.keys() and {
        path for path in after if after[path] != before[path]
    } == {last}
    assert json.loads(last.read_text())["values"]["marks"] == values


def test_the_price_on_the_page_is_the_measured_one() -> None:
    """By the fastest of equal runs: other work on a machine only lengthens them."""
    rows = [row for row in read_rows(STORED) if row.base == "ESD"]
    meta, plain = (
        min(r.unlearn_s for r in rows if r.defence == d) for d in (FAST_META, FAST_PLAIN)
    )
    assert pytest.approx((meta - plain) / UnlearnConfig.steps, rel=0.25) == RESIST_SECONDS


def test_readme_says_what_the_table_beside_it_says() -> None:
    """The table is written anew with every cell; the sentences on the bar and the head start are
    not.
    """
    stored, said = read_rows(STORED), (ROOT / "README.md").read_text(encoding="utf-8")
    early = dataclasses.replace(LESS, step=25)
    assert early in CLAIMS
    assert ("The bar is not met" in said) == (seen(HALF, stored)[2] == "not held")
    assert ("within the first 25 of those steps less comes back" in said) == (
        seen(early, stored)[2] == "held"
    )


def test_the_switch_says_what_the_table_says() -> None:
    stored, said = read_rows(STORED), build_switch().info
    full = dataclasses.replace(LESS, step=25)
    (fast,) = (c for c in CLAIMS if (c.better, c.step) == (FAST_META, 25))
    assert ("full, where it slows the first 25" in said) == (seen(full, stored)[2] == "held")
    assert ("fast, where 25 attack steps undo it" in said) == (seen(fast, stored)[2] != "held")
