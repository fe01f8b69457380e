"""Kills at random moments: everything opens afterwards, and the same command goes on."""

import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...common.errors import UnlearnError
from ...continual.ledger import Ledger
from ..app_process import AppProcess
from .loopback import events
from .material import ADD, ATTACK, PANEL, RUN, Material
from .rows import none_of, values
from .visitors import in_order

KINDS = ("run", "page", "attack", "continual")
LEFT = "left:"
"""How a sentence begins that tells of files."""
HALF_WRITTEN = re.compile(r"\..*\.(?:partial|reserved|part)")
BEYOND = 1.1
"""How much later than its usual end a command may be killed, in shares of its usual time."""
PAGE_S = 15.0
"""Seconds within which a page is killed; it serves and works after some of them."""


class Killed:
    """A command that was killed after some seconds, and what must work afterwards."""

    def __init__(self, material: Material, seconds: float) -> None:
        self._commands, self._seconds = material.commands, seconds
        self._here = material.renew()

    def run(self) -> Iterator[str]:
        """A run: its folder is absent or whole."""
        out = self._here / "new"
        words = [*RUN, "--out", "new"]
        self._kill(words)
        if out.exists():
            yield from self._works("report", "new")
            shutil.rmtree(out)
        yield from self._works(*words)
        yield from self._works("report", "new")

    def attack(self) -> Iterator[str]:
        """An attack: run and findings open."""
        self._kill(ATTACK)
        yield from self._works("report", "run")
        yield from self._works(*ATTACK)
        yield from self._works("report", "run")

    def continual(self) -> Iterator[str]:
        """A request to a ledger: it is there or it is not."""
        words = (*ADD, PANEL[1])
        self._kill(words)
        yield from self._works("continual", "show", "ledger")
        with suppress(UnlearnError):  # that it does not open has been yielded already
            if len(Ledger.open(self._here / "ledger").requests) == 1:
                yield from self._works(*words)
        yield from self._works("continual", "rollback", "ledger", "1")

    def _kill(self, words: Sequence[str]) -> None:
        self._commands.run(words, kill_after=self._seconds)

    def _works(self, *words: str) -> Iterator[str]:
        ended = self._commands.run(words)
        if ended.code:
            yield f"`{' '.join(words)}` fails afterwards: {ended.said[-300:]}"

    def left(self) -> Iterator[str]:
        """Half-written files that no command has removed."""
        for path in self._here.rglob(".*"):
            if HALF_WRITTEN.fullmatch(path.name):
                yield f"{LEFT} {path.relative_to(self._here)}"


def killed_page(folder: Path, seconds: float) -> Iterator[str]:
    """Kill the app after some seconds, in which a run begins as soon as it answers; the next one
    starts, and sweeps what this one left.
    """
    until = time.monotonic() + seconds
    dead = AppProcess(folder)
    while time.monotonic() < until:
        if dead.answers():
            with suppress(OSError):
                for _ in events(dead.port, "unlearn", in_order(0), "killed"):
                    if time.monotonic() > until:
                        break
        time.sleep(0.05)
    dead.kill()
    left = dead.files()
    with AppProcess(folder) as app:
        until = time.monotonic() + app.wait() + PAGE_S
        while (still := left & app.files()) and time.monotonic() < until:
            time.sleep(0.1)
        if still:
            yield f"{LEFT} {sorted(still)} by the next page"
    if still := app.files():
        yield f"{LEFT} {sorted(still)} after the end"


def measure(seed: int, count: int, material: Material) -> dict[str, Any]:
    """The rows on `count` kills, in turn of a run, an attack, a request and the page."""
    draw, faults = random.Random(seed), list[str]()
    failed, left = 0, 0
    with tempfile.TemporaryDirectory(prefix="unlearn-soak-") as folder:
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            if kind == "page":
                seconds = draw.uniform(0, PAGE_S)
                found = list(killed_page(Path(folder), seconds))
            else:
                seconds = draw.uniform(0, BEYOND * material.seconds[kind])
                killed = Killed(material, seconds)
                found = [*getattr(killed, kind)(), *killed.left()]
            of_rest = [text for text in found if text.startswith(LEFT)]
            failed, left = failed + len(found) - len(of_rest), left + len(of_rest)
            faults += [f"kill {number}, {kind} after {seconds:.2f} s: {text}" for text in found]
    return values(
        [
            none_of("what does not open or go on", failed, f"{count} kills"),
            none_of("half-written files left", left),
        ],
        faults,
    )
