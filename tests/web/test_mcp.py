"""The page's calls as tools, by the official client of the Model Context Protocol."""

import ast
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

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(recordings: Recordings) -> Iterator[SimpleNamespace]:
    """A page that serves tools too."""
    with served(Replay(recordings), mcp_server=True) as site:
        yield site


async def asked(site: SimpleNamespace, name: str = "", **arguments: Any) -> Any:
    """The tools by name or, with a `name`, what that tool answers."""
    async with (
        streamablehttp_client(f"{site.url}gradio_api/mcp/") as (read, write, _),
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
    found = ast.literal_eval(complete(asked(site, "attack", kind="relearn")).content[0].text)
    assert [one["kind"] for one in found["findings"]] == ["relearn"]


def test_a_mistake_is_a_sentence(site) -> None:
    answer = complete(asked(site, "unlearn", concept="zeppelin"))
    assert answer.isError
    assert "zeppelin" in answer.content[0].text


def test_the_tools_are_behind_the_boundary_too(site) -> None:
    place = f"{site.url}gradio_api/mcp/"
    evil = httpx.post(place, json={}, headers={"Origin": "https://evil.example"})
    assert evil.status_code == 403
    assert httpx.get(place, headers={"Host": "evil.example"}).status_code == 403
