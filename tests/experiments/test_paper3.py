"""The benchmark of paper 3: what is asked and looked at, what trials choose, claims and tables
computed right, and what is resumed.
"""

import dataclasses
import itertools
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from unlearn_app.common.errors import ConfigError, Diverged, NotFinite
from unlearn_app.concepts.catalog import known_concepts, preview_concept
from unlearn_app.continual.ledger import ConceptScore, Ledger, Request
from unlearn_app.continual.panel import other_kind
from unlearn_app.continual.sequence_data import drop_retain_prompts, with_allowed_anchor
from unlearn_app.experiments.cells import Extent
from unlearn_app.experiments.paper3 import measure as paper3
from unlearn_app.experiments.paper3 import states
from unlearn_app.experiments.paper3.claims import (
    Row,
    claims_table,
    judged,
    own_claims,
    paper_claims,
    similarity,
)
from unlearn_app.experiments.paper3.measure import (
    ALONE,
    APART,
    ARMS,
    AT_ONCE,
    CUT,
    CUT_MIXED,
    FIRST_BASE,
    HOLDING,
    L2,
    MIXED,
    OURS,
    PAPERS,
    PLAIN,
    REHEARSED,
    SECOND_BASE,
    TEACHERS,
    TESTS,
    TIES,
    TRIALS,
    TUNED,
    WITH_SELECTION,
    Paper3,
    RequestSequence,
    best_teacher,
    best_trial,
    forwards,
    forwards_in_all,
    held_out,
    kept,
    kind_of,
    kinds_of,
    layer_norms,
    looked_at,
    marks,
    movement,
    named,
    others,
    panel,
    score,
)
from unlearn_app.experiments.paper3.report import figure, relapse_rows, report
from unlearn_app.experiments.paper3.states import (
    Results,
    State,
    by_concept,
    moved,
    rate,
    read_refusals,
    read_states,
    relapse,
    units,
)
from unlearn_app.models.lora import update_of
from unlearn_app.pocket.world.split import DEVELOPMENT_OBJECTS, DEVELOPMENT_STYLES
from unlearn_app.settings.run_config import RunConfig, make_config, with_concept
from unlearn_app.training.unlearning import retain_prompts

ROOT = Path(__file__).resolve().parents[2]
DEVELOPMENT = {*DEVELOPMENT_OBJECTS, *DEVELOPMENT_STYLES}
WAY = FIRST_BASE, ALONE
REQUESTS, KEPT, OTHERS = ("dog", "fish"), ("bear", "frog"), ("photo", "ink")


def cell(sequence: str = "objects 1", arm: str = PLAIN, **changes: Any) -> RequestSequence:
    tried = tuple(0 for _ in kinds_of(sequence))
    made = RequestSequence(sequence, *WAY, arm, TEACHERS[0], tried, 0)
    return dataclasses.replace(made, **changes)


def shown(percent: float) -> str:
    """Ten pictures of which so many percent are right."""
    right = round(percent / 10)
    return "1" * right + "0" * (10 - right)


def state(
    arm: str = PLAIN,
    erased: float = 0,
    own: float | tuple[float, float] = 50,
    rest: float = 90,
    first: float = 0,
    number: int = 2,
    **where: Any,
) -> State:
    """A state of two erased concepts, two kept ones and two of the other domain, in percent."""
    own = own if isinstance(own, tuple) else (own, own)
    right = dict.fromkeys(REQUESTS[:number], shown(erased)) | dict.fromkeys(OTHERS, shown(rest))
    right |= dict(zip(KEPT, map(shown, own), strict=True))
    found = {
        "right": right,
        "original": dict.fromkeys(right, shown(100)),
        "first": dict.fromkeys(REQUESTS[:number], shown(first)),
        "moved": {"dog": 0.01, "fish": 0.04, "bear": 0.02, "frog": 0.02},
        "similar": {"bear": 0.9, "frog": 0.5},
        "layers": {"mid.to_k": 2.0},
        "drift": 3.0,
        "notes": [],
    }
    kinds = tuple(kinds_of(where.get("sequence", "objects 1")))
    asked = cell(where.pop("sequence", "objects 1"), arm, **where)
    return State(asked, number, found, REQUESTS, kinds, KEPT, 1000, number == 2)


