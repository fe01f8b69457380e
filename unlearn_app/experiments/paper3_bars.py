"""What every arm of paper 3 reaches against the bars of our own, with intervals, and which arm is
best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..evaluation.statistics import mean_interval
from .paper3_claims import (
    RATES,
    Interval,
    Row,
    at_last,
    label_of,
    number_of,
    paired,
    share_interval,
)
from .paper3_grid import HOLDING, PLAIN


@dataclass(frozen=True)
class Bar:
    """A bound on how things stand after the last request."""

    title: str
    unit: str
    bound: float
    at_most: bool = False
    digits: int = 0

    @property
    def text(self) -> str:
        """The bound with its direction."""
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


BARS = {
    "ua": Bar("UA", "% of what was asked for", 90.0),
    "ra_i": Bar("RA-I", "% of the original's", 80.0),
    "ra_c": Bar("RA-C", "% of the original's", 90.0),
    "drift": Bar("drift", "% of the plain sequence's", 40.0, at_most=True),
    "growth": Bar("growth", "last request's time by the first's", 1.2, at_most=True, digits=2),
    "seconds": Bar(
        "time", "s of the last request on two cores, without its evaluation", 30.0, at_most=True
    ),
}
STATE = (*RATES, "drift")
"""The bars that tell which arm is best: what it leaves of the model, not what it costs."""
Reached = Mapping[str, Interval | None]


def bars(rows: Sequence[Row]) -> list[str]:
    """Which arm that holds a sequence back is best, and a table of all arms against every bar."""
    ends = at_last(rows)
    arms = dict.fromkeys(row.arm for row in ends)
    holding = [arm for arm in HOLDING if arm in arms]
    if not holding or PLAIN not in arms:
        return ["The plain sequence, or every arm that holds it back, is not measured."]
    found = {arm: reached(rows, arm) for arm in arms}
    best, why = best_of({arm: found[arm] for arm in holding})
    when = number_of(ends[0].number, "request")
    heads = [f"{bar.title}, {bar.unit}: {bar.text}" for bar in BARS.values()]
    lines = [f"Of the arms that hold a sequence back, best after {when}: **{best}** ({why}).", ""]
    lines += [f"| {' | '.join(['arm', *heads])} |", "|" + "---|" * (1 + len(heads))]
    for arm in sorted(found, key=lambda arm: (arm != best, -_middle(found[arm], "ra_i"))):
        lines.append(
            f"| {' | '.join([arm, *(_cell(found[arm][name], bar) for name, bar in BARS.items())])} |"
        )
    where = sorted({(row.threads, row.processes) for row in ends})
    how = " and ".join(
        f"{number_of(one, 'thread')} in {number_of(many, 'process', 'es')}" for one, many in where
    )
    return [
        *lines,
        "",
        (
            "Met or not met is what a whole interval does; one sequence has none. Measured with"
            f" {how}."
        ),
    ]


def reached(rows: Sequence[Row], arm: str) -> Reached:
    """Mean and 95 % interval of what an arm reaches of every bar; None of what is not measured."""
    mine = [row for row in rows if row.arm == arm]
    ends = [row for row in at_last(rows) if row.arm == arm]
    lists = {
        "drift": drifts(rows, arm),
        "growth": growth(mine),
        "seconds": [row.seconds for row in ends],
    }
    return {name: share_interval(ends, name) for name in RATES} | {
        name: mean_interval(values) if values else None for name, values in lists.items()
    }


def best_of(found: Mapping[str, Reached]) -> tuple[str, str]:
    """Of the arms that erase enough in the mean the best, and why; where none does, the one that
    erases most.

    The best meets most bars with its whole intervals, of these most in the mean, and of these keeps
    most.
    """

    def met(arm: str) -> tuple[int, int]:
        known = [(found[arm][name], BARS[name]) for name in STATE]
        sure = [
            label_of(interval, bar.bound, bar.at_most) == "met"
            for interval, bar in known
            if interval
        ]
        signs = [
            (-1 if bar.at_most else 1) * (interval[0] - bar.bound)
            for interval, bar in known
            if interval
        ]
        return sum(sure), sum(sign >= 0 for sign in signs)

    least = BARS["ua"].bound
    able = [arm for arm in found if _middle(found[arm], "ua") >= least]
    if not able:
        most = max(found, key=lambda arm: _middle(found[arm], "ua"))
        return most, f"no arm's UA reaches {least:.0f} %, its is highest"
    best = max(
        able, key=lambda arm: (met(arm), _middle(found[arm], "ra_i") + _middle(found[arm], "ra_c"))
    )
    sure, likely = met(best)
    return (
        best,
        (
            f"{sure} of {len(STATE)} bars met with the whole interval and {likely} in the mean, no"
            " arm's more"
        ),
    )


def drifts(rows: Sequence[Row], arm: str) -> list[float]:
    """The drift of every sequence in percent of the plain one's."""
    return [100 * a.drift / max(b.drift, 1e-9) for a, b in paired(rows, arm, PLAIN, "drift")]


def growth(rows: Sequence[Row]) -> list[float]:
    """The time of the last request by that of the first, of every sequence that has both."""
    first = {row.sequence: row.seconds for row in rows if row.number == 1}
    return [row.seconds / first[row.sequence] for row in at_last(rows) if first.get(row.sequence)]


def _middle(found: Reached, name: str) -> float:
    return found[name][0] if found[name] else 0.0


def _cell(found: Interval | None, bar: Bar) -> str:
    if found is None:
        return "–"
    middle, low, high = (f"{value:.{bar.digits}f}" for value in found)
    if found[1] == float("-inf"):
        return middle
    return f"{middle} ({low} to {high}), {label_of(found, bar.bound, bar.at_most)}"
