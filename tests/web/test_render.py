"""What the page shows of events, without a browser: progress, captions, tables, escaping."""

import base64
import errno
import io
import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from markupsafe import escape
from PIL import Image
from recordings import Recordings, Replay, kept_finding, picture
from shipped import shipped

from unlearn_app.common.json_values import to_json
from unlearn_app.common.packed_folder import pack
from unlearn_app.concepts.concept import Concept, PromptSplit
from unlearn_app.evaluation.base_rates import RECORDED
from unlearn_app.models.diffusers.adapter_files import read_adapter
from unlearn_app.runs.findings import read_findings
from unlearn_app.runs.folder import Run
from unlearn_app.service.engine import Engine
from unlearn_app.service.jobs import Job
from unlearn_app.service.pace import Pace, TimeLeft
from unlearn_app.service.visitors import visitor_of
from unlearn_app.settings.events import (
    COLUMNS,
    FRESH,
    GROUPS,
    SHARES,
    UNRESISTING,
    AttackCheckpoint,
    GroupScore,
    Images,
    PanelProgress,
    Picture,
    Sampling,
    Stage,
    Step,
    Verdict,
)
from unlearn_app.settings.run_config import make_config
from unlearn_app.web import downloads, html, pictures
from unlearn_app.web.build import unpacked_recordings
from unlearn_app.web.downloads import copied_bytes, download_folder, exports, write_only
from unlearn_app.web.layout import Page, known_concepts
from unlearn_app.web.plots import CURVE_COLORS, curve_table, loss_table
from unlearn_app.web.recordings import cards_of, recorded_card, recorded_cards
from unlearn_app.web.run_html import (
    attack_cards,
    comparison_table,
    score_table,
    status,
)
from unlearn_app.web.run_list import RunList
from unlearn_app.web.sequence_tab import RequestProgress
from unlearn_app.web.share import tags
from unlearn_app.web.stage import moments, stage
from unlearn_app.web.view_state import AttackProgress, ViewState, stored_state

TRAP = "<b onload=x>&\"'"


@pytest.fixture(autouse=True)
def own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private folder for what the browser would fetch."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "page"))
    return tmp_path / "page" / "pictures"


@pytest.fixture
def watched(recordings: Recordings):
    """Gives the state of a run, collected from its events, and copies its folder."""

    def watch(folder: Path, concept: str = "cat") -> ViewState:
        recording = recordings.run(make_config(concept))
        shutil.copytree(recording.folder, folder)
        view = ViewState(Run.open(folder).config)
        for event, _ in recording.events:
            view.apply(event)
        return view

    return watch


def test_a_live_run_and_its_folder_look_the_same(watched, tmp_path: Path) -> None:
    live = watched(tmp_path / "run")
    stored = stored_state(Run.open(tmp_path / "run"))
    live.timing, live.rule = stored.timing, stored.rule
    assert status(live) == status(stored)
    assert comparison_table(live) == comparison_table(stored)
    assert score_table(live) == score_table(stored)
    live.owner = stored.owner
    assert stage(live) == stage(stored)
    assert live.curve == stored.curve
    assert loss_table(live).equals(loss_table(stored))


def test_what_separates_columns_is_folded_away_and_read_back(watched, tmp_path: Path) -> None:
    view = watched(tmp_path / "run")
    html = score_table(view)
    assert to_json(stored_state(Run.open(tmp_path / "run")).differences) == to_json(
        view.differences
    )
    assert "<summary>Statistics" in html, "six pairs, all lost"
    assert html.count("p 0.031") == 1, "six pairs, all lost"
    view.differences = {}
    assert "Statistics" not in score_table(view)


