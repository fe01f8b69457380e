"""The benchmark of the page: how what it says is held against what happens, its tables, and all of
it at its smallest in a browser.
"""

import json
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import pytest

from unlearn_app.cli.main import OF_MODELS
from unlearn_app.experiments.app_process import AppProcess
from unlearn_app.experiments.cells import Extent, bench, read_cells
from unlearn_app.experiments.page import visit
from unlearn_app.experiments.page.measure import ASKED, NOT_KNOWN, PageBench, write_results
from unlearn_app.experiments.page.time_left import (
    EVERY_S,
    Shown,
    errors,
    judged,
    looks,
    moved,
    rises,
    seconds_said,
)

OVER = 30.0
TIMES = [EVERY_S * n for n in range(1, int(OVER / EVERY_S))]


def exactly(seconds: float | None) -> tuple[float, float] | None:
    return None if seconds is None else (seconds, seconds)


def said(factor: float) -> list[tuple[float, tuple[float, float]]]:
    """Looks at a page that says so many times what is left."""
    return [(at, exactly(factor * (OVER - at))) for at in TIMES]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("step 3 of 40 · about 40 s left", (40.0, 40.0)),
        ("about 2 min left, slower than expected", (120.0, 120.0)),
        ("about 1.5 min left", (90.0, 90.0)),
        ("step 3 of 40 · less than 10 s left, slower than expected", (0.0, 10.0)),
        ("step 3 of 40", None),
        ("", None),
    ],
)
def test_the_words_of_the_page_are_seconds(text: str, seconds: tuple[float, float] | None) -> None:
    assert seconds_said(text) == seconds


@pytest.mark.parametrize("factor", [1.0, 1.2, 0.7])
def test_an_error_is_a_share_of_the_true_time(factor: float) -> None:
    """Shares of what was said would be 0.17 and -0.43 where these are 0.2 and -0.3."""
    found = errors(said(factor), OVER)
    assert found == [pytest.approx(factor - 1)] * len(found)


def test_errors_count_from_the_first_third_until_little_is_left() -> None:
    """Of 30 s those from 10 to 27, both included, every half second."""
    wild = [(at, exactly(OVER - at if 10 <= at <= 27 else 1000.0)) for at in TIMES]
    assert errors(wild, OVER) == [0.0] * 35
    early = [(at, exactly(1000.0) if at == 10.0 else left) for at, left in wild]
    late = [(at, exactly(0.0) if at == 27.0 else left) for at, left in wild]
    assert max(errors(early, OVER)) == pytest.approx((1000 - 20) / 20)
    assert min(errors(late, OVER)) == -1.0


def test_less_than_ten_seconds_is_wrong_only_while_more_are_left() -> None:
    """From 15 s before the end on, of 10 s at most."""
    seen = [(at, (0.0, 10.0)) for at in TIMES if at >= 15]
    found = errors(seen, OVER)
    assert found[0] == pytest.approx((10 - 15) / 15)
    assert found[10:] == [0.0] * 15


def test_a_look_sees_what_was_shown_last() -> None:
    nine, eight = exactly(9.0), exactly(8.0)
    shown = [Shown(1.2, "a", None, 0.0), Shown(1.6, "a", nine, 0.1), Shown(1.9, "a", eight, 0.2)]
    said = [None, None, None, eight, eight]
    assert looks(shown, 3.0) == [(EVERY_S * n, left) for n, left in enumerate(said, 1)]


def test_silence_is_no_error_but_is_counted() -> None:
    shown = [Shown(0.0, "a", None, 0.0), Shown(14.9, "a", exactly(15.0), 0.5)]
    shown += [Shown(20.0, "a", exactly(5.0), 0.6)]
    found = judged(shown, OVER)
    assert found["judged"] == 35
    assert found["unsaid"] == 10  # from 10 to 14.5
    assert found["worst"] == pytest.approx((5 - 3) / 3)  # at 27
    true = [OVER - at for at in TIMES if 15 <= at <= 27]
    off = [abs((15 if left > 10 else 5) - left) / left for left in true]
    assert found["mean"] == pytest.approx(sum(off) / len(off))


def test_the_worst_error_keeps_its_sign() -> None:
    found = judged([Shown(0.0, "a", exactly(4.0), 0.0)], OVER)
    assert found["worst"] == pytest.approx(-0.8)  # 4 of 20 at 10 s
    assert found["mean"] < 0.8


@pytest.mark.parametrize(
    ("left", "count"),
    [
        ([20, 18, 17], 0),
        ([20, 18, 19], 0),
        ([20, 18, 19.5], 1),
        ([20, 18, None, 19.5], 1),
        ([20, 25, 24, 30], 2),
        ([None, None, 20], 0),
        ([], 0),
    ],
)
def test_rises_are_counted(left: list[float | None], count: int) -> None:
    assert rises([(float(n), exactly(seconds)) for n, seconds in enumerate(left)]) == count


