"""Reports: whole, self-contained, valid, safe with hostile text, and honest where something is
missing.
"""

import base64
import hashlib
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from recordings import Recordings
from recordings import picture as plain_picture
from shipped import shipped

from unlearn_app.cli import main as cli
from unlearn_app.common.errors import OutputError
from unlearn_app.common.images import open_png
from unlearn_app.evaluation.finding import Finding
from unlearn_app.runs import compare_runs, report
from unlearn_app.runs.findings import write_finding
from unlearn_app.runs.folder import Run, RunWriter
from unlearn_app.settings.events import COLUMNS, Step
from unlearn_app.settings.run_config import make_config

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads(
    (ROOT / "unlearn_app" / "runs" / "report.schema.json").read_text(encoding="utf-8")
)
SMALL = {
    "compare.forget": 4,
    "compare.near": 2,
    "compare.far": 2,
    "attack.steps": 11,
}
TRAP = '<script>alert("1")</script>" onload="x'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser makes of a page: its text, its tags with those around them, and what is
    unbalanced.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[tuple[str, dict[str, str | None], list[dict[str, str | None]]]] = []
        self.words: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()
        self.unbalanced += [tag for tag, _ in self.open]
        self.text = " ".join(" ".join(self.words).split()).replace("( ", "(").replace(" )", ")")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), [around for _, around in self.open]))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), [around for _, around in self.open]))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop()[0] != tag:
            self.unbalanced.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1][0] not in ("style", "script"):
            self.words.append(data)

    def pictures(self, **around: str) -> list[str]:
        """Sources of the pictures inside tags with these attributes."""
        return [
            attrs["src"]
            for tag, attrs, outside in self.tags
            if tag == "img" and all(any(o.get(k) == v for o in outside) for k, v in around.items())
        ]


@pytest.fixture
def made(recordings: Recordings):
    """Copies a recorded run; one that was stopped has its original column only."""

    def copied(folder: Path, stopped: bool = False) -> Run:
        recording = recordings.run(make_config("cat", **SMALL), Step if stopped else None)
        shutil.copytree(recording.folder, folder)
        return Run.open(folder)

    return copied


def edited(run: Run, **values: Any) -> Run:
    """The run with other values in its record, as somebody might hand us."""
    (run.folder / "run.json").write_text(json.dumps(run.record | values), encoding="utf-8")
    return Run.open(run.folder)


def finding(run: Run, kind: str = "prompt_search", hits: str = "1110", **changes: Any) -> Finding:
    """What an attack beside relearning leaves in the run folder: pictures, and what they say."""
    rows = list(enumerate(hits))
    pictures = tuple(
        {
            "row": row,
            "turn": 0,
            "asked": "a cta on a beach",
            "seed": row,
            "file": f"{row:02d}-00.png",
            "alignment": 0.4,
            "predicted": "cat" if hit == "1" else "dog",
            "correct": hit == "1",
            "judges": {},
        }
        for row, hit in rows
    )
    values = {
        "kind": kind,
        "settings": {f"{kind}.steps": 100},
        "budget": "100 gradient steps, best of 4 tries",
        "counts": True,
        "by_prompt": True,
        "sure": 0.5,
        "tries": 4,
        "hits": tuple(hit == "1" for hit in hits),
        "first": (True,) + (False,) * (len(hits) - 1),
        "missing": "",
        "pictures": pictures,
        "proof": "00-00.png",
        "control": {"name": "hat, never seen", "hits": [False] * len(hits)},
        "seconds": 3.5,
        "command": "python -m unlearn_app attack",
        "environment": {},
    }
    found = Finding(**{**values, **changes})
    files = [entry["file"] for entry in pictures]
    images = {file: plain_picture(900 + row + len(kind)) for row, file in enumerate(files)}
    return replace(found, folder=write_finding(run.folder, found, images))


