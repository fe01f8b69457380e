"""The ledger: requests to forget, one after the other, in a folder that survives being killed at
any moment.

`ledger.json` is the truth and is replaced whole; a request's folder is complete before it is named
there.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from ..common.atomic_files import check_output, whole_folder, write_bytes
from ..common.errors import OutputError
from ..common.images import png_bytes
from ..common.json_values import to_json
from ..models.diffusers.adapter_files import ORIGINAL, adapter_bytes, read_adapter
from ..settings.groups import SequenceConfig
from ..settings.run_config import RunConfig, config_from_dict

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "unlearn-ledger/4"


@dataclass(frozen=True)
class ConceptScore:
    """One concept of the panel after one request: which pictures are right and their mean
    alignment, None unjudged.
    """

    kind: str
    right: tuple[bool | None, ...]
    alignment: float | None
    beside: tuple[bool | None, ...] = ()
    """Whether each picture shows the concept of the other kind that its prompt names; None where it
    names none.
    """
    named: tuple[str, ...] = ()
    """That concept of each picture, or nothing."""

    @property
    def accuracy(self) -> float | None:
        """The share that is right; None where nothing was judged, which is not the same as none
        right.
        """
        return None if None in self.right else sum(self.right) / len(self.right)


@dataclass(frozen=True)
class Request:
    """One row of the ledger; row 0 is the original model, which has no concept."""

    concept: str
    kind: str
    anchor: str
    folder: str
    seconds: float
    steps: int
    drift: float
    """Frobenius norm of the whole update since the original."""
    panel: dict[str, ConceptScore]
    notes: tuple[str, ...] = ()
    config: RunConfig | None = None
    """What taught it; None for the original."""


@dataclass
class Ledger:
    """An ordered list of requests with their adapters and what the model shows after each."""

    folder: Path
    config: RunConfig
    """What teaches a request that brings no settings of its own, and how the panel is painted."""
    plan: SequenceConfig
    names: tuple[str, ...]
    """The panel: the concepts that are tested after every request."""
    rows: list[Request]
    base: str = ""
    """The hash of the original model's weights, known once that has been tested."""

    @classmethod
    def create(
        cls, folder: Path, config: RunConfig, plan: SequenceConfig, names: Sequence[str]
    ) -> "Ledger":
        """A new ledger without rows.

        Raises:
            OutputError: the folder exists or cannot be written.
        """
        check_output(folder)
        with whole_folder(Path(folder)) as partial:
            made = cls(partial, config, plan, tuple(names), [])
            made._save()
        made.folder = Path(folder)
        return made

    @classmethod
    def open(cls, folder: Path) -> "Ledger":
        """Read a ledger back; what a killed process left unfinished is cleared away by the next
        change.

        Raises:
            OutputError: there is none, or a row's adapters or pictures are missing.
        """
        folder = Path(folder)
        try:
            record = json.loads((folder / "ledger.json").read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                raise OutputError(
                    f"{str(folder)!r} has schema {record['schema']!r}; {SCHEMA} is accepted."
                )
            rows = [_request(row) for row in record["rows"]]
            plan, names = SequenceConfig(**record["plan"]), tuple(record["names"])
            made = cls(
                folder, config_from_dict(record["config"]), plan, names, rows, record["base"]
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"There is no readable ledger in {str(folder)!r}.") from error
        for number, row in enumerate(rows):
            adapters = [made.path(number, own) for own in (True, False)] if number else []
            for needed in (
                folder / row.folder,
                *adapters,
                *(made.picture(number, name) for name in row.panel),
            ):
                if not needed.exists():
                    missing = needed.relative_to(folder)
                    raise OutputError(
                        f"The ledger in {str(folder)!r} is damaged: {missing} is missing."
                    )
        return made

    @property
    def requests(self) -> list[Request]:
        """The rows without the original's."""
        return self.rows[1:]

    def add(
        self,
        request: Request,
        own: Mapping[str, "Tensor"],
        combined: Mapping[str, "Tensor"],
        pictures: Mapping[str, Image],
    ) -> None:
        """Append a row: its own adapter, the one of all so far, and a picture of each concept of
        the panel.
        """
        self._sweep()
        with whole_folder(self.folder / request.folder) as partial:
            for name, state in (("own", own), ("combined", combined)):
                if state:
                    said = {
                        "concept": request.concept,
                        "base": self.config.model,
                        "loads_on": ORIGINAL,
                    }
                    write_bytes(partial / f"{name}.safetensors", adapter_bytes(state, said))
            (partial / "panel").mkdir()
            for concept, picture in pictures.items():
                picture.save(partial / "panel" / self._file(concept))
        self.rows = [*self.rows, request]
        self._save()

    def widen(self, name: str, found: Sequence[tuple[ConceptScore, Image]]) -> None:
        """Put one more concept on the panel, with what every row so far shows of it and a
        picture.
        """
        self.names = (*self.names, name)
        for number, (_, picture) in enumerate(found):
            write_bytes(self.picture(number, name), png_bytes(picture))
        self.rows = [
            replace(row, panel=row.panel | {name: s})
            for row, (s, _) in zip(self.rows, found, strict=True)
        ]
        self._save()

    def rollback(self, to: int) -> None:
        """Forget every request after number `to`; 0 leaves the original.

        Raises:
            OutputError: there are not so many.
        """
        if not 0 <= to < len(self.rows):
            raise OutputError(
                f"The ledger has {len(self.requests)} requests; rolling back to {to} is not"
                " possible."
            )
        self.rows = self.rows[: to + 1]
        self._save()
        self._sweep()

    def adapter(self, number: int, own: bool = False) -> dict[str, "Tensor"]:
        """The adapter of all requests up to `number`, or of that request alone; empty for the
        original.
        """
        path = self.path(number, own)
        return read_adapter(path) if path.exists() else {}

    def path(self, number: int, own: bool = False) -> Path:
        """Where `adapter` reads; nothing is there for the original.

        Raises:
            OutputError: there are not so many requests.
        """
        if not 0 <= number < len(self.rows):
            raise OutputError(
                f"The ledger has {len(self.requests)} requests; there is no request {number}."
            )
        return (
            self.folder
            / self.rows[number].folder
            / ("own.safetensors" if own else "combined.safetensors")
        )

    def picture(self, number: int, concept: str) -> Path:
        """The picture of `concept` after request `number`."""
        return self.folder / self.rows[number].folder / "panel" / self._file(concept)

    def next_folder(self, concept: str) -> str:
        """A name for the next row's folder."""
        return f"{len(self.rows):04d}-{slug(concept) or 'original'}"

    def _file(self, concept: str) -> str:
        """Numbered, because a slug may be empty or another concept's: “C++” and “C#”, or no Latin
        letters.
        """
        return f"{self.names.index(concept):03d}-{slug(concept)}"[:60] + ".png"

    def _save(self) -> None:
        names = ("base", "config", "plan", "names", "rows")
        record = {"schema": SCHEMA} | to_json({name: getattr(self, name) for name in names})
        write_bytes(
            self.folder / "ledger.json", json.dumps(record, indent=1, allow_nan=False).encode()
        )

    def _sweep(self) -> None:
        known = {row.folder for row in self.rows} | {"ledger.json"}
        for path in self.folder.iterdir():
            if path.name not in known:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def slug(text: str) -> str:
    """A file name made of a concept."""
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")


def _request(values: dict[str, Any]) -> Request:
    lists = ("right", "beside", "named")
    panel = {
        name: ConceptScore(**seen | {part: tuple(seen[part]) for part in lists})
        for name, seen in values["panel"].items()
    }
    config = config_from_dict(values["config"]) if values["config"] else None
    return Request(**values | {"panel": panel, "notes": tuple(values["notes"]), "config": config})