def test_a_strip_that_was_not_kept_is_drawn_again_pixel_by_pixel(watched, tmp_path: Path) -> None:
    watched(tmp_path / "run")
    kept = tmp_path / "run" / "comparison.png"
    with Image.open(kept) as image:
        before = image.convert("RGB").tobytes()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["files"]["comparison.png"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    kept.unlink()
    with Image.open(exports(tmp_path / "run", tmp_path / "made")["strip"]) as image:
        assert image.convert("RGB").tobytes() == before


def test_the_slider_goes_from_the_unlearned_model_through_every_checkpoint(
    watched, tmp_path: Path
) -> None:
    view = watched(tmp_path / "run")
    half, end = sorted(view.checkpoints)
    html = comparison_table(view)
    assert f'data-steps="0,{half},{end}"' in html
    assert f"<output>{end}</output>" in html
    cell = html.partition('<td role="cell" class="u-relearned">')[2].partition("</td>")[0]
    assert re.findall(r'<figure data-step="(\d+)"( hidden)?>', cell) == [
        ("0", " hidden"),
        (str(half), " hidden"),
        (str(end), ""),
    ]
    unlearned = view.cards["unlearned"]["forget", 0].src
    assert unlearned in cell.partition("</figure>")[0]
    judged = curve_table(view).dropna()
    assert list(judged["step"]) == [0, half, end, 0, end, 0, end], "the rest is judged at the ends"
    assert judged["share"].iloc[0] == 0.0


def test_without_attack_checkpoints_there_is_no_slider() -> None:
    view = ViewState(make_config("cat"))
    assert "u-scrub" not in comparison_table(view)
    assert curve_table(view)["share"].isna().all()


@pytest.mark.parametrize("control", [UNRESISTING, FRESH, RECORDED])
def test_every_line_of_the_curve_has_a_colour_and_a_first_row(control: str) -> None:
    """A control that the plot does not know would be drawn without a colour, which is not at
    all.
    """
    view = ViewState(make_config("cat"))
    view.apply(AttackCheckpoint(10, (), {"forget": GroupScore(0.5, None, 12)}, control=control))
    table = curve_table(view)
    assert list(table["group"]) == [*GROUPS, control, control]
    assert table["share"].isna().sum() == 4
    assert set(table["group"]) <= set(CURVE_COLORS)


def test_a_control_of_the_run_itself_replaces_the_recorded_one() -> None:
    """As in a stored run; two lines of the same thing would have the same colour."""
    view = ViewState(make_config("cat"))
    for control in (RECORDED, UNRESISTING, FRESH):
        view.apply(AttackCheckpoint(10, (), {"forget": GroupScore(0.5, None, 12)}, control=control))
    assert set(view.controls) == {UNRESISTING, FRESH}


def test_a_recorded_run_says_so(watched, tmp_path: Path) -> None:
    watched(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert "Recorded" in status(stored_state(run, recorded=True))
    assert "Recorded" not in status(stored_state(run))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, ""),
        ({"resist.on": True}, "defended against relearning"),
        ({"objective": "uce"}, "method uce"),
        ({"preset": "full", "resist.on": True}, "preset full, defended against relearning"),
    ],
)
def test_a_run_says_what_was_asked_for_beyond_its_concept(asked: dict, said: str) -> None:
    view = ViewState(make_config("cat", **asked), recorded=True, over=True)
    view.verdict, view.timing = Verdict("removed", ()), {"total_s": 99.0}
    between = f" · {said}" if said else ""
    assert f"Forget “cat”{between}</p>" in status(view)
    assert f"<b>cat</b>{f' <i>{said}</i>' if said else ''} <small>" in recorded_cards(
        [recorded_card("a", view)]
    )


def test_cards_begin_with_what_a_click_alone_gives() -> None:
    asked = {
        "cat-defended": {"resist.on": True},
        "pizza": {},
        "cat": {},
        "edit": {"objective": "uce"},
    }
    states = {
        name: ViewState(make_config("cat", **own), recorded=True, over=True)
        for name, own in asked.items()
    }
    assert [card.name for card in cards_of(states)] == ["pizza", "cat", "cat-defended", "edit"]