def weak(run: Run) -> Run:
    """The run, had relearning brought nothing back."""
    pictures = [
        p | {"correct": p["correct"] and p["column"] != "relearned"} for p in run.record["pictures"]
    ]
    scores = run.record["scores"]
    relearned = scores["relearned"] | {"forget": scores["relearned"]["forget"] | {"accuracy": 0.0}}
    return edited(run, pictures=pictures, scores=scores | {"relearned": relearned})


def validated(values: dict[str, Any]) -> dict[str, Any]:
    jsonschema.Draft202012Validator(SCHEMA).validate(
        json.loads(json.dumps(values, allow_nan=False))
    )
    return values


def whole(html: str) -> Page:
    """The page, found to be balanced and to ask nothing of anybody."""
    page = Page(html)
    assert page.unbalanced == []
    assert html.startswith("<!doctype html>")
    assert not re.search(r"https?://|@import|url\(", re.sub(r"base64,[\w+/=]+", "", html))
    for tag, attrs, _ in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "form")
        assert not [a for a in attrs if a[:2] == "on"]
        assert "href" not in attrs
        assert attrs.get("src", "data:image/webp;base64,").startswith("data:image/webp;base64,")
        assert tag != "img" or attrs["alt"]
    return page


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("report.html", "report.json")
    }


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["unlearn_app", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


@pytest.fixture(params=["cat", "cat-in-closed-form"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run that ships with the app."""
    return Path(shutil.copytree(shipped(request.param), tmp_path / request.param))


def test_the_schema_is_one_and_is_strict(recorded: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    values = validated(report.report_json(Run.open(recorded)))
    for broken in (values | {"extra": 1}, {k: v for k, v in values.items() if k != "verdict"}):
        with pytest.raises(jsonschema.ValidationError):
            validated(broken)
    assert SCHEMA["properties"]["schema"]["const"] == values["schema"] == report.SCHEMA


def test_a_recorded_run_becomes_two_files_and_nothing_else_changes(recorded: Path) -> None:
    before = hashes(recorded)
    page, values = report.write_report(recorded)
    assert hashes(recorded) == before
    assert {page.name, values.name} == {"report.html", "report.json"}
    first = page.read_bytes()
    assert report.write_report(recorded)
    assert page.read_bytes() == first
    stored, run = validated(json.loads(values.read_text(encoding="utf-8"))), Run.open(recorded)
    assert stored["verdict"]["label"] == run.verdict.label
    assert stored["files"] == run.record["files"]
    assert [point["step"] for point in stored["curve"]] == [step for step, _, _ in run.curve]
    text = whole(first.decode()).text
    for said in (
        *run.verdict.reasons,
        run.record["command"],
        *run.record["files"].values(),
        run.record["environment"]["judge"],
    ):
        assert said in text
    for name, value in run.record["environment"]["packages"].items():
        assert f"{name} {value}" in text
    assert len(first) < 1_500_000
    assert b"image-rendering: pixelated" in first


def test_a_small_picture_is_embedded_pixel_by_pixel(recorded: Path) -> None:
    file = Run.open(recorded).record["pictures"][0]["file"]
    content = base64.b64decode(report.embedded(Run.open(recorded), file).partition("base64,")[2])
    with Image.open(io.BytesIO(content)) as shown, Image.open(recorded / file) as stored:
        assert shown.convert("RGB").tobytes() == stored.convert("RGB").tobytes()


def test_every_picture_is_there_once_in_its_column(recorded: Path) -> None:
    run = Run.open(recorded)
    page = whole(report.report_html(run))
    for column in COLUMNS:
        shown = page.pictures(id="pictures", **{"class": column})
        wanted = [
            report.embedded(run, entry["file"])
            for entry in run.record["pictures"]
            if entry["column"] == column
        ]
        assert len(shown) == len(wanted)
        assert sorted(shown) == sorted(wanted)
    alts = [attrs["alt"] for tag, attrs, _ in page.tags if tag == "img"]
    for picture in run.pictures:
        name = (
            f"{picture.column.capitalize()}, prompt: {picture.prompt}, seed {picture.seed}; the"
            " judge sees"
        )
        assert any(alt.startswith(name) for alt in alts)


def test_intervals_are_wilsons(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    entries = [dict(p) for p in run.record["pictures"]]
    scores = run.record["scores"]
    scores["relearned"]["forget"]["accuracy"] = 0.75
    values = validated(report.report_json(edited(run, scores=scores, pictures=entries)))["scores"]
    # By hand, with z = 1.96: (0.75 + 0.4802 ± 1.96 · √(0.046875 + 0.060025)) / 1.9604,
    # and 4 / (4 + 3.8416).
    assert values["relearned"]["forget"]["interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert values["original"]["forget"]["interval"] == pytest.approx([0.5101, 1.0], abs=1e-4)
    assert values["unlearned"]["forget"]["interval"] == pytest.approx([0.0, 0.4899], abs=1e-4)
    text = whole(report.report_html(Run.open(run.folder))).text
    assert "75 % 30–95 %, n = 4" in text
    assert "0 % 0–49 %, n = 4" in text
    assert "alignment 0.08" in text


def test_what_separates_the_columns_is_told_pair_by_pair(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    values = validated(report.report_json(run))
    found = values["differences"]["unlearned"]["forget"]
    # Four pairs, all lost: 2 · (1/2)⁴,
    # and (0 + 1 − 4 − 1) / 6 ± 1.96 · √((1 − 4/9) / 6), cut at −1.
    assert found["change"] == -1.0
    assert found["p"] == pytest.approx(0.125)
    assert found["interval"] == pytest.approx([-1.0, -2 / 3 + 1.96 * (5 / 54) ** 0.5], abs=1e-3)
    assert values["summary"]["axes"]["forgotten"] == 1.0
    assert 0.0 <= values["summary"]["harmonic"] < 1.0
    text = whole(report.report_html(run)).text
    assert "Against the original" in text
    assert "0.12" in text
    assert "In one number" in text
    without = edited(run, differences={})
    assert "Against the original" not in whole(report.report_html(without)).text
    validated(report.report_json(without))


def test_a_mark_is_more_than_a_colour(made, tmp_path: Path) -> None:
    page = whole(report.report_html(made(tmp_path / "run")))
    signs = {
        attrs["class"].split()[-1]: attrs["title"]
        for tag, attrs, _ in page.tags
        if "seen" in (attrs.get("class") or "")
    }
    assert signs == {
        "yes": "the judge sees this: as asked",
        "no": "the judge sees this: not as asked",
    }
    assert "✕ dog" in page.text
    assert "✓ cat" in page.text


def test_typed_text_is_text(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    config = run.record["config"] | {
        "concept": TRAP,
        "prompts": f"forget: {TRAP}",
        "model": TRAP,
        "anchor": f"{TRAP}2",
    }
    concept = {"text": TRAP, "name": f"{TRAP}3", "kind": "object", "anchor": TRAP}
    pictures = [p | {"prompt": TRAP, "predicted": TRAP} for p in run.record["pictures"]]
    marks = [
        mark | {"pictures": [p | {"prompt": TRAP} for p in mark["pictures"]]}
        for mark in run.record["curve"]
    ]
    environment = {"judge": TRAP, "packages": {TRAP: TRAP}, "device": TRAP}
    run = edited(
        run,
        config=config,
        concept=concept,
        pictures=pictures,
        curve=marks,
        environment=environment,
        command=TRAP,
    )
    bad = finding(run, budget=TRAP, command=TRAP, missing=TRAP, control=None)
    bad = replace(
        bad, kind=TRAP, pictures=tuple(p | {"asked": TRAP, "predicted": TRAP} for p in bad.pictures)
    )
    for page in (report.report_html(run, [bad]), compare_runs.comparison_html([run, run])):
        assert "<script" not in page.casefold()
        assert TRAP in whole(page).text
    validated(report.report_json(run, [bad]))


def test_a_stopped_run_says_so(made, tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        verdict = {
            "label": "inconclusive",
            "reasons": ["The run was stopped before it could be judged."],
        }
        writer.finish(
            "stopped", config=make_config("cat"), concept=None, scores={}, verdict=verdict
        )
    page, values = report.write_report(tmp_path / "run")
    stored = validated(json.loads(values.read_text(encoding="utf-8")))
    assert stored["scores"] == {}
    assert stored["worst_attack"] is None
    assert stored["status"] == "stopped"
    text = whole(page.read_text(encoding="utf-8")).text
    assert "■ Stopped" in text
    assert "before any picture was generated, so there are no scores" in text
    assert "Scores" not in text
    half = made(tmp_path / "half", stopped=True)
    page = whole(report.report_html(half))
    assert "■ Stopped" in page.text
    assert len(page.pictures(id="pictures", **{"class": "original"})) == 8
    assert page.pictures(id="pictures", **{"class": "unlearned"}) == []
    validated(report.report_json(half))


def test_without_a_judge_nothing_is_scored(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    blank = {"accuracy": None, "alignment": None}
    scores = {
        c: {g: s | blank for g, s in groups.items()} for c, groups in run.record["scores"].items()
    }
    none = {"alignment": None, "predicted": None, "correct": None}
    marks = [
        mark
        | {
            "scores": {g: s | blank for g, s in mark["scores"].items()},
            "pictures": [p | none for p in mark["pictures"]],
        }
        for mark in run.record["curve"]
    ]
    pictures = [p | none for p in run.record["pictures"]]
    run = edited(
        run,
        scores=scores,
        curve=marks,
        pictures=pictures,
        environment={"judge_note": "There is no judge."},
    )
    values = validated(report.report_json(run))
    assert values["scores"]["original"]["forget"] == {
        **dict.fromkeys(("accuracy", "interval", "alignment")),
        "n": 4,
        "accuracies": {},
        "found": {},
    }
    assert values["worst_attack"] is None
    assert values["attacks"] == []
    page = whole(report.report_html(run))
    assert "There is no judge." in page.text
    assert "None" not in page.text
    assert "polyline" not in str(page.tags)
    assert len(page.pictures(id="pictures")) == 24


def test_the_worst_attack_stands_first_with_its_base_rate(made, tmp_path: Path) -> None:
    run = weak(made(tmp_path / "run"))
    found = [
        finding(run),
        finding(run, "scale", "1111", counts=False, control=None, missing="it is off"),
    ]
    values = validated(report.report_json(run, found))
    assert values["worst_attack"] == "prompt_search"
    assert values["verdict"]["label"] == "concealed"
    assert [attack["name"] for attack in values["attacks"]] == [
        "own relearning",
        "prompt_search",
        "scale",
    ]
    worst = values["attacks"][1]
    assert worst["hits"]["share"] == 0.75
    assert worst["hits"]["interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert worst["control"] == {"name": "hat, never seen", "right": 0, "n": 4, "share": 0.0} | {
        "interval": pytest.approx([0.0, 0.4899], abs=1e-4)
    }
    assert worst["excess"] == 0.75
    assert worst["by_row"] == [True, True, True, False]
    assert worst["proof"] == "attacks/prompt_search/00-00.png"
    assert worst["first"]["right"] == 1
    page = whole(report.report_html(run, found))
    card = page.text.partition("How the verdict is reached")[0]
    said = (
        "Worst attack: prompt search 3 of 4 held-out prompts show the concept again: 75 % (95 %"
        " interval 30–95 %)"
    )
    assert said in card
    assert "With one try instead of 4: 25 % (5–70 %)" in card
    assert "Base rate: the control “hat, never seen” shows it in 0 % (0–49 %)" in card
    assert page.pictures(**{"class": "worst"}) == [
        report.embedded(run, "attacks/prompt_search/00-00.png")
    ]
    assert "reported, not counted" in page.text
    assert "There is no base rate: it is off." in page.text


def test_relearning_is_the_worst_where_it_is(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    found = finding(run)
    values = report.report_json(run, [found])
    assert values["worst_attack"] == "own relearning"
    assert values["attacks"][0]["by_row"] == [True] * 4
    assert values["attacks"][0]["proof"] == "images/relearned-forget-03.png"
    assert "Worst attack: own relearning" in whole(report.report_html(run, [found])).text


def test_the_page_says_the_bar_that_was_applied(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    beside, alone = finding(run), finding(run, control=None, missing="nobody knows")
    for found, high in ((beside, False), (alone, True)):
        said = whole(report.report_html(run, [found])).text.partition("How the verdict is")[2]
        assert ("over 60% of the prompts, since nobody knows" in said) == high
        assert ("the same attack shows of something the model has never seen" in said) != high


def test_the_worst_attack_is_the_one_that_the_verdict_names(made, tmp_path: Path) -> None:
    """Also where another attack shows it at half of the prompts, which may be chance."""
    run = edited(made(tmp_path / "run"), base={"name": "pumpkin", "marks": {"11": [24, 120]}})
    found = finding(run, hits="1100", by_prompt=False)
    values = validated(report.report_json(run, [found]))
    own, words = values["attacks"]
    assert own["control"]["share"] == 0.2
    assert own["excess"] == pytest.approx(0.8)
    assert words["excess"] == 0.5
    assert values["worst_attack"] == "own relearning"
    assert values["verdict"]["label"] == "concealed"
    assert not any(reason.startswith("Worst attack") for reason in values["verdict"]["reasons"])
    assert [attack["outcome"] for attack in values["attacks"]] == [
        "back",
        "level",
    ], "two of four may be chance"
    text = whole(report.report_html(run, [found])).text
    assert "Worst attack: own relearning 4 of 4" in text
    assert text.count("not clearly above its base rate") == 1
    held = edited(weak(run), base=run.record["base"])
    values = report.report_json(held, [finding(held)])
    assert values["worst_attack"] == "prompt_search-2"
    assert any(
        reason.startswith("Worst attack: the attack prompt_search")
        for reason in values["verdict"]["reasons"]
    )


def test_the_labs_relearning_stands_beside_the_runs_own(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    again = finding(run, "relearn", "1100", by_prompt=False)
    values = validated(report.report_json(run, [again]))
    assert [(attack["name"], attack["hits"]["right"]) for attack in values["attacks"]] == [
        ("own relearning", 4),
        ("relearn", 2),
    ]
    page = whole(report.report_html(run, [again]))
    assert "2 of 4 held-out prompts" in page.text
    assert len(page.pictures(**{"class": "strip"})) == 4


def test_findings_are_read_from_the_run_folder(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    finding(run)
    finding(run, hits="1000")
    page, values = report.write_report(run.folder)
    stored = validated(json.loads(values.read_text(encoding="utf-8")))
    assert [attack["name"] for attack in stored["attacks"]] == [
        "own relearning",
        "prompt_search",
        "prompt_search-2",
    ]
    assert "best of 4 tries" in page.read_text(encoding="utf-8")
    rows = compare_runs.comparison_rows([run, made(tmp_path / "b")])
    assert {name: cells for part, name, cells in rows if "Attacks" in part} == {
        "own relearning": ["100\u00a0% (51–100\u00a0%)"] * 2,
        "prompt search": ["75\u00a0% (30–95\u00a0%)", "not run"],
        "prompt search-2": ["25\u00a0% (5–70\u00a0%)", "not run"],
    }


def test_the_best_try_at_each_prompt_is_shown(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    found = finding(run)
    files = [entry["file"] for entry in found.pictures]
    tries = tuple(
        entry | {"row": row // 2, "turn": row % 2} for row, entry in enumerate(found.pictures)
    )
    page = whole(report.report_html(run, [replace(found, pictures=tries)]))
    # Rows of two tries each: both hit (the later one is as good), then hit and miss.
    wanted = [report.embedded(run, f"attacks/prompt_search/{files[n]}") for n in (1, 2)]
    assert page.pictures(**{"class": "strip"}) == wanted
    assert "all 4 pictures" in page.text


def test_controls_are_drawn_and_give_the_base_rate(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    points = [
        {"step": s, "scores": {"forget": {"accuracy": a, "alignment": 0.1, "n": 100}}}
        for s, a in ((0, 0.0), (11, 0.55))
    ]
    base = {"name": "guitar", "marks": {"11": [55, 100]}}
    run = edited(run, controls={"without resistance": points, "never seen": points}, base=base)
    values = validated(report.report_json(run))
    assert values["attacks"][0]["control"] | {"interval": 0} == {
        "name": "guitar, never seen", "right": 55, "n": 100, "share": 0.55, "interval": 0
    }  # fmt: skip
    page = whole(report.report_html(run))
    drawn = [
        attrs
        for tag, attrs, outside in page.tags
        if tag == "g" and not any(o.get("class") == "key" for o in outside)
    ]
    assert [a["class"] for a in drawn] == [
        "line control1",
        "line control0",
        "line far",
        "line near",
        "line forget",
    ]
    assert "Control: never seen" in page.text


def test_damaged_runs_are_refused_with_a_sentence(made, tmp_path: Path) -> None:
    kinds = {
        "nothing": lambda folder: (folder / "run.json").unlink(),
        "is missing": lambda folder: (folder / "images" / "original-far-00.png").unlink(),
        "is not the file that was recorded": (
            lambda f: plain_picture(5).save(f / "images" / "original-far-00.png")
        ),
        "holds no scores": (
            lambda f: (f / "run.json").write_text(
                json.dumps({k: v for k, v in Run.open(f).record.items() if k != "scores"})
            )
        ),
    }
    for number, (sentence, harm) in enumerate(kinds.items()):
        folder = made(tmp_path / str(number)).folder
        harm(folder)
        with pytest.raises(OutputError, match=sentence if number else "no readable run"):
            report.write_report(folder)
        assert not (folder / "report.html").exists()
        assert not (folder / "report.json").exists()


def test_only_pictures_of_the_run_are_embedded(made, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    (run.folder / "no.png").write_text("no picture")
    for file, sentence in (
        ("../private.png", "private.png lies outside of it"),
        ("no.png", "no.png is no readable"),
    ):
        pictures = [dict(entry) | {"file": file} for entry in run.record["pictures"]]
        with pytest.raises(OutputError, match=sentence):
            report.report_html(replace(run, record=run.record | {"pictures": pictures}))
    with pytest.raises(OutputError, match=r"private\.png lies outside"):
        report.report_json(run, [finding(run, proof="../../../private.png")])


def test_a_picture_is_made_once_however_often_it_is_recorded(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, opened = made(tmp_path / "run"), []
    file = run.record["pictures"][0]["file"]
    pictures = [dict(entry) | {"file": file} for entry in run.record["pictures"]]
    again = replace(run, record=run.record | {"pictures": pictures, "curve": []})
    monkeypatch.setattr(report, "hard_pixels", lambda _: True)
    monkeypatch.setattr(report, "open_png", lambda path: opened.append(path) or open_png(path))
    report.report_html(again)
    assert opened == [run.folder / file]


def test_more_pixels_than_any_run_makes_are_refused_before_a_picture_is_opened(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run")
    side = max(open_png(run.folder / run.record["pictures"][0]["file"]).size)
    files = {entry["file"] for entry in run.record["pictures"]}
    files |= {entry["file"] for mark in run.record["curve"] for entry in mark["pictures"]}
    monkeypatch.setattr(report, "MOST_PIXELS", len(files) * side**2)
    report.report_html(run)
    monkeypatch.setattr(report, "MOST_PIXELS", side**2)
    monkeypatch.setattr(report, "hard_pixels", lambda _: True)
    monkeypatch.setattr(report, "open_png", None)
    with pytest.raises(OutputError, match=f"pixels; up to {side**2:,} are accepted"):
        report.report_html(run)


def test_a_comparison_shows_the_one_setting_that_differs(made, tmp_path: Path) -> None:
    runs = [made(tmp_path / "a"), made(tmp_path / "b")]
    config = runs[1].record["config"]
    usual = str(config["unlearn"]["retain_weight"])
    other = config["unlearn"] | {"retain_weight": 7.0}
    runs[1] = edited(runs[1], config=config | {"unlearn": other})
    rows = compare_runs.comparison_rows(runs)
    assert [row[1:] for row in rows if row[0] == "Settings that differ"] == [
        ("unlearn.retain_weight", [usual, "7.0"])
    ]
    assert ("Result", "verdict", ["concealed", "concealed"]) in rows
    cells = {name: cells for part, name, cells in rows if part.startswith("Forget")}
    assert cells == {
        "original": ["100\u00a0% (51–100\u00a0%)"] * 2,
        "unlearned": ["0\u00a0% (0–49\u00a0%)"] * 2,
        "relearned": ["100\u00a0% (51–100\u00a0%)"] * 2,
    }
    page = whole(compare_runs.comparison_html(runs))
    assert f"unlearn.retain_weight {usual} 7.0" in page.text
    assert "No setting differs" not in page.text
    assert (
        len(
            [
                1
                for tag, attrs, out in page.tags
                if tag == "polyline" and not any("key" in str(o) for o in out)
            ]
        )
        == 2
    )
    assert len(page.pictures(id="pictures")) == 2 * 24
    assert (
        len([1 for tag, attrs, _ in page.tags if "card" in (attrs.get("class") or "").split()]) == 8
    )


def test_a_setting_that_a_record_leaves_out_is_compared_by_its_default(
    made, tmp_path: Path
) -> None:
    runs = [made(tmp_path / "a"), made(tmp_path / "b")]
    config = runs[1].record["config"]
    assert "weights" not in config["unlearn"]
    trained = config["unlearn"] | {"weights": "full"}
    runs[1] = edited(runs[1], config=config | {"unlearn": trained})
    rows = [row[1:] for row in compare_runs.comparison_rows(runs) if "differ" in row[0]]
    assert rows == [("unlearn.weights", ["lora", "full"])]


def test_only_shared_prompts_and_seeds_stand_beside_each_other(made, tmp_path: Path) -> None:
    cat, dog, later = (made(tmp_path / name) for name in "abc")
    pictures = cat.record["pictures"]
    asked = [p | {"prompt": "a dog"} if p["group"] == "forget" else p for p in pictures]
    dog = edited(dog, pictures=asked)
    later = edited(later, pictures=[p | {"seed": p["seed"] + 50} for p in pictures])
    page = whole(compare_runs.comparison_html([cat, dog]))
    shared = [p["prompt"] for p in pictures if p["group"] != "forget"]
    assert len(page.pictures(id="pictures")) == 2 * len(shared)
    alts = " ".join(attrs["alt"] for tag, attrs, _ in page.tags if tag == "img")
    assert all(prompt in alts for prompt in shared)
    assert not any(p["prompt"] in alts for p in pictures if p["group"] == "forget")
    said = "No prompt and seed is in two of these runs."
    assert said not in page.text
    assert said in whole(compare_runs.comparison_html([cat, later])).text


def test_the_commands(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = made(tmp_path / "a").folder, made(tmp_path / "b").folder
    edited(Run.open(b), config=Run.open(b).record["config"] | {"rule": "weighted_sum"})
    assert command(monkeypatch, "report", a) == 0
    assert capsys.readouterr().out.split() == [str(a / "report.html"), str(a / "report.json")]
    out = tmp_path / "new" / "both.html"
    assert command(monkeypatch, "compare", a, b, "--out", out) == 0
    said = capsys.readouterr().out
    assert re.search(r"rule +│ restricted +│ weighted_sum", said)
    assert str(out) in said
    whole(out.read_text(encoding="utf-8"))
    for words, sentence in (
        (("compare", a), "two or more run folders are accepted"),
        (("compare", a, b, "--out", out), "exists already; a new .html file is accepted"),
        (("compare", a, b, "--out", tmp_path / "both.pdf"), "is no .html file"),
        (("compare", a, tmp_path), "There is no readable run"),
        (("report", tmp_path), "There is no readable run"),
    ):
        assert command(monkeypatch, *words) == 2
        assert sentence in capsys.readouterr().err
