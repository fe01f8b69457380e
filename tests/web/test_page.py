"""The page in a real browser, with recorded runs; `test_page_live.py` has real ones."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import (
    BOX,
    TRAP,
    Visitors,
    download,
    open_options,
    scores,
    served,
    sideways,
    sources,
    start,
    wait_for_end,
)
from PIL import Image
from playwright.sync_api import Page, expect
from recordings import Recordings, Replay, small
from safetensors import safe_open

from unlearn_app.runs.folder import Run
from unlearn_app.service.engine import Engine
from unlearn_app.settings.presets import FULL_WEIGHTS
from unlearn_app.settings.run_config import make_config
from unlearn_app.web import build_demo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs that come with the page."""
    root = tmp_path_factory.mktemp("recorded")
    for name in ("cat", "van gogh"):
        folder = recordings.run(make_config(name)).folder
        shutil.copytree(folder, root / name.replace(" ", "-"))
    return root


@pytest.fixture(scope="module")
def opened(site, browser) -> Iterator[Page]:
    """The page of one visitor, for all tests that only write into its fields."""
    with Visitors(browser, site.url) as visitors:
        page = visitors()
        # Its last tick clears a mark at the field.
        expect(page.locator("#head")).to_contain_text("Model ready")
        yield page


@pytest.fixture
def reader(site, opened) -> Iterator[Page]:
    """That page, with its options folded; its visitor never runs anything."""
    site.runner.asked.clear()
    yield opened
    fold = opened.locator("#options > button")
    if "open" in (fold.get_attribute("class") or "").split():
        fold.click()
    assert not site.runner.asked


def test_arrival_shows_a_recorded_run_without_a_click_or_a_request_elsewhere(
    site, browser, recorded
) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(site.url)
    expect(page.locator("#status")).to_contain_text("Recorded")
    expect(page.locator("#board img").first).to_be_visible()
    expect(page.locator("#head")).to_contain_text("Model ready")
    expect(page.locator("#get-folder")).to_be_visible()
    assert all(url.startswith((site.url, "data:", "blob:")) for url in asked)
    assert not problems
    look = "image => [image.naturalWidth, getComputedStyle(image).imageRendering]"
    assert page.locator("#board img").first.evaluate(look) == [64, "pixelated"]
    assert page.title() == "Can it really forget?"
    stored = Run.open(recorded / "cat").pictures[0].file.read_bytes()
    assert context.request.get(sources(page)[0]).body() == stored
    assert all(
        page.eval_on_selector_all("img", "images => images.map(image => image.alt.length > 0)")
    )
    context.close()


def test_run_then_stop_keeps_the_previews(site, visit) -> None:
    site.runner.seconds = 20
    page = visit()
    start(page, "rabbit")
    expect(page.locator("#status")).to_contain_text(re.compile(r"step \d+ of \d+"))
    page.locator("#stage .u-now").first.wait_for()
    page.click("#stop")
    wait_for_end(page)
    expect(page.locator("#status")).to_contain_text("Stopped")
    expect(page.locator("#status")).to_contain_text("rabbit")
    assert page.locator("#stage .u-now").count()
    expect(page.locator("#get-folder")).to_be_visible()


def test_keys_run_and_stop(site, visit) -> None:
    site.runner.seconds = 60
    page = visit()
    page.fill(BOX, "kitty")
    page.press(BOX, "Enter")
    page.locator("#stop").wait_for()
    page.keyboard.press("Escape")
    wait_for_end(page)
    expect(page.locator("#status")).to_contain_text("Stopped")


