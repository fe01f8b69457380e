"""The benchmark of paper 2: what code chooses on development targets, which cells there are, and
what rows and claims say.
"""

import dataclasses
import json
import math
import statistics
from collections import Counter
from itertools import groupby, product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unlearn_app.experiments.cells import Extent, settings
from unlearn_app.experiments.paper2 import claims, measure, mechanism
from unlearn_app.experiments.paper2.arms import (
    ADAPTIVE,
    ALONE,
    ATTACKS,
    BASE_TRIALS,
    BASES,
    DEFENCE_TRIALS,
    DEFENCES,
    DEVELOPED,
    EXPLORED,
    FACTORS,
    FIRST_BASE,
    HARMLESS,
    LENGTHS,
    LORA,
    M0,
    META,
    MORE,
    NOISED,
    NONE,
    OBJECTS,
    ORIGINAL,
    RELATED,
    RENDERINGS,
    STRONG,
    STYLES,
    TARGETS,
    UNSEEN,
    WEIGHTS,
    Attacked,
)
from unlearn_app.experiments.paper2.choices import (
    Choices,
    Reach,
    Trial,
    base_trials,
    choices_of,
    choose_base,
    choose_defence,
    choose_rate,
    defence_trials,
    rate_trials,
    reach_trials,
)
from unlearn_app.experiments.paper2.claims import (
    EXPLORED_CLAIMS,
    OWN_BARS,
    PAPER_CLAIMS,
    WORST,
)
from unlearn_app.experiments.paper2.measure import Paper2, declared_cut, grid
from unlearn_app.experiments.paper2.report import Results, compared, figure, write_results
from unlearn_app.pocket.world import split
from unlearn_app.pocket.world.vocabulary import FRESH_OBJECTS, FRESH_STYLES
from unlearn_app.pocket.world.vocabulary import OBJECTS as KNOWN
from unlearn_app.pocket.world.vocabulary import STYLES as KNOWN_STYLES
from unlearn_app.service.pace import Pace
from unlearn_app.web.options import resist_switch

CHOICES = Choices(
    {("object", "lora"): "1/3", ("object", "full"): "1", ("style", "lora"): "1/10"},
    {FIRST_BASE: 2},
    {(FIRST_BASE, META): 1, (FIRST_BASE, M0): 2},
)
FORWARDS = {"defender": 2000, "adversary": {str(LENGTHS[0]): 100, str(LENGTHS[-1]): 900}}
EVERY = (*PAPER_CLAIMS, *OWN_BARS, *EXPLORED_CLAIMS)


def bits_of(percent: float) -> str:
    ones = round(percent / 10)
    return "1" * ones + "0" * (10 - ones)


def values(forget=(0, 60), near=(90, 90), far=(90, 90), **more) -> dict:
    """A cell that is judged before and after the attack; `forget` may name every length."""
    ends = forget if len(forget) == 4 else (forget[0], None, None, forget[-1])
    marks = {
        str(mark): {"forget": bits_of(percent)}
        for mark, percent in zip((0, *LENGTHS), ends, strict=True)
        if percent is not None
    }
    for mark, place in (("0", 0), (str(LENGTHS[-1]), -1)):
        marks[mark] |= {"near": bits_of(near[place]), "far": bits_of(far[place])}
    return {"marks": marks, "unlearn_s": 10.0, "unlearn_peak_gb": 1.5, "forwards": FORWARDS} | more


def stored(folder: Path, found: dict[Attacked, dict]) -> Path:
    folder.mkdir(exist_ok=True)
    for row, (cell, own) in enumerate(found.items()):
        record = {"config": dataclasses.asdict(cell), "values": own}
        (folder / f"{row}.json").write_text(json.dumps(record))
    return folder


class Judge:
    """Its name and version are all that keys take from a judge."""

    name, version = "judge", "1"


# What is chosen


def test_the_reference_rate_is_the_highest_that_seldom_teaches_what_was_never_seen() -> None:
    """Means of 0, 10, 30 and 50 % for objects: 1/3 is the last at 30 % at most. For a style even
    the lowest teaches more, and is taken.
    """
    taught = {"1/30": (0, 0), "1/10": (0, 20), "1/3": (20, 40), "1": (0, 100)}
    found = {
        Attacked(name, DEVELOPED, UNSEEN, attack=RENDERINGS, rate=rate): values((0, shares[row]))
        for rate, shares in taught.items()
        for row, name in enumerate(("penguin", "crab"))
    } | {
        Attacked("thermal", DEVELOPED, UNSEEN, attack=WEIGHTS, rate=rate): values((0, 90))
        for rate in FACTORS
    }
    assert choices_of(found).rates == {("object", "lora"): "1/3", ("style", "full"): "1/30"}


