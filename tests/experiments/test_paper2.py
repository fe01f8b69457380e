"""The benchmark of paper 2: rows, claims and curves computed right, and one small run of each
kind.
"""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from unlearn_app.experiments.paper2 import measure as paper2
from unlearn_app.experiments.paper2.measure import (
    ALONE,
    CUT_STEPS,
    FAST_ALONE,
    FAST_META,
    HARMLESS,
    MARKS,
    META,
    NONE,
    ORIGINAL,
    UNSEEN,
    DefendedAttack,
    grid,
)
from unlearn_app.experiments.paper2.report import (
    CLAIMS,
    RelearnCurve,
    curve_line,
    figure,
    judged,
    read_curves,
    report,
    scope,
    worst,
    write_results,
)
from unlearn_app.experiments.tables import RESULTS
from unlearn_app.service.pace import Pace
from unlearn_app.settings.presets import EQUAL_BUDGET
from unlearn_app.settings.run_config import make_config
from unlearn_app.web.options import resist_switch

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "assets" / "experiments" / "paper2"
BASE = RelearnCurve(
    DefendedAttack("cat", 0, "ESD", ALONE, "LoRA 16"),
    {0: 0, 50: 60, 100: 90},
    {0: 90, 50: 90, 100: 80},
    {0: 95, 50: 95, 100: 95},
    {"forget": {0: 0.2, 100: 0.6}, "near": {0: 0.75, 100: 0.5}, "far": {0: 0.75, 100: 0.5}},
    20.0,
)
CELL = [field.name for field in dataclasses.fields(DefendedAttack)]
DEFENCES = (*paper2.DEFENCES, *paper2.CONTROLS, *paper2.SHORT)


def changed(base, **changes):
    """A copy with other values; those of a curve's cell are given like its own."""
    if isinstance(base, RelearnCurve):
        cell = {name: changes.pop(name) for name in CELL if name in changes}
        changes["cell"] = dataclasses.replace(base.cell, **cell)
    return dataclasses.replace(base, **changes)


def rows(plain: dict[str, list[float]], meta: dict[str, list[float]]) -> list[RelearnCurve]:
    """The share after 100 steps by attack, one value per target."""
    return [
        changed(BASE, target=str(n), defence=defence, attack=attack, forget={0: 0, 100: share})
        for defence, shares in ((ALONE, plain), (META, meta))
        for attack, values in shares.items()
        for n, share in enumerate(values)
    ]


HALF, LESS = (
    next(
        claim
        for claim in CLAIMS
        if (claim.statistic, claim.factor, claim.step) == (worst, factor, 100)
    )
    for factor in (0.5, 1.0)
)


def seen(claim, shown: list[RelearnCurve]) -> tuple[str, str, str]:
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
        changed(BASE, target=str(n), seed=seed, defence=defence, forget={0: 0, 100: share})
        for n, own in enumerate(shares)
        for seed, meta in enumerate(own)
        for defence, share in ((ALONE, 50), (META, meta))
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
    assert {claim.step for claim in early} == {10, 25}
    assert all(claim.statistic is worst for claim in early)
    for claim in early:
        named = [changed(row, defence=d) for row in shown for d in {claim.better, claim.worse}]
        assert seen(claim, named)[0].endswith(
            f" in the first {claim.step} of its 100 steps (exploratory)"
        )
    long = [changed(row, forget=row.forget | {300: 90}) for row in shown]
    assert seen(LESS, long)[0].endswith(" in the first 100 of its 300 steps")


def test_an_equality_needs_the_whole_interval_inside_its_range() -> None:
    """A wide interval around zero shows nothing: it is undecided, not held."""
    same = next(claim for claim in CLAIMS if (claim.low, claim.high) == (-3, 3))
    narrow = [changed(BASE, target=str(n), defence=d) for n in range(4) for d in (ALONE, META)]
    assert seen(same, narrow)[2] == "held"
    wide = [changed(r, forget={0: 40.0 * (i % 4 == 1), 100: 0}) for i, r in enumerate(narrow)]
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
    shown = [changed(BASE, target=str(n), forget=forget) for n, forget in enumerate(reaching)]
    assert cells_of(curve_line("x", shown, {}))[9] == "75 (2 of 3)"
    never = changed(shown[2], target="3")
    assert cells_of(curve_line("x", [shown[0], shown[2], never], {}))[9] == "> 100 (1 of 3)"
    assert cells_of(curve_line("x", [shown[2]], {}))[9] == "> 100 (0 of 1)"


