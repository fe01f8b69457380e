"""The benchmark of paper 1: what is tuned on what, which cells there are in which order, what is
counted, and claims decided right.
"""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unlearn_app.common.errors import Diverged
from unlearn_app.concepts.catalog import known_concepts
from unlearn_app.experiments.cells import Extent
from unlearn_app.experiments.forwards import CountedModel
from unlearn_app.experiments.paper1 import arms, tuning
from unlearn_app.experiments.paper1 import measure as paper1
from unlearn_app.experiments.paper1.report import (
    BARS,
    CLAIMS,
    Contrast,
    Followed,
    RemovalResult,
    decided,
    figure,
    followed,
    harmless_rows,
    read_results,
    report,
    step_cost,
    verdict,
    write_results,
)
from unlearn_app.settings.run_config import RunConfig, make_config

BASE = RemovalResult(
    kind="object",
    target="dog",
    arm="a",
    seed=0,
    ua=90.0,
    near_lost=5.0,
    far_lost=1.0,
    kept_lost=2.0,
    held_out=-0.01,
    train=0.0,
    kid=0.1,
    kid_se=0.02,
    forwards=3000,
    step_s=0.5,
    conflict=40.0,
    rises=10.0,
    gate=100.0,
)


def rows(number: str, *values: list[float], seeds: int = 1) -> list[RemovalResult]:
    """Results of arms a, b, ... with a number by target."""
    return [
        dataclasses.replace(BASE, target=str(n), arm=arm, seed=seed, **{number: value})
        for arm, own in zip("abcd", values, strict=False)
        for n, value in enumerate(own)
        for seed in range(seeds)
    ]


MORE = Contrast("a forgets more", {"a": 1.0, "b": -1.0}, "ua")


@pytest.mark.parametrize(
    ("better", "worse", "label"),
    [
        ([90, 92, 94], [80, 81, 85], "**held**"),
        ([80, 81, 85], [90, 92, 94], "**not held**"),
        ([90, 80, 94], [80, 92, 90], "**undecided**"),
        ([90], [10], "**undecided**"),
        ([90], [], "not tested"),
    ],
)
def test_a_claim_is_decided_by_pairs_of_targets(better, worse, label) -> None:
    (said,) = decided([MORE], rows("ua", better, worse), [])
    assert said.endswith(f"| {label} |")


def test_seeds_of_a_target_are_no_further_units() -> None:
    """Three seeds of three targets that nearly differ decide nothing; as nine units they would."""
    found = rows("ua", [91, 92, 96], [90, 90, 90], seeds=3)
    (said,) = decided([MORE], found, [])
    assert "| 3, 3 |" in said
    assert "undecided" in said
    as_units = [dataclasses.replace(one, target=f"{one.target} {one.seed}") for one in found]
    assert "**held**" in decided([MORE], as_units, [])[0]


def test_the_claims_of_a_table_are_decided_together() -> None:
    """The same numbers that hold alone are undecided beside twenty others; exploratory ones count
    for nobody.
    """
    found = rows("ua", [94, 93, 97, 92], [90, 90, 90, 90])
    assert "**held**" in decided([MORE], found, [])[0]
    assert "undecided" in decided([MORE] * 20, found, [])[0]
    exploring = dataclasses.replace(MORE, exploratory=True)
    assert "**held**" in decided([MORE, *[exploring] * 20], found, [])[0]


def test_a_margin_a_sign_and_four_arms() -> None:
    equal = dataclasses.replace(MORE, low=-5.0)
    assert "**held**" in decided([equal], rows("ua", [90, 90], [90, 90]), [])[0]
    assert "undecided" in decided([MORE], rows("ua", [90, 90], [90, 90]), [])[0]
    keeps = Contrast("a keeps more", {"a": 1.0, "b": -1.0}, "kept_lost", sign=-1)
    (said,) = decided([keeps], rows("kept_lost", [1, 2, 3], [11, 13, 12]), [])
    assert "+10 (" in said
    assert "**held**" in said
    gains = {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}
    both = Contrast("a over b more than c over d", gains, "ua")
    own = both.by_target(rows("ua", [90, 80], [50, 60], [70, 70], [60, 65]))
    assert own == {"0": 30.0, "1": 15.0}