def test_a_reference_rate_has_to_bring_something_back() -> None:
    """Rates 1/10 and 1/3 are fair, and 1/10 alone is strong; a rate that teaches is no choice."""
    reached = {
        "1/30": Reach(0, 10),
        "1/10": Reach(10, 60),
        "1/3": Reach(30, 55),
        "1": Reach(40, 90),
    }
    assert choose_rate(reached) == "1/10"
    assert choose_rate(reached | {"1/10": Reach(10, 59)}) == "1/3", "none is both"
    assert choose_rate(reached | {"1": Reach(30, 90)}) == "1"
    assert choose_rate(dict.fromkeys(FACTORS, Reach(31, 90))) == "1/30"


def test_what_is_brought_back_is_of_the_base_that_is_chosen(tmp_path: Path) -> None:
    """A stronger attack on a trial that was not chosen, and one on a defence, count for nothing."""
    found = {cell: values((0, 20)) for cell in rate_trials()}
    found |= {cell: values((50 * (cell.tried != 1), 0)) for cell in base_trials()}
    chosen = choices_of(found)
    own = reach_trials(chosen)
    assert {cell.tried for cell in own} == {1}
    assert {(c.target, c.attack, c.rate) for c in own} == set(
        product(("car", "hammer", "mosaic"), (LORA, WEIGHTS), FACTORS)
    )
    found |= {cell: values((0, 70 if cell.rate == "1/10" else 50)) for cell in own}
    found |= {dataclasses.replace(cell, tried=0): values((0, 100)) for cell in own}
    found |= {dataclasses.replace(cell, defence=META): values((0, 100)) for cell in own}
    again = choices_of(found)
    assert set(again.rates.values()) == {"1/10"}
    assert again.bases == chosen.bases
    text = write_results(stored(tmp_path / "paper2", found))
    assert cells_of(text, f"object | {LORA} | unlearned")[3:] == ["50%", "**70%**", "50%", "50%"]
    assert "No rate meets both bars" not in text
    weak = {
        c: values((0, 50)) if c in own and c.target == "mosaic" else v for c, v in found.items()
    }
    text = write_results(stored(tmp_path / "paper2", weak))
    assert f"for {WEIGHTS} on styles, {LORA} on styles: what these" in text


def test_of_a_base_the_trial_counts_that_forgets_and_keeps_most() -> None:
    trials = {0: Trial(40, 99, None), 1: Trial(10, 80, None), 2: Trial(0, 90, None)}
    assert choose_base(trials) == 2
    assert choose_base({0: Trial(40, 99, None), 1: Trial(30, 50, None)}) == 1
    assert choose_base({0: Trial(0, 90, None), 1: Trial(0, 90, None)}) == 0


def test_a_defence_may_not_win_by_destroying_what_is_kept() -> None:
    """The one that brings back nothing keeps 30 points less; else it would be taken."""
    plain = Trial(5, 90, 60)
    trials = {0: Trial(5, 60, 0), 1: Trial(5, 86, 40), 2: Trial(8, 92, 50)}
    assert choose_defence(trials, plain) == 1
    assert min(trials, key=lambda n: trials[n].back) == 0
    assert choose_defence({0: Trial(5, 60, 0), 1: Trial(5, 70, 40)}, plain) == 1
    assert choose_defence({0: Trial(50, 90, 0), 1: Trial(5, 88, 40)}, plain) == 1


