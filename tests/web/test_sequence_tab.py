"""The ledger that comes with the page in the second tab, and how a visitor's own takes its place;
without a browser.
"""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import gradio as gr
import pytest
from shipped import shipped

from unlearn_app.common.errors import Cancelled
from unlearn_app.common.images import png_bytes
from unlearn_app.continual.ledger import Ledger
from unlearn_app.service.engine import Engine
from unlearn_app.service.jobs import JobRequest
from unlearn_app.service.visitors import visitor_of
from unlearn_app.settings.events import Event, Stage
from unlearn_app.settings.groups import REGIMES
from unlearn_app.settings.presets import DEFAULT_SEQUENCE_OBJECTIVE
from unlearn_app.web.following import Updates
from unlearn_app.web.sequence_tab import (
    SequenceTab,
    ledger_status,
    ledger_table,
    next_concepts,
    recorded_ledger,
)

SHIPPED = shipped("ledger")
ASKED = SimpleNamespace(session_hash="anna", headers={})


class Waiting:
    """A runner whose jobs train until they are stopped, and keep nothing."""

    def warm(self) -> None:
        """Load nothing."""

    def __call__(self, request: JobRequest, out: Path, cancel: threading.Event) -> Iterator[Event]:
        """Say that it trains."""
        yield Stage("unlearn", "Training", 0.0)
        cancel.wait(60)
        raise Cancelled("The request was stopped.")


@pytest.fixture(autouse=True)
def own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private folder for what the browser would fetch."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "page"))


@pytest.fixture
def recorded() -> Ledger:
    """The ledger that ships with the app."""
    found = recorded_ledger(SHIPPED)
    assert found
    return found


@pytest.fixture
def tab(recorded: Ledger) -> Iterator[SequenceTab]:
    """The second tab with the shipped ledger, and an engine that trains until it is stopped."""
    engine = Engine(Waiting(), patience=0.0).start()
    with gr.Blocks():
        yield SequenceTab(engine, "pocket", gr.BrowserState(""), recorded)
    engine.shutdown()


def test_a_missing_ledger_is_none_and_a_damaged_one_is_left_out_with_a_warning(tmp_path) -> None:
    assert recorded_ledger(tmp_path) is None
    shutil.copytree(SHIPPED, tmp_path / "ledger")
    (tmp_path / "ledger" / "ledger.json").write_text("{}")
    with pytest.warns(UserWarning, match="ledger"):
        assert recorded_ledger(tmp_path / "ledger") is None


def test_every_concept_of_the_recorded_ledger_can_be_asked_for_next(recorded) -> None:
    text = next_concepts(recorded)
    names = list(recorded.rows[0].panel)
    assert re.findall('data-concept="(.*?)"', text) == names
    assert text.count('data-box="next"') == len(names)
    shown = [Path(unquote(at)) for at in re.findall('src="gradio_api/file=(.*?)"', text)]
    drawn = [recorded.picture(0, name) for name in names]
    drawn = [one.read_bytes() if isinstance(one, Path) else png_bytes(one) for one in drawn]
    assert [path.read_bytes() for path in shown] == drawn
    assert next_concepts(None) == ""


def test_a_recorded_ledger_says_so_and_a_visitors_own_does_not(recorded) -> None:
    count = f"{len(recorded.requests)} requests"
    for own in (False, True):
        text = ledger_status(recorded, recorded=not own)
        assert count in text
        assert ("Recorded" in text) is not own
        assert ("your own ledger takes its place" in text) is not own
    assert "one at a time" in ledger_status(None)


def begin(tab: SequenceTab) -> Iterator[Updates]:
    return tab.run(ASKED, "", "cat", REGIMES[0], "nothing", DEFAULT_SEQUENCE_OBJECTIVE)


def test_the_recorded_table_is_hidden_while_a_first_request_trains(tab) -> None:
    updates = begin(tab)
    next(updates)
    begun = next(updates)
    assert begun[tab.table] == ""
    assert not begun[tab.rail].visible
    while "Training" not in (shown := next(updates))[tab.status]:
        pass
    assert tab.table not in shown
    assert "Recorded" not in shown[tab.status]
    updates.close()
    tab._engine.stop(visitor_of("anna"))


def test_it_is_shown_again_where_a_first_request_was_stopped(tab, recorded) -> None:
    ended: Updates = {}
    for shown in begin(tab):
        ended = shown
        if "Training" in str(shown.get(tab.status)):
            tab.stop(ASKED, "")
    assert ended[tab.table] == ledger_table(recorded)
    assert ended[tab.status] == ledger_status(recorded, recorded=True)
    assert ended[tab.rail].visible
    assert not ended[tab.way_back].visible
    assert not ended[tab.adapter].visible
    assert ended[tab.add].visible
    assert tab.come_back(visitor_of("anna")) == {}
