"""The benchmark of paper 3: what is asked and looked at, rows, bars and claims computed right, and
what is resumed.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from unlearn_app.concepts.catalog import known_concepts, preview_concept
from unlearn_app.continual.ledger import ConceptScore, Ledger, Request
from unlearn_app.continual.panel import other_kind
from unlearn_app.continual.sequence_data import with_allowed_anchor
from unlearn_app.experiments.paper3 import measure as paper3
from unlearn_app.experiments.paper3.measure import (
    ALL_LAYERS,
    ARMS,
    AT_ONCE,
    CONTENDERS,
    FIRST_BASE,
    HOLDING,
    PROJECTION,
    REQUEST_MARKS,
    SEQUENCES,
    SEQUENTIAL,
    UNHELD,
    WITH_L2,
    WITH_SELECTION,
    RequestSequence,
    grid,
    kept,
    looked_at,
    named,
    panel,
)
from unlearn_app.experiments.paper3.report import (
    BARS,
    SequenceState,
    bars,
    claims,
    drifts,
    figure,
    growth,
    judged,
    no_collapse,
    notes,
    read_states,
    report,
    share_interval,
)
from unlearn_app.experiments.tables import with_half
from unlearn_app.pocket.world.vocabulary import OBJECTS, STYLES
from unlearn_app.settings.run_config import make_config, make_plan

ROOT = Path(__file__).resolve().parents[2]
RIGHT = "1" * 36 + "0" * 12
BASE = SequenceState(
    "objects",
    0,
    0,
    "concept ablation",
    SEQUENTIAL,
    12,
    100.0,
    20.0,
    50.0,
    45.0,
    10.0,
    0.0,
    20.0,
    240.0,
    {"ua": 10.0, "ra_i": 75.0, "ra_c": 75.0, "ra_c_official": 75.0},
    {"ua": "0" * 48, "ra_i": RIGHT, "ra_c": RIGHT},
    (),
    2,
    1,
)


def shown(relative: float) -> str:
    """Pictures of which this percent of the original's three quarters are right."""
    right = round(0.75 * relative / 100 * 48)
    return "1" * right + "0" * (48 - right)


def arm(
    name: str,
    ra_i: float,
    ra_c: float = 95.0,
    drift: float = 3.0,
    ua: float = 95.0,
    step: float = 1,
) -> list[SequenceState]:
    return [
        dataclasses.replace(
            BASE,
            arm=name,
            seed=seed,
            ra_i=ra_i + step * seed,
            ra_c=ra_c,
            drift=drift + 0.01 * seed,
            ua=ua,
            pictures={"ua": "0" * 48, "ra_i": shown(ra_i), "ra_c": shown(ra_c)},
        )
        for seed in range(3)
    ]


def test_the_best_arm_holds_a_sequence_back_and_meets_bars_with_its_intervals() -> None:
    """Forgetting all at once, or an arm for reference, is never the best; nor is one that forgets
    nothing.
    """
    rows = [*arm(SEQUENTIAL, 20, 50, 10), *arm(PROJECTION, 96, 99), *arm("L1", 99, 99, 0.1, ua=10)]
    rows += [
        row for name in (AT_ONCE, UNHELD, ALL_LAYERS) for row in arm(name, 100, 100, 0.1, ua=100)
    ]
    best, told = the_best(rows), against(rows)
    assert "**projection** (3 of 4 bars met with the whole interval and 4 in the mean, " in best
    assert next(iter(told)) == PROJECTION, "the others stand in the table"
    assert set(told) == {row.arm for row in rows}, "the others stand in the table"
    ua, within, across, drift, *costs = told[PROJECTION]
    assert ua.startswith("95 (")
    assert ua.endswith("), met")
    assert within.startswith("97 (")
    assert within.endswith("), met")
    assert across.endswith("), undecided"), (
        "144 pictures do not tell 99 from 90 % of three quarters"
    )
    assert drift.startswith("30 (")
    assert drift.endswith("), met")
    assert costs == ["–", "20 (20 to 20), met"]
    worse = against([*arm(SEQUENTIAL, 20, 50, 10), *arm(PROJECTION, 30, drift=5)])[PROJECTION]
    assert worse[1].endswith("), not met")
    assert worse[3].endswith("), not met")
    steady = the_best(
        [*arm(SEQUENTIAL, 20, 50, 10), *arm("TIES", 99, drift=9), *arm("L2", 90, drift=3)]
    )
    assert "**L2**" in steady, "what keeps more but drifts too far is not the best"
    sure = the_best(
        [*arm(SEQUENTIAL, 20, 50, 10), *arm("L1", 99, drift=3, step=40), *arm("L2", 96, drift=3)]
    )
    assert "**L2** (3 of 4" in sure, "what keeps more but not surely enough is not the best"
    none = the_best([*arm(SEQUENTIAL, 20), *arm("L1", 50, ua=60), *arm("L2", 90, ua=20)])
    assert "**L1** (no arm's UA reaches 90 %, its is highest)" in none
    assert bars([]) is None
    assert bars(arm(PROJECTION, 90)) is None
    missing = "The plain sequence, or every arm that holds it back, is not measured."
    assert missing in report(ROOT, arm(PROJECTION, 90))
    single = [row for row in rows if not row.seed]
    assert against(single)[PROJECTION][0] == "95", "a single sequence has no interval"
    single += [row for row in arm("L2", 99, 99, drift=9) if not row.seed]
    assert "**projection** (0 of 4" in the_best(single), "and its means decide"


