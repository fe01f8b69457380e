"""Jobs keep their events for every reader, and finished runs are kept within the limits of each
visitor and of all.
"""

import os
import shutil
from pathlib import Path

import pytest

from unlearn_app.service.jobs import Job, RunStore, folder_size
from unlearn_app.settings.events import Done, Stage, Step
from unlearn_app.settings.run_config import make_config

CONFIG = make_config("cat")


@pytest.fixture
def keep(tmp_path: Path):
    """Makes stores, and keeps runs of so many bytes in the latest."""
    made: list[RunStore] = []
    away: set[str] = set()

    def store(count: int = 100, size: int = 10**9, own: int = 100, own_size: int = 10**9) -> None:
        here = lambda visitor: visitor not in away  # noqa: E731
        made.append(RunStore(count, size, own, own_size, shutil.rmtree, here, folder_size))

    def run(name: str, visitor: str, size: int = 10) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").write_bytes(b"x" * size)
        made[-1].add(Job(CONFIG, folder, visitor))

    run.store = store
    run.away = away
    run.get = lambda name, visitor: made[-1].get(name, visitor)
    run.left = lambda: sorted(path.name for path in tmp_path.iterdir())
    store()
    return run


def test_every_reader_gets_all_events_from_where_it_begins() -> None:
    job = Job(CONFIG, Path("run"), "anna")
    events = [Stage("load", "Loading", 0.0), Step("unlearn", 1, 2, {}), Done(Path("run"), False)]
    for event in events:
        job.add(event)
    assert job.take(0.0) == job.take(0.0) == events
    assert job.take(0.0, 2) == events[2:]


def test_a_job_has_a_result_from_its_first_step_on() -> None:
    job = Job(CONFIG, Path("run"), "anna")
    job.add(Stage("load", "Loading", 0.0))
    assert not job.has_result
    job.add(Step("unlearn", 1, 2, {}))
    assert job.has_result


def test_a_visitor_over_the_quota_loses_their_own_oldest(keep) -> None:
    keep.store(own=2)
    keep("ben 1", "ben")
    for number in range(1, 5):
        keep(f"anna {number}", "anna")
    assert keep.left() == ["anna 3", "anna 4", "ben 1"]


def test_bytes_count_too_but_the_last_run_stays(keep) -> None:
    keep.store(own_size=100)
    keep("ben 1", "ben", 90)
    keep("anna 1", "anna", 60)
    keep("anna 2", "anna", 500)
    assert keep.left() == ["anna 2", "ben 1"]


def test_a_full_store_takes_from_whoever_holds_most(keep) -> None:
    keep.store(count=4)
    for name in ("ben 1", "anna 1", "anna 2", "anna 3", "cem 1"):
        keep(name, name[:-2].strip())
    assert keep.left() == ["anna 2", "anna 3", "ben 1", "cem 1"]


def test_a_full_store_takes_from_those_who_are_not_here(keep) -> None:
    """Whoever comes under many names pushed out everybody with fewer runs than names."""
    keep.store(count=3)
    keep("anna 1", "anna")
    keep("anna 2", "anna")
    for number in range(1, 4):
        keep.away.add(f"nobody {number}")
        keep(f"nobody {number}", f"nobody {number}")
    assert keep.left() == ["anna 1", "anna 2", "nobody 3"]


def test_a_store_full_of_bytes_takes_from_whoever_holds_most_of_them(keep) -> None:
    keep.store(size=1000)
    keep("anna 1", "anna", 600)
    for number in range(1, 4):
        keep(f"ben {number}", "ben", 180)
    assert keep.left() == ["ben 1", "ben 2", "ben 3"]


def test_a_run_on_screen_goes_last(keep) -> None:
    keep.store(own=2)
    keep("anna 1", "anna")
    keep("anna 2", "anna")
    keep.get("anna 1", "anna")
    keep("anna 3", "anna")
    assert keep.left() == ["anna 1", "anna 3"]


def test_what_cannot_be_read_counts_nothing(tmp_path: Path, monkeypatch) -> None:
    for name in ("kept", "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * 10)
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("gone"):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert folder_size(tmp_path) == 10