class TestGrid:
    def test_test_concepts_are_requested_and_kept_evenly_and_no_development_one_is(self) -> None:
        every = Counter(name for names in TESTS.values() for name in names)
        assert not set(every) & DEVELOPMENT
        test = [e for e in known_concepts() if not e.fresh and e.name not in DEVELOPMENT]
        for entry in test:
            folds = [
                name for name in TESTS if name != MIXED and kind_of(entry.name) in kinds_of(name)
            ]
            asked = [name for name in folds if entry.name in TESTS[name]]
            left = [name for name in folds if entry.name in kept(name)]
            times = 1 if entry.kind == "object" else 2
            assert (len(asked), len(left)) == (times, times), entry.name
        styles = [name for name in TESTS if name.startswith("styles")]
        assert len(styles) == 4
        assert all(len(kept(name)) >= 4 for name in styles)
        mixed = Counter(map(kind_of, TESTS[MIXED]))
        assert mixed == {"object": 10, "style": 6}
        assert {kind_of(name) for name in kept(MIXED)} == {"object", "style"}
        assert others(MIXED) == ()

    def test_trials_are_of_development_concepts_alone(self) -> None:
        for name, asked in TUNED.items():
            assert {*asked, *kept(name), *others(name), *panel(name, 0, False)} <= DEVELOPMENT
        assert {*DEVELOPMENT_OBJECTS} == {
            *TUNED["development objects"], *kept("development objects")
        }  # fmt: skip

    def test_every_arm_has_as_many_trials_which_all_differ(self) -> None:
        for arm, trials in ARMS.items():
            assert len(trials) == TRIALS
            assert len({str(sorted(trial.items())) for trial in trials}) == TRIALS, arm
            made = [cell(arm=arm, tried=(trial,)).settings(False) for trial in range(TRIALS)]
            assert len({str(one) for one in made}) == TRIALS, arm

    def test_the_papers_projection_and_the_exact_one_differ_in_that_alone(self) -> None:
        papers, exact = (cell(arm=arm).settings(False)[0] for arm in (PAPERS, paper3.EXACT))
        assert papers.regularize.project == "gradients"
        assert papers.regularize.protect == exact.regularize.protect == "concepts"
        same = dataclasses.replace(papers.regularize, project="exact")
        assert dataclasses.replace(papers, regularize=same) == exact
        assert cell(arm=OURS).settings(False)[0].regularize.protect == "tokens"

    def test_selection_is_added_to_the_papers_projection_alone(self) -> None:
        papers, both = (cell(arm=arm).settings(False)[0] for arm in (PAPERS, WITH_SELECTION))
        assert both.regularize.select < 1
        assert dataclasses.replace(both.regularize, select=1.0) == papers.regularize

    def test_a_way_without_rehearsal_has_no_retain_term(self) -> None:
        alone, rehearsed = (cell(rehearsal=how).settings(False)[0] for how in (ALONE, REHEARSED))
        assert alone.unlearn.retain_loss == "none"
        assert rehearsed.unlearn.retain_loss == "preserve"
        esd = cell(base=SECOND_BASE, rehearsal=REHEARSED).settings(False)[0]
        assert esd.unlearn == dataclasses.replace(rehearsed.unlearn), "one budget for both bases"

    def test_only_requests_on_top_of_others_have_a_teacher(self) -> None:
        taught = {
            arm: cell(arm=arm, teacher="original").settings(False)[0].regularize.teacher
            for arm in ARMS
        }
        apart = {TIES, paper3.ARITHMETIC, APART, AT_ONCE}
        assert {arm for arm in taught if taught[arm] == "previous"} == apart

    def test_the_mixed_sequence_takes_the_trial_of_each_kind(self) -> None:
        both = cell(MIXED, tried=(1, 3))
        rates = [both.settings(False, kind)[0].unlearn.lr for kind in ("object", "style")]
        assert rates == [4e-3, 1.6e-2]

    def test_the_declared_cut(self) -> None:
        """Every arm of the issue in the paper's way; each claim's arms in every fold."""
        ways = {way[:2]: way[2] for way in CUT}
        assert set(HOLDING) | {PLAIN, AT_ONCE, APART, WITH_SELECTION} == set(ways[WAY])
        assert all({PLAIN, L2, TIES, PAPERS} <= set(arms) for arms in ways.values())
        assert all(set(arms) <= set(ways[way]) for way, arms in CUT_MIXED.items())


def fake(tmp_path: Path, **how: Any) -> Paper3:
    model = SimpleNamespace(base_hash="hash", cross_weights=dict)
    return Paper3(Extent(tmp_path, **how), model, SimpleNamespace(name="judge", version="1"))


