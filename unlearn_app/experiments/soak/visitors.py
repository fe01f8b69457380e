"""Many visitors at once: each gets the same pictures, bit for bit, as a run alone, and can reach no
run of another.
"""

import itertools
import json
import os
import random
import re
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..app_process import AppProcess
from ..cells import SMOKE, assigned
from .commands import TRACE
from .loopback import asked, events
from .material import Material
from .rows import Row, none_of, values
from .session import Call, Refused, Session

ASKED: tuple[dict[str, Any], ...] = (
    {"concept": "cat"},
    {"concept": "van gogh", "seed": 3},
    {"concept": "dog", "objective": "concept_ablation"},
    {"concept": "cat", "seed": 1, "rule": "weighted_sum"},
    {"concept": "ship", "anchor": "car"},
    {"concept": "cat", "settings": {"resist.on": "yes"}},
)
"""What the visitors run, each with the small settings."""
WAYS = {"wait": 10, "stop": 3, "close": 3, "reload": 2, "flood": 2}
"""Weights by which a visitor draws what to do with a job: wait for it, stop it, leave, reload the
page before it, or send it several times at once.
"""
AT_ONCE = 4
"""Calls of a flood."""
FIRST_JOBS, GROWTH = 20, 0.05
"""Jobs after which memory may grow by this share only."""
RETRIES, PATIENCE_S = 2000, 900
BUSY = ("try again", "still going", "Nobody connected", "Queue is full")
"""What a sentence holds that refuses a visitor for now."""
RUNS = "unlearn-runs-"
"""How the name of the app's folder of runs begins."""
FILES = 300
"""Files of others that are asked for while the crowd is there."""
Pictures = Mapping[str, str]


class Crowd:
    """What the visitors share: the jobs to be done, the pictures to expect, and faults."""

    def __init__(self, app: AppProcess, jobs: int, seed: int, alone: list[Pictures]) -> None:
        self.app, self.jobs, self.seed, self.alone = app, jobs, seed, alone
        self.done, self.counts, self.faults = 0, Counter[str](), list[str]()
        self.sessions: set[str] = set()
        self.memory: dict[int, int] = {}
        """The memory of the app in kB by the number of jobs done."""
        self._left, self._lock = iter(range(jobs)), threading.Lock()

    def take(self) -> int | None:
        """The number of the next job; None when there is none."""
        with self._lock:
            return next(self._left, None)

    def fault(self, kind: str, text: str) -> None:
        """Record something that must not happen."""
        with self._lock:
            self.counts[kind] += 1
            self.faults.append(f"{kind}: {text[:400]}")

    def finish(self, way: str) -> None:
        """Count a job as done."""
        with self._lock:
            self.done += 1
            self.counts[way] += 1
            if self.done in (FIRST_JOBS, self.jobs):
                self.memory[self.done] = resident(self.app.process.pid)

    def check(self, which: int, record: Mapping[str, Any]) -> None:
        """Compare the pictures of a run with those of the same run alone."""
        if record.get("status") != "complete":
            self.fault("wrong pictures", f"{ASKED[which]} ended as {record.get('status')}")
        elif wrong := self.alone[which].items() ^ pictures_of(record).items():
            names = sorted({name for name, _ in wrong})
            self.fault("wrong pictures", f"{ASKED[which]}: {', '.join(names[:5])}")


