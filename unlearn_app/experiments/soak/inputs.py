"""Malformed inputs to the page, its endpoints, the command line and files: each must be answered in
time, and refused in a sentence.

An input is drawn from the seed, its kind and its number, and can be made again alone.
"""

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ..app_process import AppProcess
from .commands import PATIENCE_S, TRACE
from .loopback import JSON, asked, events, open_page, page_config, without_sentence
from .material import SMALL, Material
from .nonsense import TEXTS, VALUES, mutated, mutated_file
from .rows import none_of, values
from .visitors import in_order

KINDS = {"calls": 1_500, "requests": 1_500, "page": 1_000, "commands": 3_000, "files": 3_000}
"""How many inputs go where: 10,000 in all."""
PART = 100
"""Inputs after which what was found so far is stored."""
FAULTS = ("traces", "hangs")
STOP_S = 3.0
"""Seconds after which a command that works is stopped."""
LONG = ("bench", "pocket", "doctor")
"""Commands that measure or train for hours, and one that looks at the machine only."""
PLAUSIBLE = ("cat", "run", "ledger", "fast", "esd", "pocket", "quick", "0", "1", "new", "new.html")
"""What takes an input past the first check."""
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
ROUTES = (
    "",
    "config",
    "theme.css",
    "static/img/logo.svg",
    "assets/index.js",
    "login",
    "login_check",
    "logout",
    "token",
    "user",
    "app_id",
    "monitoring",
    "monitoring/summary",
    "manifest.json",
    "robots.txt",
    "pwa_icon/64",
    "svelte/x.js",
    "card.png",
    "vote/abc",
    "vote/abc/count",
    *(
        f"gradio_api/{name}"
        for name in (
            "info",
            "openapi.json",
            "startup-events",
            "queue/status",
            "queue/join",
            "queue/data",
            "call/unlearn",
            "call/unlearn/x",
            "call/v2/unlearn",
            "call/attack",
            "run/predict",
            "run/unlearn",
            "api/attack",
            "cancel",
            "reset",
            "upload",
            "upload_progress",
            "file=",
            "file/",
            "proxy=http://127.0.0.1:1/",
            "stream/x/0/0/playlist.m3u8",
            "custom_component/0/server/component/index.js",
            "component_server",
            "deep_link",
            "process_recording",
            "dev/reload",
            "vibe-edit",
            "vibe-code",
            "runs",
            "heartbeat/x",
            "mcp/",
            "profiling/summary",
            "send_adapter?name=x.safetensors",
        )
    ),
)
"""Routes of Gradio, open and closed ones, and the page's own."""
TYPES = ("application/json", "text/plain", "multipart/form-data; boundary=x", "", "x/\xe9")
SESSION = "page"
OPENED = {
    "run/run.json": (
        ("report", "run"),
        ("compare", "run", "run"),
        ("attack", "run", "--kind", "x"),
    ),
    "run/steps.jsonl": (("report", "run"), ("compare", "run", "run")),
    "run/attacks/*/finding.json": (("report", "run"), ("compare", "run", "run")),
    "run/images/*.png": (("report", "run"),),
    "ledger/ledger.json": (
        ("continual", "show", "ledger"),
        ("continual", "rollback", "ledger", "0"),
        ("continual", "export", "ledger", "new.safetensors"),
    ),
    "ledger/*/*.safetensors": (("continual", "show", "ledger"),),
    "run/*.safetensors": (
        ("generate", "--prompt", "cat", "--adapter", "run/unlearn.safetensors", "--out", "new"),
    ),
    "prompts.*": (("run", "--concept", "cat", *SMALL, "--prompts", "{}", "--out", "new"),),
}
"""Files, and commands that read them; {} stands for the name."""
PROMPTS = {
    "prompts.txt": "forget: a cat asleep\nretain: a dog asleep\n",
    "prompts.json": json.dumps({"forget": ["a cat asleep"], "retain": ["a dog asleep"]}),
}
Found = tuple[str, str]
"""A fault and what brought it about; empty where nothing is wrong."""