def stored_as(bench: Paper3, monkeypatch: pytest.MonkeyPatch, values: dict) -> None:
    """Let cells count as stored with these values."""
    monkeypatch.setattr(paper3, "stored", lambda _, cell: (values.get(cell, {}), 0.0))


def trial_state(ua: float, stay: float, sequence: str) -> dict[str, Any]:
    right = dict.fromkeys(TUNED[sequence], shown(100 - ua))
    right |= dict.fromkeys([*kept(sequence), *others(sequence)], shown(stay))
    return {str(len(TUNED[sequence])): {"right": right}}


class TestConfig:
    def test_a_cell_depends_on_resolved_settings_and_not_on_what_their_defaults_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its command says only what differs from defaults, so that it is no part of it."""
        bench, asked = fake(tmp_path), cell()
        before = bench.config(asked)
        monkeypatch.setattr(RunConfig, "command", lambda _: "other words for the same")
        assert bench.config(asked) == before
        assert bench.config(cell(arm=L2))["settings"] != before["settings"]
        made = cell().settings

        def taught(smoke: bool, kind: Any = None) -> Any:
            run, plan = made(smoke, kind)
            own = dataclasses.replace(run.regularize, teacher="original")
            return dataclasses.replace(run, regularize=own), plan

        monkeypatch.setattr(RequestSequence, "settings", lambda _, *how: taught(*how))
        assert bench.config(asked)["settings"] != before["settings"]

    def test_a_cell_depends_on_the_judge(self, tmp_path: Path) -> None:
        one, other = fake(tmp_path), fake(tmp_path)
        other._judge.version = "2"
        assert one.config(cell()) != other.config(cell())

    def test_what_it_cost_is_no_part_of_what_it_depends_on(self, tmp_path: Path) -> None:
        assert "forwards" not in fake(tmp_path).config(cell())

    @pytest.mark.parametrize(
        "error",
        [
            Diverged("The training diverged.", "unlearn.lr"),
            ConfigError("Nothing is left to learn from.", "regularize.energy"),
            NotFinite("pictures are not finite", "a lower rate is accepted"),
        ],
    )
    def test_a_sequence_that_cannot_go_on_is_a_value_of_its_cell(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        bench, asked, one = fake(tmp_path), cell(), {"first": {}}

        def served(cell: RequestSequence, number: int, original: Any) -> dict[str, Any]:
            if number > 1:
                raise error
            return one

        monkeypatch.setattr(bench, "_of_ledger", served)
        *_, values = bench.measure(asked, {}, (None, {}))
        assert values == {"1": one, "refused": str(error)}
        assert not bench.lacks(asked, values), "so that the bench goes on with the next"
        assert bench.lacks(asked, {"1": one})
        assert bench.line(asked, values).endswith(str(error))

    def test_any_other_error_ends_the_bench(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = fake(tmp_path)
        wrong = ConfigError("The concept is unknown.", "concept")
        monkeypatch.setattr(bench, "_of_ledger", lambda *_: (_ for _ in ()).throw(wrong))
        with pytest.raises(ConfigError, match="unknown"):
            list(bench.measure(cell(), {}, (None, {})))

    def test_an_adapter_trained_alone_is_used_again_only_under_the_same_settings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench, trained = fake(tmp_path, smoke=True), []
        monkeypatch.setattr(
            paper3, "forget", lambda _, task, config, sampler: iter(trained.append(config) or ())
        )
        bench._model.drop_adapters = lambda: None
        bench._model.adapter_state = lambda _: {"x": torch.ones(1)}
        for rate_of in (0, 0, 1):
            bench._own(cell(arm=APART, tried=(rate_of,)), "dog")
        assert [run.unlearn.lr for run in trained] == [2e-3, 4e-3]
        bench._own(cell(arm=APART, seed=1), "dog")
        bench._own(cell(arm=APART), "fish")
        assert len(trained) == 4


class TestChoice:
    def test_cells_are_known_once_what_they_depend_on_is_stored(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Plain trials first, then those of the other arms with the chosen teacher, then tests with
        the chosen trials, by kind.
        """
        bench, values = fake(tmp_path), {}
        stored_as(bench, monkeypatch, values)
        first = bench.cells()
        assert {(c.arm, c.sequence) for c in first} == {(PLAIN, name) for name in TUNED}
        assert len(first) == 3 * 2 * 2 * TRIALS
        for one in first:
            keeps = {"previous": 40, "original": 60}[one.teacher]
            best = one.tried == ((3,) if one.sequence == "development styles" else (1,))
            values[one] = trial_state(90, keeps + 20 * best, one.sequence)
        second = [one for one in bench.cells() if one not in first]
        assert {one.arm for one in second} == {a for *_, arms in CUT for a in arms} - {PLAIN}
        assert {one.teacher for one in second} == {"original"}
        assert set(Counter((c.way, c.arm, c.sequence) for c in second).values()) == {TRIALS}
        assert not [one for one in second if one.sequence in TESTS]
        values |= {one: trial_state(90, 50, one.sequence) for one in second}
        tests = [one for one in bench.cells() if one not in (*first, *second)]
        assert {one.sequence for one in tests} == set(TESTS)
        assert len(tests) == len(set(tests))
        plain = [one for one in tests if one.arm == PLAIN and one.way == WAY]
        assert {one.sequence: one.tried for one in plain} == {
            name: {"objects": (1,), "styles": (3,), "mixed": (1, 3)}[name.split()[0]]
            for name in TESTS
        }
        assert {one.seed for one in tests} == {0}
        assert {one.seed for one in (*first, *second)} == {paper3.TUNING_SEED}
        folds = len(TESTS) - 1
        for arm, own in itertools.groupby(tests, key=lambda one: (one.way, one.arm)):
            size = len(list(own))
            assert size in (folds, 1), f"{arm} is whole before the next"
        bases = [one.base for one in tests]
        assert bases == sorted(bases, key=[FIRST_BASE, SECOND_BASE].index)

    def test_the_full_grid_has_every_arm_of_every_way_with_all_seeds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = fake(tmp_path, full=True, seeds=2)
        monkeypatch.setattr(bench, "_measured", lambda _: True)
        stored_as(bench, monkeypatch, {})
        tests = [one for one in bench.cells() if one.sequence in TESTS]
        folds = [one for one in tests if one.sequence != MIXED]
        assert len(folds) == 2 * 2 * 2 * len(ARMS) * (len(TESTS) - 1)
        assert [one.seed for one in tests] == sorted(one.seed for one in tests)
        trials = {one.seed for one in bench.cells() if one.sequence not in TESTS}
        assert not trials & {one.seed for one in tests}, "no trial has the seed of a test"

    def test_another_architecture_repeats_the_main_claim_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = fake(tmp_path, bundled="pocket-flow")
        monkeypatch.setattr(bench, "_measured", lambda _: True)
        stored_as(bench, monkeypatch, {})
        tests = [one for one in bench.cells() if one.sequence in TESTS]
        assert {one.arm for one in tests} == {PLAIN, L2, TIES}
        assert MIXED not in {one.sequence for one in tests}

    def test_what_forgets_enough_is_chosen_by_what_it_keeps(self) -> None:
        def found(ua: float, stay: float) -> float:
            ends = trial_state(ua, stay, "development styles").popitem()[1]
            return score(ends, TUNED["development styles"], kept("development styles"))

        assert found(90, 50) > found(80, 100), "keeping more does not make up for less forgetting"
        assert found(90, 60) > found(100, 50), "forgetting more than enough does not"
        assert found(90, 50) == found(100, 50)
        assert best_trial({2: 1.0, 1: 1.0, 0: 0.5}) == 1
        assert best_trial({}) == 0

    def test_the_teacher_is_that_of_the_best_trials_of_both_kinds(self) -> None:
        found = {"previous": [{0: 9.0, 1: 5.0}, {0: 4.0}], "original": [{0: 8.0}, {0: 6.0, 1: 1.0}]}
        assert best_teacher(found) == "original"
        assert best_teacher(found | {"original": [{0: 8.0}, {}]}) == "previous", "half is measured"
        assert best_teacher({}) == "previous"


