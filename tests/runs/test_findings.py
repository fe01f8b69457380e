"""The run's own attack as a finding like any other, read from what the run has stored."""

import errno
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shipped import shipped

from unlearn_app.common.errors import OutputError
from unlearn_app.evaluation.finding import Finding
from unlearn_app.evaluation.verdict import judge_run, ranked
from unlearn_app.runs.findings import (
    judge_again,
    own_findings,
    read_findings,
    record_of,
    write_finding,
)
from unlearn_app.runs.folder import Run
from unlearn_app.runs.report import report_json


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.open(shipped("cat"))


@pytest.fixture(scope="module")
def own(run: Run) -> Finding:
    (finding,) = own_findings(run)
    return finding


@pytest.fixture(scope="module")
def later(own: Finding) -> Finding:
    """One that is stored, whose control was attacked prompt by prompt."""
    return replace(own, control={"name": "pumpkin, never seen", "hits": [True, False]})


def test_it_counts_what_the_third_column_shows_above_the_second(run: Run, own: Finding) -> None:
    shown = run.scores["relearned"]["forget"].accuracy
    assert own.share == shown
    assert own.points <= shown - run.scores["unlearned"]["forget"].accuracy
    assert ranked([own]) == [own]


def test_its_curve_goes_from_the_unlearned_model_to_the_last_step(run: Run, own: Finding) -> None:
    steps = [step for step, _ in own.curve.points]
    assert steps[0] == 0
    assert steps[-1] == own.curve.steps == run.config.attack.steps
    assert own.curve.points[-1][1] == own.share


def test_its_pictures_are_those_of_the_run(run: Run, own: Finding) -> None:
    assert all((run.folder / picture["file"]).is_file() for picture in own.pictures)
    assert [picture["correct"] for picture in own.pictures] == list(own.hits)
    assert own.proof in {picture["file"] for picture in own.pictures if picture["correct"]}


def test_the_verdict_of_a_run_follows_from_its_record(run: Run) -> None:
    assert judge_run(run.scores, own_findings(run)) == run.verdict


def test_a_run_that_was_not_attacked_has_none(run: Run) -> None:
    config = run.record["config"] | {"attack": run.record["config"]["attack"] | {"steps": 0}}
    assert own_findings(Run(run.folder, run.record | {"config": config})) == []


def test_what_is_derived_from_the_run_is_not_stored_with_a_finding(own: Finding) -> None:
    assert not {"curve", "counted", "folder"} & set(record_of(own))


def test_of_its_control_it_says_how_many_and_not_which(run: Run, own: Finding) -> None:
    right, n = run.base.marks[run.config.attack.steps]
    assert own.control == {"name": f"{run.base.name}, never seen", "right": right, "n": n}
    assert own.control_counts == (right, n)
    assert own.base == right / n
    which = {"name": "x", "hits": [True] * right + [False] * (n - right)}
    assert replace(own, curve=None).excess == replace(own, curve=None, control=which).excess


def test_a_finding_that_is_still_being_written_is_not_read(
    run: Run, later: Finding, tmp_path: Path
) -> None:
    found = replace(later, pictures=({**later.pictures[0], "file": "a.png"},), proof="a.png")
    folder = write_finding(tmp_path, found, {"a.png": Image.new("RGB", (8, 8))})
    shutil.copytree(folder, folder.with_name(".relearn-2.1-0.partial"))
    assert [finding.folder for finding in read_findings(tmp_path)] == [folder]


def test_a_picture_of_a_finding_is_the_one_that_was_written(later: Finding, tmp_path: Path) -> None:
    found = replace(later, pictures=({**later.pictures[0], "file": "a.png"},), proof="a.png")
    folder = write_finding(tmp_path, found, {"a.png": Image.new("RGB", (8, 8))})
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    with pytest.raises(OutputError, match=r"a\.png is not the file that was recorded"):
        read_findings(tmp_path)
    record = json.loads((folder / "finding.json").read_text(encoding="utf-8"))
    del record["files"]  # as earlier versions wrote it
    (folder / "finding.json").write_text(json.dumps(record), encoding="utf-8")
    assert len(read_findings(tmp_path)) == 1


def test_a_full_disk_keeps_what_was_found_without_its_pictures(
    run: Run, later: Finding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    found = replace(later, pictures=({**later.pictures[0], "file": "a.png"},), proof="a.png")
    with pytest.raises(OutputError, match=r"No space left.* found is kept, without its pictures"):
        write_finding(tmp_path, found, {"a.png": Image.new("RGB", (8, 8))})
    (read,) = read_findings(tmp_path)
    assert (read.hits, read.control, read.pictures) == (later.hits, later.control, ())
    assert "The attack relearn shows it at" in " ".join(judge_again(run, [read]).reasons)
    assert report_json(run, [read])["attacks"][-1]["pictures"] == []
    assert [path.name for path in (tmp_path / "attacks").iterdir()] == ["relearn"]


@pytest.mark.parametrize("kind", ["link", "loop", "file"])
def test_nothing_is_written_where_the_folder_of_findings_is_none(
    later: Finding, tmp_path: Path, kind: str
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for folder in (run, elsewhere):
        folder.mkdir()
    place = run / "attacks"
    if kind == "file":
        place.write_bytes(b"x")
    else:
        place.symlink_to(elsewhere if kind == "link" else place)
    found = replace(later, pictures=({**later.pictures[0], "file": "a.png"},), proof="a.png")
    with pytest.raises(OutputError, match="attacks is no folder"):
        write_finding(run, found, {"a.png": Image.new("RGB", (8, 8))})
    with pytest.raises(OutputError, match="attacks is no folder"):
        read_findings(run)
    assert list(elsewhere.iterdir()) == []


def test_a_number_that_is_not_finite_prevents_no_finding(
    run: Run, later: Finding, tmp_path: Path
) -> None:
    picture = later.pictures[0] | {"file": "a.png", "alignment": math.nan}
    found = replace(later, pictures=(picture,), proof=None, seconds=math.inf)
    write_finding(tmp_path, found, {"a.png": Image.new("RGB", (8, 8))})
    (read,) = read_findings(tmp_path)
    assert (read.pictures[0]["alignment"], read.seconds) == (None, None)
