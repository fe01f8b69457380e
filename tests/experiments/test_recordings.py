"""What ships recorded: small, whole, and told by a moving picture."""

from pathlib import Path

import pytest
from PIL import Image

from unlearn_app.common.paths import ASSETS
from unlearn_app.experiments.film import timeline, write_film
from unlearn_app.experiments.recordings import COLORS, FIRST, LEFT_OUT, RUNS
from unlearn_app.runs.folder import Run
from unlearn_app.settings.run_config import make_config

SHIPPED = sorted(path.parent for path in (ASSETS / "recorded").glob("*/run.json"))
MOST = {FIRST: 1_100_000}
"""Bytes of the run that ships with its adapter; others have fewer."""


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_recorded_run_is_small_and_is_what_is_recorded_under_its_name(folder: Path) -> None:
    run = Run.open(folder)
    asked = {"concept": folder.name} | dict(RUNS[folder.name])
    assert run.config == make_config(**asked)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size <= MOST.get(folder.name, 800_000)
    assert not any((folder / name).exists() for name in LEFT_OUT)
    colors = Image.open(run.pictures[0].file).convert("RGB").getcolors(4096)
    assert len(colors) <= COLORS


def test_the_moving_picture_goes_through_the_run_and_is_small(tmp_path: Path) -> None:
    run = Run.open(ASSETS / "recorded" / FIRST)
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