class TestTraining:
    def test_nothing_of_the_same_side_is_trained_on_or_an_anchor(self) -> None:
        """So the data of a request are the same in every fold, and adapters can be shared."""
        for sequence, names in (TESTS | TUNED).items():
            for name in names:
                held = held_out(sequence, name)
                config = with_concept(cell(sequence).settings(False, kind_of(name))[0], name)
                gone = [preview_concept(with_concept(config, other)) for other in held]
                concept = drop_retain_prompts(with_allowed_anchor(config, name, held), gone)
                kind = [e.name for e in known_concepts() if e.kind == concept.kind and not e.fresh]
                test = {n for n in kind if (n in DEVELOPMENT) == (sequence in TUNED)}
                assert concept.anchor not in test, name
                texts = [*retain_prompts(concept, 32), *concept.anchors]
                assert not [t for t in texts for n in test if f" {n} " in f" {t} "], name

    def test_a_gradient_counts_three_and_all_at_once_is_trained_anew(self) -> None:
        alone, rehearsed = (cell(rehearsal=how).settings(False)[0] for how in (ALONE, REHEARSED))
        assert forwards(alone) == 4 * (3 * 30 + 16)
        assert forwards(rehearsed) == 2 * forwards(alone)
        esd = cell(base=SECOND_BASE).settings(False)[0]
        assert forwards(esd) == 4 * (3 * 30 + 3 * 16)
        chosen = cell(arm=paper3.SELECTIVE).settings(False)[0]
        assert forwards(chosen) == forwards(alone) + 4 * 3 * 4
        assert forwards_in_all(cell(), False) == 8 * forwards(alone)
        assert forwards_in_all(cell(arm=AT_ONCE), False) == 36 * forwards(alone)


