"""Around a finished run, in a real browser with made-up attacks: get it back, report, delete,
compare.
"""

import re
import shutil
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from browsing import (
    BOX,
    DESKTOP,
    PHONE,
    Visitors,
    download,
    served,
    sideways,
    start,
    wait_for_end,
)
from playwright.sync_api import Browser, Page, expect
from recordings import Recordings, Replay, kept_finding

from unlearn_app.runs.findings import read_findings
from unlearn_app.runs.folder import Run
from unlearn_app.service.engine import Engine
from unlearn_app.service.visitors import visitor_of
from unlearn_app.settings.attacks import QUICK, kinds_of
from unlearn_app.settings.events import Step
from unlearn_app.settings.run_config import make_config
from unlearn_app.web.build import delete_copies
from unlearn_app.web.downloads import download_folder
from unlearn_app.web.handlers import AttackHandlers, RunHandlers
from unlearn_app.web.layout import SURE
from unlearn_app.web.layout import Page as Layout
from unlearn_app.web.run_list import GONE, RunList
from unlearn_app.web.view_state import ViewState

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run that comes with the page, and was attacked before."""
    root = tmp_path_factory.mktemp("recorded")
    shutil.copytree(recordings.run(make_config("cat")).folder, root / "cat")
    kept_finding(Run.open(root / "cat"), "noise")
    return root


def forget(page: Page, concept: str) -> None:
    start(page, concept)
    wait_for_end(page)
    page.locator("#go").wait_for()


def choose(page: Page, field: str, option: str | re.Pattern) -> None:
    page.locator(f"{field} input").click()
    page.get_by_role("option", name=option).click()


def folders(site: SimpleNamespace) -> list[Path]:
    return [path for path in site.engine.root.iterdir() if (path / "run.json").exists()]


def listed(page: Page) -> list[str]:
    page.locator("#shown input").click()
    page.get_by_role("option").first.wait_for()
    texts = [text.replace("✓", "").strip() for text in page.get_by_role("option").all_inner_texts()]
    page.keyboard.press("Escape")
    return texts


def test_a_quick_look_gets_it_back_and_changes_the_verdict(site, visit) -> None:
    page = visit()
    forget(page, "frog")
    expect(page.locator("#status h2")).to_have_text("The attacker lost")
    assert page.locator("#found li").count() == 0
    site.runner.gate.clear()
    page.click("#go")
    page.locator("#quit").wait_for()
    assert page.locator("#shown input").is_disabled()
    assert page.locator("#run").is_disabled()
    assert not page.locator("#delete").is_visible()
    site.runner.gate.set()
    expect(page.locator("#found li")).to_have_count(len(QUICK))
    page.locator("#go").wait_for()
    expect(page.locator("#status h2")).to_have_text("The attacker won")
    expect(page.locator("#status")).to_contain_text("Worst attack")
    first = page.locator("#found li").first
    expect(first).to_contain_text("gets it back")
    expect(first).to_contain_text(
        "5 of 6 prompts · 83 % (44–97 %) · the second judge agrees on 4 of them"
    )
    expect(first).to_contain_text("pumpkin, never seen: 0 %")
    expect(first).to_contain_text("asks 5”")
    assert page.locator("#found li", has_text="no recovery").count() == 3
    loaded = (
        "images => images.every(image => image.complete && image.naturalWidth > 0 &&"
        " image.alt.length > 0)"
    )
    page.locator("#found").scroll_into_view_if_needed()
    page.wait_for_function(f"({loaded})([...document.querySelectorAll('#found img')])")
    assert page.locator("#run").is_enabled()
    assert not page.locator("#quit").is_visible()
    choose(page, "#shown", "cat (recorded)")
    expect(page.locator("#status")).to_contain_text("Recorded")
    choose(page, "#shown", "frog (your run 1)")
    expect(page.locator("#status h2")).to_have_text("The attacker won")
    expect(page.locator("#found li")).to_have_count(len(QUICK))


def test_one_attack_by_name_and_what_proves_nothing_apart(visit) -> None:
    page = visit()
    forget(page, "frog")
    choose(page, "#kind", re.compile("^Scale: "))
    page.click("#go")
    expect(page.locator("#found li")).to_have_count(1)
    expect(page.locator("#found")).to_contain_text("Proves nothing")
    expect(page.locator("#found li")).to_contain_text("not counted")
    expect(page.locator("#found")).not_to_contain_text("What attacks got back")
    expect(page.locator("#status h2")).to_have_text("The attacker lost")


def test_stop_keeps_the_attacks_that_are_complete(site, visit) -> None:
    page = visit()
    forget(page, "frog")
    site.runner.seconds = 4
    choose(page, "#kind", "Every attack")
    page.click("#go")
    expect(page.locator("#lab-said")).to_contain_text(re.compile(r"attack 1 of 9 · step \d+ of 10"))
    expect(page.locator("#lab-said")).to_contain_text("Trying to get frog back, completion")
    page.locator("#found li").first.wait_for()
    page.keyboard.press("Escape")
    page.locator("#go").wait_for()
    expect(page.locator("#lab-said")).to_contain_text("Stopped. Results so far are saved.")
    count = page.locator("#found li").count()
    assert 1 <= count < 8
    # Runs of visitors who have left are kept for a while, and all copies have one st_mtime.
    folder = max(folders(site), key=lambda path: (path / "run.json").stat().st_ctime)
    assert len(read_findings(folder)) == count


def test_a_recorded_run_cannot_be_attacked_or_deleted_and_says_why(visit, recorded: Path) -> None:
    page = visit()
    expect(page.locator("#lab-said")).to_contain_text("came with the app")
    expect(page.locator("#found li")).to_have_count(1)
    assert not page.locator("#go").is_visible()
    assert not page.locator("#delete").is_visible()
    forget(page, "frog")
    expect(page.locator("#lab-said")).not_to_contain_text("came with the app")
    choose(page, "#shown", "cat (recorded)")
    expect(page.locator("#lab-said")).to_contain_text("came with the app")
    page.locator("#go").wait_for(state="hidden")
    assert not page.locator("#delete").is_visible()


def test_the_report_and_the_whole_run_hold_what_was_found(
    visit, recorded: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in recorded.rglob("*")}
    page = visit()
    text = download(page, "report", tmp_path).read_text()
    assert "cat" in text
    assert "pumpkin, never seen" in text
    assert {path: path.stat().st_mtime_ns for path in recorded.rglob("*")} == before
    forget(page, "frog")
    expect(page.locator("#get-report")).to_be_visible()
    text = download(page, "report", tmp_path).read_text()
    assert "frog" in text
    assert "inversion" not in text
    choose(page, "#kind", re.compile("^Inversion"))
    page.click("#go")
    expect(page.locator("#found li")).to_have_count(1)
    page.locator("#go").wait_for()
    expect(page.locator("#shown input")).to_be_enabled()
    path = download(page, "report", tmp_path)
    assert path.name == "frog-report.html"
    assert "inversion" in path.read_text()
    with zipfile.ZipFile(download(page, "folder", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    assert {
        "report.html",
        "run.json",
        "attacks/inversion/finding.json",
        "attacks/inversion/05-00.png",
    } <= names


def test_deleting_asks_once_and_leaves_nothing(site, visit) -> None:
    page = visit()
    forget(page, "frog")
    forget(page, "rabbit")
    (folder,) = [path for path in folders(site) if Run.open(path).config.concept == "rabbit"]
    page.click("#delete")
    expect(page.locator("#delete")).to_have_text("Really delete it?")
    assert folder.is_dir()
    page.click("#delete")
    expect(page.locator("#history-said")).to_contain_text("Deleted.")
    expect(page.locator("#status")).to_contain_text("frog")
    expect(page.locator("#delete")).to_have_text("Delete this run")
    assert not folder.exists()
    assert listed(page) == ["frog (your run 1)", "cat (recorded)"]


def test_without_any_other_run_deleting_leaves_an_invitation(
    recordings, browser: Browser, tmp_path: Path
) -> None:
    with (
        served(Replay(recordings), recorded=tmp_path) as bare,
        Visitors(browser, bare.url) as visit,
    ):
        page = visit()
        forget(page, "frog")
        for _ in range(2):
            page.click("#delete")
            page.wait_for_timeout(300)
        expect(page.locator("#status")).to_contain_text("Pick a concept above")
        assert page.locator("#board img").count() == 0
        for gone in ("#go", "#shown", "#get-report", "#delete"):
            page.locator(gone).wait_for(state="hidden")
        assert not folders(bare)


def test_a_comparison_shows_both_concepts(visit, tmp_path: Path) -> None:
    page = visit()
    forget(page, "frog")
    choose(page, "#others", "cat (recorded)")
    page.locator("#get-comparison").wait_for()
    path = download(page, "comparison", tmp_path)
    text = path.read_text()
    assert path.suffix == ".html"
    assert "frog-your-run-1" in text
    assert "cat-recorded" in text
    assert "data:image/webp;base64," in text
    page.locator("#others .token-remove").first.click()
    page.locator("#get-comparison").wait_for(state="hidden")


def test_a_second_visitor_sees_none_of_it(site, visit) -> None:
    anna, ben = visit(), visit()
    forget(anna, "frog")
    anna.click("#go")
    expect(anna.locator("#found li")).to_have_count(len(QUICK))
    forget(ben, "rabbit")
    assert listed(ben) == ["rabbit (your run 1)", "cat (recorded)"]
    expect(ben.locator("#found li")).to_have_count(0)
    assert "frog" not in ben.locator("#others").inner_text()


@pytest.fixture
def case(
    recordings: Recordings, tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimpleNamespace]:
    """The listeners without a browser, and a finished run of Anna's."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    engine = Engine(Replay(recordings, seconds=0.1), patience=0.0).start()
    with gr.Blocks():
        page = Layout([], [], None, engine.pace)
    runs = RunList(engine, page, {"cat": recorded / "cat"})
    job = engine.submit(make_config("frog"), visitor_of("anna"))
    while not job.over:
        job.take(0.1, 10**6)
    engine.on_delete = delete_copies
    yield SimpleNamespace(
        page=page,
        job=job,
        engine=engine,
        runs=runs,
        attacks=AttackHandlers(engine, page, runs),
        handlers=RunHandlers(engine, page, "pocket", runs),
    )
    engine.shutdown()