def test_a_monotone_claim_holds_only_where_no_step_is_worse() -> None:
    claim = next(claim for claim in CLAIMS if claim.number == "either_worse")
    assert verdict(claim, {"dog": -0.0, "cat": -0.0}, 0.0) == "held"
    losses = [
        Followed("object", str(n), arms.RGD, 0, 1.0, 2.0, share, 0.0, 60, 1.0, 0.1)
        for n, share in enumerate((20.0, 25.0, 22.0))
    ]
    (said,) = decided([claim], [], losses)
    assert "+22.3 (" in said
    assert "**not held**" in said


def test_claims_name_arms_and_numbers_that_exist() -> None:
    known = {*arms.ARMS, *arms.DESCENTS}
    names = {item.name for kind in (RemovalResult, Followed) for item in dataclasses.fields(kind)}
    for claim in (*CLAIMS, *BARS):
        assert set(claim.arms) <= known
        assert claim.number in names | {"returned"}
        assert claim.paper or claim in BARS


def test_every_claim_of_the_cut_has_ten_objects_and_six_styles_that_nothing_was_tuned_on() -> None:
    for kind, least in (("object", 10), ("style", 6)):
        names = {entry.name for entry in known_concepts() if entry.kind == kind and not entry.fresh}
        tested, tuned = {*paper1.targets_of(kind)}, {*sum(arms.TUNED_ON[kind], ())}
        assert tested == names - {*arms.DEVELOPMENT[kind], "photo"}
        assert tuned <= {*arms.DEVELOPMENT[kind]}
        assert len(sum(arms.TUNED_ON[kind], ())) == len(tuned), "every stage has its own"
        assert len({*arms.CUT_TARGETS[kind]}) >= least
    for claim in (*CLAIMS, *BARS):
        assert all(arms.ARMS[arms.DESCENTS.get(arm, arm)].cut for arm in claim.arms)


@pytest.mark.parametrize("kind", arms.KINDS)
def test_every_arm_has_as_many_trials(kind) -> None:
    counts = {
        arm: [
            len(tuning.asked(arm, kind, stage, own.start(kind)))
            for stage in range(len(arms.STAGES))
        ]
        for arm, own in arms.TUNED.items()
    }
    assert {tuple(count) for count in counts.values()} == {(6, 6, 8)}
    for name, own in arms.TUNED.items():
        assert own.start(kind) in tuning.varied(name, kind, 2, own.start(kind))


def test_every_arm_has_the_same_batches() -> None:
    configs = [
        paper1.Removal("dog", arm, 0, own.start("object")).config(smoke=False).unlearn
        for arm, own in arms.TUNED.items()
    ]
    assert {(c.batch_size, c.pool, c.train_pictures, c.steps) for c in configs} == {(4, 0, 32, 60)}


def test_a_choice_reaches_the_settings_of_the_run() -> None:
    setting = arms.Setting(120, 4e-3, 0.6)
    config = paper1.Removal("dog", arms.RGD, 0, setting).config(smoke=False)
    assert (config.unlearn.steps, config.unlearn.lr) == (120, 4e-3)
    assert dict(config.options)["gradient_ascent.limit"] == 0.6
    assert (config.rule, config.unlearn.retain_weight) == ("restricted", 1.6)
    styles = paper1.Removal("ink", arms.ESD, 0, setting).config(smoke=False)
    assert styles.unlearn.modules == "cross"
    assert paper1.Removal("dog", arms.ESD, 0, setting).config(False).unlearn.modules == "not_cross"


def trial(setting: arms.Setting, score: float, target: str = "cat", stage: int = 0) -> tuning.Trial:
    return tuning.Trial(arms.RGD, "object", stage, target, setting, score, score, 0.5)