def test_run_compare_download(site, visit, tmp_path: Path) -> None:
    page = visit()
    start(page, "Rabbit")
    wait_for_end(page)
    expect(page.locator("#status")).to_contain_text("Your run")
    expect(page.locator("#status h2")).to_have_text("The attacker won")
    expect(page.locator("#summary table").first.locator("tbody tr")).to_have_count(3)
    rows = page.locator("#board tbody tr")
    compare = small(make_config("rabbit")).compare
    assert rows.count() == compare.forget + compare.near + compare.far
    assert rows.first.locator("figure:visible").count() == 3
    assert re.search(r"0\.08 −0\.\d\d ✕ dog", " ".join(rows.first.inner_text().split()))
    files = {kind: download(page, kind, tmp_path) for kind in ("adapter", "strip", "folder")}
    with safe_open(files["adapter"], "pt") as tensors:
        assert tensors.metadata()["concept"] == "rabbit"
    Image.open(files["strip"]).verify()
    with zipfile.ZipFile(files["folder"]) as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        assert json.loads(archive.read(names["run.json"]))["config"]["concept"] == "Rabbit"
        Image.open(io.BytesIO(archive.read(names["original-forget-00.png"]))).verify()


def test_earlier_runs_can_be_shown_again(visit) -> None:
    page = visit()
    before = sources(page)
    start(page, "rabbit")
    wait_for_end(page)
    assert sources(page) != before
    page.locator("#shown input").click()
    page.get_by_role("option", name="cat (recorded)").click()
    expect(page.locator("#status")).to_contain_text("Recorded")
    expect(page.locator("#board img").first).to_have_attribute(
        "src", re.compile(before[0].rpartition("/")[2])
    )
    assert sources(page) == before


def test_chips_fill_the_box(reader: Page) -> None:
    page = reader
    page.locator("#chips button", has_text="butterfly").click()
    expect(page.locator(BOX)).to_have_value("butterfly")
    expect(page.locator("#hint")).to_contain_text("butterfly")


def test_an_unknown_word_gets_the_nearest_known(reader: Page) -> None:
    page = reader
    page.fill(BOX, "catt")
    page.click("#run")
    expect(page.locator("#hint")).to_contain_text("does not know “catt”")
    expect(page.locator(BOX)).to_have_accessible_name(
        re.compile("does not know")
    )  # the click has been answered
    page.locator("#hint button", has_text=re.compile("^cat$")).click()
    expect(page.locator(BOX)).to_have_value("cat")
    expect(page.locator("#hint")).to_contain_text("learns to show dog instead")


def test_bad_text_gets_a_sentence_at_the_field(reader: Page) -> None:
    page = reader
    for text, sentence in (
        ("", "is empty"),
        ("x" * 10_000, "10,000 characters"),
        ("   ", "is empty"),
        ("ca\x07t", "control"),
        ("\U0001f431", "does not know"),
    ):
        page.fill(BOX, text)
        page.click("#run")
        expect(page.locator("#hint")).to_contain_text(sentence)
        expect(page.locator(BOX)).to_have_accessible_name(re.compile(re.escape(sentence)))
    assert "Traceback" not in page.content()
    expect(page.locator("#status")).to_contain_text("Recorded")


def test_bad_options_get_a_sentence_and_open_their_fold(reader: Page) -> None:
    page = reader
    page.fill(BOX, "cat")
    fold = page.locator("#options > button")
    open_options(page)
    for field, value, sentence in (
        ("#anchor textarea, #anchor input", "cat", "the concept itself"),
        ("#unlearn-steps input", "0", "“Forgetting steps” is 0; 1 to 5000"),
        ("#unlearn-lr input", "7", "is accepted"),
        ("#unlearn-steps input", "", "whole number"),
        ("#own-prompts textarea", "keep: a dog", "Line 1"),
        ("#own-prompts textarea", "forget: a cat", "retain set"),
    ):
        before = page.locator(field).first.input_value()
        page.fill(field, value)
        page.press(field, "Tab")
        fold.click()
        expect(page.locator(field).first).to_be_hidden()
        page.click("#run")
        expect(page.locator(field).first).to_be_focused()
        expect(page.locator("#hint")).to_contain_text(sentence)
        page.fill(field, before)
        page.press(field, "Tab")
    assert "Traceback" not in page.content()