def as_(session: str) -> SimpleNamespace:
    return SimpleNamespace(session_hash=session, headers={})


def test_the_run_of_another_cannot_be_reopened_attacked_deleted_or_compared(case) -> None:
    page, key = case.page, case.job.id
    shown = case.runs.show(as_("ben"), "", key)
    assert list(shown) == [page.hint]
    assert GONE in shown[page.hint]
    (tried,) = case.attacks.try_attacks(as_("ben"), "", key, "quick")
    assert GONE in tried[page.attacks.message]
    assert case.engine.job_of(visitor_of("ben")) is None
    deleted = case.runs.delete(as_("ben"), "", key, SURE)
    assert GONE in deleted[page.actions.message]
    assert case.job.folder.is_dir()
    for mine, others in ((key, ["cat"]), ("cat", [key])):
        compared = case.runs.compare(as_("ben"), "", mine, others)
        assert GONE in compared[page.actions.message]
        assert not compared[page.actions.compared].visible
    assert not download_folder(case.engine.home(visitor_of("ben")).name).exists()
    own = case.runs.compare(as_("anna"), "", key, ["cat"])[page.actions.compared]
    assert Path(own.value["path"]).read_text().count("frog")
    assert case.runs.show(as_("anna"), "", key)[page.attacks.row].visible


