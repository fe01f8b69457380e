"""What reaches the page over HTTP: hosts, sites, routes, sizes, listeners by name and number, and
what invented sessions cost; and that connections are seen as they open and close.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from asynchronous import complete
from starlette.exceptions import HTTPException
from starlette.requests import Request

from unlearn_app.service.engine import Engine
from unlearn_app.service.visitors import visitor_of
from unlearn_app.web import boundary, build_demo, launch_kwargs
from unlearn_app.web.boundary import (
    MAX_BODY,
    Boundary,
    session_of,
    visitor_address,
)

UNKNOWN = {"data": ["zeppelin", "", "esd", "", 0, "fast", "", False, None, "auto"]}
"""A call of `/unlearn` that starts nothing."""
CALLS = ("queue/join", "run/", "api/", "call/", "call/v2/", "cancel", "reset")


class Idle:
    """A runner whose jobs end at once."""

    def warm(self) -> None:
        pass

    def __call__(self, *_: Any) -> Iterator[Any]:
        return iter(())


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    """A running page over an engine that does nothing."""
    engine = Engine(Idle(), patience=0.0).start()
    demo = build_demo(engine)
    _, url, _ = demo.queue().launch(prevent_thread_lock=True, quiet=True, **launch_kwargs())
    origin = url.rstrip("/")
    with httpx.Client(base_url=origin, timeout=30) as client:
        yield SimpleNamespace(demo=demo, client=client, origin=origin)
    demo.close()
    engine.shutdown()


@pytest.fixture
def post(site: SimpleNamespace) -> Callable[..., httpx.Response]:
    """Sends JSON to a route of Gradio with more headers."""

    def send(route: str, body: Any = None, **headers: str) -> httpx.Response:
        return site.client.post(f"/gradio_api/{route}", json=body or {}, headers=headers)

    return send


@pytest.fixture
def page(site: SimpleNamespace) -> Iterator[str]:
    """The session of a page that is open."""
    with httpx.stream("GET", f"{site.origin}/gradio_api/heartbeat/somebody", timeout=30) as beat:
        lines = beat.iter_lines()  # closes the connection once nobody holds it
        next(lines)
        yield "somebody"


def number(site: SimpleNamespace, private: bool = True, queued: bool = False) -> int:
    """The number of a listener."""
    return next(
        n
        for n, fn in site.demo.fns.items()
        if (fn.api_visibility == "private") is private and fn.queue is queued and fn.targets
    )


def test_nothing_is_sent_to_routes_that_call_no_listener(site) -> None:
    taking = [path for path, of in site.demo.app.openapi()["paths"].items() if "post" in of]
    others = [path for path in taking if not path.removeprefix("/gradio_api/").startswith(CALLS)]
    assert "/gradio_api/upload" in others
    answers = {path: site.client.post(path, content=b"x" * 100).status_code for path in others}
    assert set(answers.values()) == {404}, answers


def test_an_upload_leaves_no_file(site) -> None:
    folder = Path(gr.utils.get_upload_folder())
    before = set(folder.rglob("*"))
    answer = site.client.post("/gradio_api/upload", files={"files": ("a.txt", b"x" * 1000)})
    assert answer.status_code == 404
    assert "no uploads" in answer.json()["detail"]
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "path",
    ["deep_link?session_hash=a", "upload_progress?upload_id=a", "file=https://example.com/a"],
)
def test_no_safe_method_writes_a_file_or_fetches_another_site(site, path: str) -> None:
    assert site.client.get(f"/gradio_api/{path}").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "192.0.2.7", "", "[::1"])
def test_another_host_is_refused_whatever_is_asked(site, post, host: str) -> None:
    assert post("queue/join", UNKNOWN, Host=host).status_code in (400, 403)
    assert site.client.get("/config", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "127.8.8.8:80", "[::1]:7860"])
def test_loopback_is_served_under_any_name_and_port(site, host: str) -> None:
    assert site.client.get("/config", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1.evil.example", "file://", "http://["],
)
def test_another_sites_page_is_refused(post, origin: str) -> None:
    answer = post("call/unlearn", UNKNOWN, Origin=origin)
    assert answer.status_code == 403
    assert boundary.HOSTS in answer.json()["detail"]


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:7860", None])
def test_this_machine_and_programs_are_served(post, origin: str | None) -> None:
    headers = {"Origin": origin} if origin else {}
    assert "event_id" in post("call/unlearn", UNKNOWN, **headers).json()


def site_of(host: str, origin: str, server: str = "10.0.0.5") -> dict[str, Any]:
    """What the app is told of a request of a page."""
    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    return {"type": "http", "method": "POST", "headers": headers, "server": (server, 7860)}


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("me-page.hf.space", "https://me-page.hf.space"),
        ("10.0.0.5:7860", "http://10.0.0.5:7860"),
        ("lab.example", "https://lab.example"),
        ("127.0.0.1:7860", "https://lab.example:8443"),
    ],
    ids=["a Space in a frame", "the address of the connection", "a listed name", "behind a proxy"],
)
def test_the_names_it_is_served_under_are_accepted(
    site, monkeypatch, host: str, origin: str
) -> None:
    monkeypatch.setenv("SPACE_HOST", "me-page.hf.space")
    monkeypatch.setenv("UNLEARN_HOSTS", "lab.example, other.example")
    boundary.check_site(site_of(host, origin), site.demo)


def test_an_address_that_the_connection_did_not_come_in_on_is_refused(site) -> None:
    with pytest.raises(HTTPException, match=r"10\.0\.0\.6"):
        boundary.check_site(site_of("10.0.0.6:7860", "http://10.0.0.6:7860"), site.demo)


@pytest.mark.parametrize("route", ["call", "call/v2", "run", "api"])
def test_no_listener_but_the_public_ones_is_called_by_name(site, post, page, route: str) -> None:
    names = [
        fn.api_name for fn in site.demo.fns.values() if fn.api_name not in ("unlearn", "attack")
    ]
    body = {"data": [], "session_hash": page}
    answers = {name: post(f"{route}/{name}", body, Origin=site.origin) for name in names}
    assert {answer.status_code for answer in answers.values()} == {404}
    assert "/unlearn and /attack" in answers["stop"].json()["detail"]


def test_every_listener_but_the_public_ones_is_private(site) -> None:
    public = [fn.api_name for fn in site.demo.fns.values() if fn.api_visibility != "private"]
    assert public == ["unlearn", "attack"]


@pytest.mark.parametrize("route", ["queue/join", "run/predict", "run/unlearn", "api/unlearn"])
def test_no_program_calls_a_private_listener_by_number(site, post, page, route: str) -> None:
    for queued in (True, False):
        called = {"data": [], "fn_index": number(site, queued=queued), "session_hash": page}
        assert post(route, called).status_code == 404


@pytest.mark.parametrize("wrong", ["5", 5.0, True, -1, 999, None, [], {}])
def test_a_number_that_is_none_is_refused(post, wrong: Any) -> None:
    answer = post("queue/join", UNKNOWN | {"fn_index": wrong, "session_hash": "a"})
    assert answer.status_code == 404


def test_a_page_that_never_connected_calls_nothing(site, post, monkeypatch) -> None:
    monkeypatch.setattr(boundary, "PATIENCE", 0.0)
    called = {"data": [], "fn_index": number(site), "session_hash": "nobody"}
    assert post("run/predict", called, Origin=site.origin).status_code == 404
    assert "nobody" not in site.demo.state_holder


def test_a_page_that_is_open_calls_its_listeners(site, post, page) -> None:
    stop = next(n for n, fn in site.demo.fns.items() if fn.api_name == "stop")
    called = {"data": [""], "fn_index": stop, "session_hash": page}
    assert post("run/stop", called, Origin=site.origin).status_code == 200


def test_a_listener_that_gets_nothing_answers_or_says_why(site, post, page) -> None:
    called = {
        fn.api_name: post(
            f"run/{fn.api_name}",
            {"data": [None] * len(fn.inputs), "fn_index": n, "session_hash": page},
            Origin=site.origin,
        )
        for n, fn in site.demo.fns.items()
        if fn.api_visibility == "private" and not fn.queue and fn.fn
    }
    assert len(called) > 8
    mute = [name for name, got in called.items() if got.status_code != 200 and not said(got)]
    assert mute == []


def said(answer: httpx.Response) -> str | None:
    """The sentence of a refusal, if there is one."""
    return answer.json().get("error") or answer.json().get("detail")


def test_a_page_may_call_while_it_connects(site, post) -> None:
    stop = next(n for n, fn in site.demo.fns.items() if fn.api_name == "stop")
    called = {"data": [""], "fn_index": stop, "session_hash": "early"}
    beat = f"{site.origin}/gradio_api/heartbeat/early"

    def connect() -> None:
        with httpx.stream("GET", beat, timeout=30) as lines:
            next(lines.iter_lines())

    late = threading.Timer(0.2, connect)
    late.start()
    answer = post("run/stop", called, Origin=site.origin)
    late.join()
    assert answer.status_code == 200


def test_a_public_listener_is_called_through_the_queue_alone(post) -> None:
    assert post("run/unlearn", UNKNOWN).status_code == 404
    assert post("call/unlearn", UNKNOWN).status_code == 200


def test_a_long_request_is_refused_before_all_of_it_is_read(site) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += MAX_BODY // 10
            yield b" " * (MAX_BODY // 10)

    try:
        answer = site.client.post("/gradio_api/call/unlearn", content=endless())
    except httpx.TransportError:  # closed while it was sent
        assert sent < 200 * (MAX_BODY // 10)
    else:
        assert answer.status_code == 413


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(site, body: bytes) -> None:
    assert site.client.post("/gradio_api/call/unlearn", content=body).status_code == 400


@pytest.mark.parametrize("session", ["a" * 65, "a b", "", 7, ["a"], "\u0661"])
def test_a_session_that_is_none_is_refused(site, post, session: Any) -> None:
    for route, called in (("call/unlearn", {}), ("run/predict", {"fn_index": number(site)})):
        asked = UNKNOWN | called | {"session_hash": session}
        assert post(route, asked, Origin=site.origin).status_code == 400


@pytest.mark.parametrize("data", [[], ["cat"], "cat", None, {"concept": "cat"}])
def test_too_few_values_are_a_sentence(post, data: Any) -> None:
    answer = post("call/unlearn", {"data": data})
    assert answer.status_code == 422
    assert "a list of 10 values" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/etc/hostname", "x", ""])
def test_a_file_in_place_of_a_value_is_a_sentence(post, path: str) -> None:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for data in ([file], [[{"x": file}]]):
        answer = post("call/unlearn", {"data": [*data, *UNKNOWN["data"][1:]]})
        assert answer.status_code == 422
        assert "Files are not" in answer.json()["detail"]


def test_values_by_name_are_checked(post) -> None:
    assert "event_id" in post("call/v2/unlearn", {"concept": "zeppelin"}).json()
    for wrong in ({}, {"anchor": "dog"}, {"concept": "cat", "steps": 9}):
        assert "concept, anchor, objective" in post("call/v2/unlearn", wrong).json()["detail"]


@pytest.mark.parametrize(
    "route",
    ["queue/data?session_hash=nobody", "queue/data", "call/unlearn/none", "heartbeat/a%20b"],
)
def test_answers_to_no_call_are_not_waited_for(site, route: str) -> None:
    assert site.client.get(f"/gradio_api/{route}").status_code in (400, 404)


def test_an_answer_is_read_by_the_name_of_its_call(site, post) -> None:
    for version in ("call", "call/v2"):
        body = UNKNOWN if version == "call" else {"concept": "zeppelin"}
        call = post(f"{version}/unlearn", body).json()["event_id"]
        assert "zeppelin" in site.client.get(f"/gradio_api/{version}/unlearn/{call}").text


@pytest.mark.parametrize("session", ["own", None])
def test_a_program_that_reads_its_answer_is_met(site, post, session: str | None) -> None:
    call = post("call/unlearn", UNKNOWN | {"session_hash": session}).json()["event_id"]
    visitor = visitor_of(session or call)
    assert not site.demo.visitors.met(visitor)
    site.client.get(f"/gradio_api/call/unlearn/{call}")
    assert site.demo.visitors.met(visitor)


def begun(site, pictures: int) -> str:
    """The code of a round that a visitor with an open page has begun."""
    site.demo.visitors.seen("lecturer", "hall")
    site.demo.visitors.connected("hall")
    return site.demo.ballots.begin("lecturer", pictures)


def test_a_vote_is_taken_from_the_page_of_its_round_alone(site) -> None:
    code = begun(site, 3)
    vote, place = {"key": "a" * 64, "picture": 1}, f"/vote/{code}"
    assert "Which one has forgotten?" in site.client.get(place).text
    assert site.client.post(place, json=vote).json() == {"pictures": 3, "votes": 1}
    assert site.client.get(f"{place}/count").json() == {"pictures": 3, "votes": 1}
    refused = site.client.post(place, json=vote, headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403
    assert site.client.get(place, headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * 201, 413),
        (b"", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b'{"key": "short", "picture": 1}', 409),
        (b'{"key": ["a"], "picture": {}}', 409),
    ],
)
def test_a_vote_that_is_none_is_refused_in_a_sentence(site, body: bytes, status: int) -> None:
    code = begun(site, 3)
    answer = site.client.post(f"/vote/{code}", content=body)
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert site.demo.ballots.said(code)["votes"] == 0


def test_nothing_else_is_sent_below_the_votes(site) -> None:
    code = begun(site, 2)
    for path in (f"/vote/{code}/reveal", f"/vote/{code}/count", "/vote", "/vote/", "/vote/../x"):
        assert site.client.post(path, json={"answer": 0}).status_code in (404, 405)
    assert "answer" not in site.client.get(f"/vote/{code}/count").json()


def test_a_round_that_is_over_says_so(site) -> None:
    answer = site.client.get("/vote/zzzzzz/count")
    assert answer.status_code == 409
    assert "over" in answer.json()["detail"]


def test_a_full_queue_says_so_in_a_sentence(post, monkeypatch) -> None:
    monkeypatch.setattr(boundary, "MAX_WAITING", 0)
    answer = post("call/unlearn", UNKNOWN)
    assert answer.status_code == 503
    assert "try again in a few minutes" in answer.json()["detail"]


FEW = 8


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `FEW` sessions without a connection keep their state: each takes a call to come by."""
    monkeypatch.setattr(boundary, "IDLE_SESSIONS", FEW)