def test_choices_come_from_development_cells_alone() -> None:
    """Test cells that would turn every choice are there, and change none."""
    found = {cell: values((0, 0)) for cell in rate_trials()}
    found |= {cell: values((10 * (cell.tried != 1), 0)) for cell in base_trials()}
    for cell in base_trials():
        found[cell] = values((0 if cell.tried == 1 else 50, 0))
    first = choices_of(found)
    assert set(first.rates.values()) == {"1"}
    assert first.bases == dict.fromkeys(BASES, 1)
    more = {cell: values((0, 10 * (3 - cell.chosen))) for cell in defence_trials(first)}
    second = choices_of(found | more)
    assert second.defences == dict.fromkeys(
        [(FIRST_BASE, META), (FIRST_BASE, M0), (FIRST_BASE, STRONG),
         *((base, META) for base in BASES if base != FIRST_BASE)], 2
    )  # fmt: skip
    tempting = {dataclasses.replace(cell, seed=0): values((0, 0)) for cell in [*found, *more]}
    assert choices_of(found | more | tempting) == second


def test_every_arm_has_as_many_trials() -> None:
    counts = {len(trials) for trials in (*BASE_TRIALS.values(), *DEFENCE_TRIALS.values())}
    assert counts == {3}
    assert BASE_TRIALS.keys() == BASES.keys()
    first = Counter((cell.base, cell.target) for cell in base_trials())
    assert set(first.values()) == {3}
    second = Counter((c.base, c.defence, c.target) for c in defence_trials(CHOICES))
    assert set(second.values()) == {3}
    assert {c.tried for c in defence_trials(CHOICES) if c.base == FIRST_BASE} == {2}


def test_nothing_is_tuned_on_a_target_or_a_seed_of_a_table() -> None:
    developed = {*split.DEVELOPMENT_OBJECTS, *split.DEVELOPMENT_STYLES, *split.DEVELOPMENT_FRESH}
    tuning = [*rate_trials(), *base_trials(), *reach_trials(CHOICES), *defence_trials(CHOICES)]
    assert {cell.target for cell in tuning} <= developed
    whole = grid(CHOICES, 3)
    assert not {cell.target for cell in whole} & developed
    assert max(cell.seed for cell in whole) < DEVELOPED <= min(cell.seed for cell in tuning)
    world = {entry.name for entry in (*KNOWN, *KNOWN_STYLES, *FRESH_OBJECTS, *FRESH_STYLES)}
    assert {cell.target for cell in whole} <= world


# What is measured


def test_every_claim_of_a_table_has_ten_objects_and_six_styles_in_the_cut() -> None:
    assert (len(OBJECTS), len(STYLES)) == (10, 6)
    results = Results({cell: values() for cell in declared_cut(CHOICES)}, CHOICES)
    for claim in (*PAPER_CLAIMS, *OWN_BARS):
        better, worse = (results.numbers(claim, side) for side in (claim.better, claim.worse))
        assert {target for target, _ in better} == {*TARGETS}, claim
        assert claim.worse == UNSEEN or better.keys() == worse.keys()
    for claim in EXPLORED_CLAIMS:
        better, worse = (results.numbers(claim, side) for side in (claim.better, claim.worse))
        assert {t for t, _ in better.keys() & worse.keys()} >= {*EXPLORED}, claim


def test_the_cut_begins_the_grid_and_a_model_is_defended_for_all_its_attacks() -> None:
    cut, whole = declared_cut(CHOICES), grid(CHOICES, 3)
    assert whole[: len(cut)] == cut
    assert len(set(whole)) == len(whole) > 4 * len(cut)
    assert {cell.seed for cell in cut} == {0}
    models = [key for key, _ in groupby(cell.model for cell in cut)]
    again = Counter(models)
    twice = {key for key, count in again.items() if count > 1}
    assert {key[0] for key in twice} <= {*EXPLORED}, "rows that explore come last, claims first"
    arms_of_cut = [(cell.base, cell.defence) for cell in cut]
    assert arms_of_cut.index((FIRST_BASE, META)) < arms_of_cut.index((FIRST_BASE, M0))
    assert arms_of_cut.index((FIRST_BASE, M0)) < arms_of_cut.index(("SDD", META))


def test_another_bundled_model_repeats_the_main_claim_alone() -> None:
    cells = declared_cut(CHOICES, "pocket-flow")
    assert {cell.base for cell in cells} == {ORIGINAL, UNSEEN, FIRST_BASE}
    assert {cell.defence for cell in cells} == {NONE, ALONE, META, M0}
    assert len(cells) < len(declared_cut(CHOICES)) / 2


