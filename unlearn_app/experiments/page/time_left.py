"""What the page says of a run that is going on, held against when the run was over."""

import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EVERY_S = 0.5
"""Seconds between two looks at what the page says."""
FROM = 1 / 3
"""The share of the run from which on the time left is judged."""
REMAINDER_S = 3.0
"""The last seconds, in which it is not: rounding to seconds would decide."""
RISE_S = 1.0
"""What the page says rises when it grows by more than so many seconds."""
UNITS: Mapping[str, float] = {"s": 1.0, "min": 60.0}
Left = tuple[float, float] | None
"""The fewest and the most seconds that are left by what was said; None where nothing was."""


@dataclass(frozen=True)
class Shown:
    """What the page shows `at` so many seconds after the click on Run, until the next change: the
    stage in its words, the fewest and the most seconds that may be `left`, None where it says
    none, and the bar in [0, 1].
    """

    at: float
    stage: str
    left: Left
    bar: float


def seconds_said(text: str) -> Left:
    """The seconds of a text such as "step 3 of 40 · about 1.5 min left", or "less than 10 s left",
    which is any time up to that; None where it names none.
    """
    found = re.search(r"(about|less than) ([\d.]+) (s|min) left", text)
    if not found:
        return None
    most = float(found[2]) * UNITS[found[3]]
    return (most if found[1] == "about" else 0.0), most


def looks(shown: Sequence[Shown], over: float) -> list[tuple[float, Left]]:
    """Moments `EVERY_S` apart until the run is `over`, each with the seconds that were said to be
    left.
    """
    found, at, place = [], EVERY_S, -1
    while at < over:
        while place + 1 < len(shown) and shown[place + 1].at <= at:
            place += 1
        found.append((at, shown[place].left if place >= 0 else None))
        at += EVERY_S
    return found


def errors(seen: Sequence[tuple[float, Left]], over: float) -> list[float | None]:
    """(said - true) / true at every look from `FROM` of the run on until `REMAINDER_S` before it is
    `over`; None where nothing was said. Of the seconds that may be left, those closest to the truth
    count.
    """
    judged = [(over - at, said) for at, said in seen if FROM * over <= at <= over - REMAINDER_S]
    return [
        None if said is None else (min(max(true, said[0]), said[1]) - true) / true
        for true, said in judged
    ]


def rises(seen: Sequence[tuple[float, Left]]) -> int:
    """How often more was said to be left at least than at most at the last time that any was said,
    by more than `RISE_S`.
    """
    said = [left for _, left in seen if left is not None]
    return sum(later[0] - one[1] > RISE_S for one, later in itertools.pairwise(said))


def moved(shown: Sequence[Shown]) -> tuple[int, int]:
    """How many stages moved the bar further than it had been before them, and how many there
    were.
    """
    furthest, moving, count = 0.0, 0, 0
    for _, stage in itertools.groupby(shown, lambda one: one.stage):
        reached = max(one.bar for one in stage)
        moving, count = moving + (reached > furthest), count + 1
        furthest = max(furthest, reached)
    return moving, count


def judged(shown: Sequence[Shown], over: float) -> dict[str, Any]:
    """How true it was what the page said of a run that was `over` after so many seconds; numbers
    are None where the run was too short to judge.
    """
    seen = looks(shown, over)
    found = errors(seen, over)
    known = [error for error in found if error is not None]
    stages_moved, stages = moved(shown)
    return {
        "judged": len(found),
        "unsaid": len(found) - len(known),
        "worst": max(known, key=abs) if known else None,
        "mean": statistics.mean(map(abs, known)) if known else None,
        "rises": rises(seen),
        "stages_moved": stages_moved,
        "stages": stages,
    }