class Visitor:
    """One visitor, who works through jobs in ways drawn from the seed."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd, self._draw = crowd, random.Random(f"{crowd.seed} visitor {number}")
        self._session = self._come()

    def _come(self) -> Session:
        session = Session(self._crowd.app.port)
        self._crowd.sessions.add(session.name)
        return session

    def work(self) -> None:
        """Take jobs until there are none."""
        while (number := self._crowd.take()) is not None:
            which = self._draw.randrange(len(self._crowd.alone))
            (way,) = self._draw.choices(list(WAYS), list(WAYS.values()))
            try:
                getattr(self, f"_{way}")(which)
            except Exception as error:
                self._crowd.fault("unexpected ends", f"job {number}, {way}: {error!r}")
            self._crowd.finish(way)
        self._session.close()

    def _submit(self, which: int) -> Call:
        return self._session.submit("unlearn", in_order(which))

    def _wait(self, which: int) -> None:
        """Submit until there is room, and wait for the run to end."""
        for _ in range(RETRIES):
            if self._taken(which, self._submit(which)):
                return
            time.sleep(self._draw.uniform(0.2, 1.0))
        raise TimeoutError("there never was room")

    def _taken(self, which: int, call: Call) -> bool:
        """Wait for a call and check its run; false where there was no room for it."""
        try:
            self._crowd.check(which, call.answer.result(PATIENCE_S))
        except Refused as error:
            if not any(said in str(error) for said in BUSY):
                raise
            return False
        return True

    def _stop(self, which: int) -> None:
        call = self._submit(which)
        if not call.event:
            self._taken(which, call)  # raises unless the queue is full
        time.sleep(self._draw.uniform(0.0, 3.0))
        self._session.cancel(call)

    def _close(self, which: int) -> None:
        """Break off the connection some time after the first event."""
        session, until = uuid.uuid4().hex, time.monotonic() + self._draw.uniform(0.0, 3.0)
        self._crowd.sessions.add(session)
        for _ in events(self._crowd.app.port, "unlearn", in_order(which), session):
            if time.monotonic() > until:
                return

    def _reload(self, which: int) -> None:
        self._session.close()
        self._session = self._come()
        self._wait(which)

    def _flood(self, which: int) -> None:
        """Submit several at once, of which one may be taken."""
        calls = [self._submit(which) for _ in range(AT_ONCE)]
        taken = sum(self._taken(which, call) for call in calls)
        if taken > 1:
            self._crowd.fault("floods let in", f"{taken} of {AT_ONCE} calls at once")


def arguments(which: int) -> dict[str, Any]:
    """The arguments of a run by name, with the small settings."""
    return ASKED[which] | {"settings": SMOKE | ASKED[which].get("settings", {})}


def in_order(which: int) -> list[Any]:
    """The arguments of a run in the order of the endpoint's parameters."""
    usual = {
        "concept": "",
        "anchor": "",
        "objective": "esd",
        "rule": "",
        "seed": 0,
        "preset": "fast",
        "prompts": "",
        "resist": False,
        "settings": None,
        "concept_kind": "auto",
    }
    return list((usual | arguments(which)).values())


def pictures_of(record: Mapping[str, Any]) -> Pictures:
    """The hashes of a run's pictures by file."""
    return {name: digest for name, digest in record["files"].items() if name.endswith(".png")}


def alone(material: Material, which: int) -> Pictures:
    """The pictures of a run that has a process to itself."""
    given = arguments(which)
    settings = assigned(given.pop("settings"))
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    out = material.renew() / "alone"
    ended = material.commands.run(["run", *words, *settings, "--out", str(out)])
    if ended.code:
        raise RuntimeError(f"{' '.join(words)} fails: {ended.said[-2000:]}")
    return pictures_of(json.loads((out / "run.json").read_text()))