@pytest.mark.parametrize("key", ["cat", "", None, "../cat"])
def test_a_recorded_run_is_never_attacked_or_deleted(case, recorded: Path, key) -> None:
    before = sorted(recorded.rglob("*"))
    (tried,) = case.attacks.try_attacks(as_("anna"), "", key, "quick")
    assert GONE in tried[case.page.attacks.message]
    assert GONE in case.runs.delete(as_("anna"), "", key, SURE)[case.page.actions.message]
    assert sorted(recorded.rglob("*")) == before
    assert case.job.folder.is_dir()


def test_leaving_the_page_leaves_the_attacks_alone(case) -> None:
    case.engine._runner.seconds = 60
    updates = case.attacks.try_attacks(as_("anna"), "", case.job.id, "all")
    next(updates)
    next(updates)
    updates.close()
    job = case.engine.job_of(visitor_of("anna"))
    assert not job.cancel.is_set()
    assert not job.over


def test_another_tab_shows_the_attacks_from_the_first_event_on(case) -> None:
    case.engine._runner.seconds = 60
    updates = case.attacks.try_attacks(as_("anna"), "", case.job.id, "all")
    while "step" not in next(updates)[case.page.attacks.message]:
        pass
    updates.close()
    put, begun, shown = islice(case.attacks.resume(case.engine.job_of(visitor_of("anna"))), 3)
    assert "frog" in put[case.page.status]
    assert begun[case.page.attacks.stop].visible
    assert "step" in shown[case.page.attacks.message]