def all_trials(best: arms.Setting, skip: int = 3) -> dict:
    """Trials in which each setting is the better, the nearer it is to the best one; without the
    last of stage `skip`.
    """
    found: dict = {}
    before = arms.ARMS[arms.RGD].start("object")
    for stage in range(min(skip + 1, 3)):
        own = tuning.asked(arms.RGD, "object", stage, before)
        for target, setting in own[: len(own) - (stage == skip)]:
            far = sum(a != b for a, b in zip(setting, best, strict=True))
            found[arms.RGD, "object", stage, target, setting] = trial(
                setting, 1 - far / 10, target, stage
            )
        before = before._replace(**{before._fields[stage]: best[stage]})
    return found


def test_each_stage_keeps_what_was_chosen_before() -> None:
    best = arms.Setting(120, 4e-3, 1.5)
    assert tuning.chosen(arms.RGD, "object", all_trials(best)) == best
    assert len(tuning.narrowed(arms.RGD, "object", all_trials(best, skip=1))) == 1
    assert tuning.chosen(arms.RGD, "object", all_trials(best, skip=2)) is None


def test_all_else_equal_the_shorter_training_is_chosen() -> None:
    start = arms.ARMS[arms.RGD].start("object")
    trials = {
        (arms.RGD, "object", 0, target, setting): trial(setting, 0.9, target)
        for target, setting in tuning.asked(arms.RGD, "object", 0, start)
    }
    assert tuning.narrowed(arms.RGD, "object", trials)[0].steps == min(arms.STEPS)
    key = (arms.RGD, "object", 0, "hammer", start)
    trials[key] = dataclasses.replace(trials[key], alignment=0.6)
    assert tuning.narrowed(arms.RGD, "object", trials)[0] == start


def test_a_trial_that_forgets_all_and_keeps_nothing_is_worth_nothing() -> None:
    start = arms.ARMS[arms.RGD].start("object")
    assert dataclasses.replace(trial(start, 1.0), kept=0.0).score == 0.0
    assert dataclasses.replace(trial(start, 1.0), kept=0.5).score == pytest.approx(2 / 3)


class Model:
    """Nothing but the hash that cells depend on."""

    base_hash = "0" * 64

    def drop_adapters(self) -> None:
        pass


def cells_of(monkeypatch, tmp_path: Path, known: int | None = None, **extent) -> list:
    """The cells where the first `known` trials are measured, by default all; the higher the
    numbers of a trial, the better.
    """
    asked: list = []

    def stored(experiment, cell) -> tuple[dict, float]:
        if not cell.tuning:
            return {}, 0.0
        asked.append(cell)
        if known is not None and len(asked) > known:
            return {}, 0.0
        steps, lr, strength = cell.setting
        worth = round(10 * (steps / 30 + 1e3 * lr + strength))
        right = "1" * worth + "0" * (200 - worth)
        aligned = {"near": [0.5], "far": [0.5]}
        return {"right": dict.fromkeys(("near", "far"), right) | {"forget": "0"},
                "alignment": aligned}, 1.0  # fmt: skip

    monkeypatch.setattr(paper1, "stored", stored)
    return paper1.Paper1(Extent(tmp_path, **extent), Model(), SimpleNamespace()).cells()


def test_tests_wait_for_the_whole_tuning_and_take_what_it_chose(tmp_path, monkeypatch) -> None:
    some = cells_of(monkeypatch, tmp_path, known=100)
    assert all(cell.tuning for cell in some)
    assert {cell.seed for cell in some} == {arms.TUNING_SEED}
    cells = cells_of(monkeypatch, tmp_path)
    tests = [cell for cell in cells if not cell.tuning]
    trials = cells[: len(cells) - len(tests)]
    assert all(cell.tuning for cell in trials), "tuning comes first"
    cut = [arm for arm in arms.TUNED if arms.ARMS[arm].cut]
    assert len(trials) == 20 * len(arms.KINDS) * len(cut)
    for cell in tests:
        if cell.arm in cut:
            own = arms.ARMS[cell.arm]
            best = arms.Setting(120, own.rates(cell.kind)[-1], own.strength.values[-1])
            assert cell.setting == best
    assert {cell.seed for cell in tests} == {0}