class TestPanel:
    @pytest.mark.parametrize("sequence", [*TESTS, *TUNED])
    def test_prompts_name_nothing_requested_but_their_own(self, sequence: str) -> None:
        asked, requests = panel(sequence, 0, False), paper3.sequences()[sequence]
        for name, rows in asked.items():
            if name not in requests:
                assert not set(named([prompt for prompt, _ in rows])) & set(requests), name
        seeds = [seed for rows in asked.values() for _, seed in rows]
        assert len(seeds) == len(set(seeds))
        assert {len(asked[name]) for name in requests} == {4}

    def test_between_marks_only_the_latest_request_is_looked_at(self) -> None:
        asked, names = panel("objects 1", 0, False), TESTS["objects 1"]
        assert marks(cell(), False) == [1, 4, 8]
        assert marks(cell(arm=AT_ONCE), False) == [4, 8]
        assert marks(cell("development objects"), False) == [4]
        assert list(looked_at(asked, cell(), 2, False)) == [names[1]]
        fourth = looked_at(asked, cell(), 4, False)
        assert set(asked) - set(fourth) == set(names[4:])
        assert looked_at(asked, cell(), 8, False) == asked


class Still:
    """A model with two layers that read text states."""

    def cross_weights(self) -> dict[str, torch.Tensor]:
        return {"one": torch.eye(2), "two": 2 * torch.eye(2)}


def test_movement_is_that_of_keys_and_values_relative_to_what_they_were() -> None:
    """|dW c|^2 = 9 and |W c|^2 = 1 + 4 for c = (1, 0), and nothing moves for (0, 1)."""
    adapter = {
        "one.lora_A.weight": torch.tensor([[3.0, 0.0]]),
        "one.lora_B.weight": torch.tensor([[1.0], [0.0]]),
        "other.lora_A.weight": torch.tensor([[4.0, 4.0]]),
        "other.lora_B.weight": torch.tensor([[1.0], [1.0]]),
    }
    vectors = {"along": torch.tensor([1.0, 0.0]), "across": torch.tensor([0.0, 1.0])}
    found = movement(Still(), adapter, vectors)
    assert found == {"along": pytest.approx((9 / 5) ** 0.5), "across": 0.0}
    assert movement(Still(), adapter, {}) == {}
    norm = update_of((adapter["other.lora_A.weight"], adapter["other.lora_B.weight"])).norm()
    assert layer_norms(adapter) == {"one": 3.0, "other": pytest.approx(norm.item())}


class TestStatistics:
    def test_rates_and_relapse_by_concept(self) -> None:
        one = state(erased=30, own=(40, 60), rest=90, first=10)
        assert rate("ua")(one) == {"dog": 70.0, "fish": 70.0}
        assert rate("ra_i")(one) == {"bear": 40.0, "frog": 60.0}
        assert rate("ra_c")(one) == {"photo": 90.0, "ink": 90.0}
        assert relapse(one) == {"dog": pytest.approx(20.0), "fish": pytest.approx(20.0)}
        assert moved("target")(one) == {"fish": 4.0}
        assert moved("erased")(one) == {"dog": 1.0}
        assert moved("kept")(one) == {"bear": 2.0, "frog": 2.0}

    def test_the_unit_is_the_concept_seeds_and_sequences_inside(self) -> None:
        states = [state(own=(0, 100)), state(own=(100, 100), seed=1)]
        assert by_concept(units(states, rate("ra_i"))) == [50.0, 100.0]

    def test_only_what_the_stored_trials_choose_counts(self) -> None:
        trials = [
            dataclasses.replace(
                state(erased=0, own=10 + 40 * (tried == 2), tried=(tried,)),
                cell=cell("development objects", tried=(tried,)),
            )
            for tried in range(3)
        ]
        tests = [state(tried=(tried,)) for tried in range(3)]
        found = Results([*trials, *tests])
        assert found.teachers == {WAY: "previous"}
        assert [one.cell.tried for one in found.ends] == [(2,)]
        assert len(Results(tests).ends) == 3, "an arm without trials counts"
        other = [dataclasses.replace(t, cell=dataclasses.replace(t.cell, teacher="original"))
                 for t in tests]  # fmt: skip
        assert not Results([*trials, *other]).ends, "with another teacher than the chosen one"


