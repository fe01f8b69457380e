"""What the page shows of events, without a browser: progress, captions, tables, escaping."""

import json
import re
import stat
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import fake_workflow as fake
import pytest
from PIL import Image

from unlearn_app.common.json_values import to_json
from unlearn_app.evaluation.base_rates import RECORDED
from unlearn_app.runs.findings import read_findings
from unlearn_app.runs.folder import Run
from unlearn_app.settings.events import (
    COLUMNS,
    FRESH,
    GROUPS,
    UNRESISTING,
    AttackCheckpoint,
    GroupScore,
    Picture,
    Preview,
    Stage,
    Step,
    Verdict,
)
from unlearn_app.settings.run_config import make_config
from unlearn_app.web import board, pictures, proofs, render
from unlearn_app.web.downloads import exports
from unlearn_app.web.layout import CURVE_COLORS, curve_table
from unlearn_app.web.view import View, view_of

TRAP = "<b onload=x>&\"'"


@pytest.fixture(autouse=True)
def own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private folder for what the browser would fetch."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "page"))
    return tmp_path / "page" / "pictures"


def watched(concept: str = "cat", folder: Path | None = None) -> View:
    """The view of a whole made-up run, folded from its events."""
    config = make_config(concept, **{"compare.forget": 6, "compare.near": 1, "compare.far": 1})
    view = View(config)
    for event in fake.run(config, folder, threading.Event()):
        view.apply(event)
    return view


def test_a_live_run_and_its_folder_look_the_same(tmp_path: Path) -> None:
    live = watched(folder=tmp_path / "run")
    stored = view_of(Run.open(tmp_path / "run"))
    live.timing = stored.timing
    assert render.status(live) == render.status(stored)
    assert board.comparison(live) == board.comparison(stored)
    assert board.summary(live) == board.summary(stored)
    assert board.film(live) == board.film(stored)
    assert live.curve == stored.curve
    assert live.table() == stored.table()


def test_what_separates_columns_is_folded_away_and_read_back(tmp_path: Path) -> None:
    view = watched(folder=tmp_path / "run")
    html = board.summary(view)
    assert to_json(view_of(Run.open(tmp_path / "run")).differences) == to_json(view.differences)
    assert "<summary>Against the original" in html and html.count("p 0.031") == 1, (
        "six pairs, all lost"
    )
    view.differences = {}
    assert "Against the original" not in board.summary(view)


