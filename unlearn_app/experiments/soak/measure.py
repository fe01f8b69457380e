"""The parts of the soak, each measured as one cell, and their table."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ..cells import Experiment, read_cells
from ..tables import render, write_report
from . import files, inputs, kills, visitors
from .material import Material

SEED = 0
Measure = Callable[..., Iterator[dict[str, Any]]]


def _whole(measure: Callable[..., dict[str, Any]]) -> Measure:
    """A part that is measured in one piece, whatever is known."""

    def measured(known: Mapping[str, Any], **given: Any) -> Iterator[dict[str, Any]]:
        yield measure(**given)

    return measured


PARTS: dict[str, tuple[Measure, dict[str, int], dict[str, int]]] = {
    "visitors": (
        _whole(visitors.measure),
        {"jobs": 200, "visitors": 16, "kinds": len(visitors.ASKED)},
        {"jobs": 4, "visitors": 2, "kinds": 1},
    ),
    "kills": (_whole(kills.measure), {"count": 50}, {"count": 3}),
    **{
        f"inputs, {kind}": (partial(inputs.measure, kind), {"count": count}, {"count": 8})
        for kind, count in inputs.KINDS.items()
    },
    "files": (_whole(files.measure), {"count": 1_000}, {"count": 8}),
}
"""How each part is measured, how much of it, and how much in a smoke."""


@dataclass(frozen=True)
class SoakPart:
    """One part, drawn from a seed."""

    part: str
    seed: int = SEED


class Soak(Experiment):
    """What happens to the app and the commands under a crowd, kills, nonsense and hostile files."""

    name = "soak"

    def cells(self) -> list[SoakPart]:
        return [SoakPart(part) for part in PARTS]

    def config(self, cell: SoakPart) -> dict[str, Any]:
        _, whole, smoke = PARTS[cell.part]
        return asdict(cell) | (smoke if self.smoke else whole)

    def shared_by(self, cell: SoakPart) -> str:
        return "material"

    def prepare(self, cell: SoakPart) -> Material:
        return Material()

    def alone(self, cell: SoakPart) -> bool:
        return True

    def lacks(self, cell: SoakPart, known: Mapping[str, Any]) -> bool:
        return not known or ("done" in known and known["done"] < self.config(cell)["count"])

    def measure(
        self, cell: SoakPart, known: dict[str, Any], shared: Material
    ) -> Iterator[Mapping[str, Any]]:
        measure_part, _, _ = PARTS[cell.part]
        given = self.config(cell)
        del given["part"]
        yield from measure_part(**given, material=shared, known=known)

    def line(self, cell: SoakPart, values: Mapping[str, Any]) -> str:
        rows = values["rows"]
        met = [row["met"] for row in rows if row["met"] is not None]
        return f"{cell.part}: {sum(met)} of {len(met)} bars met"

    def report(self) -> str:
        found = {config["part"]: values for config, values in read_cells(self.folder).values()}
        parts = {part: found[part] for part in PARTS if part in found}
        return write_report(self.folder, render("soak.md", parts=parts, seed=SEED))