def test_the_spread_of_a_curve_is_over_targets() -> None:
    """Means of 90, 90 and 80: spread 5.77, half the interval 4.303 · 5.77 / 1.732; of two targets
    none is said.
    """
    shares = [[80, 100], [90, 90], [80, 80]]
    shown = [
        changed(BASE, target=str(n), seed=seed, forget={0: 0, 100: share})
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
        changed(BASE, target=target, defence=defence, unlearn_s=seconds)
        for target, own in times.items()
        for defence, seconds in zip((FAST_ALONE, FAST_META), own, strict=True)
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
        for other in paper2.CONTROLS
    }
    for claims in against.values():
        assert [(c.low, c.high) for c in claims].count((-3, 3)) == 1
        assert [c.step for c in claims if c.statistic is worst] == [100, 25]
        assert sum(c.text.startswith("Attacks cost relatives more") for c in claims) == 1


def test_claims_name_defences_that_exist() -> None:
    assert {name for claim in CLAIMS for name in (claim.better, claim.worse)} <= set(DEFENCES)
    assert set(paper2.CUT_ATTACKS) <= set(paper2.ATTACKS)
    assert paper2.CUT.keys() == {
        *DEFENCES,
        NONE,
    }


def test_the_cut_keeps_every_seed_and_control() -> None:
    cells = [cell for cell in grid(3) if cell.cut]
    known, attacks = (
        {(cell.defence, cell.attack) for cell in cells if cell.base == "ESD"},
        paper2.CUT_ATTACKS,
    )
    left = {attack for defence, attack in set(itertools.product(DEFENCES, attacks)) - known}
    assert left == {HARMLESS, "all weights"}
    assert ("meta", HARMLESS) in known
    assert {(control, attack) for control in paper2.CONTROLS for attack in attacks[:2]} <= known
    for target, defence in itertools.product(paper2.TARGETS, (*DEFENCES, NONE)):
        assert {
            cell.seed for cell in cells if (cell.target, cell.defence) == (target, defence)
        } == {
            0,
            1,
            2,
        }
    originals = {
        (cell.target, cell.defence, cell.attack) for cell in cells if cell.base == ORIGINAL
    }
    assert originals == {(target, NONE, NONE) for target in paper2.TARGETS}, (
        "no fresh concept among them"
    )
    assert len({cell.target for cell in cells if cell.base == UNSEEN}) >= 2
    assert len(set(grid(3))) == len(grid(3)) > len(cells) == 192 + 15
    models = [(cell.target, cell.seed, cell.base, cell.defence) for cell in cells]
    assert len([key for key, _ in itertools.groupby(models)]) == len(set(models)), (
        "a model is defended once"
    )


def test_one_length_of_attack_for_all() -> None:
    """The learning rate follows the length: cells of two lengths in one table would be two attacks
    under one name.
    """
    cells = grid(1)
    assert (
        {cell.config(smoke=False, full=True).attack.steps for cell in cells} == {MARKS[-1]} == {300}
    )
    assert (
        {cell.config(smoke=False, full=False).attack.steps for cell in cells if cell.cut}
        == {CUT_STEPS}
        == {100}
    )


def curves_of(cells: set[DefendedAttack], last: int) -> list[RelearnCurve]:
    forget = {0: 0, 50: 60, last: 90}
    ends = dict.fromkeys(forget, 90)
    alignment = {group: dict.fromkeys(forget, 0.5) for group in ("forget", "near", "far")}
    return [RelearnCurve(cell, forget, ends, ends, alignment, 20.0) for cell in cells]


