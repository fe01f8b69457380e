"""Kills at random moments: afterwards everything opens, and the same command goes on."""

import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...common.errors import UnlearnError
from ...continual.ledger import Ledger
from ..app_process import AppProcess, left_in
from .loopback import events
from .material import ADD, ATTACK, AUDIT, PANEL, RUN, Material
from .rows import none_of, values
from .visitors import in_order

WORDS = {
    "run": (*RUN, "--out", "new"),
    "attack": ATTACK,
    "continual": (*ADD, PANEL[1]),
    "audit": (*AUDIT, "--out", "new"),
}
"""The commands that are killed, by their first word."""
KINDS = ("run", "page", "attack", "continual", "audit")
LEFT = "left:"
"""How a sentence begins that tells of files."""
HALF_WRITTEN = re.compile(r"\..*\.(?:partial|reserved|part)")
BEYOND = 1.1
"""How much later than its usual end a command may be killed, in shares of its usual time."""
PAGE_S = 15.0
"""Seconds within which a page is killed; it serves and works after some of them."""


def killed_command(kind: str, material: Material, seconds: float) -> Iterator[str]:
    """Kill a command of `WORDS` after some seconds; yield what fails afterwards, and the
    half-written and temporary files that no command has removed.
    """
    here, words = material.renew(), WORDS[kind]

    def fails(*words: str) -> Iterator[str]:
        ended = material.commands.run(words)
        if ended.code:
            yield f"`{' '.join(words)}` fails afterwards: {ended.said[-300:]}"

    material.commands.run(words, kill_after=seconds)
    if kind in ("run", "audit"):
        out = here / "new"
        if out.exists():  # then it is whole
            yield from fails("report", "new")
            shutil.rmtree(out)
        yield from fails(*words)
        yield from fails("report", "new")
    elif kind == "attack":
        yield from fails("report", "run")
        yield from fails(*words)
        yield from fails("report", "run")
    else:
        yield from fails("continual", "show", "ledger")
        with suppress(UnlearnError):  # the line above has reported a ledger that does not open
            if len(Ledger.open(here / "ledger").requests) == 1:
                yield from fails(*words)
        yield from fails("continual", "rollback", "ledger", "1")
    for path in here.rglob(".*"):
        if HALF_WRITTEN.fullmatch(path.name):
            yield f"{LEFT} {path.relative_to(here)}"
    for name in sorted(left_in(material.commands.temporary)):
        yield f"{LEFT} {name} among the temporary files"


def killed_page(folder: Path, seconds: float) -> Iterator[str]:
    """Kill the app after some seconds, in which a run begins as soon as it answers; the next app
    must start, and remove what this one left.
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
    """The rows on `count` kills, in turn of each of `KINDS`."""
    draw, faults = random.Random(seed), list[str]()
    failed, left = 0, 0
    with tempfile.TemporaryDirectory(prefix="unlearn-soak-") as folder:
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            if kind == "page":
                seconds = draw.uniform(0, PAGE_S)
                found = killed_page(Path(folder), seconds)
            else:
                seconds = draw.uniform(0, BEYOND * material.seconds[kind])
                found = killed_command(kind, material, seconds)
            for text in found:
                left += text.startswith(LEFT)
                failed += not text.startswith(LEFT)
                faults.append(f"kill {number}, {kind} after {seconds:.2f} s: {text}")
    return values(
        [
            none_of("what does not open or go on", failed, f"{count} kills"),
            none_of("half-written or temporary files left", left),
        ],
        faults,
    )