def test_attacks_take_the_reference_rate_of_their_kind() -> None:
    cut = declared_cut(CHOICES)
    rates = {c.target: c.rate for c in cut if (c.attack, c.defence) == (RENDERINGS, ALONE)}
    assert rates["dog"] == "1/3"
    assert rates["chalk"] == "1/10"
    dog = Attacked("dog", 0, FIRST_BASE, 0, ALONE, 0, LORA, "1/10").config()
    assert dog.attack.lr == pytest.approx(2e-4)
    full = Attacked("dog", 0, FIRST_BASE, 0, ALONE, 0, WEIGHTS, "1/3").config()
    assert (full.attack.lr, full.attack.weights) == (pytest.approx(1e-4), "full")


def test_defences_differ_in_what_they_should() -> None:
    runs = {
        name: Attacked("dog", 0, FIRST_BASE, 0, name, 1, LORA, "1").config()
        if name in (META, M0, STRONG)
        else Attacked("dog", 0, FIRST_BASE, 0, name, 0, LORA, "1").config()
        for name in DEFENCES
    }
    assert not runs[ALONE].resist.on
    assert not runs[STRONG].resist.on
    assert dict(runs[STRONG].options)["esd.eta"] == 3.0
    assert (runs[META].resist.steps, runs[M0].resist.steps, runs[MORE].resist.steps) == (3, 0, 10)
    assert dataclasses.replace(runs[M0].resist, steps=3) == runs[META].resist
    weights = {run.resist.related for run in runs.values() if run.resist.on}
    assert weights == {0.0, 0.1, 0.3, 1.0}
    assert all(run.attack == runs[ALONE].attack for run in runs.values())
    assert all(run.unlearn == runs[ALONE].unlearn for run in runs.values())


def test_every_arm_sums_its_terms() -> None:
    runs = [Attacked("dog", 0, base, 0, defence).config() for base in BASES for defence in DEFENCES]
    assert {run.rule for run in runs} == {"weighted_sum"}
    assert settings("dog").rule == "restricted", "which the paper does not know"


def test_bases_train_what_they_name() -> None:
    trained = {
        base: (run.objective, run.unlearn.modules, run.unlearn.weights)
        for base in BASES
        for run in [Attacked("dog", 0, base, 0, META).config()]
    }
    assert trained["ESD-u"] == ("esd", "not_cross", "full")
    assert trained["ESD-x"] == ("esd", "cross", "lora")
    assert trained["ESD, LoRA with convolutions"] == ("esd", "locon", "lora")
    assert {own[0] for own in trained.values()} == {"esd", "sdd", "concept_ablation", "uce"}


def test_every_attack_and_length_is_an_attack_of_its_own(tmp_path: Path) -> None:
    paper = Paper2(Extent(tmp_path), SimpleNamespace(base_hash=""), Judge())
    test = Attacked("dog", 0, FIRST_BASE, 0, META, 0, LORA, "1")
    assert paper._lengths(test) == LENGTHS
    assert paper._lengths(dataclasses.replace(test, attack=ADAPTIVE[0])) == LENGTHS[-1:]
    assert paper._lengths(dataclasses.replace(test, seed=DEVELOPED)) == LENGTHS[-1:]
    assert paper._lengths(dataclasses.replace(test, attack=NONE)) == ()
    whole = Paper2(Extent(tmp_path, full=True), SimpleNamespace(base_hash=""), Judge())
    known = {"marks": dict.fromkeys(["0", *map(str, LENGTHS)])}
    assert not paper.lacks(test, known)
    assert whole._missing(test, known) == [100, 200], "the whole grid adds to the cells of the cut"
    assert paper.key(test) != paper.key(dataclasses.replace(test, rate="1/3"))