def test_an_interrupted_measuring_leaves_whole_claims(tmp_path, monkeypatch) -> None:
    """What a claim compares is measured on all targets before the next arms begin; the original
    stands before what is compared with it.
    """
    cells = [cell for cell in cells_of(monkeypatch, tmp_path) if not cell.tuning]
    assert cells[-1].arm == paper1.STEP_TIME
    assert len(set(cells)) == len(cells)
    known, places = set(), {}
    for place, cell in enumerate(cells[:-1]):
        places.setdefault(cell.arm, []).append(place)
        if cell.arm == paper1.UNTOUCHED:
            known.add(cell.target)
        assert cell.target in known
    assert {len(own) for own in places.values()} == {16}
    assert max(places[arms.RGD] + places[arms.SUM]) < min(places[arms.NEAR])
    assert max(places[arms.NEAR] + places[arms.SUM_NEAR]) < min(places[arms.UNIFORM])
    assert max(places[arms.UCE]) < min(places[arms.DESCENT])


def test_the_full_grid_begins_with_the_cut(tmp_path, monkeypatch) -> None:
    cut = {cell for cell in cells_of(monkeypatch, tmp_path) if not cell.tuning}
    full = [cell for cell in cells_of(monkeypatch, tmp_path, full=True) if not cell.tuning]
    assert cut < {*full}
    assert {*full[: len(cut) - 1]} == {cell for cell in cut if cell.arm != paper1.STEP_TIME}
    assert {cell.seed for cell in full} == {0, 1, 2}


def test_another_bundled_model_has_the_main_arms(tmp_path, monkeypatch) -> None:
    cells = cells_of(monkeypatch, tmp_path, bundled="pocket-flow")
    known = {*arms.SECOND_MODEL, *arms.DESCENTS, paper1.UNTOUCHED, paper1.STEP_TIME}
    assert {cell.arm for cell in cells} == known


def test_what_needs_no_reference_prepares_none(tmp_path, monkeypatch) -> None:
    experiment = paper1.Paper1(Extent(tmp_path), Model(), SimpleNamespace())
    cells = {cell.arm: cell for cell in cells_of(monkeypatch, tmp_path) if not cell.tuning}
    alone = {arm for arm, cell in cells.items() if experiment.shared_by(cell) is None}
    assert alone == {paper1.STEP_TIME, *arms.DESCENTS}


def stored(folder: Path, name: str, config: dict, right: dict[str, str], alignment: float) -> None:
    values = {
        "right": right,
        "alignment": {group: [alignment] * len(text) for group, text in right.items()},
        "second": {group: [alignment] * len(text) for group, text in right.items()},
        "kid": 0.1,
        "kid_se": 0.01,
        "step_s": 0.5,
        "forwards": 3000,
        "conflict": 0.25,
        "gate": "1100",
        "rises": {"forget": 0.5, "retain": 0.0},
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"config": config, "values": values}))


ONE = {"forget": "1", "near": "1", "far": "1", "train": "1", "kept": "1"}


def test_rows_are_differences_to_the_original_of_the_same_seed(tmp_path: Path) -> None:
    plain = {"target": "dog", "seed": 1}
    right = {"forget": "1110", "near": "11", "far": "11", "train": "11", "kept": "1111"}
    stored(tmp_path, "o1", plain, right, 0.7)
    stored(tmp_path, "o2", plain | {"seed": 2}, {g: "0" * len(t) for g, t in right.items()}, 0.1)
    arm = plain | {"kind": "object", "arm": arms.SUM}
    after = {"forget": "1000", "near": "01", "far": "11", "train": "11", "kept": "1011"}
    stored(tmp_path, "a", arm, after, 0.65)
    (row,) = read_results(tmp_path)
    assert (row.ua, row.near_lost, row.far_lost, row.kept_lost) == (75.0, 50.0, 0.0, 25.0)
    assert row.held_out == pytest.approx(-0.05)
    assert row.train == pytest.approx(-0.05)
    assert row.second_ua == pytest.approx(35.0)
    assert row.second_held == pytest.approx(-5.0)
    assert (row.conflict, row.rises, row.gate) == (25.0, 50.0, 50.0)
    text = report(tmp_path, [row])
    assert f"| {arms.SUM} | 75.0 | +50.0 | +0.0 | +25.0 | -0.050 | -0.050 | 35.0 | -5.0 |" in text
    assert figure([row]).count("<circle") == 2