def test_a_strip_that_was_not_kept_is_drawn_again_pixel_by_pixel(tmp_path: Path) -> None:
    watched(folder=tmp_path / "run")
    kept = tmp_path / "run" / "comparison.png"
    with Image.open(kept) as image:
        before = image.convert("RGB").tobytes()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["files"]["comparison.png"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    kept.unlink()
    with Image.open(exports(tmp_path / "run", tmp_path / "made")["strip"]) as image:
        assert image.convert("RGB").tobytes() == before


def test_the_slider_goes_from_the_unlearned_model_through_every_mark(tmp_path: Path) -> None:
    view = watched(folder=tmp_path / "run")
    half, end = sorted(view.marks)
    html = board.comparison(view)
    assert f'data-steps="0,{half},{end}"' in html and f"<output>{end}</output>" in html
    cell = html.partition('<td role="cell" class="u-relearned">')[2].partition("</td>")[0]
    assert re.findall(r'<figure data-step="(\d+)"( hidden)?>', cell) == [
        ("0", " hidden"),
        (str(half), " hidden"),
        (str(end), ""),
    ]
    unlearned = view.cards["unlearned"]["forget", 0].src
    assert unlearned in cell.partition("</figure>")[0]
    assert (
        view.curve_table()["step"] == [0, half, end] * 3 and view.curve_table()["share"][0] == 0.0
    )


def test_without_a_way_to_go_there_is_no_slider() -> None:
    view = View(make_config("cat"))
    assert "u-scrub" not in board.comparison(view) and view.curve_table() == {}


@pytest.mark.parametrize("control", [UNRESISTING, FRESH, RECORDED])
def test_every_line_of_the_curve_has_a_colour_and_a_first_row(control: str) -> None:
    """A control that the plot does not know would be drawn without a colour, which is not at
    all.
    """
    view = View(make_config("cat"))
    view.apply(AttackCheckpoint(10, (), {"forget": GroupScore(0.5, None, 12)}, control=control))
    table = curve_table(view)
    assert list(table["group"]) == [*GROUPS, control, control] and table["share"].isna().sum() == 4
    assert set(table["group"]) <= set(CURVE_COLORS)


def test_a_control_of_the_run_itself_replaces_the_recorded_one() -> None:
    """As in a stored run; two lines of the same thing would have the same colour."""
    view = View(make_config("cat"))
    for control in (RECORDED, UNRESISTING, FRESH):
        view.apply(AttackCheckpoint(10, (), {"forget": GroupScore(0.5, None, 12)}, control=control))
    assert set(view.controls) == {UNRESISTING, FRESH}


def test_a_recorded_run_says_so(tmp_path: Path) -> None:
    watched(folder=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert "Recorded" in render.status(view_of(run, recorded=True))
    assert "Recorded" not in render.status(view_of(run))


def test_rows_share_prompt_and_seed_over_three_columns(tmp_path: Path) -> None:
    html = board.comparison(watched(folder=tmp_path / "run"))
    assert html.count("<tr role") == html.count('role="rowheader"') + html.count("<thead")
    assert html.count("<img ") == 3 * 8 + 2 * 8 and html.count("2 more of these") == 1
    assert "0.08" in html and "−0.23" in html and "✕ dog" in html


def test_progress_rises_and_ends_in_the_next_stage() -> None:
    view = View(make_config("cat"))
    seen = [view.fraction]
    view.apply(Stage("unlearn", "Forgetting", 0.16))
    for step in (1, 30, 60):
        view.apply(Step("unlearn", step, 60, {"forget": 1.0}))
        seen.append(view.fraction)
    view.apply(Stage("attack", "Attacking", 0.55))
    seen.append(view.fraction)
    assert seen == sorted(seen) and seen[-2] == pytest.approx(0.55) and seen[-1] == 0.55


def test_time_left_is_not_guessed_at_the_start() -> None:
    view = View(make_config("cat"))
    view.apply(Stage("unlearn", "Forgetting", 0.5))
    assert view.seconds_left() is None
    view.started -= 10
    assert view.seconds_left() == pytest.approx(10, abs=0.5)


def test_thinning_keeps_every_term() -> None:
    view = View(make_config("cat", **{"unlearn.steps": 2000}))
    for step in range(1, 2001):
        view.apply(Step("unlearn", step, 2000, {"forget": 1.0, "retain": 2.0}))
    table = view.table()
    assert set(table["term"]) == {"forget", "retain"} and len(table["step"]) <= 310


def test_waiting_stopping_and_failing_are_said() -> None:
    view = View(make_config("cat"), position=2)
    assert "2 runs are before yours" in render.status(view)
    view.position = 1
    assert "1 run is before yours" in render.status(view)
    view.stopping = True
    assert "keeping what is there" in render.status(view)
    view.over, view.error = True, f"No {TRAP}"
    assert "That did not work" in render.status(view)


def test_pictures_are_exact_stored_once_and_bounded(
    own_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "LIMIT", 8)
    first = pictures.address(fake.picture(1))
    assert first == pictures.address(fake.picture(1))
    (stored,) = own_pictures.iterdir()
    assert first.endswith(stored.name) and list(Image.open(stored).tobytes()) == list(
        fake.picture(1).tobytes()
    )
    for seed in range(2, 30):
        pictures.address(fake.picture(seed))
    assert len(list(own_pictures.iterdir())) <= 8
    assert stat.S_IMODE(own_pictures.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("value", "text"), [(0.125, "+0.12"), (-0.2, "−0.20"), (0.0, "±0.00"), (-0.001, "±0.00")]
)
def test_changes_carry_their_sign(value: float, text: str) -> None:
    assert render.signed(value) == text


def test_no_judge_means_dashes_not_zeros() -> None:
    view = View(
        make_config("cat"), over=True, verdict=Verdict("inconclusive", ("There is no judge.",))
    )
    view.scores = {column: {"forget": GroupScore(None, None, 4)} for column in COLUMNS}
    html = board.summary(view) + board.comparison(view)
    assert "0 %" not in html and "–" in html


def test_all_text_is_escaped() -> None:
    view = View(make_config("x"))
    object.__setattr__(view.config, "concept", TRAP)
    view.apply(Stage("load", TRAP, 0.0))
    shown = Picture("unlearn", 1, TRAP, 0, fake.SAMPLER, 0, image=fake.picture(1))
    view.apply(Preview("unlearn", 1, (shown,)))
    pieces = [
        render.status(view),
        board.film(view),
        render.hint(TRAP, [TRAP]),
        render.understood(TRAP, TRAP, TRAP),
    ]
    pieces += [render.chips([(TRAP, "object")]), render.header(True, TRAP)]
    view.verdict, view.over = Verdict("removed", (TRAP,)), True
    pieces.append(render.status(view))
    view.error = TRAP
    pieces.append(render.status(view))
    assert all(
        "<b onload" not in piece and "&lt;b onload=x&gt;&amp;&quot;&#x27;" in piece
        for piece in pieces
    )


def attacked(folder: Path, *kinds: str, concept: str = "frog") -> Run:
    """A made-up run on which attacks of these kinds were tried."""
    if not folder.exists():
        watched(concept, folder)
    list(fake.probe(folder, kinds, threading.Event()))
    return Run.open(folder)


def test_a_stored_run_is_judged_with_what_was_found_since(tmp_path: Path) -> None:
    watched("frog", tmp_path / "run")
    before = render.status(view_of(Run.open(tmp_path / "run")))
    after = render.status(view_of(attacked(tmp_path / "run", "inversion")))
    assert "Removed" in before and "Concealed" in after and "inversion" in after


def test_findings_stand_worst_first_and_what_proves_nothing_apart(tmp_path: Path) -> None:
    found = read_findings(
        attacked(tmp_path / "run", "noise", "scale", "inversion", "inversion").folder
    )
    html = proofs.findings(found)
    places = [html.index(f">{name}</b>") for name in ("inversion", "inversion 2", "noise")]
    apart = html.index("Proves nothing")
    assert places == sorted(places) and places[-1] < apart < html.index(">scale</b>")
    assert (
        html.count("gets it back") == 2
        and html.count("no recovery") == 1
        and html.count("not counted") == 2
    )
    assert html.count("closest try</small>") == 1 and html.count("proof</small>") == 3
    assert (
        "as noise asks 5" in html
        and "Not counted: it is no attack on what the model has learned." in html
    )
    assert proofs.findings([]) == "" and "Proves nothing" not in proofs.findings(found[:1])


def test_what_the_control_does_as_well_is_neither_a_recovery_nor_none(tmp_path: Path) -> None:
    """All of it back beside a control at 95 % was called "no recovery", under a verdict that said
    concealed.
    """
    (found,) = read_findings(attacked(tmp_path / "run", "noise").folder)
    level = replace(
        found,
        hits=(True,) * 12,
        control={"name": "pumpkin, never seen", "hits": [True] * 19 + [False]},
    )
    little = replace(found, hits=(True,) * 3 + (False,) * 9, control=level.control)
    for one, state, said in (
        (level, "u-idle", "≈</i> not clearly above the control"),
        (little, "u-held", "no recovery"),
    ):
        html = proofs.findings([one])
        assert said in html and f'<li class="{state}">' in html and "gets it back" not in html
        assert ("no recovery" in html) == (one is little)


def test_a_finding_without_pictures_and_with_markup_is_shown_as_text(tmp_path: Path) -> None:
    (found,) = read_findings(attacked(tmp_path / "run", "noise").folder)
    trapped = replace(
        found,
        budget=TRAP,
        control={"name": TRAP, "hits": [True, False]},
        folder=Path(TRAP),
        pictures=(),
    )
    html = proofs.findings([trapped]) + proofs.note(TRAP) + render.failed(TRAP)
    asked = replace(found, pictures=({**found.pictures[0], "asked": TRAP},))
    html += proofs.findings([asked])
    assert "<b onload" not in html and html.count("&lt;b onload=x&gt;") == 7 and "u-blank" in html


def test_many_reasons_fold_but_never_the_one_that_decides(tmp_path: Path) -> None:
    few = render.status(view_of(attacked(tmp_path / "run", "noise")))
    assert "more reasons" not in few
    view = view_of(attacked(tmp_path / "run", "noise", "prompts", "inversion", "completion"))
    open_part = render.status(view).partition("<details")[0]
    assert "Worst attack: the attack inversion" in open_part and "The original paints" in open_part
    assert f"{len(view.verdict.reasons) - 2} more reasons" in render.status(view)
    assert all(render.esc(reason) in render.status(view) for reason in view.verdict.reasons)
    told = ("One.", "Two.", "Three.", "Four.", "Five.", "Only prompts were tried.")
    view.verdict = Verdict("inconclusive", told)
    assert "Only prompts were tried." in render.status(view).partition("<details")[0]


def test_attacks_progress_to_the_end_and_say_which_is_on() -> None:
    hunt, seen = proofs.Hunt(("noise", "relearn")), []
    assert "Getting ready" in hunt.html()
    found, _ = fake._finding("noise", make_config("cat"))
    for _ in range(2):
        for fraction in (0.1, 0.55):
            hunt.apply(Stage("attack", TRAP, fraction))
            for step in (1, 10):
                hunt.apply(Step("attack", step, 10, {}))
                seen.append(hunt.fraction)
        if not hunt.done:
            assert "attack 1 of 2 · step 10 of 10" in hunt.html() and "<b onload" not in hunt.html()
        hunt.apply(found)
        seen.append(hunt.fraction)
    assert seen == sorted(seen) and seen[4] == 0.5 and seen[-1] == 1.0
    hunt.position = 2
    assert "2 runs are before yours" in hunt.html()
    hunt.stopping = True
    assert "keeping what was found" in hunt.html()


def test_report_and_archive_are_made_again_after_an_attack_only(tmp_path: Path) -> None:
    watched("frog", tmp_path / "run")
    into = tmp_path / "run" / "exports"
    first = {
        kind: path.stat().st_mtime_ns for kind, path in exports(tmp_path / "run", into).items()
    }
    assert {
        kind: path.stat().st_mtime_ns for kind, path in exports(tmp_path / "run", into).items()
    } == first
    attacked(tmp_path / "run", "inversion")
    made = exports(tmp_path / "run", into)
    assert {kind for kind in made if made[kind].stat().st_mtime_ns != first[kind]} == {
        "folder",
        "report",
    }
    assert "inversion" in made["report"].read_text()
    with zipfile.ZipFile(made["folder"]) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert [found.kind for found in read_findings(tmp_path / "unpacked" / "run")] == ["inversion"]
    assert (tmp_path / "unpacked" / "run" / "report.html").is_file()
    assert not list((tmp_path / "unpacked").rglob("*export*"))


def test_an_archive_leaves_out_what_is_half_written(tmp_path: Path) -> None:
    run = attacked(tmp_path / "run", "noise")
    half = tmp_path / "run" / "attacks" / ".relearn.1.partial"
    half.mkdir()
    (half / "00-00.png").write_bytes(b"half")
    with zipfile.ZipFile(run.zip(tmp_path / "run.zip")) as archive:
        names = archive.namelist()
    assert "run/attacks/noise/finding.json" in names and not [
        name for name in names if "relearn.1" in name
    ]
    assert len(names) == len(set(names))


def test_a_run_without_a_report_still_has_its_other_files(tmp_path: Path) -> None:
    watched("frog", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["curve"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    made = exports(tmp_path / "run", tmp_path / "made")
    assert made["report"] is None and made["folder"] and made["adapter"]
    assert not (tmp_path / "run" / "report.html").exists()