def test_options_show_the_equivalent_command(visit) -> None:
    page = visit()
    page.fill(BOX, "van gogh style")
    open_options(page)
    page.fill("#unlearn-steps input", "7")
    page.press("#unlearn-steps input", "Tab")
    command = page.locator("#command textarea, #command input")
    expect(command).to_have_value(re.compile(r"--concept 'van gogh style' .*--set unlearn.steps=7"))
    page.get_by_label("full", exact=True).check()
    expect(page.locator("#unlearn-steps input")).to_have_value("200")
    expect(page.locator("#prompts")).to_contain_text("judged on")


def test_fields_follow_the_kind_of_concept_until_they_are_changed(site, visit) -> None:
    page = visit()
    steps = page.locator("#unlearn-steps input")
    open_options(page)
    page.fill(BOX, "woodcut")
    expect(steps).to_have_value(str(make_config("woodcut").unlearn.steps))
    page.fill(BOX, "dog")
    expect(steps).to_have_value(str(make_config("dog").unlearn.steps))
    page.fill("#unlearn-steps input", "7")
    page.press("#unlearn-steps input", "Tab")
    page.fill(BOX, "woodcut")
    command = page.locator("#command textarea, #command input")
    expect(command).to_have_value(re.compile(r"--concept woodcut .*--set unlearn.steps=7 --out"))


def test_who_types_and_presses_enter_at_once_gets_what_the_concept_needs(site, visit) -> None:
    site.runner.seconds = 60
    page = visit()
    expect(page.locator("#head")).to_contain_text("Model ready")
    page.fill(BOX, "van gogh")
    page.press(BOX, "Enter")
    expect(page.locator("#stop")).to_be_visible()
    assert site.runner.asked[-1].unlearn == make_config("van gogh").unlearn


def test_the_switch_says_what_resisting_costs_and_reaches_the_run(site, visit) -> None:
    page = visit()
    switch, said = (
        page.locator("#resist-on input"),
        page.locator("#resist-on").get_by_text("adds about"),
    )
    open_options(page)
    expect(switch).not_to_be_checked()
    costs = r"adds about \d+ (s|min) in fast; about \d+ min in full$"
    expect(said).to_have_text(re.compile(costs))
    lines = "getBoundingClientRect().height / parseFloat(getComputedStyle(node).lineHeight)"
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert said.evaluate(f"node => node.{lines}") < 3
    command = page.locator("#command textarea, #command input")
    page.fill(BOX, "rabbit")
    expect(command).to_have_value(re.compile("--concept rabbit"))
    assert "resist" not in command.input_value()
    switch.check()
    expect(command).to_have_value(re.compile("--set resist.on=yes"))
    start(page, "rabbit")
    wait_for_end(page)
    (config,) = site.runner.asked
    assert config == make_config("rabbit", **{"resist.on": True})


def test_a_method_fills_in_what_it_suggests(visit) -> None:
    page = visit()
    page.fill(BOX, "cat")
    open_options(page)
    page.locator("#objective input").click()
    page.get_by_role("option", name=re.compile("^erasediff")).click()
    expect(page.locator("#unlearn-lr input")).to_have_value("0.003")
    expect(page.locator("#barrier-eta input")).to_have_value("0.5")
    command = page.locator("#command textarea, #command input")
    expect(command).to_have_value(
        re.compile("--concept cat --objective erasediff --preset fast --out DIR$")
    )


def test_full_weights_fill_in_their_learning_rate_until_an_adapter_is_picked_again(visit) -> None:
    page = visit()
    page.fill(BOX, "cat")
    open_options(page)
    lr = page.locator("#unlearn-lr input")
    before = lr.input_value()
    for weights, filled in (("full", f"{FULL_WEIGHTS['unlearn.lr']:g}"), ("lora", before)):
        page.locator("#unlearn-weights input").click()
        page.get_by_role("option", name=weights, exact=True).click()
        expect(lr).to_have_value(filled)
    assert before != f"{FULL_WEIGHTS['unlearn.lr']:g}"