def test_trials_and_descents_are_no_results(tmp_path: Path) -> None:
    plain = {"target": "cat", "seed": 0}
    stored(tmp_path, "original", plain, ONE, 0.5)
    stored(tmp_path, "a", plain | {"kind": "object", "arm": arms.RGD, "stage": 0,
                                   "setting": [60, 2e-3, 1.0]}, ONE, 0.5)  # fmt: skip
    stored(tmp_path, "b", plain | {"kind": "object", "arm": arms.DESCENT}, ONE, 0.5)
    assert read_results(tmp_path) == []
    text = report(tmp_path, [])
    assert f"| {arms.RGD} | object | 60: 0 | – | – | not yet | 1 |" in text


def test_no_cells_claim_nothing(tmp_path: Path) -> None:
    text = write_results(tmp_path / "paper1")
    claimed = text.partition("## What the paper claims")[2]
    assert claimed.count("| not tested |") == len(CLAIMS) + len(BARS)
    assert "held**" not in text
    assert ".svg" not in text
    assert not list(tmp_path.glob("*.svg"))


def test_a_step_is_worse_where_either_held_out_loss_is() -> None:
    config = {"kind": "object", "target": "dog", "arm": arms.RGD, "seed": 0}
    values = {
        "held_out": {"forget": [1.0, 2.0, 1.5, 1.2, 3.0], "retain": [1.0, 0.9, 1.1, 1.0, 1.2]},
        "gate": "1101",
        "rises": {"forget": 0.0, "retain": 0.25},
    }
    found = followed(config, values)
    assert found.forget_worse == 25.0, "the third step was not to raise the concept's loss"
    assert found.retain_worse == 50.0
    assert found.either_worse == 50.0
    assert (found.steps, found.own) == (4, 25.0)
    assert (found.forget, found.retain) == pytest.approx((2.0, 0.2))


def test_the_cost_of_a_rule_is_the_mean_of_ratios_within_rounds(tmp_path: Path) -> None:
    """Rounds slow down together, so ratios agree where times do not."""
    seconds = {arms.SUM: [1.0, 2.0, 4.0], arms.RGD: [1.1, 2.2, 4.4]}
    (tmp_path / "step-time.json").write_text(json.dumps({"config": {}, "values": seconds}))
    cost = step_cost(tmp_path)
    assert [cost[end] for end in ("mean", "low", "high")] == pytest.approx([10, 10, 10])
    line = report(tmp_path, [])
    assert "+10.0 % (+10.0 to +10.0)" in line
    assert "2.20 s against 2.00 s" in line
    assert step_cost(tmp_path / "elsewhere") is None
    assert "A step under" not in report(tmp_path / "elsewhere", [])


def test_what_comes_back_is_counted_from_before_the_first_round() -> None:
    harmless = {"forget": [10.0, 20.0, 35.0], "near": [90.0, 95.0, 95.0]}
    row = dataclasses.replace(BASE, harmless=harmless)
    assert row.returned == 25.0
    assert BASE.returned is None
    first, second = harmless_rows([row, BASE], "a")
    assert first == {"arm": "a", "group": "forget", "rounds": [[10.0], [20.0], [35.0]]}
    assert second["group"] == "near"


def test_each_round_of_fine_tuning_stands_on_the_last(monkeypatch) -> None:
    """An update counts as a number here; every round adds one, on pictures of its own."""
    held, seeds = {"unlearn": 0}, []

    def fine_tune(*_):
        held["relearn"] = 1
        yield

    monkeypatch.setattr(paper1, "fine_tune", fine_tune)
    monkeypatch.setattr(paper1, "adversary_pictures", lambda *asked: seeds.append(asked[2].seed))
    monkeypatch.setattr(paper1, "sum_adapters", lambda *own: SimpleNamespace(state=sum(own)))
    monkeypatch.setattr(paper1, "load_only", lambda _, state: held.update(unlearn=state))
    monkeypatch.setattr(paper1, "scored", lambda *_: ({"right": held["unlearn"]}, None))
    model = SimpleNamespace(adapter_state=held.__getitem__)
    rounds = paper1.harmless_rounds(model, None, make_config("dog"), {}, 3)
    assert list(rounds) == [0, 1, 2, 3]
    assert len({0, *seeds}) == 4