def test_invented_sessions_keep_no_state_and_open_pages_do(site, post, page, few: None) -> None:
    stop = next(n for n, fn in site.demo.fns.items() if fn.api_name == "stop")
    called = {"data": [""], "fn_index": stop, "session_hash": page}
    post("run/stop", called, Origin=site.origin)
    for invented in range(FEW + 20):
        post("call/unlearn", UNKNOWN | {"session_hash": f"invented{invented}"})
    post("call/unlearn", UNKNOWN)
    queue = site.demo._queue
    held = (
        site.demo.state_holder.session_data,
        site.demo.state_holder.time_last_used,
        queue.pending_event_ids_session,
        queue.pending_messages_per_session,
    )
    # One call may still be running when the next one asks.
    assert max(len(sessions) for sessions in held) <= FEW + 5
    assert page in site.demo.state_holder


def test_sessions_that_only_connect_keep_no_state(site, few: None) -> None:
    for invented in range(FEW + 20):
        beat = f"{site.origin}/gradio_api/heartbeat/beat{invented}"
        with httpx.stream("GET", beat, timeout=30) as lines:
            next(lines.iter_lines())
    assert len(site.demo.state_holder.session_data) <= FEW + 5


@pytest.mark.parametrize(
    ("forwarded", "known"),
    [
        (["203.0.113.9, 8.8.8.8"], "8.8.8.8"),
        (["1.1.1.1", "8.8.4.4, 10.0.0.3"], "8.8.4.4"),
        (["2606:4700:1:2:3:4:5:6"], "2606:4700:1:2::/64"),
        (["nonsense"], ""),
        ([], ""),
    ],
)
def test_a_visitor_has_the_address_that_the_proxy_of_a_space_names(
    monkeypatch, forwarded: list[str], known: str
) -> None:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    request = gr.Request(Request({"type": "http", "headers": headers}))
    assert visitor_address(request) == ""
    monkeypatch.setenv("SPACE_HOST", "me-page.hf.space")
    assert visitor_address(request) == known


