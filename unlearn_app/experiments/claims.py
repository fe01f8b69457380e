"""Claims: a statistic of two arms, the unit that replicates it, a bound, and the verdict."""

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeVar

from ..evaluation.statistics import mean_interval

Pair = tuple[str, int]
"""A target and a seed: what two arms are paired by."""
Interval = tuple[float, float, float]
"""A mean, and the ends of its 95 % interval."""
Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
ANY = float("inf")
HELD = ("held", "not held")
MET = ("met", "not met")


@dataclass(frozen=True)
class Claim:
    """A sentence about two arms: a paired number, and what its 95 % interval must lie in.

    The number is the statistic of `better` less `factor` times that of `worse`. Without bounds it
    should be positive.
    """

    text: str
    better: str
    worse: str
    statistic: Callable[..., Any]
    low: float | None = None
    high: float = ANY
    unit: str = "points"
    factor: float = 1.0
    step: int = 100
    """The attack step at which the statistic is taken (paper 2)."""

    def label(self, found: Interval) -> str:
        """The verdict on the claim, from the interval of its number."""
        return above_zero(found) if self.low is None else inside(found, self.low, self.high)


def above_zero(*intervals: Interval) -> str:
    """Whether intervals all lie above zero, all below, or neither."""
    if min(low for _, low, _ in intervals) > 0:
        return HELD[0]
    return HELD[1] if max(high for _, _, high in intervals) < 0 else "undecided"


def inside(found: Interval, low: float, high: float, words: tuple[str, str] = HELD) -> str:
    """Whether an interval lies inside a range, outside of it, or across one of its ends."""
    if low <= found[1] and found[2] <= high:
        return words[0]
    return words[1] if found[2] < low or found[1] > high else "undecided"


def grouped(found: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """The items with the same key together, in the order in which the keys come up."""
    groups: dict[Key, list[Item]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return groups


def paired(
    found: Sequence[Item],
    arm: Callable[[Item], str],
    names: tuple[str, str],
    key: Callable[[Item], Any],
) -> list[tuple[Item, Item]]:
    """The items of two arms with the same key, in the order of the keys that both arms have."""
    one, two = ({key(item): item for item in found if arm(item) == name} for name in names)
    return [(one[shared], two[shared]) for shared in sorted(one.keys() & two.keys())]


def by_target(values: Mapping[Pair, float]) -> list[float]:
    """The mean over seeds of each target: seeds share its prompts, so that only targets are
    independent.
    """
    targets = grouped(values, itemgetter(0)).values()
    return [statistics.mean(values[pair] for pair in own) for own in targets]


def target_mean(values: Mapping[Pair, float]) -> float:
    """The mean with the same weight for every target."""
    return statistics.mean(by_target(values))


def rounded_interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of a mean, rounded so that no rounding error around zero decides."""
    return tuple(round(end, 6) + 0.0 for end in mean_interval(values))