def test_every_arm_is_scored_on_the_same_prompts(tmp_path: Path, monkeypatch) -> None:
    """Held-out and training ones, although arms differ in what they train on."""
    scored, trained = [], set()

    def note(model, judge, groups, slots, config, second=None) -> tuple[dict, None]:
        scored.append(repr(groups))
        return {}, None

    def unlearned(model, config, arm, held=None) -> dict:
        trained.add(paper1.preview_concept(config))
        return {}

    monkeypatch.setattr(paper1, "unlearned", unlearned)
    monkeypatch.setattr(paper1, "scored", note)
    monkeypatch.setattr(paper1, "held_out", lambda *_: {})
    monkeypatch.setattr(paper1, "harmless_rounds", lambda *_: [])
    monkeypatch.setattr(paper1, "kid", lambda *_: (0.0, 0.0))
    experiment = paper1.Paper1(Extent(tmp_path), Model(), SimpleNamespace())
    for arm, own in arms.ARMS.items():
        setting = own.start("object") if own.strength else None
        list(experiment.measure(paper1.Removal("dog", arm, 0, setting), {}, (None, None)))
    assert len(scored) == len(arms.ARMS)
    assert len(set(scored)) == 1
    assert len(trained) == 3


@pytest.mark.parametrize("target", ["dog", "watercolor"])
def test_everything_kept_is_asked_for_once_and_never_with_the_target(target: str) -> None:
    prompts = paper1.kept_prompts(target)
    names = [entry.name for entry in known_concepts() if not entry.fresh]
    assert [prompt.expects for prompt in prompts] == [name for name in names if name != target]
    assert not any(target in prompt.text for prompt in prompts)


def test_prompts_of_what_is_kept_do_name_the_target_elsewhere() -> None:
    """Held-out prompts of objects show them in every held-out style."""
    prompts = paper1.preview_concept(make_config("cat")).forget.test
    assert any("watercolor" in prompt.text for prompt in prompts)
    assert not any("watercolor" in prompt.text for prompt in paper1.kept_prompts("watercolor"))


def test_only_esd_as_published_keeps_nothing() -> None:
    """Its runs have no retain term at all, so that no retain pictures are sampled either."""
    losses = {
        arm: paper1.Removal("dog", arm, 0, own.start("object")).config(False).unlearn.retain_loss
        for arm, own in arms.ARMS.items()
        if own.strength
    }
    alone = {arm for arm, loss in losses.items() if loss == "none"}
    assert alone == {arms.ESD, "ESD, all layers"}


def test_both_descents_differ_in_the_rule_alone(tmp_path, monkeypatch) -> None:
    """Also where development chose another setting for the sum."""
    trials = {}

    def chosen(arm, kind, _) -> arms.Setting:
        trials[arm] = arms.Setting(60, 2e-3, {arms.RGD: 0.6}.get(arm, 1.5))
        return trials[arm]

    monkeypatch.setattr(paper1, "chosen", chosen)
    own = {cell.arm: cell for cell in cells_of(monkeypatch, tmp_path) if cell.target == "dog"}
    one, other = (own[arm].config(smoke=False) for arm in (arms.DESCENT, arms.SUM_DESCENT))
    assert dict(one.options)["gradient_ascent.limit"] == 0.6
    assert (one.rule, other.rule) == ("restricted", "weighted_sum")
    assert dataclasses.replace(other, rule=one.rule) == one
    assert own[arms.SUM].setting.strength == 1.5