def test_what_readme_says_of_the_shipped_sequences_is_so() -> None:
    every = read_states(ROOT / "assets" / "experiments" / "paper3")
    for domain, kept_by_plain in (("objects", (50, 80)), ("styles", (0, 15))):
        rows = [
            row for row in every if (row.domain, row.base, row.order) == (domain, FIRST_BASE, 0)
        ]
        told = against(rows)
        assert "**L2** (4 of 4 bars met with the whole interval" in the_best(rows)
        assert all(cell.endswith("), met") for cell in told["L2"])
        assert len({row.seed for row in rows if row.arm == "L2"}) == 5
        assert kept_by_plain[0] < float(told[SEQUENTIAL][1].split()[0]) < kept_by_plain[1]
        projection = judged(rows, "", PROJECTION, SEQUENTIAL, "ra_i")
        assert ("**held**" if domain == "styles" else "**undecided**") in projection
        assert min(drifts(rows, PROJECTION)) > 100
        assert float(told[PROJECTION][1].split()[0]) < BARS["ra_i"].bound
        mixed = [float(cell.split()[0]) for cell in told[WITH_L2][:4]]
        assert (mixed[0] < 90) == (domain == "styles")
        assert min(mixed[1], mixed[2]) > 90
        assert mixed[3] < 40
        last = [
            row for row in every if (row.domain, row.base, row.number) == (domain, "EraseDiff", 12)
        ]
        assert {row.arm for row in last if row.arm != SEQUENTIAL} == {PROJECTION, WITH_L2}
        assert all(row.ua < BARS["ua"].bound for row in last if row.arm != SEQUENTIAL)


def table_of(rows: list[SequenceState], heading: str, place: int = 0) -> list[str]:
    """The lines of a table of the report under the first heading of that name."""
    within = report(ROOT, rows).partition(f"# {heading}\n")[2].partition("\n#")[0]
    tables = [part for part in within.split("\n\n") if part.strip().startswith("|")]
    return tables[place].strip().splitlines()


def the_best(rows: list[SequenceState]) -> str:
    """The best arm of those that hold a sequence back, and why."""
    found = bars(rows)
    said = f"**{found['best']}** ({found['why']})"
    assert f"best after {found['when']}: {said}." in report(ROOT, rows)
    return said


def against(rows: list[SequenceState]) -> dict[str, list[str]]:
    """What stands in the table of bars, by arm."""
    found = bars(rows)["reached"]
    text = "\n".join(table_of(rows, "After 12 requests", place=1))
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == [f"| {arm}" for arm in found]
    lines = [
        line.removeprefix("| ").removesuffix(" |").split(" | ") for line in text.splitlines()[2:]
    ]
    return {name: cells for name, *cells in lines}


