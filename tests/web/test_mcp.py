"""The page's calls as tools, by the official client of the Model Context Protocol."""

import ast
import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from asynchronous import complete
from browsing import served
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from recordings import Recordings, Replay

from unlearn_app.service import engine
from unlearn_app.service.visitors import visitor_of
from unlearn_app.web.boundary import CALL, KEY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(recordings: Recordings) -> Iterator[SimpleNamespace]:
    """A page that serves tools too."""
    with served(Replay(recordings), mcp_server=True) as site:
        yield site


async def asked(site: SimpleNamespace, name: str = "", key: str = "", **arguments: Any) -> Any:
    """The tools by name or, with a `name`, what that tool answers to a client with this key."""
    headers = {KEY: key} if key else {}
    async with (
        streamablehttp_client(f"{site.url}gradio_api/mcp/", headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        if name:
            return await session.call_tool(name, arguments)
        return {tool.name: tool for tool in (await session.list_tools()).tools}


def test_the_tools_are_the_public_calls_and_say_what_they_take(site) -> None:
    tools = complete(asked(site))
    assert sorted(tools) == ["attack", "unlearn"]
    taken = tools["unlearn"].inputSchema["properties"]
    assert {"concept", "anchor", "objective", "seed", "settings"} <= taken.keys()
    assert all(one["description"] for one in taken.values())
    assert taken["seed"]["type"] == "integer"
    assert taken["resist"]["type"] == "boolean"
    assert "request" not in taken
    assert "forget a concept" in tools["unlearn"].description


def test_a_client_forgets_and_attacks(site) -> None:
    answer = complete(asked(site, "unlearn", concept="cat"))
    record = ast.literal_eval(answer.content[0].text)
    assert record["concept"]["name"] == "cat"
    assert record["verdict"]["label"] == "concealed"
    answer = complete(asked(site, "attack", kind="relearn", run=record["run"]))
    found = ast.literal_eval(answer.content[0].text)
    assert [one["kind"] for one in found["findings"]] == ["relearn"]


def test_clients_with_keys_attack_their_own_run_alone(site) -> None:
    ours, theirs = "a" * 64, "b" * 64
    record = ast.literal_eval(
        complete(asked(site, "unlearn", ours, concept="frog")).content[0].text
    )
    assert "run" not in record
    for stranger in ("", theirs):
        refused = complete(asked(site, "attack", stranger, kind="relearn"))
        assert refused.isError
        assert "call unlearn first" in refused.content[0].text
    assert not complete(asked(site, "attack", ours, kind="relearn")).isError


@pytest.mark.parametrize("run", ["f" * 32, "../cat", "a" * 64])
def test_a_run_that_nobody_was_told_of_is_refused_in_a_sentence(site, run: str) -> None:
    refused = complete(asked(site, "attack", kind="relearn", run=run))
    assert refused.isError
    assert "no longer kept" in refused.content[0].text


def test_two_clients_work_at_the_same_time(site) -> None:
    async def both() -> list[Any]:
        calls = [asked(site, "unlearn", concept=name) for name in ("cat", "frog")]
        return await asyncio.gather(*calls)

    first, second = complete(both())
    assert not first.isError
    assert not second.isError


def test_a_clients_job_goes_on_while_it_listens(site, monkeypatch) -> None:
    monkeypatch.setattr(engine, "UNHEARD", 0.5)
    monkeypatch.setattr(site.runner, "seconds", 4)
    assert not complete(asked(site, "unlearn", concept="cat")).isError


def test_a_client_that_went_away_is_not_connected(site, monkeypatch) -> None:
    monkeypatch.setattr(site.runner, "seconds", 30)
    visitors = site.engine.visitors

    async def leave() -> str:
        call = asyncio.create_task(asked(site, "unlearn", "c" * 64, concept="cat"))
        visitor = visitor_of("", "c" * 64)
        for _ in range(300):
            if site.engine.job_of(visitor) and visitors.here(visitor):
                break
            await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        return visitor

    visitor = complete(leave())
    deadline = time.monotonic() + 20
    while visitors.here(visitor) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not visitors.here(visitor)
    site.engine.stop(visitor)


def test_nobody_names_a_call_of_somebody_else(site) -> None:
    record = ast.literal_eval(complete(asked(site, "unlearn", concept="cat")).content[0].text)
    place = f"{site.url}gradio_api/mcp/"
    call = {"name": "attack", "arguments": {"kind": "relearn"}}
    answer = httpx.post(
        place,
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call},
        headers={"accept": "application/json, text/event-stream", CALL: record["run"]},
        timeout=60,
    )
    assert "call unlearn first" in answer.text
    plain = httpx.post(
        f"{site.url}gradio_api/call/attack",
        json={"data": ["relearn", ""]},
        headers={CALL: record["run"]},
        timeout=60,
    )
    end = httpx.get(f"{plain.url}/{plain.json()['event_id']}", timeout=60)
    assert "call unlearn first" in end.text


def test_a_mistake_is_a_sentence(site) -> None:
    answer = complete(asked(site, "unlearn", concept="zeppelin"))
    assert answer.isError
    assert "zeppelin" in answer.content[0].text


def test_the_tools_are_behind_the_boundary_too(site) -> None:
    place = f"{site.url}gradio_api/mcp/"
    evil = httpx.post(place, json={}, headers={"Origin": "https://evil.example"})
    assert evil.status_code == 403
    assert httpx.get(place, headers={"Host": "evil.example"}).status_code == 403