def test_only_plain_descents_decide_which_rule_has_fewer_worse_steps() -> None:
    compared = {
        frozenset(claim.arms): claim.exploratory
        for claim in CLAIMS
        if claim.number == "either_worse" and len(claim.arms) == 2
    }
    assert compared == {
        frozenset((arms.RGD, arms.SUM)): True,
        frozenset((arms.DESCENT, arms.SUM_DESCENT)): False,
    }


def test_whatever_the_cut_measures_for_a_comparison_has_a_row() -> None:
    compared = {arm for claim in (*CLAIMS, *BARS) for arm in claim.arms}
    measured = {name for name, arm in arms.ARMS.items() if arm.cut and name != arms.UCE}
    assert measured <= compared


def test_a_trial_that_diverges_is_an_answer(monkeypatch) -> None:
    def diverge(*_):
        yield SimpleNamespace(
            seconds=1.0, conflict=True, gate=True, changes={"forget": 1.0}, losses={"forget": 0.0}
        )
        raise Diverged("no", "unlearn.lr")

    monkeypatch.setattr(paper1, "_training", diverge)
    model = SimpleNamespace(active=lambda *_: torch.no_grad())
    values = paper1.unlearned(model, make_config("dog"), arms.RGD)
    assert values["diverged"] == 2
    assert (values["gate"], values["conflict"], values["rises"]) == ("1", 1.0, {"forget": 1.0})


def test_forward_passes_are_counted_and_a_gradient_is_three() -> None:
    same = SimpleNamespace(name="m", sample=lambda *_, **__: None)
    same.predict = same.frozen = lambda x_t, *_: x_t
    counted, batch = CountedModel(same), torch.zeros(4, 1)
    counted.predict(batch, None, None)
    assert counted.forwards == 12
    with torch.no_grad():
        counted.predict(batch, None, None)
    counted.frozen(batch, None, None)
    assert counted.forwards == 12 + 4 + 4
    counted.sample(["a", "b"], [1, 2], steps=8, guidance_scale=2.0)
    counted.sample(["a"], [1], steps=8, guidance_scale=1.0)
    assert counted.forwards == 20 + 32 + 8
    assert counted.name == "m"


def test_distances_are_counted_from_the_originals_own(tmp_path: Path) -> None:
    """Two sets of the same prompts have a distance below zero, because the cross terms pair equal
    prompts.
    """
    plain = {"target": "dog", "seed": 0}
    stored(tmp_path, "original", plain, ONE, 0.5)
    stored(tmp_path, "arm", plain | {"kind": "object", "arm": arms.SUM}, ONE, 0.5)
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


class Judge:
    """A judge of which nothing is asked but who it is."""

    def __init__(self, version: str) -> None:
        self.name, self.version = "judge", version


def configs_of(tmp_path: Path, version: str = "1") -> dict[str, dict]:
    """The compared config of one cell of each sort."""
    experiment = paper1.Paper1(Extent(tmp_path), Model(), Judge(version))
    experiment.second = Judge("2")
    setting = arms.Setting(60, 2e-3, 1.0)
    cells = {
        "trial": paper1.Removal("cat", arms.RGD, arms.TUNING_SEED, setting),
        "test": paper1.Removal("dog", arms.RGD, 0, setting),
        "descent": paper1.Removal("dog", arms.DESCENT, 0, setting),
        "original": paper1.Removal("dog", paper1.UNTOUCHED, 0),
        "step times": paper1.Removal("", paper1.STEP_TIME, 0),
    }
    return {name: experiment.config(cell) for name, cell in cells.items()}