def test_the_time_is_said_of_own_runs_alone_since_others_ran_elsewhere() -> None:
    for recorded in (False, True):
        view = ViewState(make_config("cat"), recorded=recorded, over=True)
        view.verdict, view.timing = Verdict("removed", ()), {"total_s": 99.0}
        assert ("took 99 s" in status(view)) is not recorded


def test_a_damaged_archive_of_a_recording_is_left_out_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "frog").mkdir()
    (tmp_path / "frog" / "run.json").write_text("{}")
    pack(tmp_path / "frog", tmp_path / "packed" / "frog.tar.xz")
    (tmp_path / "packed" / "cat.tar.xz").write_bytes(b"other")
    with pytest.warns(UserWarning, match=r"damaged: cat\.tar\.xz"):
        made = unpacked_recordings(tmp_path / "packed", tmp_path / "made")
    assert [path.name for path in made.iterdir()] == ["frog"]
    assert (made / "frog" / "run.json").read_text() == "{}"


def test_rows_share_prompt_and_seed_over_three_columns(watched, tmp_path: Path) -> None:
    html = comparison_table(watched(tmp_path / "run"))
    assert html.count("<tr role") == html.count('role="rowheader"') + html.count("<thead")
    assert html.count("2 more of these") == 1
    on_the_way = 6 + 2  # the concept's, and one of each other group
    assert html.count("<img ") == 3 * 10 + 10 + on_the_way
    assert html.count("not generated at this step") == 10 - on_the_way
    assert "0.08" in html
    assert "−0.23" in html
    assert "✕ dog" in html


def test_the_time_left_is_said_beside_what_happens() -> None:
    view = ViewState(make_config("cat"))
    view.apply(Stage("unlearn", "Forgetting", SHARES["unlearn"]))
    assert "left" not in status(view)
    view.left = TimeLeft(42.0, False, 0.25)
    assert "about 40 s left<" in status(view)
    assert 'aria-valuenow="25"' in status(view)
    view.left = TimeLeft(8.4, False, 0.25)
    assert "about 8 s left<" in status(view)
    view.left = TimeLeft(7.9, False, 0.25)
    assert "less than 10 s left<" in status(view)
    view.left = TimeLeft(130.0, True, 0.25)
    assert "about 2 min left, slower than expected" in status(view)
    view.left = TimeLeft(None, False, 0.25)
    assert "left" not in status(view)
    assert 'aria-valuenow="25"' in status(view)


@pytest.mark.parametrize("seconds", [3, 7.4, 19.4, 19.6, 22.4, 99, 101, 134, 590, 631, 4000])
def test_a_duration_is_rounded_by_less_than_a_sixth(seconds: float) -> None:
    """A time left that is off by a quarter at most has no room for coarser words."""
    _, number, unit = html.duration(seconds).split()
    said = float(number) * {"s": 1, "min": 60}[unit]
    assert abs(said - seconds) <= seconds / 6


def test_thinning_keeps_every_term() -> None:
    view = ViewState(make_config("cat", **{"unlearn.steps": 2000}))
    for step in range(1, 2001):
        view.apply(Step("unlearn", step, 2000, {"forget": 1.0, "retain": 2.0}))
    table = loss_table(view)
    assert set(table.dropna()["term"]) == {"forget", "retain"}
    assert len(table) <= 310


def test_waiting_stopping_and_failing_are_said() -> None:
    view = ViewState(make_config("cat"), position=2)
    assert "2 runs are before yours" in status(view)
    view.position = 1
    assert "1 run is before yours" in status(view)
    view.stopping = True
    assert "saving the results so far" in status(view)
    view.over, view.error = True, f"No {TRAP}"
    assert "That did not work" in status(view)


def test_pictures_are_exact_and_stored_once(own_pictures: Path) -> None:
    first = pictures.address(picture(1), "run 1")
    assert first == pictures.address(picture(1), "run 2")
    (stored,) = own_pictures.iterdir()
    assert first.endswith(stored.name)
    assert Image.open(stored).tobytes() == picture(1).tobytes()
    assert stat.S_IMODE(own_pictures.stat().st_mode) == 0o700