class TestClaims:
    @pytest.mark.parametrize(
        ("values", "sign", "label"),
        [
            ((5, 6, 7, 6, 5), 1, "held"),
            ((-5, -6, -7, -6, -5), 1, "not held"),
            ((-5, -6, -7, -6, -5), -1, "held"),
            ((5, -6, 7, -6, 1), 1, "undecided"),
            ((5,), 1, "undecided"),
            ((), 1, "not tested"),
        ],
    )
    def test_a_verdict(self, values: tuple[float, ...], sign: int, label: str) -> None:
        assert judged([Row("", "", "", "", values, sign=sign)]) == [label]

    def test_verdicts_are_corrected_over_the_tested_rows_of_a_table(self) -> None:
        """One p of 0.03 holds alone, and not beside another that is tested."""
        near = Row("", "", "", "", (1.0,), p=0.03, interval=(1.0, 0.1, 1.9))
        untested = Row("", "", "", "")
        far = dataclasses.replace(near, p=0.5)
        assert judged([near, untested]) == ["held", "not tested"]
        assert judged([near, far]) == ["undecided", "undecided"]
        assert judged([dataclasses.replace(near, p=0.001), near]) == ["held", "held"]

    def test_rehearsal_and_the_second_base_have_rows_of_their_own(self) -> None:
        for way in ((FIRST_BASE, REHEARSED), (SECOND_BASE, ALONE)):
            plain, held = (
                state(arm, own=own, base=way[0], rehearsal=way[1])
                for arm, own in ((PLAIN, 20), (PAPERS, 70))
            )
            rows = [row for row in own_claims(Results([plain, held])) if row.values]
            assert [row.values for row in rows if "as well" in row.text] == [(50.0, 50.0)]
            assert [row.exploratory for row in rows] == [way[1] == REHEARSED]

    def test_exploratory_rows_count_for_no_other_and_are_not_corrected(self) -> None:
        near = Row("", "", "", "", (1.0,), p=0.03, interval=(1.0, 0.1, 1.9))
        beside = dataclasses.replace(near, p=0.5, exploratory=True)
        assert judged([near, beside]) == ["held", "undecided"]
        several = [dataclasses.replace(near, exploratory=True)] * 3
        assert judged([*several, near]) == ["held"] * 4
        assert "(exploratory)" in claims_table([beside])
        assert "(exploratory)" not in claims_table([near])

    def test_what_rests_on_the_mixed_sequence_is_exploratory(self) -> None:
        rows = own_claims(Results([]))
        assert all(row.exploratory for row in rows if row.where == MIXED)
        counted = {row.text for row in rows if not row.exploratory}
        assert any("comes back" in text for text in counted)
        assert not any("after the last request" in text for text in counted)

    @pytest.mark.parametrize(
        ("difference", "ahead", "label"),
        [
            (9, -6, "not comparable"),
            (9, -4, "held"),
            (9, 6, "held"),
            (-9, 6, "not comparable"),
            (-9, 4, "not held"),
            (-9, -6, "not held"),
        ],
    )
    def test_the_arm_that_keeps_more_must_forget_as_much_whichever_it_is(
        self, difference: float, ahead: float, label: str
    ) -> None:
        values = tuple(difference + way for way in (-0.5, 0.0, 0.5))
        assert judged([Row("", "", "", "", values, ahead=ahead)]) == [label]

    def test_the_best_other_arm_is_one_that_forgets_as_much_as_the_projection(self) -> None:
        def best(*states: State) -> str:
            found = paper_claims(Results(list(states)))
            (row,) = [r for r in found if "best other" in r.text and r.where == "objects"]
            return row.arms

        projected = state(PAPERS, erased=10, own=50)
        less, alike = state(L2, erased=40, own=90), state(TIES, erased=10, own=60)
        assert best(projected, less, alike) == f"{PAPERS} – {TIES}"
        assert best(projected, less) == f"{PAPERS} – {L2}"
        assert best(less, alike) == f"{PAPERS} – {L2}"

    def rows(self, ua: float = 100) -> list[State]:
        plain = [state(own=(20, 30), erased=0, sequence=s, seed=n) for n, s in enumerate(OBJECTS)]
        held = [
            state(L2, own=(70, 90), erased=100 - ua, sequence=s, seed=n)
            for n, s in enumerate(OBJECTS)
        ]
        return plain + held

    @pytest.mark.parametrize(("ua", "label"), [(100, "held"), (90, "not comparable")])
    def test_what_forgets_less_is_not_better_for_keeping_more(self, ua: float, label: str) -> None:
        found = paper_claims(Results(self.rows(ua)))
        (row,) = [r for r in found if (r.arms, r.where) == ("L2 – plain", "objects")
                  and r.text == "Keeps more of its own domain"]  # fmt: skip
        assert row.values == (50.0, 60.0)
        assert row.counted == "2 concepts, 2 sequences, 2 seeds"
        assert row.ua == f"{ua}, 100"
        wide = dataclasses.replace(row, values=(50.0, 51.0, 52.0))
        assert judged([wide]) == [label]

    def test_every_claim_has_a_row_with_or_without_cells(self) -> None:
        rows = paper_claims(Results([]))
        assert {judged(rows)[at] for at in range(len(rows))} == {"not tested"}
        measured = paper_claims(Results(self.rows()))
        assert [(r.text, r.where) for r in measured if "best other" not in r.text] == [
            (r.text, r.where) for r in rows if "best other" not in r.text
        ]
        for domain in ("objects", "styles"):
            for arm in ("L1", L2, "selective", TIES, PAPERS, AT_ONCE):
                mine = [r for r in rows if r.where == domain and r.arms == f"{arm} – {PLAIN}"]
                assert len(mine) == 2
            assert {r.paper for r in rows if r.arms == f"{AT_ONCE} – {PLAIN}"} >= {"+26.5", "+3.5"}
        own = own_claims(Results(self.rows()))
        assert {r.where for r in own} == {"objects", "styles", "mixed"}
        assert sum("comes back" in r.text for r in own) == 12

    def test_the_papers_r_is_over_kept_concepts_after_one_request(self) -> None:
        states = [
            state(own=(10 * n, 90), number=1, sequence=s, seed=0) for n, s in enumerate(OBJECTS)
        ]
        row = similarity(Results(states), "objects")
        assert row.counted == "4 kept concepts of 2 sequences"
        assert row.interval[0] < -0.95
        assert judged([row]) == ["held"]
        assert row.where == "objects"