def changed(before: dict[str, dict], after: dict[str, dict]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_the_text_of_a_command_is_compared_with_nothing(tmp_path, monkeypatch) -> None:
    """Another default changes the text of a run whose resolved settings are equal."""
    before = configs_of(tmp_path)
    monkeypatch.setattr(RunConfig, "command", lambda *_: "another text")
    assert not changed(before, configs_of(tmp_path))


def test_a_cell_is_stale_under_another_judge(tmp_path) -> None:
    """Where pictures are judged: neither losses nor times depend on a judge."""
    before = configs_of(tmp_path)
    assert changed(before, configs_of(tmp_path, "other")) == {"trial", "test", "original"}
    assert before["test"]["judges"] == ["judge 1", "judge 2"]
    assert before["trial"]["judges"] == ["judge 1"]


def test_a_cell_is_stale_under_other_prompts(tmp_path, monkeypatch) -> None:
    before = configs_of(tmp_path)
    asked = paper1.preview_concept

    def other(config):
        concept = asked(config)
        first, *rest = concept.forget.test
        words = (dataclasses.replace(first, text=f"{first.text} again"), *rest)
        return dataclasses.replace(concept, forget=dataclasses.replace(concept.forget, test=words))

    monkeypatch.setattr(paper1, "preview_concept", other)
    assert changed(before, configs_of(tmp_path)) == {"trial", "test", "descent", "original"}


def test_a_cell_is_stale_under_another_default_that_it_uses(tmp_path, monkeypatch) -> None:
    """Steps of the sampler are a default of the product that every picture depends on."""
    before = configs_of(tmp_path)
    plain = paper1.settings
    monkeypatch.setattr(
        paper1, "settings", lambda *a, **k: plain(*a, **{"compare.sampling_steps": 5} | k)
    )
    assert changed(before, configs_of(tmp_path)) == {*before}


def trial_config(target: str, arm: str) -> RunConfig:
    """The settings of a trial that a narrowing begins with."""
    setting = arms.ARMS[arm].start(paper1.kind_of(target))
    return paper1.Removal(target, arm, arms.TUNING_SEED, setting).config(smoke=False)


@pytest.mark.parametrize("target", ["cat", "car", "hammer", "van gogh", "sketch"])
def test_a_trial_shows_and_keeps_development_concepts_alone(target: str) -> None:
    """No test concept is kept, scored, or shown instead; the plain style is no target anywhere."""
    kind = paper1.kind_of(target)
    config = trial_config(target, arms.SUM)
    concept, allowed = paper1.concept_of(config), {*arms.DEVELOPMENT[kind]} - {target}
    assert concept.anchor in allowed | ({"photo"} if kind == "style" else set())
    named = [
        {prompt.expects for prompt in half}
        for split in (concept.near, concept.far)
        for half in (split.train, split.test)
    ]
    assert all(named)
    tests = (*arms.CUT_TARGETS[kind], *arms.MORE_TARGETS[kind])
    assert set().union(*named) == allowed - {concept.anchor}
    assert sum(map(len, named)) == len(set().union(*named)), "what is scored is not trained on"
    for prompt in (*concept.near.train, *concept.near.test, *concept.far.train, *concept.far.test):
        assert not any(name in prompt.text for name in tests)
    groups = paper1.groups_of(config, 12)
    assert {p.expects for name in ("near", "far") for p in groups[name]} <= allowed


def test_a_test_keeps_all_that_the_model_knows() -> None:
    config = paper1.Removal("dog", arms.RGD, 0, arms.ARMS[arms.RGD].start("object")).config(False)
    assert paper1.concept_of(config) == paper1.preview_concept(config)
    near = paper1.Removal("dog", arms.NEAR, 0, arms.ARMS[arms.NEAR].start("object")).config(False)
    assert paper1.concept_of(near) == paper1.preview_concept(near)
    assert paper1.groups_of(near, 12) == paper1.groups_of(config, 12)


def test_a_trial_of_an_arm_keeps_what_the_arm_does() -> None:
    concept = paper1.concept_of(trial_config("cat", arms.NEAR))
    assert not concept.far.train
    assert concept.near.train


def test_a_trial_trains_on_what_it_may_keep(monkeypatch) -> None:
    asked = []

    def train(model, concept, config, arm):
        asked.append(concept)
        return iter(())

    monkeypatch.setattr(paper1, "_training", train)
    config = trial_config("cat", arms.SUM)
    paper1.unlearned(SimpleNamespace(active=lambda *_: torch.no_grad()), config, arms.SUM)
    assert asked == [paper1.concept_of(config)]
    assert asked != [paper1.preview_concept(config)]
