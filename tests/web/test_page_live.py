"""The page end to end: real Chromium, real engine, real training on the bundled model and on a
foreign one.
"""

import json
import re
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
    set_options,
    sources,
    start,
    wait_for_end,
)
from PIL import Image
from playwright.sync_api import Browser, expect
from safetensors.torch import load_file

from unlearn_app.service.engine import InProcess
from unlearn_app.settings.events import GROUPS
from unlearn_app.settings.presets import PRESET_CHANGES
from unlearn_app.worlds import World
from unlearn_app.worlds.pocket import PocketWorld

SMALL = {
    "unlearn.steps": 2,
    "unlearn.batch_size": 2,
    "unlearn.train_pictures": 4,
    "attack.steps": 2,
    "attack.batch_size": 2,
    "attack.pictures": 2,
    "compare.forget": 2,
    "compare.near": 1,
    "compare.far": 1,
    "compare.sampling_steps": 2,
}
OTHER = {"unlearn.steps": 1, "compare.forget": 1, "compare.near": 2, "compare.far": 2}
"""Other settings than those, as somebody types them."""


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Small settings in the preset fast, so that not every visitor has to type them; one does, in
    `test_arrive_type_run_compare_download`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESET_CHANGES, "fast", SMALL)
        # The world's own settings would replace them.
        for world in (World, PocketWorld):
            patch.setattr(world, "run_settings", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Iterator[Visitors]:
    """Visits the page with the bundled model."""
    with served(InProcess()) as site, Visitors(browser, site.url) as visitors:
        yield visitors


def test_arrive_type_run_stop(visit: Visitors) -> None:
    page = visit()
    expect(page.locator("#status")).to_contain_text("Recorded")
    expect(page.locator("#board img").first).to_be_visible()
    set_options(page, {"unlearn.steps": 40})
    start(page, "Kitty")
    expect(page.locator("#status")).to_contain_text(re.compile(r"step \d+ of"))
    page.locator("#stage .u-now").first.wait_for()
    page.click("#stop")
    wait_for_end(page)
    expect(page.locator("#status")).to_contain_text("Stopped")
    assert page.locator("#stage .u-now").count()
    page.context.close()


def test_arrive_type_run_compare_download(visit: Visitors, tmp_path: Path) -> None:
    page, count = visit(), 3 * sum(OTHER[f"compare.{group}"] for group in GROUPS)
    set_options(page, OTHER)
    start(page, "Van Gogh style")
    wait_for_end(page)
    expect(page.locator("#status")).to_contain_text("Your run")
    expect(page.locator("#summary table").first.locator("tbody tr")).to_have_count(3)
    assert len(set(sources(page))) > count / 3
    assert len(sources(page)) == count
    expect(page.locator("#board figcaption").nth(1)).to_contain_text(
        re.compile(r"−?\d\.\d\d\s+[+−±]\d\.\d\d")
    )
    assert all(".lora_" in name for name in load_file(download(page, "adapter", tmp_path)))
    Image.open(download(page, "strip", tmp_path)).verify()
    with zipfile.ZipFile(download(page, "folder", tmp_path)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("run.json"))
        record = json.loads(archive.read(name))
    assert record["status"] == "complete"
    assert len(record["pictures"]) == count
    groups = {name: name.split(".") for name in OTHER}
    assert {n: record["config"][group][leaf] for n, (group, leaf) in groups.items()} == OTHER
    page.context.close()


def test_arrive_type_run_try_to_get_it_back(visit: Visitors, tmp_path: Path) -> None:
    page = visit()
    start(page, "cat")
    wait_for_end(page)
    page.locator("#kind input").click()
    page.get_by_role("option", name=re.compile("^Prompts:")).click()
    page.click("#go")
    expect(page.locator("#found li")).to_contain_text(re.compile(r"[012] of 2 prompts"))
    expect(page.locator("#found li")).to_contain_text("never seen: 0 %")
    page.locator("#go").wait_for()
    expect(page.locator("#lab-said")).to_contain_text(
        re.compile(r"A quick look takes about \d+ seconds here")
    )
    assert "of 2 held-out prompts" in download(page, "report", tmp_path).read_text()
    page.context.close()


def test_two_visitors_at_once_get_the_pictures_they_get_alone(visit: Visitors) -> None:
    def ask(concept: str):
        page = visit()
        start(page, concept)
        return page

    def shown(page) -> tuple[list[str], str]:
        wait_for_end(page)
        found = sources(page), scores(page)
        page.context.close()
        return found

    alone = {concept: shown(ask(concept)) for concept in ("cat", "neon")}
    pages = {concept: ask(concept) for concept in alone}
    assert {concept: shown(page) for concept, page in pages.items()} == alone
    assert alone["cat"] != alone["neon"]


@pytest.fixture(scope="module")
def foreign(browser: Browser, tiny_pipeline: Path, tmp_path_factory) -> Iterator[Visitors]:
    """Visits the page with a small model that no judge knows."""
    model, empty = str(tiny_pipeline), tmp_path_factory.mktemp("empty")
    with (
        served(InProcess(model), model=model, recorded=empty) as site,
        Visitors(browser, site.url) as visitors,
    ):
        yield visitors


def test_a_foreign_model_without_a_judge_says_so(foreign: Visitors, tmp_path: Path) -> None:
    page = foreign()
    expect(page.locator("#head")).to_contain_text("Model ready")
    start(page, "a red balloon")
    wait_for_end(page)
    expect(page.locator("#status")).to_contain_text("No verdict")
    expect(page.locator("#status")).to_contain_text("judge")
    assert len(sources(page)) == 12
    assert load_file(download(page, "adapter", tmp_path))


def test_typed_text_is_never_markup(foreign: Visitors) -> None:
    page = foreign()
    page.fill(BOX, TRAP)
    page.get_by_label("a thing or a person").check()
    start(page, TRAP)
    wait_for_end(page)
    expect(page.locator("#status")).to_contain_text(TRAP)
    expect(page.locator("#board th").filter(has_text=TRAP).first).to_be_visible()
    page.fill(BOX, TRAP * 9)
    page.click("#run")
    expect(page.locator("#hint")).to_contain_text("characters")
    page.fill(BOX, "x")
    open_options(page)
    page.fill("#anchor textarea, #anchor input", "x" * 201 + TRAP)
    page.click("#run")
    expect(page.locator("#hint")).to_contain_text("characters")
    assert page.evaluate("window.trapped") is None