def scope(path: str, query: str = "", method: str = "GET", blocks: gr.Blocks | None = None) -> dict:
    """What a server says of a request."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
        "server": ("127.0.0.1", 7860),
        "app": SimpleNamespace(get_blocks=lambda: blocks),
    }


@pytest.mark.parametrize(
    ("path", "query", "session"),
    [
        ("/gradio_api/heartbeat/abc", "", "abc"),
        ("/behind/a/proxy/gradio_api/heartbeat/abc", "", "abc"),
        ("/gradio_api/queue/data", "session_hash=abc", "abc"),
        ("/gradio_api/call/unlearn/abc", "", "abc"),
        ("/gradio_api/call/v2/unlearn/abc", "", "abc"),
        ("/gradio_api/queue/data", "", ""),
        ("/gradio_api/info", "session_hash=abc", ""),
        ("/", "", ""),
    ],
)
def test_streams_name_their_session(path: str, query: str, session: str) -> None:
    assert session_of(scope(path, query)) == session


def test_what_is_sent_is_no_connection() -> None:
    assert session_of(scope("/gradio_api/call/unlearn/abc", method="POST")) == ""


@pytest.mark.parametrize("error", [None, RuntimeError("the stream broke")])
def test_a_connection_lasts_as_long_as_its_request(error: Exception | None) -> None:
    told: list[str] = []
    visitors = SimpleNamespace(
        connected=lambda session: told.append(f"+{session}"),
        disconnected=lambda session: told.append(f"-{session}"),
    )

    async def app(*_: object) -> None:
        told.append("served")
        if error:
            raise error

    with gr.Blocks() as blocks:
        blocks.visitors = visitors
    request = scope("/gradio_api/heartbeat/abc", blocks=blocks)
    try:
        complete(Boundary(app)(request, None, None))
    except RuntimeError as raised:
        assert raised is error
    assert told == ["+abc", "served", "-abc"]
