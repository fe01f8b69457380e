"""The cells of the benchmark of models, and its tables: what works with which family, and how much
memory each takes.
"""

import importlib.metadata
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...models.diffusers.tiny_pipelines import FAMILIES, save, save_judge
from ..cells import Experiment, read_cells, short_hash
from ..tables import render, table, write_report
from .checks import CHECKS, SMALL_ATTACKS, TINY, Material
from .estimates import estimated
from .process_memory import counted, measured_here
from .shapes import OWNED, REDUCED

WORKS, ESTIMATE, MEASURED = "works", "estimate", "measured"
COLUMNS = {
    "sd1": "SD 1.x",
    "sd2": "SD 2.x, v, zero SNR",
    "sdxl": "SDXL",
    "sd3": "SD 3",
    "sd3-without-t5": "SD 3 without T5",
    "flux-dev": "FLUX dev",
    "flux-schnell": "FLUX schnell",
}
"""What the tables call each small pipeline."""
WITHIN = 0.1
"""How far a count may be from what a process takes."""
LIBRARIES = ("torch", "diffusers", "transformers", "peft")
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class ModelCell:
    """Whether a check `works` with a family, the `estimate` of a model that people own, or what was
    `measured` of a smaller one.
    """

    kind: str
    subject: str
    check: str = ""


class Models(Experiment):
    """Try everything on every family, and hold the estimate of memory against the system's."""

    name = "models"

    def cells(self) -> list[ModelCell]:
        families = ["sd1"] if self.smoke else COLUMNS
        owned, shapes = (list(own)[:1] if self.smoke else own for own in (OWNED, REDUCED))
        tried = [ModelCell(WORKS, family, check) for family in families for check in CHECKS]
        estimates = [ModelCell(ESTIMATE, name) for name in owned]
        return [*tried, *estimates, *(ModelCell(MEASURED, name) for name in shapes)]

    def key(self, cell: ModelCell) -> str:
        return super().key(cell).rstrip("-")

    def config(self, cell: ModelCell) -> dict[str, Any]:
        about = {
            WORKS: lambda: {"settings": short_hash([TINY, SMALL_ATTACKS])},
            ESTIMATE: lambda: {"shape": short_hash(OWNED[cell.subject])},
            MEASURED: lambda: {"shape": short_hash(REDUCED[cell.subject])},
        }[cell.kind]()
        named = {"kind": cell.kind, "subject": cell.subject, "check": cell.check}
        return named | about | {"libraries": _libraries()}

    def shared_by(self, cell: ModelCell) -> str | None:
        return cell.subject if cell.kind == WORKS else None

    def prepare(self, cell: ModelCell) -> "Kept":
        return Kept(cell.subject)

    def measure(
        self, cell: ModelCell, known: dict[str, Any], shared: "Kept | None"
    ) -> Iterator[Mapping[str, Any]]:
        if cell.kind == ESTIMATE:
            yield estimated(cell.subject)
        elif cell.kind == MEASURED:
            yield {"counted": counted(cell.subject), "taken": measured_here(cell.subject)}
        else:
            yield shared.tried(cell.check)

    def line(self, cell: ModelCell, values: Mapping[str, Any]) -> str:
        if cell.kind == WORKS:
            answer = "yes" if values["works"] else f"no: {values['note']}"
            return f"{COLUMNS[cell.subject]}, {cell.check}: {answer}"
        return f"{cell.kind} of {cell.subject}"

    def report(self) -> str:
        return write_results(self.folder)


class Kept:
    """The small pipeline of a family in a folder, which goes with this object."""

    def __init__(self, family: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="unlearn-family-")
        at = Path(self._folder.name)
        save(at / "model", FAMILIES[family])
        self._made = Material(family, at / "model", f"clip={save_judge(at / 'judge')}", at)

    def tried(self, check: str) -> dict[str, Any]:
        """Whether a check works, with its note, or with the sentence of its failure."""
        made = self._made
        try:
            return {"works": True, "note": CHECKS[check][1](made)}
        except Exception as error:  # whatever it is, the table says it
            said = (str(error) or type(error).__name__).splitlines()[0]
            return {"works": False, "note": said.replace(str(made.scratch), "DIR")}
        finally:
            if "model" in vars(made):
                made.model.drop_adapters()


