"""An experiment that counts: small enough to be measured in a moment, by any process."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from unlearn_app.experiments.cells import Experiment, Extent


@dataclass(frozen=True)
class Sum:
    """How far is counted."""

    last: int


class Sums(Experiment):
    """Counts; a cell grows by a number at a time."""

    name = "sums"
    version = 1
    pause = 0.0

    def __init__(self, extent: Extent) -> None:
        super().__init__(extent, SimpleNamespace(base_hash="0"), SimpleNamespace())
        self.counted: list[int] = []
        self.prepared: list[int] = []

    def cells(self) -> list[Sum]:
        return [Sum(3), Sum(1), Sum(5)]

    def config(self, cell: Sum) -> dict[str, Any]:
        return {"last": (cell.last,), "version": self.version}

    def lacks(self, cell: Sum, known: dict[str, Any]) -> bool:
        return str(cell.last) not in known

    def shared_by(self, cell: Sum) -> int | None:
        return cell.last // 2 or None

    def prepare(self, cell: Sum) -> int:
        assert cell.last > 1, "a cell that shares nothing needs nothing"
        self.prepared.append(cell.last)
        return 100 * self.shared_by(cell)

    def measure(
        self, cell: Sum, known: dict[str, Any], shared: int | None
    ) -> Iterator[dict[str, Any]]:
        values = dict(known)
        for number in range(1, cell.last + 1):
            if str(number) not in values:
                self.counted.append(number)
                values[str(number)] = (shared or 0) + number
                yield values
                time.sleep(self.pause)

    def line(self, cell: Sum, values: dict[str, Any]) -> str:
        return f"up to {cell.last}: {values[str(cell.last)]}"

    def report(self) -> str:
        return "report"


class SlowSums(Sums):
    """Takes its time, and leaves the process that counts in `out`/PROCESS-NUMBER."""

    pause = 0.5

    def measure(
        self, cell: Sum, known: dict[str, Any], shared: int | None
    ) -> Iterator[dict[str, Any]]:
        for values in super().measure(cell, known, shared):
            (self.extent.out / f"{os.getpid()}-{cell.last}-{len(values)}").touch()
            yield values