OBJECTS = ("objects 1", "objects 2")


class TestReport:
    def test_without_cells_every_claim_is_not_tested_and_there_is_no_figure(self) -> None:
        text = report(ROOT / "paper3", [])
        assert "| **not tested** |" in text
        assert "**held**" not in text
        assert ".svg" not in text
        assert "Our bars" not in text
        assert figure([]) == ""

    def test_tables_have_a_row_of_every_arm_and_the_original(self) -> None:
        rows = [state(arm, erased=20, first=0) for arm in (PLAIN, TIES)]
        text = report(ROOT / "paper3", rows)
        section = text.partition("## Objects, concept ablation, without rehearsal")[2]
        assert (
            "| TIES | 80 ± 0 | 50 ± 0 | 90 ± 0 | +20 ± 0 | 4.0 | 1.0 | 2.0 ± 0.0 | 3.00 |"
            in section
        )
        assert (
            "| objects | TIES | concept ablation, without rehearsal | +20 ± 0 | 0 of 2 | dog, +20 |"
            in text
        )
        assert "| original | 0 ± 0 | 100 ± 0 | 100 ± 0 |" in section
        assert "| `mid.to_k` | 2.00 |" in text
        assert "](paper3.svg)" in text
        assert "| TIES | 80, " in text.partition("Our bars")[2]

    def test_what_ended_early_is_read_back_counted_and_printed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = fake(tmp_path)
        found = {
            "a": (bench.config(cell()), {"1": state(number=1).found | {"forwards": 7},
                                         "refused": "It diverged."}),
        }  # fmt: skip
        monkeypatch.setattr(states, "read_cells", lambda _: found)
        (read,) = read_states(tmp_path)
        assert (read.number, read.forwards, read.last) == (1, 7, False)
        refused = read_refusals(tmp_path)
        assert refused == [(cell(), "It diverged.")]
        text = report(ROOT / "paper3", [read], refused)
        assert "1 of the measured sequences" in text
        assert "| It diverged. |" in text
        assert "ended before" not in report(ROOT / "paper3", [read])

    def test_trials_are_printed_with_the_chosen_one(self) -> None:
        trials = [
            dataclasses.replace(
                state(own=10 + 40 * (tried == 2), tried=(tried,)),
                cell=cell("development objects", tried=(tried,)),
            )
            for tried in range(4)
        ]
        text = report(ROOT / "paper3", trials)
        assert (
            "lr 0.002: 100 / 10 / 90; lr 0.004: 100 / 10 / 90; **lr 0.008: 100 / 50 / 90**" in text
        )
        assert "- concept ablation, without rehearsal: the previous model teaches." in text

    def test_the_figure_has_curves_and_a_map_for_both_grounds(self) -> None:
        rows = [
            state(arm, number=n, erased=40, first=10 * n) for arm in (PLAIN, L2) for n in (1, 2)
        ]
        svg = figure(rows)
        root = ET.fromstring(svg)
        lines = root.findall(".//{*}polyline")
        assert len(lines) == 4 * 2
        assert "prefers-color-scheme:dark" in svg
        assert relapse_rows(Results(rows)) == [
            {"arm": arm, "values": [pytest.approx(20.0)] * 2} for arm in (PLAIN, L2)
        ]
        assert svg.count('fill="#f0883e"') == 4
        everything = figure([state(arm) for arm in ARMS])
        assert len({x.get("stroke") for x in ET.fromstring(everything).iter()
                       if x.tag.endswith("polyline")}) == len(ARMS)  # fmt: skip