def full(*_: object, **__: object) -> None:
    """Stands for any write to a disk that is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_picture_that_cannot_be_stored_is_in_its_address(own_pictures, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(pictures, "write_bytes", full)
        shown = pictures.address(picture(1), "run 1")
    assert shown.startswith("data:image/png;base64,")
    sent = Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2])))
    assert sent.tobytes() == picture(1).tobytes()
    pictures.forget("run 1")
    assert pictures.address(picture(1), "run 1").startswith("gradio_api/file=")


def test_a_picture_stays_while_anybody_uses_it(own_pictures: Path) -> None:
    for owner in ("run 1", "run 2"):
        pictures.address(picture(1), owner)
    pictures.address(picture(2), "run 1")
    pictures.forget("run 1")
    assert len(list(own_pictures.iterdir())) == 1
    pictures.forget("run 2")
    assert not list(own_pictures.iterdir())


def test_no_number_of_other_pictures_takes_one_away(own_pictures: Path) -> None:
    first = own_pictures / pictures.address(picture(1), "recorded").rpartition("/")[2]
    os.utime(first, (0, 0))
    for number in range(10_000):
        (own_pictures / f"{number}.png").touch()
    pictures.address(picture(2), "run")
    assert first.is_file()


@pytest.mark.parametrize(
    ("value", "text"), [(0.125, "+0.12"), (-0.2, "−0.20"), (0.0, "±0.00"), (-0.001, "±0.00")]
)
def test_changes_carry_their_sign(value: float, text: str) -> None:
    assert html.signed(value) == text


def test_no_judge_means_dashes_not_zeros() -> None:
    view = ViewState(
        make_config("cat"), over=True, verdict=Verdict("inconclusive", ("There is no judge.",))
    )
    view.scores = {column: {"forget": GroupScore(None, None, 4)} for column in COLUMNS}
    html = score_table(view) + comparison_table(view)
    assert "0 %" not in html
    assert "–" in html


def test_all_text_is_escaped() -> None:
    view = ViewState(make_config("x"))
    object.__setattr__(view.config, "concept", TRAP)
    view.apply(Stage("load", TRAP, 0.0))
    shown = Picture("unlearn", 0, TRAP, 0, Sampling(2, 3.0), 0, group="forget", image=picture(1))
    view.apply(Images("original", (shown,)))
    trapped = Concept(TRAP, TRAP, TRAP, TRAP, *[PromptSplit((), ())] * 5)
    pieces = [
        status(view),
        stage(view),
        recorded_cards([recorded_card(TRAP, view)]),
        html.alert(TRAP, [TRAP]),
        html.render("understood", concept=trapped, advice=TRAP, kept=[TRAP]),
    ]
    pieces.append(known_concepts([(TRAP, "object")]))
    pieces.append(html.render("header", ready=True, error=TRAP))
    view.verdict, view.over = Verdict("removed", (TRAP,)), True
    pieces.append(status(view))
    view.error = TRAP
    pieces.append(status(view))
    assert all(
        "<b onload" not in piece and "&lt;b onload=x&gt;&amp;&#34;&#39;" in piece
        for piece in pieces
    )


@pytest.fixture
def attacked(watched):
    """Gives a run on which attacks of these kinds were tried."""

    def attack(folder: Path, *kinds: str, **changes: Any) -> Run:
        if not folder.exists():
            watched(folder, "frog")
        for kind in kinds:
            kept_finding(Run.open(folder), kind, **changes)
        return Run.open(folder)

    return attack


def test_a_stored_run_is_judged_with_what_was_found_since(
    watched, attacked, tmp_path: Path
) -> None:
    watched(tmp_path / "run", "frog")
    before = status(stored_state(Run.open(tmp_path / "run")))
    after = status(stored_state(attacked(tmp_path / "run", "inversion")))
    assert "The attacker lost" in before
    assert "The attacker won" in after
    assert "inversion" in after


@pytest.mark.parametrize("control", [True, False])
def test_the_page_says_the_bar_that_was_applied(
    watched, attacked, tmp_path: Path, control: bool
) -> None:
    watched(tmp_path / "run", "frog")
    alone = {} if control else {"control": None, "missing": "nobody knows"}
    run = attacked(tmp_path / "run", "inversion", **alone)
    why = status(stored_state(run)).partition("<summary>Why")[2]
    assert ("at over 60% of the prompts, since nobody knows" in why) != control


def test_findings_stand_worst_first_and_what_proves_nothing_apart(attacked, tmp_path: Path) -> None:
    found = read_findings(
        attacked(tmp_path / "run", "noise", "scale", "inversion", "inversion").folder
    )
    html = attack_cards(found)
    places = [html.index(f">{name}</b>") for name in ("inversion", "inversion 2", "noise")]
    apart = html.index("Proves nothing")
    assert places == sorted(places)
    assert places[-1] < apart < html.index(">scale</b>")
    assert html.count("gets it back") == 2
    assert html.count("no recovery") == 1
    assert html.count("not counted") == 2
    assert html.count("closest try</small>") == 1
    assert html.count("proof</small>") == 3
    assert "as noise asks 5" in html
    assert "Not counted: it is no attack on what the model has learned." in html
    assert attack_cards([]) == ""
    assert "Proves nothing" not in attack_cards(found[:1])


def test_what_the_control_does_as_well_is_neither_a_recovery_nor_none(
    attacked, tmp_path: Path
) -> None:
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
        html = attack_cards([one])
        assert said in html
        assert f'<li class="{state}">' in html
        assert "gets it back" not in html
        assert ("no recovery" in html) == (one is little)


def test_a_finding_without_pictures_and_with_markup_is_shown_as_text(
    attacked, tmp_path: Path
) -> None:
    (found,) = read_findings(attacked(tmp_path / "run", "noise").folder)
    trapped = replace(
        found,
        budget=TRAP,
        control={"name": TRAP, "hits": [True, False]},
        folder=Path(TRAP),
        pictures=(),
    )
    shown = attack_cards([trapped]) + html.note(TRAP) + html.failed(TRAP)
    asked = replace(found, pictures=({**found.pictures[0], "asked": TRAP},))
    shown += attack_cards([asked])
    assert "<b onload" not in shown
    assert shown.count("&lt;b onload=x&gt;") == 7
    assert "u-blank" in shown


def test_reasons_fold_but_never_the_one_that_decides(attacked, tmp_path: Path) -> None:
    view = stored_state(attacked(tmp_path / "run", "noise", "prompts", "inversion", "completion"))
    open_part = status(view).partition("<details")[0]
    assert "Worst attack: the attack inversion" in open_part
    assert all(escape(reason) in status(view) for reason in view.verdict.reasons)
    told = ("One.", "Two.", "Three.", "Four.", "Five.", "Only prompts were tried.")
    view.verdict = Verdict("inconclusive", told)
    assert "Only prompts were tried." in status(view).partition("<details")[0]


def test_attacks_progress_to_the_end_and_say_which_is_on(attacked, tmp_path: Path) -> None:
    progress, seen = AttackProgress(("noise", "relearn")), []
    assert "Getting ready" in progress.html()
    (found,) = read_findings(attacked(tmp_path / "run", "noise").folder)
    for _ in range(2):
        for fraction in (0.1, 0.55):
            progress.apply(Stage("attack", TRAP, fraction))
            for step in (1, 10):
                progress.apply(Step("attack", step, 10, {}))
                seen.append(progress.fraction)
        if not progress.done:
            assert "attack 1 of 2 · step 10 of 10" in progress.html()
            assert "<b onload" not in progress.html()
        progress.apply(found)
        seen.append(progress.fraction)
    assert seen == sorted(seen)
    assert seen[4] == 0.5
    assert seen[-1] == 1.0
    progress.position = 2
    assert "2 runs are before yours" in progress.html()
    progress.stopping = True
    assert "saving the results so far" in progress.html()


def test_report_and_archive_are_made_again_after_an_attack_only(
    watched, attacked, tmp_path: Path
) -> None:
    watched(tmp_path / "run", "frog")
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
        "card",
        "folder",
        "report",
    }
    assert "inversion" in made["report"].read_text()
    with zipfile.ZipFile(made["folder"]) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert [found.kind for found in read_findings(tmp_path / "unpacked" / "run")] == ["inversion"]
    assert (tmp_path / "unpacked" / "run" / "report.html").is_file()
    assert not list((tmp_path / "unpacked").rglob("*export*"))


def test_a_run_of_an_earlier_version_has_its_adapter_for_comfyui(tmp_path: Path) -> None:
    """It is converted for the download, and the run stays as it is."""
    own = shutil.copytree(shipped("cat"), tmp_path / "cat")
    assert "unlearn.kohya.safetensors" not in json.loads((own / "run.json").read_text())["files"]
    made = exports(own, tmp_path / "made")
    assert made["adapter"].read_bytes() == (own / "unlearn.safetensors").read_bytes()
    one, other = (read_adapter(made[kind]) for kind in ("adapter", "others"))
    assert len(one) == len(other)
    named = {f"lora_unet_{name.partition('.lora_')[0].replace('.', '_')}" for name in one}
    assert {name.partition(".")[0] for name in other} == named
    assert not (own / "unlearn.kohya.safetensors").exists()


def test_an_archive_leaves_out_what_is_half_written(attacked, tmp_path: Path) -> None:
    run = attacked(tmp_path / "run", "noise")
    half = tmp_path / "run" / "attacks" / ".relearn.1.partial"
    half.mkdir()
    (half / "00-00.png").write_bytes(b"half")
    with zipfile.ZipFile(run.zip(tmp_path / "run.zip")) as archive:
        names = archive.namelist()
    assert "run/attacks/noise/finding.json" in names
    assert not [name for name in names if "relearn.1" in name]
    assert len(names) == len(set(names))


def test_a_run_without_a_report_still_has_its_other_files(watched, tmp_path: Path) -> None:
    watched(tmp_path / "run", "frog")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["files"]["steps.jsonl"] = "another file's"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    made = exports(tmp_path / "run", tmp_path / "made")
    assert made.keys() == {"adapter", "others", "strip", "card", "folder"}
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_download_replaces_those_of_its_kind_and_all_are_counted(tmp_path: Path) -> None:
    into = download_folder("visitor")
    for name in ("one.html", "one.safetensors", "two.html"):
        write_only(into / name, b"x" * 10)
    assert sorted(path.name for path in into.iterdir()) == ["one.safetensors", "two.html"]
    assert copied_bytes("visitor") == 20


@pytest.fixture
def compare(recordings: Recordings, watched, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """Compares runs as the page does; `engine` keeps two of Anna's with one long name."""
    watched(tmp_path / "cat", "cat")
    watched(tmp_path / "frog", "frog")
    engine = Engine(Replay(recordings))
    config = replace(make_config("cat"), concept="x" * 100)
    for name in ("first", "second"):
        shutil.copytree(tmp_path / "cat", engine.root / name)
        engine.runs.add(Job(config, engine.root / name, visitor_of("anna")))
    with gr.Blocks():
        page = Page([], [], None, Pace())
    runs = RunList(engine, page, {name: tmp_path / name for name in ("cat", "frog")})

    def made(session: str, *names: str) -> Path:
        request = SimpleNamespace(session_hash=session, headers={})
        button = runs.compare(request, "", names[0], names[1:])[page.actions.compared]
        return Path(button.value["path"])

    yield SimpleNamespace(made=made, engine=engine, runs=runs)
    engine.shutdown()