@pytest.mark.parametrize(("ra_i", "label"), [(60, "held"), (5, "not held"), (22, "undecided")])
def test_a_claim_is_decided_by_sequences_and_by_their_pictures(ra_i: float, label: str) -> None:
    rows = [*arm(SEQUENTIAL, 20), *arm("L2", ra_i, step=3)]
    assert f"**{label}**" in judged(rows, "keeps more", "L2", SEQUENTIAL, "ra_i")
    assert "not measured" in judged(rows, "keeps more", "TIES", SEQUENTIAL, "ra_i")


def test_three_equal_values_decide_nothing_by_themselves() -> None:
    """The interval of three equal differences has no width; one picture more in each is no
    difference.
    """
    rows = [*arm(SEQUENTIAL, 20), *arm("L2", 22.7)]
    line = judged(rows, "keeps more", "L2", SEQUENTIAL, "ra_i")
    assert "+2.7 (+2.7 to +2.7) points, 3 sequences" in line
    assert "**undecided**" in line
    _, low, high = share_interval(arm(SEQUENTIAL, 100, step=0), "ra_i")
    assert low < 95
    assert high > 105
    assert "+2.7 points, 1 sequence |" in judged(
        [r for r in rows if not r.seed], "", "L2", SEQUENTIAL, "ra_i"
    )


@pytest.mark.parametrize(
    ("ra_i", "ua", "label"),
    [
        (60, 80, "not comparable"),
        (60, 100, "held"),
        (5, 100, "not comparable"),
        (5, 80, "not held"),
    ],
)
def test_only_a_difference_that_forgetting_explains_is_not_comparable(
    ra_i: float, ua: float, label: str
) -> None:
    """Keeping more at a higher UA, or less at a lower one, is no less true for it."""
    rows = [*arm(SEQUENTIAL, 20, ua=90), *arm("L2", ra_i, ua=ua)]
    assert f"| {ua}, 90 | **{label}** |" in judged(rows, "keeps more", "L2", SEQUENTIAL, "ra_i")


def test_every_claim_of_the_paper_has_a_line() -> None:
    rows = [
        row
        for name in ARMS
        for row in arm(
            name, {SEQUENTIAL: 80, PROJECTION: 90, WITH_SELECTION: 97, UNHELD: 10}.get(name, 60)
        )
    ]
    rows = [
        dataclasses.replace(row, cumulative_s=800.0) if row.arm == AT_ONCE else row for row in rows
    ]
    lines = claims(rows)
    assert sum("than plain" in line for line in lines) == 2 * len(HOLDING)
    assert not [line for line in lines if ALL_LAYERS in line], "other layers are no control"
    (best,) = [line for line in lines if "Projection keeps most" in line]
    assert "projection, L1" in best
    assert "**held**" in best
    both, small = [line for line in lines if "adds to projection" in line]
    assert f"{WITH_SELECTION}, {PROJECTION}" in both
    assert "**held**" in both
    assert f"{WITH_L2}, {PROJECTION}" in small
    plain, free = [line for line in lines if "Keeps less than 50 %" in line]
    assert "**not held**" in plain
    assert UNHELD in free
    assert "**held**" in free
    (price,) = [line for line in lines if "costs more" in line]
    assert "3.3 times (3.3 to 3.3)" in price
    assert "**held**" in price
    assert no_collapse(rows) == {SEQUENTIAL: "81 ± 2", UNHELD: "11 ± 2"}
    text = report(ROOT, rows)
    assert "The plain sequence keeps 81 ± 2 % of its own domain and does not collapse" in text
    assert "with weight 3" in text
    assert "without both and keeps 11 ± 2 %" in text
    assert no_collapse([*arm(SEQUENTIAL, 10), *arm(UNHELD, 10)]) == {}
    assert "does not collapse" not in report(ROOT, [*arm(SEQUENTIAL, 10), *arm(UNHELD, 10)])


