"""The benchmark of paper 3: rows, bars and claims computed right, and three requests that resume without repeating."""

import dataclasses
from pathlib import Path

import pytest

from unlearn_app.bench import paper3
from unlearn_app.bench.paper3_tables import PLAIN, Row, bars, figure, growth, judged, said, table
from unlearn_app.config import make_config, make_plan
from unlearn_app.continual import anchored
from unlearn_app.ledger import Ledger, Request, Seen
from unlearn_app.pocket.vocabulary import OBJECTS, STYLES

ROOT = Path(__file__).resolve().parent.parent
BASE = Row("objects", 0, 0, "concept ablation", PLAIN, 12, 100.0, 20.0, 50.0, 45.0, 10.0, 0.0, 20.0, 240.0)


def arm(name: str, ra_i: float, ra_c: float = 95.0, drift: float = 3.0, ua: float = 95.0) -> list[Row]:
    return [
        dataclasses.replace(BASE, arm=name, seed=seed, ra_i=ra_i + seed, ra_c=ra_c, drift=drift, ua=ua)
        for seed in range(3)
    ]


def test_the_best_arm_must_erase_and_is_held_against_every_bar() -> None:
    rows = [*arm(PLAIN, 20, 50, 10), *arm("projection", 85), *arm("nothing", 99, 99, 0.1, ua=10)]
    best, collapse, _ = bars(rows)
    assert "**projection**" in best and best.endswith(": met.") and "RA-I 86 %" in best and "drift 30 %" in best
    assert "21 ± 2" in collapse
    assert "not met" in bars([*arm(PLAIN, 20, 50, 10), *arm("projection", 85, drift=5)])[0]
    assert "No arm erases" in bars(arm(PLAIN, 20, ua=50))[0] and "not measured" in bars([])[0]


@pytest.mark.parametrize(("ra_i", "label"), [(60, "held"), (5, "not held"), (20, "undecided")])
def test_a_claim_is_decided_by_pairs(ra_i: float, label: str) -> None:
    rows = [*arm(PLAIN, 20), *(dataclasses.replace(r, ra_i=ra_i + 3 * (r.seed - 1) ** 2) for r in arm("L2", 0))]
    assert f"**{label}**" in judged(rows, "L2", lambda row: row.ra_i, "keeps more")
    spared = [dataclasses.replace(r, ua=60.0) if r.arm == "L2" else r for r in rows]
    assert "| 60 / 95 | **not comparable** |" in judged(spared, "L2", lambda row: row.ra_i, "keeps more")
    assert "not measured" in judged(rows, "TIES", lambda row: row.ra_i, "keeps more")


def test_a_line_per_arm_best_kept_first() -> None:
    lines = table([*arm(PLAIN, 20), *arm("projection", 85)], 12)
    assert lines[2].startswith("| projection | 95 ± 0 | 86 ± 2 | 95 ± 0 | 45 ± 0 | 3.00 ± 0.00 |")
    assert "sequential" in lines[3]
    assert said([]) == said([None]) == "–" and said([1.0]) == "1"
    svg = figure([BASE, dataclasses.replace(BASE, number=1), dataclasses.replace(BASE, domain="styles", arm="L2")])
    assert svg.count("<polyline") == 8 and "styles: drift" in svg and figure([]).startswith("<svg")


def test_growth_is_the_last_request_against_the_first() -> None:
    rows = [dataclasses.replace(BASE, number=1, seconds=20.0), dataclasses.replace(BASE, number=12, seconds=23.0)]
    assert growth(rows) == "1.15 times" and growth(rows[:1]) == "1.00 times"


def test_sequences_are_of_the_world_and_leave_something_alone() -> None:
    for domain, entries in (("objects", OBJECTS), ("styles", STYLES)):
        names = paper3.SEQUENCES[domain]
        assert len(names) == len(set(names)) == 12 and set(names) < {entry.name for entry in entries}
    jobs = [job for job in paper3.grid(3) if job.cut]
    assert {job.seed for job in jobs} == {0, 1, 2} and {job.arm for job in jobs} == set(paper3.ARMS)
    assert len(set(paper3.grid(3))) == len(paper3.grid(3)) > len(jobs)
    first, second = (paper3.Job("objects", order, 0, "ESD", PLAIN) for order in (0, 1))
    assert first.requests(False) == second.requests(False)[::-1]
    for job in jobs:
        job.settings(False)


def test_what_counts_as_kept_is_the_same_after_every_request_and_holds_no_anchor(tmp_path: Path) -> None:
    """Also no anchor of a request that is still to come."""
    names = paper3.SEQUENCES["objects"]
    anchors = {anchored(make_config("cat"), name, names[:place]).anchor for place, name in enumerate(names)}
    assert len(anchors) > 1 and not anchors & set(names)
    panel = {entry.name: Seen("object", (True,), 0.5) for entry in OBJECTS}
    rows = [Request(name, "object", "", "x", 1.0, 1, 1.0, panel) for name in ("", *names)]
    kept = [
        paper3.state_of(Ledger(tmp_path, make_config("cat"), make_plan(), tuple(panel), rows[: n + 1]), n, names)[
            "kept"
        ]
        for n in (1, 6, 12)
    ]
    assert kept[0] == kept[1] == kept[2] and not set(kept[0]) & (anchors | set(names)) and kept[0]