@pytest.mark.parametrize(("who", "known"), [("anna", True), ("ben", False)])
def test_arriving_again_is_told_from_arriving(case, who: str, known: bool) -> None:
    assert case.handlers.arrive(as_(who), "", "cat")[case.page.came_back] is known


def test_coming_back_shows_the_latest_run_and_nobody_elses(case) -> None:
    assert case.handlers.come_back(visitor_of("anna"))[case.page.shown].value == case.job.id
    assert case.handlers.come_back(visitor_of("ben")) == {}


def test_plots_are_sent_again_only_after_a_step(case) -> None:
    state, page = ViewState(case.job.config), case.page
    step = Step("unlearn", 1, 2, {"forget": 1.0})
    assert page.losses in case.handlers._update(state, case.job, [step])
    assert list(case.handlers._update(state, case.job, [])) == [page.status]


def test_the_end_is_shown_once_with_the_last_events(case) -> None:
    first, last = case.handlers.follow(case.job)
    assert first[case.page.stop].visible
    assert not last[case.page.stop].visible
    assert "The attacker lost" in last[case.page.status]
    assert case.page.comparison in last


def test_downloads_live_as_long_as_their_run(case) -> None:
    links = case.runs.put(case.job.id, visitor_of("anna"))
    file = Path(links[case.page.downloads["folder"]].value["path"])
    assert file.parent == download_folder(case.job.id)
    assert file.is_file()
    case.engine.leave(visitor_of("anna"))
    assert not file.exists()


def test_nothing_sticks_out_on_a_phone_or_in_the_dark(site, visit) -> None:
    """In the dark on a desktop, and on a phone that is never wider while the attacks go on."""
    page = visit(viewport=PHONE)
    forget(page, "frog")
    choose(page, "#kind", "Every attack")
    assert sideways(page) == 0
    site.runner.seconds = 0.0
    page.click("#go")
    expect(page.locator("#found li")).to_have_count(len(kinds_of("all")))
    page.locator("#go").wait_for()
    for scheme, size in (("light", PHONE), ("dark", DESKTOP["viewport"])):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        assert sideways(page) == 0
        box, card = page.locator(BOX).bounding_box(), page.locator("#found li").first.bounding_box()
        assert box["y"] < page.locator("#go").bounding_box()["y"] < card["y"]
