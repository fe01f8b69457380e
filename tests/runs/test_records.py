"""Records of the first version are read as those that are written now."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest
from shipped import shipped

from unlearn_app.common.errors import OutputError
from unlearn_app.common.paths import ROOT
from unlearn_app.runs.findings import judge_again, read_findings
from unlearn_app.runs.folder import Run
from unlearn_app.runs.records import RUN, current_run, current_score
from unlearn_app.runs.report import report_json
from unlearn_app.settings.events import COLUMNS, GroupScore, Sampling

COMPARE = {"sampling_steps": 10, "guidance_scale": 3.0}
FIRST = {
    "schema": "unlearn-run/1",
    "status": "complete",
    "config": {
        "concept": "cat",
        "unlearn": {"steps": 30},
        "attack": {"steps": 20},
        "compare": COMPARE,
    },
    "scores": {},
    "verdict": {"label": "inconclusive", "reasons": ["No attack was run."]},
    "previews": [
        {"stage": "unlearn", "step": 8, "files": ["a.png", "b.png"], "prompts": ["a cat", "a dog"]}
    ],
    "curve": [],
    "controls": {},
    "files": {},
}


GROUPS = {
    group: {"accuracy": 1.0, "alignment": 0.5, "n": 1, "second": 0.0, "detected": 0.25}
    for group in ("forget", "near", "far")
}


def stored(column: str, **said: object) -> dict[str, object]:
    """A picture as the first version kept it."""
    place = {"column": column, "group": "forget", "index": 0, "prompt": "a cat", "seed": 900_000}
    judge = {"alignment": 0.5, "predicted": "cat", "correct": True, "file": "c.png"}
    none = {"second": None, "second_correct": None, "detected": None}
    return place | judge | none | said


STEPS = ({"stage": "unlearn", "step": 30}, {"stage": "attack", "step": 20})
"""What the last lines of steps.jsonl say."""


def opened(folder: Path, steps: Sequence[dict[str, object]] = STEPS, **values: object) -> Run:
    """A run of the first version with these values; columns before that of its pictures have one
    picture each.
    """
    shown = values.pop("pictures", [])
    reached = COLUMNS[: COLUMNS.index(shown[0]["column"]) + 1] if shown else ()
    before = [stored(column) for column in reached[:-1]]
    scores = dict.fromkeys(reached, GROUPS)
    record = FIRST | {"pictures": [*before, *shown], "scores": scores} | values
    (folder / "run.json").write_text(json.dumps(record))
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).touch()
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    return Run.open(folder)


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """The recorded run as the first version wrote it, with three pictures of each group."""
    folder = tmp_path / "cat"
    shutil.copytree(shipped("cat"), folder)
    shutil.copy(Path(__file__).with_name("first_version.json"), folder / "run.json")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for name in filter(lambda name: name.endswith(".png"), record["files"]):
        if not (folder / name).exists():  # today others are generated on the way
            shutil.copy(folder / record["pictures"][0]["file"], folder / name)
    return folder


def test_what_further_judges_said_stands_under_their_names(tmp_path: Path) -> None:
    said = {"second": "dog", "second_correct": False, "detected": 0.5}
    (picture,) = opened(tmp_path, pictures=[stored("original", **said)]).pictures
    assert picture.judges == {"pocket-second": "dog", "NudeNet": 0.5}
    assert picture.expects == "cat"


def test_one_judge_leaves_no_entry(tmp_path: Path) -> None:
    (picture,) = opened(tmp_path, pictures=[stored("original")]).pictures
    assert picture.judges == {}


@pytest.mark.parametrize(
    ("column", "moment"),
    [("original", ("unlearn", 0)), ("unlearned", ("unlearn", 30)), ("relearned", ("attack", 20))],
)
def test_a_picture_says_when_and_how_it_was_made(tmp_path: Path, column: str, moment) -> None:
    *_, picture = opened(tmp_path, pictures=[stored(column)]).pictures
    assert (picture.stage, picture.step) == moment
    assert picture.sampler == Sampling(10, 3.0)
    assert picture.file == tmp_path / "c.png"


def test_an_edit_takes_one_step_whatever_the_settings_say(tmp_path: Path) -> None:
    edited = opened(tmp_path, [{"stage": "unlearn", "step": 1}], pictures=[stored("unlearned")])
    assert edited.pictures[-1].step == 1


def test_without_an_attack_the_last_column_is_the_unlearned_model(tmp_path: Path) -> None:
    still = opened(tmp_path, [{"stage": "unlearn", "step": 30}], pictures=[stored("relearned")])
    assert (still.pictures[-1].stage, still.pictures[-1].step) == ("unlearn", 30)


@pytest.mark.parametrize("part", ["previews", "curve", "pictures"])
def test_a_first_version_that_is_not_whole_is_refused_in_a_sentence(tmp_path: Path, part) -> None:
    record = {name: value for name, value in (FIRST | {"pictures": []}).items() if name != part}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(OutputError, match="damaged"):
        Run.open(tmp_path)


def test_previews_are_pictures_like_any_other(tmp_path: Path) -> None:
    first, second = opened(tmp_path).previews
    assert (first.stage, first.step, first.prompt, first.seed) == ("unlearn", 8, "a cat", 800_000)
    assert second.file == tmp_path / "b.png"
    assert second.seed == 800_001
    assert first.sampler == Sampling(6, 3.0)


def test_the_pictures_on_the_attacks_way_say_its_step(tmp_path: Path) -> None:
    curve = [{"step": 10, "scores": GROUPS, "pictures": [stored("relearned")]}]
    ((step, groups, (picture,)),) = opened(tmp_path, curve=curve).curve
    assert (picture.stage, picture.step) == ("attack", 10)
    assert step == 10
    assert groups["near"].accuracies == {"pocket-second": 0.0}


def test_scores_hold_the_shares_of_further_judges_by_name(tmp_path: Path) -> None:
    run = opened(tmp_path, pictures=[stored("original")])
    score = run.scores["original"]["forget"]
    assert score == GroupScore(1.0, 0.5, 1, {"pocket-second": 0.0}, {"NudeNet": 0.25})
    plain = {"accuracy": 1.0, "alignment": 0.5, "n": 1}
    assert GroupScore(**current_score(plain)) == GroupScore(1.0, 0.5, 1)
    again = current_score(current_score(plain | {"second": 0.5}))
    assert again["accuracies"] == {"pocket-second": 0.5}


def test_a_whole_run_of_the_first_version_opens_with_all_its_pictures(first_version: Path) -> None:
    run = Run.open(first_version)
    assert len(run.pictures) == 27
    assert all("pocket-second" in picture.judges for picture in run.pictures)


def test_the_verdict_of_a_run_of_the_first_version_is_what_it_was(first_version: Path) -> None:
    run = Run.open(first_version)
    assert judge_again(run, []).label == run.verdict.label == "concealed"


def test_the_report_on_a_run_of_the_first_version_keeps_to_its_schema(first_version: Path) -> None:
    schema = json.loads((ROOT / "unlearn_app" / "runs" / "report.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(report_json(Run.open(first_version)))), schema)


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"unlearn-run/9.*unlearn-run/2 is accepted"):
        opened(tmp_path, schema="unlearn-run/9")


def test_a_finding_of_the_first_version_is_read(tmp_path: Path) -> None:
    picture = {"row": 0, "turn": 0, "asked": "a cat", "seed": 3, "file": "00-00.png"}
    picture |= {"alignment": 0.5, "predicted": "cat", "correct": True, "second": "dog"}
    record = {
        "schema": "unlearn-finding/1",
        "kind": "noise",
        "settings": {},
        "budget": "",
        "counts": True,
        "by_prompt": False,
        "tries": 1,
        "hits": [True],
        "first": [True],
        "control": None,
        "missing": "",
        "pictures": [picture],
        "proof": None,
        "seconds": 1.0,
        "command": "",
        "environment": {},
        "sure": 0.6,
    }
    folder = tmp_path / "attacks" / "noise"
    folder.mkdir(parents=True)
    (folder / "00-00.png").write_bytes(b"")
    (folder / "finding.json").write_text(json.dumps(record))
    (found,) = read_findings(tmp_path)
    assert found.pictures[0]["judges"] == {"pocket-second": "dog"}
    assert found.confirmed == 0


@pytest.mark.parametrize(
    ("model", "kind"), [("some/model", "style"), ("some/model", "object"), ("pocket", "style")]
)
def test_a_kind_that_an_earlier_version_guessed_is_kept(model: str, kind: str) -> None:
    config = {"concept": "zorblax", "model": model}
    record = {"schema": RUN, "config": config, "concept": {"kind": kind}}
    found = current_run(record, {})["config"]
    guessed = {} if model == "pocket" else {"concept_kind": kind}
    assert found == config | guessed
    assert config == {"concept": "zorblax", "model": model}
