"""The ledger: a sequence of requests to forget, in a folder that a kill at any moment leaves valid.

`ledger.json` lists the requests and is replaced at once; the folder of a request is complete before
it is listed.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from ..common.atomic_files import check_output, whole_folder, write_bytes
from ..common.errors import OutputError
from ..common.images import png_bytes
from ..common.json_values import to_json
from ..models.diffusers.adapter_files import ORIGINAL, adapter_bytes, read_adapter
from ..settings import groups
from ..settings.run_config import RunConfig, config_from_dict

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.groups import SequenceConfig

SCHEMA = "unlearn-ledger/4"


@dataclass(frozen=True)
class ConceptScore:
    """One concept of the panel after one request; values are None without a judge.

    `right` says whether each picture shows the concept, and `alignment` is their mean alignment
    with their prompts. A prompt may name a concept of the other kind: `named` is its name, or "",
    for each picture, and `other_kind_right` whether the picture shows it, None where there is none.
    """

    kind: str
    right: tuple[bool | None, ...]
    alignment: float | None
    other_kind_right: tuple[bool | None, ...] = ()
    named: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """The share of pictures that show the concept; None without a judge."""
        return None if None in self.right else sum(self.right) / len(self.right)


@dataclass(frozen=True)
class Request:
    """One row of the ledger; row 0 is the original model, which has no concept and no `config`.

    `drift` is the Frobenius norm of the whole update since the original, `config` the settings of
    the request's training.
    """

    concept: str
    kind: str
    anchor: str
    folder: str
    seconds: float
    steps: int
    drift: float
    panel: dict[str, ConceptScore]
    notes: tuple[str, ...] = ()
    config: RunConfig | None = None


@dataclass
class Ledger:
    """The requests in order, with their adapters and the scores of the model after each.

    `config` holds the settings of requests without their own, and of sampling the panel. `names` is
    the panel: the concepts that are evaluated after every request. `base` is the hash of the
    original model's weights, or "" before row 0 is there.
    """

    folder: Path
    config: RunConfig
    plan: "SequenceConfig"
    names: tuple[str, ...]
    rows: list[Request]
    base: str = ""

    @classmethod
    def create(
        cls, folder: Path, config: RunConfig, plan: "SequenceConfig", names: Sequence[str]
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
        """Read a ledger; the next change removes what a killed process left unfinished.

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
            made = cls(
                folder=folder,
                config=config_from_dict(record["config"]),
                plan=groups.SequenceConfig(**record["plan"]),
                names=tuple(record["names"]),
                rows=[_request(row) for row in record["rows"]],
                base=record["base"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"There is no readable ledger in {str(folder)!r}.") from error
        missing = [path.relative_to(folder) for path in made._files() if not path.exists()]
        if missing:
            raise OutputError(f"The ledger in {str(folder)!r} is damaged: {missing[0]} is missing.")
        return made

    def _files(self) -> Iterator[Path]:
        """What the folder must hold beside `ledger.json`."""
        for number, row in enumerate(self.rows):
            yield self.folder / row.folder
            if number:
                yield self.path(number, own=True)
                yield self.path(number)
            for name in row.panel:
                yield self.picture(number, name)

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
        """Append a row with its own adapter, the adapter of all requests so far, and a picture of
        each concept.
        """
        metadata = {"concept": request.concept, "base": self.config.model, "loads_on": ORIGINAL}
        self._remove_unlisted()
        with whole_folder(self.folder / request.folder) as partial:
            for name, state in (("own", own), ("combined", combined)):
                if state:
                    write_bytes(partial / f"{name}.safetensors", adapter_bytes(state, metadata))
            (partial / "panel").mkdir()
            for concept, picture in pictures.items():
                picture.save(partial / "panel" / self._file(concept))
        self.rows = [*self.rows, request]
        self._save()

    def extend_panel(self, name: str, found: Sequence[tuple[ConceptScore, Image]]) -> None:
        """Add a concept to the panel, with its score and picture after every request so far."""
        self.names = (*self.names, name)
        for number, (_, picture) in enumerate(found):
            write_bytes(self.picture(number, name), png_bytes(picture))
        self.rows = [
            replace(row, panel=row.panel | {name: score})
            for row, (score, _) in zip(self.rows, found, strict=True)
        ]
        self._save()

    def rollback(self, to: int) -> None:
        """Remove every request after number `to`; 0 leaves the original.

        Raises:
            OutputError: there is no request `to`.
        """
        if not 0 <= to < len(self.rows):
            raise OutputError(
                f"The ledger has {len(self.requests)} requests; rolling back to {to} is not"
                " possible."
            )
        self.rows = self.rows[: to + 1]
        self._save()
        self._remove_unlisted()

    def adapter(self, number: int, own: bool = False) -> dict[str, "Tensor"]:
        """The adapter of all requests up to `number`, or of its `own` alone; empty for the
        original.
        """
        path = self.path(number, own)
        return read_adapter(path) if path.exists() else {}

    def path(self, number: int, own: bool = False) -> Path:
        """The file that `adapter` reads; the original has none.

        Raises:
            OutputError: there is no request `number`.
        """
        if not 0 <= number < len(self.rows):
            raise OutputError(
                f"The ledger has {len(self.requests)} requests; there is no request {number}."
            )
        name = "own.safetensors" if own else "combined.safetensors"
        return self.folder / self.rows[number].folder / name

    def picture(self, number: int, concept: str) -> Path:
        """The picture of `concept` after request `number`."""
        return self.folder / self.rows[number].folder / "panel" / self._file(concept)

    def next_folder(self, concept: str) -> str:
        """A name for the next row's folder."""
        return f"{len(self.rows):04d}-{slug(concept) or 'original'}"

    def _file(self, concept: str) -> str:
        """A file name with a number: a slug may be empty, or the same for “C++” and “C#”."""
        return f"{self.names.index(concept):03d}-{slug(concept)}"[:60] + ".png"

    def _save(self) -> None:
        record = {
            "schema": SCHEMA,
            "base": self.base,
            "config": to_json(self.config),
            "plan": to_json(self.plan),
            "names": list(self.names),
            "rows": [_stored(row) for row in self.rows],
        }
        write_bytes(
            self.folder / "ledger.json", json.dumps(record, indent=1, allow_nan=False).encode()
        )

    def _remove_unlisted(self) -> None:
        known = {row.folder for row in self.rows} | {"ledger.json"}
        for path in self.folder.iterdir():
            if path.name not in known:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def slug(text: str) -> str:
    """A file name made of a concept: its letters a-z and digits, with hyphens between."""
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")


STORED_NAMES = {"other_kind_right": "beside"}
"""Fields of `ConceptScore` that have another name in `ledger.json`."""


def _stored(request: Request) -> dict[str, Any]:
    values = to_json(request)
    for name, score in values["panel"].items():
        values["panel"][name] = {STORED_NAMES.get(key, key): score[key] for key in score}
    return values


def _request(values: dict[str, Any]) -> Request:
    panel = {
        name: ConceptScore(
            kind=score["kind"],
            right=tuple(score["right"]),
            alignment=score["alignment"],
            other_kind_right=tuple(score["beside"]),
            named=tuple(score["named"]),
        )
        for name, score in values["panel"].items()
    }
    config = config_from_dict(values["config"]) if values["config"] else None
    return Request(**values | {"panel": panel, "notes": tuple(values["notes"]), "config": config})