def test_the_report_says_what_was_not_measured() -> None:
    cut = {cell for cell in grid(3) if cell.cut and cell.seed < 2}
    text = report(STORED, curves_of(cut, 100))
    said = (
        "138 of the 207 cells of a declared cut of the full grid are measured: unlearning by ESD; "
    )
    assert f"\n{said}" in text
    assert "seeds 0, 1; attacks of 100 steps; at each mark 24 pictures of the concept" in text
    assert "24 pictures of the concept, 12 of relatives and 12 of everything else." in text
    assert "- meta: LoRA 16, all weights, clean\n" in text
    assert "the one of LoRA 16 or all weights that" in text
    assert "- bases: ESD-x; SDD; concept ablation; UCE; RECE\n" in text
    assert "- attacks: one prompt; mixed; LoRA 4; " in text
    assert "- attack steps: 200; 300\n" in text
    whole = grid(3)
    found = scope(set(whole), 300)
    assert (found["done"], found["wanted"], found["full"]) == (len(whole), len(whole), True)
    assert found["missing"] == {}


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

    write("ESD", ALONE, "LoRA 16", {"0": gone, "100": mark})
    assert "not measured yet for 1 of 1 pairs" in write_results(folder)
    write(ORIGINAL, NONE, NONE, {"0": mark})
    text = write_results(folder)
    assert "not measured yet for" not in text
    assert "| unlearn only, LoRA 16 | 0 (0.50) | 50 (0.50) | 25 | 80 (1 of 1) | " in text
    assert (
        "|\n| original | 50 (0.50) |  |  |  | 50 (0.50) | 50 (0.50) | 1 |\n| unlearn only" in text
    )
    assert (tmp_path / "paper2.svg").read_text().count("<polyline") == 1


def test_defences_differ_in_what_they_should(tmp_path: Path) -> None:
    plain, meta, none, strong, short, rehearsed = (
        DefendedAttack("cat", 0, "ESD", defence, "LoRA 16").config(smoke=False, full=False)
        for defence in DEFENCES
    )
    assert (plain.resist.on, meta.resist.on, none.resist.on, strong.resist.on) == (
        False,
        True,
        True,
        False,
    )
    assert meta.resist.steps > none.resist.steps == 0
    assert dict(strong.options)["esd.eta"] == 3.0
    assert plain.unlearn == meta.unlearn == none.unlearn == strong.unlearn
    assert meta.resist.goal == "lose"
    assert meta.resist.related == 0, "the report says that self-destruct was not trained for"
    assert meta.unlearn == make_config("cat", preset="full", **paper2.BASES["ESD"]).unlearn
    assert changed(rehearsed, resist=short.resist) == short
    assert short.unlearn == make_config("cat", **EQUAL_BUDGET | paper2.BASES["ESD"]).unlearn
    assert (short.resist.on, rehearsed.resist.on) == (False, True)
    fresh = DefendedAttack("penguin", 0, UNSEEN, NONE, "LoRA 16").config(smoke=False, full=False)
    assert fresh.attack == plain.attack == short.attack


def test_the_page_of_results_says_what_the_table_on_it_says() -> None:
    """The table is written anew with every cell; the sentences on the bar and the head start are
    not.
    """
    stored, text = read_curves(STORED), RESULTS.read_text(encoding="utf-8")
    said = " ".join(text.split())
    early = changed(LESS, step=25)
    assert early in CLAIMS
    assert ("The bar is not met" in said) == (seen(HALF, stored)[2] == "not held")
    assert ("within the first 25 of those steps less comes back" in said) == (
        seen(early, stored)[2] == "held"
    )


def test_the_switch_says_what_the_table_says() -> None:
    stored, said = read_curves(STORED), resist_switch(Pace()).info
    full = changed(LESS, step=25)
    (fast,) = (c for c in CLAIMS if (c.better, c.step) == (FAST_META, 25))
    assert ("full, where it slows the first 25" in said) == (seen(full, stored)[2] == "held")
    assert ("fast, where 25 attack steps undo it" in said) == (seen(fast, stored)[2] != "held")