def test_a_visitor_keeps_the_latest_comparison_only(compare) -> None:
    pages = [compare.made("anna", "cat", "frog"), compare.made("anna", "frog", "cat")]
    assert list(pages[0].parent.iterdir()) == [pages[1]] != [pages[0]]
    long = compare.made("anna", "first", "second")
    assert "your-run-1" in long.read_text()
    assert "your-run-2" in long.read_text()
    other = compare.made("anna", "first", "second", "cat")
    assert other.name != long.name
    assert list(long.parent.iterdir()) == [other]


@pytest.mark.parametrize("fails", ["copyfile", "mkdir", "replace"])
def test_a_full_disk_takes_downloads_away_but_not_the_run(compare, monkeypatch, fails) -> None:
    run, page = compare.engine.root / "first", compare.runs._page
    with monkeypatch.context() as patched:
        patched.setattr(shutil if fails == "copyfile" else Path, fails, full)
        shown = compare.runs.links(run)
    assert not any(shown[button].visible for button in page.downloads.values())
    assert shown[page.share] == ""
    again = compare.runs.links(run)
    assert again[page.downloads["adapter"]].visible


def test_a_comparison_that_cannot_be_written_is_a_sentence(compare, monkeypatch) -> None:
    page, request = compare.runs._page, SimpleNamespace(session_hash="anna", headers={})
    monkeypatch.setattr(downloads, "write_bytes", full)
    shown = compare.runs.compare(request, "", "cat", ["frog"])
    assert "could not be written" in shown[page.actions.message]
    assert not shown[page.actions.compared].visible


