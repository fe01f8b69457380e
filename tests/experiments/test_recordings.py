"""What ships recorded: small, whole, and told by a moving picture."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shipped import RUNS as NAMES
from shipped import shipped

from unlearn_app.common.errors import OutputError
from unlearn_app.common.paths import ASSETS
from unlearn_app.common.record_files import check_files
from unlearn_app.continual.ledger import Ledger, slug
from unlearn_app.experiments import recordings
from unlearn_app.experiments.cells import Extent
from unlearn_app.experiments.film import timeline, write_film
from unlearn_app.experiments.recordings import (
    COLORS,
    FIRST,
    LEFT_OUT,
    PANEL,
    REQUESTS,
    RUNS,
    packed_in,
)
from unlearn_app.runs.folder import Run
from unlearn_app.settings.run_config import make_config

MOST = {FIRST: 650_000}
"""Bytes of the run that ships with its adapter; others have fewer."""


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_run_is_small_and_is_what_is_recorded_under_its_name(name: str) -> None:
    run = Run.open(shipped(name))
    asked = {"concept": name} | dict(RUNS[name])
    assert run.config == make_config(**asked)
    assert packed_in(ASSETS / "recorded", name).stat().st_size <= MOST.get(name, 400_000)
    check_files(run.folder, run.record["files"], "run")
    assert not any((run.folder / name).exists() for name in LEFT_OUT)
    colors = Image.open(run.pictures[0].file).convert("RGB").getcolors(4096)
    assert len(colors) <= COLORS


def test_what_ships_recorded_is_what_the_table_names() -> None:
    assert {*NAMES} == {*RUNS}


def test_the_recorded_ledger_is_shown_whole_and_is_never_continued() -> None:
    ledger = Ledger.open(shipped("ledger"))
    assert [row.concept for row in ledger.requests] == [*REQUESTS]
    assert {*ledger.rows[0].files} == {f"panel/{n:03d}-{slug(c)}.png" for n, c in enumerate(PANEL)}
    colors = Image.open(ledger.picture(3, "dog")).convert("RGB").getcolors(4096)
    assert len(colors) <= COLORS
    for act in (lambda: ledger.rollback(1), lambda: ledger.path(3)):
        with pytest.raises(OutputError, match="was recorded to be shown and holds no adapters"):
            act()


def test_all_that_ships_fits_into_48_mebibytes() -> None:
    sizes = [path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(sizes) <= 48 * 2**20


@pytest.mark.slow
def test_the_moving_picture_goes_through_the_run_and_is_small(tmp_path: Path) -> None:
    run = Run.open(shipped(FIRST))
    moments = timeline(run)
    assert [one.phase for one in moments] == ["original"] + 4 * ["forgetting"] + 3 * ["attacked"]
    assert moments[0].count == "12/12"
    assert len({one.pictures["forget", 0].prompt for one in moments}) == 1
    assert len({one.pictures["forget", 0].seed for one in moments}) == 1
    write_film(run, tmp_path / "film.webp")
    assert (tmp_path / "film.webp").stat().st_size <= 600_000
    with Image.open(tmp_path / "film.webp") as film:
        assert film.n_frames == len(moments)
    assert (ASSETS / "readme" / "timeline.webp").stat().st_size <= 600_000


HOLD = """
import sys, time
from unlearn_app.cli import main as cli
from unlearn_app.experiments import recordings

def run(config, out, model):
    out.mkdir()
    (out / "half").write_text("x")
    print("held", flush=True)
    time.sleep(60)

recordings.load_model, recordings.run = lambda: None, run
sys.argv = ["unlearn_app", "bench", "recordings", "--smoke", "--out", sys.argv[1]]
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_process_records_at_a_time_and_its_end_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recordings, "load_model", lambda: None)
    monkeypatch.setattr(recordings, "run", interrupted)
    extent = Extent(tmp_path, smoke=True)
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"is being written by process {first.pid};"):
            list(recordings.record_missing(extent))
        first.send_signal(number)
        first.wait()
    if number == signal.SIGKILL:
        with pytest.raises(KeyboardInterrupt):
            list(recordings.record_missing(extent))
    assert [*(tmp_path / "recorded-smoke").iterdir()] == []