class Sender:
    """Sends nonsense to one app, and looks at its log for traces."""

    def __init__(self, app: AppProcess) -> None:
        self._app, self._read = app, 0
        config = page_config(app.port)
        self._parts = {part["id"]: part for part in config["components"]}
        self._listeners = [each for each in config["dependencies"] if each["backend_fn"]]

    def traces(self) -> str:
        """The trace of a failure that the app has logged since the last call; empty for none."""
        with self._app.log.open("rb") as log:
            log.seek(self._read)
            said = log.read().decode("utf-8", "replace")
            self._read = log.tell()
        return said[said.index(TRACE) :][-400:] if TRACE in said else ""

    def calls(self, draw: random.Random) -> Found:
        """A public endpoint with nonsense in one or two arguments, or in all."""
        name = draw.choice(("unlearn", "unlearn", "attack"))
        data = in_order(0) if name == "unlearn" else ["quick"]
        for _ in range(draw.choice((1, 1, 2, 9))):
            data[draw.randrange(len(data))] = draw.choice(VALUES)
        data = draw.choice((data, data, data, data[:-1], [*data, 1]))
        session = f"calls-{draw.getrandbits(40)}"
        event, answer = next(events(self._app.port, name, data, session), ("no event", ""))
        if event == "heartbeat":
            return "hangs: no word but heartbeats", name
        status = int(event.removeprefix("status ")) if event.startswith("status") else 500
        fault = event not in ("generating", "complete") and without_sentence(status, answer)
        return f"{event} {answer!r:.200}" * fault, f"{name}({json.dumps(data)[:300]})"

    def requests(self, draw: random.Random) -> Found:
        """Any request to any route."""
        method, route = draw.choice(METHODS), draw.choice(ROUTES)
        path = f"/{route}{draw.choice(('', '', '/', '?x=1', '?session_hash=x', '%00', '..%2f..'))}"
        call = {"data": [], "session_hash": "x", "fn_index": 0, "event_id": "x"}
        records = mutated(call, draw), draw.choice(VALUES)
        bodies = b"", b"{", draw.randbytes(20), *(json.dumps(r).encode() for r in records)
        body = draw.choice(bodies)
        headers = {"Content-Type": draw.choice(TYPES)}
        if draw.random() < 0.2:
            headers[draw.choice(("Host", "Origin", "Cookie", "Range", "Accept"))] = "x\xe9;=,*"
        status, answer = asked(self._app.port, method, path, body, headers)
        said = f"{method} {path} {headers} {body[:200]!r}"
        return f"status {status}: {answer[:200]!r}" * without_sentence(status, answer), said

    def page(self, draw: random.Random) -> Found:
        """A listener of the page, with what a visitor may type and choose."""
        listener = draw.choice(self._listeners)
        data = [typed(self._parts.get(part, {}), draw) for part in listener["inputs"]]
        body = {"fn_index": listener["id"], "data": data, "session_hash": SESSION}
        route = "queue/join" if listener["queue"] else "run/predict"
        sent, headers = json.dumps(body), JSON | {"Origin": self._app.url}
        path = f"/gradio_api/{route}"
        status, answer = asked(self._app.port, "POST", path, sent.encode(), headers)
        return f"status {status}: {answer[:200]!r}" * without_sentence(status, answer), sent[:400]


def typed(part: dict[str, Any], draw: random.Random) -> Any:
    """What a visitor's browser may send of a component."""
    kind, props = part.get("type"), part.get("props", {})
    if kind in ("textbox", "browserstate"):
        return draw.choice(TEXTS)
    if kind in ("number", "slider"):
        return draw.choice((None, 0, -1, 0.5, 10**30, 1e308))
    if kind == "checkbox":
        return draw.random() < 0.5
    if kind == "dropdown":
        chosen = [value for _, value in props["choices"] if draw.random() < 0.5]
        return chosen if props.get("multiselect") else next(iter(chosen), None)
    return None


class Terminal:
    """Types nonsense, and opens files with nonsense in them."""

    def __init__(self, material: Material) -> None:
        self._material, known = material, material.commands.known
        self._known = {name: own for name, own in known.items() if not name.startswith(LONG)}

    def commands(self, draw: random.Random) -> Found:
        """Any command with some of its arguments and options."""
        name = draw.choice(sorted(self._known))
        words = [*name.split(), *(SMALL if name in ("run", "continual") else ())]
        for option, takes_value in self._known[name].items():
            for _ in range(draw.choice((0, 1, 1, 2))):
                value = draw.choice(PLAUSIBLE if draw.random() < 0.5 else TEXTS)
                if option == "--set":
                    value = f"{draw.choice((*SMALL[1::2], value)).partition('=')[0]}={value}"
                words += [option] * option.startswith("--") + [value] * takes_value
        self._material.renew()
        return self._run(words)

    def files(self, draw: random.Random) -> Found:
        """A file with one thing wrong in it, and a command that reads it."""
        here = self._material.renew()
        for name, text in PROMPTS.items():
            (here / name).write_text(text)
        pattern = draw.choice(list(OPENED))
        path = draw.choice(sorted(here.glob(pattern)))
        content = mutated_file(path.name, path.read_bytes(), draw)
        path.write_bytes(content)
        words = [word.format(path.name) for word in draw.choice(OPENED[pattern])]
        fault, said = self._run(words)
        return fault, f"{said} with {path.relative_to(here)} {content[:300]!r}"

    def _run(self, words: list[str]) -> Found:
        ended = self._material.commands.run(words, STOP_S, STOP_S + PATIENCE_S)
        return ended.fault, f"`{' '.join(map(repr, words))}`"


def measure(
    kind: str, seed: int, count: int, material: Material, known: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The rows on `count` inputs of one of `KINDS`, after every `PART` of them; those that are
    `known` are not tried again.
    """
    found, faults = Counter(known.get("found", {})), list(known.get("faults", []))
    with (
        tempfile.TemporaryDirectory(prefix="unlearn-soak-") as folder,
        AppProcess(Path(folder)) as app,
    ):
        app.wait()
        sender, terminal = Sender(app), Terminal(material)
        tries = {
            "calls": sender.calls,
            "requests": sender.requests,
            "page": sender.page,
            "commands": terminal.commands,
            "files": terminal.files,
        }[kind]
        with closing(open_page(app.port, SESSION)):
            for row in range(known.get("done", 0), count):
                fault, said = _tried(tries, random.Random(f"{seed} {kind} {row}"))
                fault = fault or sender.traces()
                if fault:
                    found["hangs" if "hangs" in fault else "traces"] += 1
                    faults.append(f"{kind} {row}: {said}: {fault}")
                done = row + 1
                if done % PART == 0 or done == count:
                    rows = [none_of(what, found[what], f"{done} inputs") for what in FAULTS]
                    yield values(rows, faults) | {"done": done, "found": dict(found)}


def _tried(send: Callable[[random.Random], Found], draw: random.Random) -> Found:
    try:
        return send(draw)
    except TimeoutError as error:
        return f"hangs: {error}", ""
    except (OSError, HTTPException) as error:
        return f"no answer: {error!r}", ""