@cache
def _libraries() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def write_results(folder: Path) -> str:
    """Write the tables over the stored cells; returns the Markdown."""
    stored = read_cells(folder).values()
    found = {
        ModelCell(*(config[name] for name in ("kind", "subject", "check"))): values
        for config, values in stored
    }
    works = [values["works"] for cell, values in found.items() if cell.kind == WORKS]
    versions = {tuple(config["libraries"].items()) for config, _ in stored}
    shapes = {cell.subject: v for cell, v in found.items() if cell.kind == MEASURED}
    ratios = [_ratio(v, part) for v in shapes.values() for part in v["taken"]]
    owned = {cell.subject: v for cell, v in found.items() if cell.kind == ESTIMATE}
    text = render(
        "models.md",
        matrix=_matrix(found),
        notes=_notes(found),
        works=sum(works),
        tried=len(works),
        owned=_owned(owned),
        bars={name: values for name, values in owned.items() if values["bar"]},
        shapes=_shapes(shapes),
        missing=[name for name in REDUCED if name not in shapes],
        inside=sum(abs(ratio - 1) <= WITHIN for ratio in ratios),
        measured=len(ratios),
        ends=(min(ratios), max(ratios)) if ratios else None,
        within=WITHIN,
        versions=sorted(versions),
    )
    return write_report(folder, text)


def _matrix(found: Mapping[ModelCell, Mapping[str, Any]]) -> str:
    """A row for each check, a column for each family, with the number of the note on an answer."""
    families = [name for name in COLUMNS if any(cell.subject == name for cell in found)]
    notes, rows = _notes(found), []
    for check, (said, _) in CHECKS.items():
        answers = []
        for family in families:
            values = found.get(ModelCell(WORKS, family, check))
            answers.append(_answer(values, notes) if values else "not measured")
        rows.append([said, *answers])
    return table(["", *(COLUMNS[name] for name in families)], rows)


def _answer(values: Mapping[str, Any], notes: list[str]) -> str:
    answer = "yes" if values["works"] else "**no**"
    return f"{answer} ({notes.index(values['note']) + 1})" if values["note"] else answer


def _notes(found: Mapping[ModelCell, Mapping[str, Any]]) -> list[str]:
    """Every note, once, in the order of the table."""
    order = [ModelCell(WORKS, family, check) for check in CHECKS for family in COLUMNS]
    said = [found[cell]["note"] for cell in order if cell in found]
    return list(dict.fromkeys(filter(None, said)))


def _owned(owned: Mapping[str, Mapping[str, Any]]) -> str:
    heads = (
        "model",
        "denoiser, 10^6 weights",
        "pictures",
        "held, GiB",
        "text encoders, GiB",
        "gradient of one picture, all kept, GiB",
        "the same with checkpointing, GiB",
        "painting one, GiB",
        "decoding one, GiB",
        "smallest card, GB",
        "a run there, GiB",
    )
    rows = []
    for name in (name for name in OWNED if name in owned):
        values = owned[name]
        parts = ("weights", "text", "kept", "checkpointed", "picture", "decoding")
        sizes = [f"{values[part] / GIB:.2f}" for part in parts]
        size = " x ".join(map(str, values["sides"]))
        how = f"{values['need'] / GIB:.1f}, {values['how'] or 'all kept'}"
        rows.append([name, f"{values['millions']:,}", size, *sizes, values["card"], how])
    return table(heads, rows)


def _shapes(shapes: Mapping[str, Mapping[str, Any]]) -> str:
    said = {
        "kept": "a step, all kept",
        "checkpointed": "a step, checkpointed",
        "decoding": "decoding",
    }
    rows = []
    for name in (name for name in REDUCED if name in shapes):
        values = shapes[name]
        for part, words in said.items():
            ratio = _ratio(values, part)
            sizes = [f"{values[way][part] / MIB:.1f}" for way in ("counted", "taken")]
            met = "yes" if abs(ratio - 1) <= WITHIN else "**no**"
            rows.append([name, words, *sizes, f"{ratio:.2f}", met])
    heads = ("shape", "work", "counted, MiB", "taken, MiB", "ratio", f"within {WITHIN:.0%}")
    return table(heads, rows)


def _ratio(values: Mapping[str, Any], part: str) -> float:
    return values["counted"][part] / values["taken"][part]
