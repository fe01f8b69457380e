"""The tab for what others made: a visitor sends an adapter in by the one way there is, sees the
result as a run, and nothing of the file stays; only the owner names places of the machine.
"""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from asynchronous import complete
from browsing import Visitors, served
from playwright.sync_api import Browser, expect
from shipped import shipped

from unlearn_app.service.jobs import AuditRequest
from unlearn_app.service.visitors import visitor_of
from unlearn_app.settings.events import Done, Event, Stage, Step
from unlearn_app.web.boundary import HOSTS, KEY, UPLOAD, is_owner
from unlearn_app.web.uploads import UploadError, receive, stored

RUN = shipped("cat")
OWN_KEY = "a" * 64


class Auditor:
    """A runner that reads what it is to audit, and leaves the recorded run."""

    def __init__(self) -> None:
        self.asked: list[AuditRequest] = []
        self.content: list[bytes] = []

    def warm(self) -> None:
        """Load nothing."""

    def __call__(self, asked: Any, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Yield the events of a short audit."""
        self.asked.append(asked)
        self.content.append(Path(asked.source).read_bytes() if asked.sent else b"")
        yield Stage("unlearn", "What is audited is the adapter lora", 0.1)
        yield Step("unlearn", 1, 1)
        shutil.copytree(RUN, out)
        yield Done(out)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    with served(Auditor(), recorded=tmp_path_factory.mktemp("none")) as site:
        yield site


def test_a_visitor_sends_an_adapter_and_sees_the_audit_as_a_run(
    site: SimpleNamespace, browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "my lora.safetensors"
    file.write_bytes(b"weights")
    with Visitors(browser, site.url) as visitors:
        page = visitors()
        page.get_by_role("tab", name="Audit").click()
        page.locator("#audit").click()
        expect(page.locator("#audit-said")).to_contain_text("There is no file")
        page.set_input_files("#audit-file", file)
        page.fill("#audited textarea, #audited input", "zeppelin")
        page.locator("#audit").click()
        expect(page.locator("#audit-said")).to_contain_text("zeppelin")
        assert not list(site.engine.root.glob("*/sent/*"))  # what is refused is not kept
        page.fill("#audited textarea, #audited input", "cat")
        page.locator("#audit").click()
        expect(page.locator("#status")).to_contain_text("Concealed")
        assert page.locator("#board img").count() > 0
        asked = site.runner.asked[-1]
        assert asked.config.audited == "my lora.safetensors"
        assert asked.config.concept == "cat"
        assert asked.sent
        assert site.runner.content[-1] == b"weights"
        assert not list(site.engine.root.glob("*/sent/*"))


def test_the_owner_names_a_folder_instead(site: SimpleNamespace, browser: Browser) -> None:
    with Visitors(browser, site.url) as visitors:
        page = visitors()
        page.get_by_role("tab", name="Audit").click()
        page.fill("#audit-place textarea, #audit-place input", "/models/erased")
        page.fill("#audited textarea, #audited input", "cat")
        page.locator("#audit").click()
        expect(page.locator("#status")).to_contain_text("Concealed")
        asked = site.runner.asked[-1]
        assert (asked.source, asked.config.audited, asked.sent) == (
            "/models/erased",
            "erased",
            False,
        )


def test_nobody_sends_a_file_without_an_open_page(site: SimpleNamespace) -> None:
    url = f"{site.url.rstrip('/')}{UPLOAD}"
    answer = httpx.post(f"{url}?name=a.safetensors", content=b"x", headers={KEY: OWN_KEY})
    assert answer.status_code == 422
    assert "files are sent from the page" in answer.json()["detail"]
    stranger = {KEY: OWN_KEY, "origin": "https://evil.example"}
    assert httpx.post(url, content=b"x", headers=stranger).status_code == 403
    assert not list(site.engine.root.glob("*/sent/*"))


async def _chunks(size: int) -> Any:
    yield b"x" * size


def engine_with(tmp_path: Path, here: bool = True) -> Any:
    """An engine whose only visitor has the page open, or not."""
    home = tmp_path / visitor_of("", OWN_KEY)
    return SimpleNamespace(
        root=tmp_path,
        visitors=SimpleNamespace(here=lambda visitor: here),
        sent=lambda visitor: (home if visitor == visitor_of("", OWN_KEY) else tmp_path) / "sent",
    )


def test_a_token_is_of_use_to_its_visitor_alone(tmp_path: Path) -> None:
    engine = engine_with(tmp_path)
    token = complete(receive(engine, OWN_KEY, "a.safetensors", _chunks(3)))
    path = stored(engine, visitor_of("", OWN_KEY), token)
    assert path.read_bytes() == b"xxx"
    assert stored(engine, "another", token) is None
    for wrong in ("", None, "../secret", f"../{token}", "f" * 32):
        assert stored(engine, visitor_of("", OWN_KEY), wrong) is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UploadError, match="another kind"):
        complete(receive(engine_with(tmp_path), OWN_KEY, "a.ckpt", _chunks(1)))


@pytest.mark.parametrize(
    ("client", "headers", "environment", "owner"),
    [
        ("127.0.0.1", {"host": "localhost:7860"}, {}, True),
        ("::1", {"host": "[::1]:7860"}, {}, True),
        ("192.0.2.7", {"host": "localhost:7860"}, {}, False),
        ("127.0.0.1", {"host": "lab.example"}, {}, False),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "192.0.2.7"}, {}, False),
        ("127.0.0.1", {"host": "localhost", "Forwarded": "for=192.0.2.7"}, {}, False),
        ("127.0.0.1", {"host": "localhost"}, {HOSTS: "lab.example"}, False),
        ("127.0.0.1", {"host": "localhost"}, {"SPACE_HOST": "a.hf.space"}, False),
    ],
)
def test_the_owner_is_on_this_machine_with_nobody_in_between(
    monkeypatch, client: str, headers: dict[str, str], environment: dict[str, str], owner: bool
) -> None:
    for name in (HOSTS, "SPACE_HOST", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = SimpleNamespace(client=SimpleNamespace(host=client), headers=httpx.Headers(headers))
    assert is_owner(asked) == owner