def resident(pid: int) -> int:
    """The memory of a process in kB; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) if found else 0


def others_reached(crowd: Crowd, draw: random.Random, count: int) -> Iterator[str]:
    """Ask for `count` files of runs by their paths, and yield those that were served."""
    page = next(crowd.app.temporary.glob("unlearn-page-*"), crowd.app.temporary)
    # Not by glob, which fails at folders that go away meanwhile.
    walked = os.walk(crowd.app.temporary)
    files = [Path(top, name) for top, _, names in walked if RUNS in top for name in names]
    for path in draw.sample(files, min(count, len(files))):
        for form in (str(path), f"{page}/../{path.relative_to(crowd.app.temporary)}"):
            for route in ("gradio_api/file=", "gradio_api/file/", "file=", "static/"):
                status, _ = asked(crowd.app.port, "GET", f"/{route}{quote(form)}", size=1)
                if status == 200:
                    yield f"/{route}{form}"


def attacked_without_a_run(crowd: Crowd) -> Iterator[str]:
    """Ask for attacks as sessions whose names can be guessed or seen; yield those that were
    accepted.
    """
    session = next(iter(crowd.sessions))
    guesses = [uuid.uuid4().hex, session[:8], session.upper(), "null", "undefined", "0"]
    for path in crowd.app.temporary.glob(f"{RUNS}*/*"):
        guesses += [path.name, path.name.rpartition("-")[2]]
    for guess in guesses:
        event, said = next(events(crowd.app.port, "attack", ["quick"], guess), ("", ""))
        if event in ("generating", "complete"):
            yield f"attack as {guess!r}: {said!r:.100}"


def told_sessions(crowd: Crowd) -> Iterator[str]:
    """Yield the pages that show a visitor's session, with which anybody can act as that visitor."""
    for path in ("/config", "/gradio_api/info", "/gradio_api/queue/status", "/gradio_api/app_id"):
        _, body = asked(crowd.app.port, "GET", path)
        if any(session.encode() in body for session in crowd.sessions):
            yield path


def measure(seed: int, jobs: int, visitors: int, kinds: int, material: Material) -> dict[str, Any]:
    """The rows on a crowd of `visitors` that asks for `jobs` runs of `kinds`."""
    expected = [alone(material, which) for which in range(kinds)]
    with tempfile.TemporaryDirectory(prefix="unlearn-soak-") as folder:
        # The runs alone had no store: with or without one, pictures agree.
        with AppProcess(Path(folder), UNLEARN_STORE=str(Path(folder) / "store")) as app:
            app.wait()
            crowd = Crowd(app, jobs, seed, expected)
            _visit(crowd, visitors)
            log = app.log.read_text("utf-8", "replace")
        left = sorted(app.files())
    if TRACE in log:
        crowd.faults.append(log[-2000:])
    crowd.faults += [f"left: {name}" for name in left]
    ways = ", ".join(f"{name} {crowd.counts[name]}" for name in WAYS)
    kinds_of_fault = ("wrong pictures", "floods let in", "unexpected ends", "others' data")
    return values(
        [
            Row("jobs", str(jobs), f"{crowd.done} by {visitors} visitors: {ways}", None),
            *(none_of(kind, crowd.counts[kind]) for kind in kinds_of_fault),
            none_of("traces in the log", log.count(TRACE)),
            _growth(crowd),
            none_of("files left after SIGTERM", len(left)),
        ],
        crowd.faults,
    )


def _visit(crowd: Crowd, visitors: int) -> None:
    draw = random.Random(f"{crowd.seed} thief")
    with ThreadPoolExecutor(visitors) as pool:
        working = [pool.submit(lambda n=n: Visitor(crowd, n).work()) for n in range(visitors)]
        while not all(visitor.done() for visitor in working):
            for reached in others_reached(crowd, draw, 3):
                crowd.fault("others' data", reached)
            time.sleep(1.0)
        for visitor in working:
            visitor.result()
    tries = others_reached(crowd, draw, FILES), attacked_without_a_run(crowd), told_sessions(crowd)
    for reached in itertools.chain.from_iterable(tries):
        crowd.fault("others' data", reached)


def _growth(crowd: Crowd) -> Row:
    what, bar = f"memory growth after {FIRST_JOBS} jobs", f"< {GROWTH:.0%}"
    first, last = (crowd.memory.get(jobs, 0) for jobs in (FIRST_JOBS, crowd.jobs))
    if not first or crowd.jobs <= FIRST_JOBS:
        return Row(what, bar, "not measured", None)
    growth = last / first - 1
    return Row(what, bar, f"{growth:+.1%} of {first // 1000} MB", growth < GROWTH)