def test_a_line_per_arm_best_kept_first_and_the_original_last() -> None:
    noted = [
        dataclasses.replace(row, notes=("It leaves out 3 %.",)) for row in arm(PROJECTION, 85)[:1]
    ]
    lines = table_of([*arm(SEQUENTIAL, 20), *noted, *arm(PROJECTION, 85)[1:]], "After 12 requests")
    assert lines[2].startswith(
        "| projection | 95 ± 0 | 86 ± 2 (64 %, n = 144) | 95 ± 0 (71 %, n = 144) | 45 ± 0 (34 %) |"
    )
    assert lines[3].startswith("| sequential |")
    assert lines[4].startswith("| original | 10 ± 0 | 100 (75 %) |")
    assert lines[4].endswith("| 3 |")
    assert len(lines) == 5
    assert notes(noted + arm(SEQUENTIAL, 20)) == ["projection, seed 0: It leaves out 3 %."]
    again = dataclasses.replace(noted[0], seed=2)
    assert notes([*noted, again]) == ["projection, seeds 0, 2: It leaves out 3 %."]
    assert not notes(
        [*(dataclasses.replace(row, number=3) for row in noted), *arm(SEQUENTIAL, 20)]
    ), "of the last alone"
    assert with_half([]) == with_half([None]) == "–"
    assert with_half([1.0]) == "1"
    svg = figure(
        [
            BASE,
            dataclasses.replace(BASE, number=1),
            dataclasses.replace(BASE, domain="styles", arm="L2"),
        ]
    )
    assert svg.count("<polyline") == 8
    assert "Styles: drift" in svg
    assert figure([]).startswith("<svg")
    told = figure([dataclasses.replace(BASE, order=1), dataclasses.replace(BASE, base="EraseDiff")])
    assert ">Objects, in reverse: drift<" in told
    assert ">Objects, EraseDiff: drift<" in told
    everything = [dataclasses.replace(BASE, arm=name) for name in ARMS]
    assert figure(everything).count("<polyline") == 4 * len(ARMS), "every arm has a colour"


def test_the_short_table_has_both_domains_side_by_side_after_the_last_request() -> None:
    """Nothing of an earlier request, another order or another method gets in, and what is missing
    is a dash.
    """
    rows = [
        *arm(SEQUENTIAL, 20, drift=15),
        *arm(PROJECTION, 85),
        dataclasses.replace(BASE, domain="styles", ra_i=8.0),
    ]
    noise = [dataclasses.replace(row, ra_i=1.0, **other) for row in arm(SEQUENTIAL, 20)
             for other in ({"number": 3}, {"order": 1}, {"base": "ESD"})]  # fmt: skip
    head, _, bar, first, last = table_of(rows + noise, "In short")
    assert head.startswith("| arm | objects: UA, % | objects: RA-I, % |")
    assert head.endswith("| styles: drift, % | sequences |")
    assert bar == "| *bar* | ≥ 90 | ≥ 80 | ≥ 90 | ≤ 40 | ≥ 90 | ≥ 80 | ≥ 90 | ≤ 40 |  |"
    assert first == "| projection | 95 ± 0 | 86 ± 2 | 95 ± 0 | 20 ± 0 | – | – | – | – | 3 + 0 |"
    assert (
        last == "| sequential | 95 ± 0 | 21 ± 2 | 95 ± 0 | 100 ± 0 | 100 | 8 | 50 | 100 | 3 + 1 |"
    )
    assert len(table_of([], "In short")) == 3


def test_what_a_request_costs_is_said_by_arm_and_with_the_threads_it_was_measured_with() -> None:
    last = {SEQUENTIAL: 20.0, "L1": 23.0, "L2": 40.0}
    ends = [
        dataclasses.replace(row, seconds=last[row.arm]) for name in last for row in arm(name, 50)
    ]
    rows = [*ends, *(dataclasses.replace(row, number=1, seconds=20.0) for row in ends)]
    assert growth([row for row in rows if row.arm == "L1"]) == pytest.approx([1.15] * 3)
    told = against(rows)
    assert [cells[-2] for cells in (told[SEQUENTIAL], told["L1"], told["L2"])] == [
        "1.00 (1.00 to 1.00), met", "1.15 (1.15 to 1.15), met", "2.00 (2.00 to 2.00), not met"
    ]  # fmt: skip
    assert told["L1"][-1] == "23 (23 to 23), met"
    assert told["L2"][-1] == "40 (40 to 40), not met"
    assert "Measured with 2 threads in 1 process.\n" in report(ROOT, rows)