def test_the_slider_scrubs_through_the_attack(visit) -> None:
    page = visit()
    start(page, "cat")
    wait_for_end(page)
    expect(page.locator("#board .u-scrub")).to_be_visible()
    shown = page.locator("#board td.u-relearned").first.locator("figure:visible img")
    last = shown.get_attribute("src")
    slider = page.get_by_label("Attack progress")
    slider.focus()
    slider.press("Home")
    expect(page.locator("#board .u-scrub output")).to_have_text("0")
    unlearned = page.locator("#board td.u-unlearned img").first.get_attribute("src")
    expect(shown).to_have_count(1)
    assert shown.get_attribute("src") == unlearned != last
    expect(page.locator("#curve")).to_be_visible()


def test_unknown_markup_is_quoted_in_the_message(reader: Page) -> None:
    page = reader
    page.fill(BOX, TRAP)
    page.click("#run")
    expect(page.locator("#hint")).to_contain_text(TRAP)
    page.wait_for_timeout(300)
    assert not page.evaluate("window.trapped")


def test_two_visitors_at_once_get_the_pictures_they_get_alone(site, visit) -> None:
    alone = {}
    for concept in ("rabbit", "bear"):
        page = visit()
        start(page, concept)
        wait_for_end(page)
        alone[concept] = (sources(page), scores(page))
    assert alone["rabbit"] != alone["bear"]
    site.runner.gate.clear()
    pages = {concept: visit() for concept in alone}
    for concept, page in pages.items():
        start(page, concept)
    expect(pages["bear"].locator("#status")).to_contain_text("1 run is before yours")
    site.runner.gate.set()
    for concept, page in pages.items():
        wait_for_end(page)
        assert (sources(page), scores(page)) == alone[concept]
    assert not site.runner.overlapped


def test_a_reload_asks_first_and_returns_to_the_run_in_progress_and_to_finished_ones(
    site, visit
) -> None:
    site.runner.seconds = 30
    page, asked = visit(), []
    start(page, "rabbit")
    page.locator("#stage .u-now").first.wait_for()
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    assert asked == ["beforeunload"]
    page.locator("#stage .u-now").first.wait_for()
    expect(page.locator("#status")).to_contain_text(re.compile(r"step \d+ of \d+"))
    assert site.runner.log == [("begin", "rabbit")]
    page.click("#stop")
    wait_for_end(page)
    page.reload()
    expect(page.locator("#status")).to_contain_text("Stopped")
    expect(page.locator("#shown input")).to_have_value("rabbit (your run 1)")
    assert len(asked) == 1


def test_a_second_tab_shows_what_runs_and_may_close(site, visit) -> None:
    site.runner.seconds = 30
    page = visit()
    start(page, "rabbit")
    other = page.context.new_page()
    other.goto(site.url)
    expect(other.locator("#status")).to_contain_text(re.compile(r"step \d+ of \d+"))
    other.close()
    page.wait_for_timeout(1000)
    site.engine.sweep()
    expect(page.locator("#status")).to_contain_text(re.compile(r"step \d+ of \d+"))
    page.close()
    page.context.close()
    site.engine.sweep()
    assert site.runner.log == [("begin", "rabbit")]
    (job,) = site.engine._jobs
    site.engine.leave(job.visitor)
    job.take(60, 10**6)