def test_a_cell_is_stale_with_other_settings_and_not_with_another_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default rule moves and no arm has it; the rate of an attack and of a base are used."""
    paper = Paper2(Extent(tmp_path), SimpleNamespace(base_hash=""), Judge())
    meta = Attacked("dog", 0, FIRST_BASE, 0, META, 0, LORA, "1")
    plain = dataclasses.replace(meta, defence=ALONE)
    unseen = Attacked("guitar", 0, UNSEEN, attack=RENDERINGS, rate="1")
    before = {cell: paper.config(cell) for cell in (meta, plain, unseen)}
    assert not any("run" in config for config in before.values())
    made = Attacked.config

    def other(**changes):
        def config(cell: Attacked, smoke: bool = False):
            run = made(cell, smoke)
            for group, own in changes.items():
                run = dataclasses.replace(
                    run, **{group: dataclasses.replace(getattr(run, group), **own)}
                )
            return run

        return config

    def stale() -> set[Attacked]:
        return {cell for cell, config in before.items() if paper.config(cell) != config}

    for changes, wanted in (
        ({"attack": {"lr": 1e-4}}, {meta, plain, unseen}),
        ({"unlearn": {"lr": 1e-4}}, {meta, plain}),
        ({"resist": {"cap": 2.0}}, {meta}),
        ({"attack": {"steps": 7}, "compare": {"near": 7}}, set()),
    ):
        monkeypatch.setattr(Attacked, "config", other(**changes))
        assert stale() == wanted, changes


def test_a_cell_is_stale_with_another_judge_prompt_or_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [
        Attacked("dog", 0, FIRST_BASE, 0, META, 0, attack, "1") for attack in (LORA, *ADAPTIVE)
    ]

    def configs(judge: Judge) -> list[dict]:
        paper = Paper2(Extent(tmp_path), SimpleNamespace(base_hash=""), judge)
        return [paper.config(cell) for cell in cells]

    before, other = configs(Judge()), Judge()
    assert configs(Judge()) == before
    other.version = "2"
    assert all(one != two for one, two in zip(configs(other), before, strict=True))
    monkeypatch.setitem(measure.PREPARED, NOISED, 0.5)
    changed = [one != two for one, two in zip(configs(Judge()), before, strict=True)]
    assert changed == [cell.attack == NOISED for cell in cells]
    monkeypatch.undo()
    made = measure.preview_concept
    monkeypatch.setattr(
        measure,
        "preview_concept",
        lambda run: dataclasses.replace(made(run), far=made(run).near),
    )
    assert all(one != two for one, two in zip(configs(Judge()), before, strict=True))


def test_tests_begin_once_everything_is_chosen(tmp_path: Path) -> None:
    """Each stage is named only when the one before is stored."""
    paper = Paper2(Extent(tmp_path), SimpleNamespace(base_hash=""), Judge())
    known: dict[Attacked, dict] = {}
    paper._known = lambda cells: {c: known[c] for c in cells} if known.keys() >= set(cells) else {}
    first = paper.cells()
    assert {cell.seed for cell in first} == {DEVELOPED}
    assert not {cell.defence for cell in first} & {META, M0, STRONG}
    known |= {cell: values((0, 0)) for cell in first}
    reach = paper.cells()
    assert reach == [*first, *reach_trials(choices_of(known))]
    known |= {cell: values((0, 0)) for cell in reach[len(first) :]}
    more = paper.cells()
    assert more[: len(reach)] == reach
    assert {cell.defence for cell in more[len(reach) :]} == {META, M0, STRONG}
    known |= {cell: values((0, 0)) for cell in more[len(reach) :]}
    every = paper.cells()
    assert every[: len(more)] == more
    assert every[len(more) :] == declared_cut(choices_of(known))


# What is said


def made(plain, meta, attack: str = LORA, of: str = "forget", **more) -> dict[Attacked, dict]:
    """Cells of two arms, one value for each target."""
    return {
        CHOICES.cell(target, 0, FIRST_BASE, defence, attack): values(**{of: shares}, **more)
        for defence, own in ((ALONE, plain), (META, meta))
        for target, shares in zip(OBJECTS, own, strict=False)
    }


def the(text: str, attack: str = LORA, table=PAPER_CLAIMS, **own) -> claims.Resisted:
    return next(
        claim
        for claim in table
        if claim.text.startswith(text) and claim.attack == attack
        and all(getattr(claim, name) == value for name, value in own.items())
    )  # fmt: skip


def test_what_comes_back_is_the_area_under_the_lengths() -> None:
    """(0 + 20) / 2 x 10 + (20 + 60) / 2 x 15 + (60 + 80) / 2 x 25, over 50 steps: 49."""
    assert claims.area(values((0, 20, 60, 80))) == pytest.approx(49)
    longer = values((0, 20, 60, 80))
    longer["marks"] |= {"200": {"forget": "1" * 10}}
    assert claims.area(longer) == pytest.approx(49), "the whole grid's lengths do not count"
    assert claims.back(longer) == 80


def test_a_claim_is_paired_by_target() -> None:
    """Areas fall by 30, 20 and 10: mean 20, spread 10, half the interval 4.303 x 10 / 1.732."""
    found = made([(0, 60), (0, 80), (0, 100)], [(0, 0), (0, 40), (0, 80)])
    estimate, means, counted = compared(Results(found, CHOICES), the("Less comes back"))
    assert estimate.interval == pytest.approx((-20, -44.841, 4.841), abs=1e-2)
    assert means == "20 against 40"
    assert counted == "3 targets, 1 seed"


def test_seeds_of_a_target_are_no_targets() -> None:
    found = made([(0, 60)], [(0, 20)])
    found |= {dataclasses.replace(c, seed=1): v for c, v in made([(0, 80)], [(0, 20)]).items()}
    estimate, _, counted = compared(Results(found, CHOICES), the("Less comes back"))
    assert (estimate.mean, estimate.freedom) == (-25, 0)
    assert counted == "1 target, 2 seeds"


def test_self_destruction_is_a_difference_in_differences() -> None:
    """Relatives fall by 30 and 40 without and by 50 and 70 with: 20 and 30 more. A defence that
    has lost them before the attack destroys nothing in it.
    """
    claim = the("The attack costs relatives more")
    found = made([(90, 60), (90, 50)], [(90, 40), (90, 20)], of="near")
    assert compared(Results(found, CHOICES), claim)[0].mean == 25
    lost = made([(90, 60), (90, 50)], [(20, 20), (10, 10)], of="near")
    assert compared(Results(lost, CHOICES), claim)[0].mean == -35


def test_what_was_never_seen_is_no_pair() -> None:
    found = made([(0, 60)] * 3, [(0, 20), (0, 40), (0, 60)], RENDERINGS)
    found |= {
        CHOICES.cell(name, 0, UNSEEN, NONE, RENDERINGS): values((0, share))
        for name, share in zip(("guitar", "rocket", "embroidery"), (20, 40, 100), strict=True)
    }
    claim = the("Less comes back than the same", RENDERINGS, OWN_BARS)
    estimate, means, counted = compared(Results(found, CHOICES), claim)
    assert means == "20 against 15", "a style counts for no object"
    assert counted == "3 targets, 1 seed; 2 never-seen objects"
    assert estimate.mean == 5


def test_the_worst_attack_is_taken_where_all_are_measured() -> None:
    shares = {LORA: (20, 80), RENDERINGS: (60, 40), WEIGHTS: (0, 20)}
    found = {}
    for attack, (one, two) in shares.items():
        found |= made([(0, one), (0, two)], [(0, one), (0, two)], attack)
    found |= made([(0, 0)] * 3, [(0, 0)] * 3, LORA) | found
    worst = Results(found, CHOICES).worst(FIRST_BASE, META)
    assert worst == {("dog", 0): 30, ("fish", 0): 40}


def test_cells_of_an_earlier_choice_count_no_more() -> None:
    found = made([(0, 60)], [(0, 20)])
    old = {dataclasses.replace(c, tried=0): values((0, 100)) for c in found}
    other = {dataclasses.replace(c, rate="1"): values((0, 100)) for c in found}
    _, means, _ = compared(Results(found | old | other, CHOICES), the("Less comes back"))
    assert means == "10 against 30"
    sweep = the("Less comes back at this rate", LORA, EXPLORED_CLAIMS, rate="1")
    assert compared(Results(found | old | other, CHOICES), sweep)[1] == "50 against 50"


def test_claims_name_arms_that_exist() -> None:
    assert {name for claim in EVERY for name in (claim.better, claim.worse)} <= {*DEFENCES, UNSEEN}
    assert {claim.base for claim in PAPER_CLAIMS if claim.text.startswith("Less")} == {*BASES}
    assert {claim.attack for claim in EVERY} <= {*ATTACKS, NONE, WORST}
    against = [c for c in OWN_BARS if (c.worse, c.statistic) == (M0, claims.area)]
    assert {claim.attack for claim in against} == {LORA, RENDERINGS}
    assert {claim.better for claim in EXPLORED_CLAIMS} >= {*RELATED, MORE, META}


def cells_of(text: str, begin: str) -> list[str]:
    row = next(line for line in text.splitlines() if line.startswith(f"| {begin}"))
    return [cell.strip() for cell in row.strip("| ").split("|")]


def test_the_report_has_a_row_for_every_claim_and_no_figure_without_cells(tmp_path: Path) -> None:
    folder = tmp_path / "paper2"
    text = write_results(folder)
    assert text.count("**not tested**") == len(EVERY)
    assert "0 of the 506 cells" in text
    assert not list(tmp_path.glob("*.svg"))
    usual = Choices()
    found = {
        usual.cell(target, 0, FIRST_BASE, defence, attack): values((0, 20, 60, 80))
        for target in OBJECTS[:3]
        for defence in (ALONE, META)
        for attack in (LORA, HARMLESS)
    }
    text = write_results(stored(folder, found))
    assert text.count("**not tested**") < len(EVERY)
    assert (tmp_path / "paper2.svg").read_text().count("<polyline") == 4
    assert "](paper2.svg)" in text


def test_a_row_says_what_it_cost_and_what_was_kept(tmp_path: Path) -> None:
    """Without development cells the usual trials and rates count."""
    usual = Choices()
    found = {
        usual.cell(target, 0, FIRST_BASE, defence, LORA): values(
            (0, 20, 60, 80), (90, near), unlearn_s=s
        )
        for target in OBJECTS[:3]
        for defence, near, s in ((ALONE, 90, 10.0), (META, 40, 35.0))
    }
    text = write_results(stored(tmp_path / "paper2", found))
    row = cells_of(text, f"{META}, {LORA}")
    assert row[1:6] == ["0 ± 0", "20 ± 0", "60 ± 0", "80 ± 0", "49"]
    assert row[6:] == ["90 → 40", "90 → 90", "2,000, 900", "+25", "1.50", "3 targets, 1 seed"]
    assert cells_of(text, f"{ALONE}, {LORA}")[9] == ""
    bar = next(line for line in text.splitlines() if line.startswith("| Training takes"))
    assert "35 against 3 × 10" in bar


def test_the_mechanism_is_compared_with_unlearning_alone(tmp_path: Path) -> None:
    """Norms of half and of an eighth: a quarter in the geometric mean; cosine 0 is 90 degrees."""
    usual, found = Choices(), {}
    for target, norm in zip(OBJECTS[:2], (0.5, 0.125), strict=True):
        for defence, own, cosine in ((ALONE, 1.0, 0.5), (META, norm, 0.0)):
            gradients = {"lora": {"forget_loss": 0.1, "related_loss": 0.1, "forget_norm": own,
                                  "related_norm": 1.0, "cosine": cosine}}  # fmt: skip
            cell = usual.cell(target, 0, FIRST_BASE, defence, LORA)
            found[cell] = values(gradients=gradients)
    text = write_results(stored(tmp_path / "paper2", found)).partition("## The mechanism")[2]
    row = cells_of(text, f"{FIRST_BASE} | {META}")
    assert row[5].startswith("0.25 (")
    assert row[7:9] == ["0.00", "90"]
    assert cells_of(text, f"{FIRST_BASE} | {ALONE}")[8] == "60"


def test_the_switch_says_no_more_than_the_tables() -> None:
    """Nothing of what it is worth, until the cells of the grid are there."""
    assert "adds about" in resist_switch(Pace()).info
    assert "attack steps" not in resist_switch(Pace()).info


def test_the_cosine_is_that_of_the_two_gradients() -> None:
    """(3, 4) and (-7, -1): -25 over 5 times the root of 50, half a right angle beyond one."""
    forget, related = torch.tensor([3.0, 4.0]).double(), torch.tensor([-4.0, 3.0]).double()
    found = mechanism._compared({"forget": (1.0, forget), "related": (2.0, -forget + related)})
    assert found["forget_norm"] == 5
    assert found["cosine"] == pytest.approx(-1 / math.sqrt(2), abs=1e-6)


def test_figures_of_a_mean_are_of_marks_that_all_have(tmp_path: Path) -> None:
    usual = Choices()
    found = {
        usual.cell("dog", 0, FIRST_BASE, ALONE, LORA): values((0, 20, 60, 80)),
        usual.cell("fish", 0, FIRST_BASE, ALONE, LORA): values((0, 40)),
    }
    drawn = figure(Results(found, usual))
    points = drawn.partition('points="')[2].partition('"')[0].split()
    assert len(points) == 2
    assert statistics.mean((80, 40)) == pytest.approx((150 - float(points[-1].split(",")[1])) / 1.2)