def test_sequences_are_of_the_world_and_leave_something_alone() -> None:
    for domain, entries in (("objects", OBJECTS), ("styles", STYLES)):
        names = SEQUENCES[domain]
        assert len(names) == len(set(names)) == 12
        assert set(names) < {entry.name for entry in entries}
    cells = grid(3)
    assert len(set(cells)) == len(cells) == 3 * 2 * 2 * 3 * len(ARMS) + 2 * 2 * len(CONTENDERS)
    cut = [cell for cell in cells if cell.cut]
    first = [cell for cell in cut if (cell.order, cell.base) == (0, "concept ablation")]
    by_seed = {seed: {cell.arm for cell in first if cell.seed == seed} for seed in range(6)}
    several = set(ARMS) - {UNHELD, ALL_LAYERS}
    assert by_seed == dict(
        enumerate([set(ARMS), several, several, set(CONTENDERS), set(CONTENDERS), set()])
    )
    few = {(cell.order, cell.base, cell.seed, cell.arm) for cell in set(cut) - set(first)}
    assert few == {
        (*way, 0, name)
        for way in ((1, "concept ablation"), (0, "EraseDiff"))
        for name in (SEQUENTIAL, PROJECTION, WITH_L2)
    }
    one, two = (RequestSequence("objects", order, 0, "ESD", SEQUENTIAL) for order in (0, 1))
    assert one.requests(False) == two.requests(False)[::-1]
    layers = {cell.arm: cell.settings(False)[0].unlearn.modules for cell in cells}
    rates = {
        cell.arm: cell.settings(False)[0].unlearn.lr for cell in cells if cell.domain == "objects"
    }
    assert layers == dict.fromkeys(ARMS, "keys_values") | {ALL_LAYERS: "all"}
    assert rates == dict.fromkeys(ARMS, 4e-3) | {
        ALL_LAYERS: 2e-3,
        "L2": 1e-2,
        WITH_L2: 1e-2,
    }, "the plain sequence at its best rate"


def test_what_counts_as_kept_is_no_anchor_in_any_order_and_has_many_pictures() -> None:
    assert kept("styles") == ("ink", "arcade", "chalk")
    for domain, names in SEQUENCES.items():
        anchors = {
            with_allowed_anchor(make_config("cat"), name, order[:place]).anchor
            for order in (names, names[::-1])
            for place, name in enumerate(order)
        }
        assert len(kept(domain)) >= 1
        assert not set(kept(domain)) & {*names, *anchors}
        asked = panel(domain, 0, False)
        assert not anchors - set(names) & set(asked), "an anchor is not looked at"
        assert sum(len(asked[name]) for name in kept(domain)) == 48
        assert {len(own) for name, own in asked.items() if name not in kept(domain)} == {4}


@pytest.mark.parametrize("domain", SEQUENCES)
def test_the_other_domain_is_asked_by_prompts_that_name_nothing_requested(domain: str) -> None:
    known = [entry for entry in known_concepts() if not entry.fresh]
    asked = panel(domain, 0, False)
    kinds = {entry.name: entry.kind for entry in known}
    others = [name for name in asked if kinds[name] != kinds[SEQUENCES[domain][0]]]
    assert len(others) >= 14
    for name in others:
        assert not set(named([prompt for prompt, _ in asked[name]])) & set(SEQUENCES[domain])


@pytest.mark.parametrize("domain", SEQUENCES)
def test_tuning_sees_no_prompt_and_no_seed_of_the_test(domain: str) -> None:
    splits = [panel(domain, seed, False, split) for split in ("test", "dev") for seed in range(3)]
    texts = [{prompt.text for own in asked.values() for prompt, _ in own} for asked in splits]
    seeds = [{seed for own in asked.values() for _, seed in own} for asked in splits]
    assert not texts[0] & texts[3]
    assert texts[0] == texts[1]
    assert sum(map(len, seeds)) == len(set().union(*seeds)), "no two panels share a seed"
    trained = {
        p.text
        for name in SEQUENCES[domain]
        for p in preview_concept(make_config(name)).forget.train
    }
    assert not trained & (texts[0] | texts[3])