def test_no_column_heading_runs_into_its_neighbour(visit) -> None:
    page = visit(viewport={"width": 390, "height": 800})
    page.locator(".u-cols").wait_for()
    end = "getBoundingClientRect().right"
    for width in (390, 820, 1000, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        left = page.locator(".u-col p > :last-child").evaluate_all(
            f"parts => parts.map(part => part.parentElement.{end} - part.{end})"
        )
        assert len(left) == 6, width
        assert min(left) >= -0.5, width
        assert sideways(page) == 0, width


def test_a_phone_shows_three_columns_without_sideways_scrolling(visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert sideways(page) == 0
    boxes = [
        cell.bounding_box()
        for cell in page.locator("#board tbody tr").first.locator("figure:visible img").all()
    ]
    assert len({box["y"] for box in boxes}) == 1
    assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    start(page, "rabbit")
    wait_for_end(page)
    page.fill(BOX, "w" * 150)
    expect(page.locator("#hint")).to_contain_text("does not know")
    assert sideways(page) == 0


def test_without_a_recorded_run_the_page_invites_and_plots(
    recordings, visit, tmp_path: Path
) -> None:
    with served(Replay(recordings), recorded=tmp_path) as bare:
        page = visit(bare.url)
        expect(page.locator("#status")).to_contain_text("Pick a concept")
        start(page, "rabbit")
        wait_for_end(page)
        expect(page.locator("#plot")).to_contain_text("relearn")
        assert "Infinity" not in page.locator("#plot").inner_text()


@pytest.mark.parametrize("harm", ["picture", "record"])
def test_a_damaged_recorded_run_is_left_out(
    recordings, recorded: Path, tmp_path: Path, harm: str
) -> None:
    shutil.copytree(recorded, tmp_path / "runs")
    if harm == "picture":
        next((tmp_path / "runs" / "cat" / "images").iterdir()).unlink()
    else:
        (tmp_path / "runs" / "cat" / "run.json").write_text('{"schema"')
    engine = Engine(Replay(recordings))
    with pytest.warns(UserWarning, match="cat"):
        demo = build_demo(engine, recorded=tmp_path / "runs")
    assert "van-gogh (recorded)" in str(demo.config)
    assert "cat (recorded)" not in str(demo.config)


def test_a_failed_run_says_so_in_a_sentence(recordings, visit, recorded: Path) -> None:
    with served(
        Replay(recordings, error=RuntimeError("secret detail")), recorded=recorded
    ) as broken:
        page = visit(broken.url)
        page.fill(BOX, "rabbit")
        page.click("#run")
        expect(page.locator("#status")).to_contain_text("Something went wrong on our side")
        expect(page.locator("#run")).to_be_enabled()
        assert "secret detail" not in page.content()


def test_a_run_and_attacks_on_it_are_the_public_endpoints(site) -> None:
    from gradio_client import Client

    client = Client(site.url, verbose=False, analytics_enabled=False)
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/unlearn", "/attack"}
    with pytest.raises(Exception, match="call unlearn first"):
        client.predict(api_name="/attack")
    resisting = client.submit(concept="rabbit", resist=True, api_name="/unlearn").result()
    assert resisting["config"]["resist"]["on"]
    job = client.submit(concept="frog", api_name="/unlearn")
    assert job.result()["config"]["concept"] == "frog"
    assert job.result()["verdict"]["label"] == "removed"
    assert job.outputs()[0]["status"] == "running"
    assert not job.result()["config"]["resist"]["on"]
    with pytest.raises(Exception, match="does not know"):
        client.predict(concept="zeppelin", api_name="/unlearn")
    with pytest.raises(Exception, match="'magic' is unknown"):
        client.predict(kind="magic", api_name="/attack")
    job = client.submit(kind="inversion", api_name="/attack")
    (found,) = job.result()["findings"]
    assert (found["kind"], sum(found["hits"]), found["control"]["name"]) == (
        "inversion",
        5,
        "pumpkin, never seen",
    )
    assert job.result()["verdict"]["label"] == "concealed"
    assert job.outputs()[0]["status"] == "running"
    other = Client(site.url, verbose=False, analytics_enabled=False)
    with pytest.raises(Exception, match="call unlearn first"):
        other.predict(api_name="/attack")
