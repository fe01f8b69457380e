"""What a part of the soak found: rows of a table, and the faults behind them."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 20
"""Faults that are kept with their reproduction."""


@dataclass(frozen=True)
class Row:
    """Something measured beside its bar; `met` is None where it could not be measured."""

    what: str
    bar: str
    measured: str
    met: bool | None


def none_of(what: str, count: int, of: str = "") -> Row:
    """A row of what must not happen."""
    return Row(what, "0", f"{count}{of and f' of {of}'}", not count)


def values(rows: Sequence[Row], faults: Sequence[str]) -> dict[str, Any]:
    """What a cell stores."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"rows": rows, "faults": faults[:SHOWN], "machine": machine}