def test_between_marks_only_the_latest_request_is_looked_at() -> None:
    asked, names = panel("objects", 0, False), SEQUENCES["objects"]
    cell = RequestSequence("objects", 0, 0, "concept ablation", SEQUENTIAL)
    assert REQUEST_MARKS[:2] == (1, 3)
    assert list(looked_at(asked, cell, 2, False)) == [names[1]]
    third = looked_at(asked, cell, 3, False)
    assert set(names[:3]) < set(third)
    assert not set(names[3:]) & set(third)
    assert set(kept("objects")) < set(third)
    assert looked_at(asked, dataclasses.replace(cell, arm=AT_ONCE), 2, False) == {}
    assert looked_at(asked, cell, 12, False) == asked


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
    cell = RequestSequence("objects", 0, 0, "concept ablation", SEQUENTIAL)
    made = Ledger.create(folder, *cell.settings(True), list(asked))
    state = {f"x.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    gone: list[str] = []
    for number, name in enumerate(("", *names)):
        gone.append(name)
        look = {own: seen(asked, own, own not in gone) for own in asked}
        row = Request(
            name,
            "object" if name else "",
            "dog" if name else "",
            made.next_folder(name),
            10.0 * number,
            number and 3,
            float(number),
            look,
        )
        shown = dict.fromkeys(asked, Image.new("RGB", (2, 2)))
        with made.locked():
            made.base = base
            made.add(row, *[state if name else {}] * 2, shown)
    return made


def test_a_ledger_is_resumed_only_where_it_is_of_this_sequence_panel_and_model(
    tmp_path: Path,
) -> None:
    names, asked = ("cat", "fish", "ship"), panel("objects", 0, True)
    way = RequestSequence("objects", 0, 0, "concept ablation", SEQUENTIAL).settings(True)

    def rows(made: Ledger, asked=asked, base: str = "hash", names=names) -> int:
        return len(paper3.opened(made.folder, *way, asked, base, names).rows)

    assert rows(filled(tmp_path / "same", asked, "cat", "fish")) == 3
    assert rows(filled(tmp_path / "order", asked, "fish", "cat")) == 0
    assert rows(filled(tmp_path / "base", asked, "cat"), base="other") == 0
    assert rows(filled(tmp_path / "names", asked, "cat"), dict(list(asked.items())[1:])) == 0
    other = asked | {
        "ink": tuple(
            (dataclasses.replace(p, text="a dog in ink style"), s) for p, s in asked["photo"]
        )
    }
    other = {name: other["ink"] if name == "photo" else other[name] for name in asked}
    assert rows(filled(tmp_path / "prompts", asked, "cat"), other) == 0
    damaged = filled(tmp_path / "damaged", asked, "cat")
    damaged.path(1).unlink()
    assert rows(damaged) == 0
    assert rows(filled(tmp_path / "again", asked)) == 1


def test_a_state_is_about_the_same_pictures_after_every_request(tmp_path: Path) -> None:
    names, asked = SEQUENCES["objects"], panel("objects", 0, True)
    made = filled(tmp_path / "ledger", asked, "cat", "fish", "ship")
    states = [paper3.state_of(made, number, names, kept("objects")) for number in (1, 3)]
    for state in states:
        assert state["ua"] == 1.0
        assert state["original"]["ua"] == 0.0
        assert state["ra_i"] == state["ra_c"] == 1.0
        assert state["threads"] >= 1
        assert state["processes"] == 1
    assert (
        len(states[0]["pictures"]["ra_i"])
        == sum(len(asked[name]) for name in kept("objects") if name in asked)
        > 0
    )
    assert states[0]["pictures"]["ra_c"] == states[1]["pictures"]["ra_c"]
    assert states[1]["pictures"]["ua"] == "000"
    assert states[1]["cumulative_s"] == 60.0


def test_what_a_request_that_was_not_trained_would_have_taken_is_read_off_the_line() -> None:
    took = [(0, 0), (10, 3), (0, 0), (30, 9), (0, 0), (0, 0), (60, 18)]
    rows = [Request("", "object", "", "", seconds, steps, 0.0, {}) for seconds, steps in took]
    assert paper3.seconds_of(rows) == [0, 10, 20, 30, 40, 50, 60]


def test_a_plan_of_the_benchmark_is_accepted() -> None:
    for cell in grid(1):
        cell.settings(False)
    assert (
        make_plan(pictures=4)
        == RequestSequence("objects", 0, 0, "ESD", SEQUENTIAL).settings(False)[1]
    )