def test_a_bound_rises_only_when_more_than_it_is_left() -> None:
    assert rises([(0.0, exactly(8.0)), (1.0, (0.0, 10.0)), (2.0, exactly(11.0))]) == 0
    assert rises([(1.0, (0.0, 10.0)), (2.0, exactly(11.5))]) == 1


def test_a_stage_moves_the_bar_when_it_comes_further_than_any_before() -> None:
    """The second stage moves it within itself only, from where the bar should not have been."""
    shown = [
        Shown(0, "load", None, 0.0),
        Shown(1, "load", None, 0.3),
        Shown(2, "train", None, 0.1),
        Shown(3, "train", None, 0.3),
        Shown(4, "write", None, 0.4),
    ]
    assert moved(shown) == (2, 3)
    assert moved([Shown(0, "load", None, 0.0)]) == (0, 1)


def test_a_run_that_is_too_short_is_not_judged() -> None:
    found = judged([Shown(0.1, "load", exactly(2.0), 0.1)], 3.0)
    assert (found["judged"], found["worst"], found["mean"]) == (0, None, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cells = tmp_path / "page"
    cells.mkdir()
    arrived = {"ready_s": 5.04, "picture_s": 0.96, "shift": 0.0123, "bytes": 1_234_567}
    arrived |= {"requests": 130, "elsewhere": 0, "browser": "1.2", "processor": "A CPU, AVX2"}
    run = {"concept": "rose", "seconds": 61.2, "picture_s": 3.3, "judged": 70, "unsaid": 2}
    run |= {"worst": -0.314, "mean": 0.08, "rises": 1, "stages_moved": 6, "stages": 7}
    short = run | {"worst": None, "mean": None}
    stored = {
        "arrival-1280-720": ({"kind": "arrival", "window": [1280, 720]}, arrived),
        "arrival-390-844": ({"kind": "arrival", "window": [390, 844]}, arrived | {"shift": 0.5}),
        "runs": (
            {"kind": "runs", "window": [1280, 720]},
            {"runs": {"first run": run, "second run": short}, "stop_s": 0.12, "peak_gb": None},
        ),
    }
    for name, (config, values) in stored.items():
        (cells / f"{name}.json").write_text(json.dumps({"config": config, "values": values}))
    return cells


def test_the_tables_tell_what_was_measured(folder: Path) -> None:
    text = write_results(folder)
    assert "| arrival | bar | 1280 x 720 | 390 x 844 |" in text
    assert "| layout shift | ≤ 0.05 | 0.012 | 0.500 |" in text
    assert "| weight, kB | – | 1,235 | 1,235 |" in text
    assert "| first run | rose | 61 | 3.3 | -31 % | 8 % | 70, 2 | 1 | 6 of 7 |" in text
    assert f"| second run | rose | 61 | 3.3 | {NOT_KNOWN} | {NOT_KNOWN} | 70, 2 |" in text
    assert "answered in 0.1 s" in text
    assert "GB at most" not in text
    assert "A CPU, AVX2" in text
    assert folder.with_suffix(".md").read_text() == text


def test_it_is_asked_for_by_name_only() -> None:
    """It needs a browser, and measures no model."""
    assert "page" not in OF_MODELS


@pytest.mark.slow
def test_everything_is_measured_in_a_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each window arrives at an app that has just started; the runs are of the second of them."""
    experiment, apps = PageBench(Extent(tmp_path, smoke=True)), []
    with ExitStack() as running:

        def app(folder: Path, **variables: str) -> AbstractContextManager[AppProcess]:
            if len(apps) < 2:
                place = tmp_path / f"app-{len(apps)}"
                variables = {name: str(place / "store") for name in variables}
                apps.append(running.enter_context(AppProcess(place, **variables)))
            return nullcontext(apps[-1])

        monkeypatch.setattr(visit, "AppProcess", app)
        *lines, text = bench(experiment)
    assert len(lines) == 3
    cells = {key: values for key, (_, values) in read_cells(experiment.folder).items()}
    for arrived in (cells["arrival-1280-720"], cells["arrival-390-844"]):
        assert min(arrived["ready_s"], arrived["picture_s"]) > 0
        assert arrived["requests"] > 50
        assert 300_000 < arrived["bytes"] < 5_000_000
        assert arrived["elsewhere"] == 0
        assert 0 < arrived["shift"] < 0.05
    ran = cells["runs-1280-720"]
    assert list(ran["runs"]) == list(ASKED)
    for run in ran["runs"].values():
        assert 0 < run["picture_s"] < run["seconds"]
        assert run["stages"] >= 4
        assert run["stages_moved"] > 0
        assert max(one["at"] for one in run["shown"]) < run["seconds"]
    assert ran["stop_s"] > 0
    assert "| same again | rose |" in text
