"""What is shared of a result: the link, the picture card, and what other sites show of the page."""

import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from browsing import BOX, serious, start, wait_for_end
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import expect
from recordings import Recordings

from unlearn_app.runs.folder import Run
from unlearn_app.settings.run_config import make_config
from unlearn_app.web.build import launch_kwargs
from unlearn_app.web.share import MARKS, SIDE, link, picture_card, tags

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(recordings: Recordings) -> Run:
    return Run.open(recordings.run(make_config("cat")).folder)


def test_a_link_names_concept_seed_and_method_whatever_they_hold() -> None:
    found = parse_qs(urlsplit(link(make_config("“a & b”?#=", seed=7))).query)
    assert found == {"concept": ["“a & b”?#="], "seed": ["7"], "method": ["esd"]}


def test_a_card_shows_the_pictures_of_the_run_and_who_won(run: Run) -> None:
    card = picture_card(run)
    assert card.size == (1200, 630)
    assert card.getpixel((600, 5)) == MARKS["concealed"]
    for column, left in (("original", 48), ("unlearned", 450), ("relearned", 852)):
        stored = Image.open(run.folder / "images" / f"{column}-forget-00.png").convert("RGB")
        shown = card.crop((left, 226, left + SIDE, 226 + SIDE))
        small = shown.resize(stored.size, Image.Resampling.BOX)
        assert max(ImageStat.Stat(ImageChops.difference(small, stored)).mean) < 12


def test_a_card_follows_the_verdict(run: Run) -> None:
    verdict = run.record["verdict"] | {"label": "removed"}
    other = replace(run, record=run.record | {"verdict": verdict})
    assert picture_card(other).getpixel((600, 5)) == MARKS["removed"]


def test_share_has_a_link_and_the_card_of_the_run_on_screen(site, visit) -> None:
    page = visit()
    expect(page.locator("#get-folder")).to_be_visible()
    page.click("[data-open-share]")
    box = page.get_by_label("Link that fills in the concept, the method and the seed")
    assert parse_qs(urlsplit(box.input_value()).query)["concept"] == ["cat"]
    size = "image => [image.naturalWidth, image.naturalHeight]"
    page.wait_for_function("document.querySelector('#u-share img').naturalWidth > 0")
    assert page.locator("#u-share img").evaluate(size) == [1200, 630]
    assert serious(page) == []
    link_of_cat = box.input_value()
    page.keyboard.press("Escape")
    expect(page.locator("#u-share")).to_have_count(0)
    start(page, "rabbit")
    page.click("[data-open-share]")
    expect(page.locator("#u-share")).to_contain_text("as soon as a run is over")
    page.keyboard.press("Escape")
    wait_for_end(page)
    expect(page.locator("#status")).not_to_contain_text("Stopped")
    page.click("[data-open-share]")
    expect(page.locator("#u-share input")).to_have_value(re.compile("concept=rabbit"))
    again = visit(link_of_cat)
    expect(again.locator(BOX)).to_have_value("cat")


def test_other_sites_see_the_name_and_the_card_of_the_page(site: SimpleNamespace) -> None:
    text = httpx.get(site.url).text
    found = re.findall(r'<meta property="og:(\w+)" content="([^"]*)">', text.split("</head>")[0])
    assert [name for name, _ in found] == ["type", "title", "description", "image"]
    assert dict(found)["title"] == "Can it really forget?"
    assert dict(found)["image"] == "/card.png"
    assert "@teamGradio" not in text
    icon = Path(launch_kwargs()["favicon_path"]).read_bytes()
    assert httpx.get(f"{site.url}favicon.ico").content == icon
    with Image.open(io.BytesIO(httpx.get(f"{site.url}card.png").content)) as card:
        assert card.size == (1200, 630)
    assert httpx.post(f"{site.url}card.png").status_code == 404


def test_a_space_gives_the_whole_address_of_its_card(monkeypatch) -> None:
    monkeypatch.setenv("SPACE_HOST", "me-page.hf.space")
    assert 'content="https://me-page.hf.space/card.png"' in tags("Title", "says")
    assert Path(launch_kwargs()["favicon_path"]).is_file()