def test_comparisons_of_all_are_bounded_like_runs(compare) -> None:
    page = compare.made("anna", "cat", "frog")
    compare.engine.keep_bytes = 2 * page.stat().st_size + 1000
    pages = [page] + [compare.made(name, "cat", "frog") for name in ("ben", "cem")]
    assert [path.exists() for path in pages] == [False, True, True]


def test_the_panel_is_shown_as_it_comes() -> None:
    done = RequestProgress()
    done.apply(Stage("compare", "Generating the panel again", 0.5))
    done.apply(PanelProgress(1, 3, "cat", (True, False), Image.new("RGB", (8, 8))))
    text = html.render("panel_progress", seen=done.seen, address=lambda image: "a.png")
    assert "cat 1/2" in text
    assert text.count("<img") == 1
    done.apply(Stage("unlearn", "The next request", 0.0))
    assert done.seen == []


def test_every_moment_of_the_stage_has_the_same_prompts_and_seeds(watched, tmp_path: Path) -> None:
    view = watched(tmp_path / "run")
    found = moments(view)
    asked = [[(c.picture.prompt, c.picture.seed) for c in m.cards.values()] for m in found]
    assert [moment.phase for moment in found] == ["original", "forgotten", "attacked", "attacked"]
    assert all(slots == asked[0] for slots in asked)
    assert len(asked[0]) == 4
    other = next(iter(view.cards["unlearned"]))
    card = view.cards["unlearned"][other]
    view.cards["unlearned"][other] = replace(card, picture=replace(card.picture, seed=7))
    assert len(moments(view)[1].cards) == 3, "a picture of another seed is left out"


def test_the_figures_of_a_moment_are_those_of_its_step(watched, tmp_path: Path) -> None:
    found = moments(watched(tmp_path / "run"))
    assert [moment.count for moment in found[:2]] == ["6/6", "0/6"]
    assert found[-1].count == "6/6"
    assert found[1].interval == "0 %, 95 % interval 0 to 39 %"


def test_a_moment_without_a_judge_has_no_count(watched, tmp_path: Path) -> None:
    view = watched(tmp_path / "run")
    score = replace(view.scores["original"]["forget"], accuracy=None)
    view.scores["original"]["forget"] = score
    assert moments(view)[0].count == ""
    assert moments(view)[0].interval == ""


def test_the_head_of_the_page_says_what_links_to_it_say() -> None:
    head = html.render("header", ready=True, error="")
    assert f"<h1>{html.TITLE}</h1><p>{html.SAYS}</p>" in head
    assert tags(html.TITLE, html.SAYS).count(html.SAYS) == 2
