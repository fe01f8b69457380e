"""Whatever a run's records say, opening the run and all that is made of it ends in one sentence."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shipped import shipped

from unlearn_app.cli.finished_runs import finding_table
from unlearn_app.common.errors import OutputError
from unlearn_app.common.images import open_png
from unlearn_app.common.paths import ROOT
from unlearn_app.experiments.soak.nonsense import mutated
from unlearn_app.runs import report
from unlearn_app.runs.compare_runs import comparison_html
from unlearn_app.runs.findings import own_findings, read_findings, record_of, write_finding
from unlearn_app.runs.folder import Run
from unlearn_app.runs.report import open_run, report_html, report_json
from unlearn_app.runs.schema import MOST, MOST_FRAMES, MOST_MARKS
from unlearn_app.web.plots import angle_table, curve_table, loss_table
from unlearn_app.web.recordings import recorded_card, recorded_cards
from unlearn_app.web.run_html import (
    attack_cards,
    chart_text,
    comparison_table,
    cost,
    score_table,
    status,
)
from unlearn_app.web.stage import stage
from unlearn_app.web.view_state import stored_state

RECORDED = shipped("cat")
PREVIEW = f"images/{min(path.name for path in RECORDED.glob('images/preview-*-forget-*'))}"
ROUNDS = {"run.json": 180, "attacks/relearn/finding.json": 100, "steps.jsonl": 50}
"""Mutations of each record."""


def shrunk(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the first picture of each group and column only."""
    first = [entry for entry in record["pictures"] if not entry["index"]]
    curve = [
        mark | {"pictures": [entry for entry in mark["pictures"] if not entry["index"]]}
        for mark in record["curve"]
    ]
    names = [entry["file"] for entry in first] + ["steps.jsonl"]
    files = {name: record["files"][name] for name in names}
    about = {name: record["concept"][name] for name in ("text", "name", "kind", "anchor")}
    controls = {
        "never seen": [{"step": 50, "scores": {"forget": record["curve"][0]["scores"]["forget"]}}]
    }
    return record | {
        "pictures": first,
        "previews": record["previews"][:2],
        "curve": curve,
        "files": files,
        "concept": about,
        "controls": controls,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with a finding, and a link beside its pictures that leads out of it."""
    folder = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(RECORDED, folder)
    record = shrunk(json.loads((folder / "run.json").read_text()))
    (folder / "run.json").write_text(json.dumps(record))
    run = Run.open(folder)
    (own,) = own_findings(run)
    images = {Path(picture["file"]).name: picture["file"] for picture in own.pictures}
    pictures = tuple(p | {"file": Path(p["file"]).name} for p in own.pictures)
    control = {"name": "pumpkin, never seen", "hits": [True, False]}
    own = replace(own, curve=None, control=control)
    found = replace(own, pictures=pictures, proof=next(iter(images)))
    write_finding(folder, found, {name: open_png(folder / f) for name, f in images.items()})
    (folder / "out.png").symlink_to(RECORDED / "comparison.png")
    return folder


def read(folder: Path) -> None:
    """Everything that is made of a run: by the commands, the report and the page."""
    run, found = open_run(folder), read_findings(folder)
    report_html(run, found)
    json.dumps(report_json(run, found), allow_nan=False).encode()
    comparison_html([run, run]).encode()
    finding_table([*own_findings(run), *found])
    json.dumps([record_of(one) for one in found])
    state = stored_state(run)
    parts = status(state), comparison_table(state), score_table(state)
    parts += stage(state), chart_text(state), recorded_cards([recorded_card("a", state)])
    "".join([*parts, attack_cards(state.findings), cost(state)]).encode()
    loss_table(state), angle_table(state), curve_table(state)


@pytest.mark.parametrize("name", ROUNDS)
def test_no_mutation_of_a_record_is_more_than_a_sentence(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LARGEST", 8)  # smaller pictures are encoded sooner
    path, draw = folder / name, random.Random(0)
    whole, refused = path.read_text(), 0
    lines = name.endswith("l")
    for number in range(ROUNDS[name]):
        text = f"[{','.join(whole.splitlines()[::20])}]" if lines else whole
        record = mutated(json.loads(text), draw)
        text = json.dumps(record)
        path.write_text("\n".join(map(json.dumps, record)) if lines else text)
        try:
            read(folder)
        except OutputError as error:
            refused += 1
            assert "\n" not in str(error)
            assert len(str(error)) < 600
        except Exception as error:
            raise AssertionError(f"Mutation {number} of {name}: {text[:200]}") from error
        finally:
            path.write_text(whole)
    assert refused > ROUNDS[name] / 4


@pytest.mark.parametrize(
    ("name", "most"), [("pictures", MOST), ("previews", MOST_FRAMES), ("curve", MOST_MARKS)]
)
def test_more_entries_than_any_run_has_are_refused(folder: Path, name: str, most: int) -> None:
    path = folder / "run.json"
    whole = path.read_text()
    record = json.loads(whole)
    try:
        for more, refused in ((0, False), (1, True)):
            path.write_text(json.dumps(record | {name: (most + more) * record[name][:1]}))
            try:
                Run.open(folder)
                said = ""
            except OutputError as error:  # also what else is wrong with so many
                said = str(error)
            assert (f"as {name}; at most {most} items" in said) == refused
    finally:
        path.write_text(whole)


@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "steps.jsonl",
        "images/original-forget-00.png",
        PREVIEW,
        "attacks/relearn/finding.json",
        "attacks/relearn/relearned-forget-00.png",
    ],
)
def test_a_special_file_in_place_of_any_is_a_sentence(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    kept = path.rename(path.with_name("kept"))
    try:
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero" if kind == "device" else ROOT / "README.md")
        with pytest.raises(OutputError):
            read(folder)
    finally:
        path.unlink()
        kept.rename(path)


def test_what_hides_or_reorders_text_is_shown_as_escapes(folder: Path) -> None:
    path = folder / "run.json"
    whole = path.read_text()
    path.write_text(whole.replace("a cat on the beach", r"a \u202ecat \u001b[31m"))
    try:
        text = report_html(Run.open(folder)) + comparison_table(stored_state(Run.open(folder)))
    finally:
        path.write_text(whole)
    assert text.count(r"a \u202ecat \x1b[31m") > 9
    assert not {"\u202e", "\x1b"} & {*text}