def seen(asked, name: str, right: bool = True) -> ConceptScore:
    others = other_kind(make_config("cat"), [prompt for prompt, _ in asked[name]])
    words = tuple(other.expects if other else "" for other in others)
    return ConceptScore(
        asked[name][0][0].axis,
        (right,) * len(words),
        0.5,
        tuple(True if w else None for w in words),
        words,
    )


def filled(folder: Path, asked, *names: str, base: str = "hash") -> Ledger:
    """A ledger of the benchmark, without training."""
    made = Ledger.create(folder, *cell().settings(True), list(asked))
    state = {f"x.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    gone: list[str] = []
    for number, name in enumerate(("", *names)):
        gone.append(name)
        look = {own: seen(asked, own, own not in gone) for own in asked}
        kinds = ("object", "cat") if name else ("", "")
        row = Request(name, *kinds, made.next_folder(name), 10.0 * number, number and 3,
                      float(number), look)  # fmt: skip
        shown = dict.fromkeys(asked, Image.new("RGB", (2, 2)))
        with made.locked():
            made.base = base
            made.add(row, *[state if name else {}] * 2, shown)
    return made


def test_a_ledger_is_resumed_only_where_it_is_of_this_sequence_panel_and_model(
    tmp_path: Path,
) -> None:
    names, asked = TESTS["objects 1"][:2], panel("objects 1", 0, True)
    way = cell().settings(True)

    def rows(made: Ledger, asked=asked, base: str = "hash", names=names) -> int:
        return len(paper3.opened(made.folder, *way, asked, base, names).rows)

    assert rows(filled(tmp_path / "same", asked, *names)) == 3
    assert rows(filled(tmp_path / "order", asked, *names[::-1])) == 0
    assert rows(filled(tmp_path / "base", asked, names[0]), base="other") == 0
    assert rows(filled(tmp_path / "names", asked, names[0]), dict(list(asked.items())[1:])) == 0
    damaged = filled(tmp_path / "damaged", asked, names[0])
    damaged.path(1).unlink()
    assert rows(damaged) == 0


def test_a_state_holds_what_each_concept_showed_first_and_now(tmp_path: Path) -> None:
    names, asked = TESTS["objects 1"][:2], panel("objects 1", 0, True)
    made = filled(tmp_path / "ledger", asked, *names)
    bench = fake(tmp_path, smoke=True)
    first = dict.fromkeys(names, "0")
    adapter = {f"x.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    found = bench._state(cell(), made.rows[0], made.rows[2], first, [adapter])
    assert {name: found["right"][name] for name in names} == first
    assert set(found["original"].values()) == {"1"}
    assert found["right"].keys() == found["original"].keys() == asked.keys()
    assert found["layers"] == {"x": 4.0}
    assert found["drift"] == pytest.approx(4.0)
    assert found["moved"] == found["similar"] == {}, "a model that reads no text states as they are"
