"""Numbers of a relearn curve."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..settings.events import Count


@dataclass(frozen=True)
class BaseCurve:
    """What an attack teaches of the concept `name`, which the model has never seen: right pictures
    of n by attack step.
    """

    name: str
    marks: Mapping[Annotated[int, Field(ge=0, lt=10**9)], tuple[Count, Count]]


def area_under(points: Sequence[tuple[float, float]]) -> float:
    """Mean height of the curve through points (x, y) in rising x, by the trapezoid rule; y itself
    for a single point.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("A curve needs at least one point.")
    pairs = list(itertools.pairwise(points))
    width = points[-1][0] - points[0][0]
    return (
        sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairs) / width
        if width
        else points[0][1]
    )


def first_reaching(points: Sequence[tuple[float, float]], level: float) -> float | None:
    """The smallest x at which the curve through points (x, y) in rising x reaches `level`; None if
    it never does.
    """
    for (x0, y0), (x1, y1) in zip([*points[:1], *points], points, strict=False):
        if y1 >= level:
            return x1 if y0 >= level or y0 == y1 else x0 + (x1 - x0) * (level - y0) / (y1 - y0)
    return None
