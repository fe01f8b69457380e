"""The ledger: a sequence of requests to forget, in a folder that a kill at any moment leaves valid.

`ledger.json` lists the requests and is replaced at once; the folder of a request is complete before
it is listed. Whoever changes a ledger holds its lock; reading it needs none.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.Image import Image

from ..common.atomic_files import (
    check_output,
    remove_partials,
    unwritable,
    whole_folder,
    write_bytes,
)
from ..common.errors import OutputError
from ..common.folder_lock import LOCK, only_writer
from ..common.images import png_bytes
from ..common.json_values import json_text
from ..common.record_files import damaged, inside, read_model, sha256_of
from ..concepts.concept import Prompt
from ..models.diffusers.adapter_files import (
    ORIGINAL,
    adapter_bytes,
    check_factors,
    origin,
    read_adapter,
)
from ..settings.run_config import RunConfig
from .ledger_record import (
    ADAPTERS,
    FILE,
    HALF_WRITTEN,
    PICTURE,
    ROW,
    SCHEMA,
    ConceptScore,
    LedgerRecord,
    Request,
    current_ledger,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.groups import SequenceConfig

REPLACED = "ledger.replaced.json"
"""The record of a ledger that is being begun anew, until the first request is added."""
PanelPrompts = Mapping[str, Sequence[tuple[Prompt, int]]]
"""Prompts and seeds by concept; the first picture of each concept is stored."""


@dataclass
class Ledger:
    """The requests in order, with their adapters and the scores of the model after each.

    `config` holds the settings of requests without their own, and of sampling the panel. `names` is
    the panel: the concepts that are evaluated after every request, with `prompts` that stay the
    same. `base` is the hash of the original model's weights, or "" before row 0 is there.
    `rolled_back` are the rows that `undo_rollback` brings back. `unlisted` are folders and files
    that the ledger made or was to make and that no row lists; nothing else is ever removed.
    `hashed` is False for a ledger of an earlier version, whose files had no hashes; the next change
    records those that they have. `adapters` is False for one that was recorded without them, to be
    shown: it is never changed.
    """

    folder: Path
    config: RunConfig
    plan: "SequenceConfig"
    names: tuple[str, ...]
    rows: list[Request]
    base: str = ""
    prompts: PanelPrompts = field(default_factory=dict)
    rolled_back: list[Request] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    hashed: bool = True
    adapters: bool = True
    _locked: bool = field(default=False, init=False, repr=False, compare=False)

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
            OutputError: there is none, or its record or a file of a row is not as it was written.
        """
        folder = Path(folder)
        record = read_model(folder / "ledger.json", LedgerRecord, "ledger", current_ledger)
        made = cls(folder, **dict(record))
        if not made.hashed:
            made.rows = [replace(row, files=made._hashes(row)) for row in made.rows]
        made._check_files(made.rows)
        return made

    def _names_of(self, row: Request) -> list[str]:
        """The files that the row must have."""
        adapters = [*ADAPTERS] if row.concept and self.adapters else []
        return [*adapters, *(f"panel/{self._file(name)}" for name in row.panel)]

    def _hashes(self, row: Request) -> dict[str, str]:
        """The hashes of the files that the row must have, as they are now."""
        paths = {name: f"{row.folder}/{name}" for name in self._names_of(row)}
        return {n: sha256_of(inside(self.folder, path, "ledger")) for n, path in paths.items()}

    def _check_files(self, rows: Sequence[Request]) -> None:
        """Refuse files of `rows` that are missing or not those that were written.

        Raises:
            OutputError: naming the first such file.
        """
        for row in rows:
            for name in dict.fromkeys([*self._names_of(row), *row.files]):
                path = f"{row.folder}/{name}"
                file = inside(self.folder, path, "ledger")
                if name not in row.files:
                    raise damaged(self.folder, "ledger", f"ledger.json has no hash of {path}")
                if sha256_of(file) != row.files[name]:
                    raise damaged(self.folder, "ledger", f"{path} is not what was written")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the ledger's lock, and read first what others have changed meanwhile.

        Methods that change the ledger take the lock themselves. Work that ends in a change takes it
        from the beginning.

        Raises:
            OutputError: another process is changing it, it is gone or damaged, or it was recorded
                without its adapters.
        """
        if self._locked:
            yield
            return
        self._check_adapters()
        with only_writer(self.folder, "ledger"):
            self._reload()
            self._end_restart()
            self._sweep()
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def _reload(self) -> None:
        present = Ledger.open(self.folder)
        for item in fields(self):
            if item.init:
                setattr(self, item.name, getattr(present, item.name))

    @property
    def requests(self) -> list[Request]:
        """The rows without the original's."""
        return self.rows[1:]

    @property
    def untouched(self) -> bool:
        """Whether it has no rows, and none come back."""
        return not self.rows and not (self.folder / REPLACED).exists()

    def add(
        self,
        request: Request,
        own: Mapping[str, "Tensor"],
        combined: Mapping[str, "Tensor"],
        pictures: Mapping[str, Image],
    ) -> None:
        """Append a row with its own adapter, the adapter of all requests so far, and a picture of
        each concept. The row gets a new folder, and what was rolled back is removed.

        Raises:
            ModelError: an adapter could not be read back.
            OutputError: the ledger has changed since it was opened, or the row cannot be written.
        """
        known = self.rows
        with self.locked():
            if self.rows != known:
                raise OutputError(
                    f"The ledger in {str(self.folder)!r} has changed since it was opened; open it"
                    " again."
                )
            states = {"own": own, "combined": combined}
            for state in states.values():
                check_factors(state, f"The adapter of {request.concept!r}")
            metadata = self._metadata(request)
            request = replace(request, folder=self.next_folder(request.concept))
            with self._unkept(request):
                files = self._write_row(request, states, metadata, pictures)
                self._set_rows([*self.rows, replace(request, files=files)])
            if self.requests:
                self._end_restart()

    def _write_row(
        self,
        request: Request,
        states: Mapping[str, Mapping[str, "Tensor"]],
        metadata: Mapping[str, Mapping[str, str]],
        pictures: Mapping[str, Image],
    ) -> dict[str, str]:
        """Write the folder of a row; returns the hashes of its files by name."""
        self._save(unlisted=[request.folder])
        with whole_folder(self.folder / request.folder) as partial:
            (partial / "panel").mkdir()
            for name, state in states.items():
                if state:
                    file = partial / f"{name}.safetensors"
                    write_bytes(file, adapter_bytes(state, metadata[name]))
            for concept, picture in pictures.items():
                picture.save(partial / "panel" / self._file(concept))
            return {
                path.relative_to(partial).as_posix(): sha256_of(path)
                for path in sorted(partial.rglob("*.*"))
            }

    @contextmanager
    def _unkept(self, request: Request) -> Iterator[None]:
        """Say what is lost and what is kept where the row of `request` cannot be written.

        Raises:
            OutputError: it cannot; the ledger is what it was before.
        """
        rows, rolled_back = self.rows, self.rolled_back
        try:
            yield
        except (OSError, OutputError) as error:
            self.rows, self.rolled_back = rows, rolled_back
            why = error if isinstance(error, OutputError) else unwritable(self.folder, error)
            lost = f"What was trained for {request.concept!r}" if request.concept else "The panel"
            raise OutputError(
                f"{why} {lost} is lost; the {max(len(rows) - 1, 0)} requests before it are kept."
            ) from error

    def _metadata(self, request: Request) -> dict[str, dict[str, str]]:
        """What the next row's adapters, its "own" one and the "combined" one, say of themselves."""
        every = [*self.requests, request]
        together = self.plan.regime == "simultaneous"
        own = self._described(every if together else [request])
        combined = self._described(every)
        if self.plan.regime == "sequential" and self.requests:
            before = ", ".join(row.concept for row in self.requests)
            own["loads_on"] = f"{ORIGINAL} with the adapter of the requests before: {before}"
            own["loads_on_sha256"] = self.rows[-1].files.get("combined.safetensors", "")
        if self.plan.regime == "independent" and self.requests:
            combined["merge"] = self.plan.merge
        return {"own": own, "combined": combined}

    def _described(self, requests: Sequence[Request]) -> dict[str, str]:
        """The metadata of an adapter that forgets `requests`."""
        names = [row.concept for row in requests]
        methods = dict.fromkeys((row.config or self.config).objective for row in requests)
        return origin(self.config.model, self.base) | {
            "concept": ", ".join(names),
            "anchor": ", ".join(row.anchor for row in requests),
            "requests": json_text(names, ensure_ascii=False),
            "objective": ", ".join(methods),
            "regime": self.plan.regime,
            "loads_on": ORIGINAL,
        }

    def extend_panel(
        self,
        name: str,
        found: Sequence[tuple[ConceptScore, Image]],
        prompts: Sequence[tuple[Prompt, int]] = (),
    ) -> None:
        """Add a concept to the panel, with its prompts and seeds, and its score and picture after
        every request so far.
        """
        with self.locked():
            file = f"panel/{self._file(name, len(self.names))}"
            self._save(unlisted=[f"{row.folder}/{file}" for row in self.rows])
            self.names = (*self.names, name)
            self.prompts = {**self.prompts, **({name: prompts} if prompts else {})}
            rows = []
            for row, (score, picture) in zip(self.rows, found, strict=True):
                path = self.folder / row.folder / file
                write_bytes(path, png_bytes(picture))
                files = row.files | {file: sha256_of(path)}
                rows.append(replace(row, panel=row.panel | {name: score}, files=files))
            self.rows = rows
            self._save()

    def rollback(self, to: int) -> None:
        """Take back every request after number `to`; 0 leaves the original.

        Raises:
            OutputError: there is no request `to`.
        """
        with self.locked():
            if not 0 <= to < len(self.rows):
                raise OutputError(
                    f"The ledger has {len(self.requests)} requests; rolling back to {to} is not"
                    " possible."
                )
            self.rolled_back = [*self.rows[to + 1 :], *self.rolled_back]
            self.rows = self.rows[: to + 1]
            self._save()

    def undo_rollback(self) -> None:
        """Bring back every request that was taken back since the last one was added.

        Raises:
            OutputError: there is none, or a file of one is not as it was written.
        """
        with self.locked():
            if not self.rolled_back:
                raise OutputError(
                    f"Nothing was rolled back in {str(self.folder)!r} since its last request;"
                    " there is nothing to undo."
                )
            self._check_files(self.rolled_back)
            self.rows, self.rolled_back = [*self.rows, *self.rolled_back], []
            self._save()

    @contextmanager
    def restarted(
        self, config: RunConfig, plan: "SequenceConfig", names: Sequence[str]
    ) -> Iterator[None]:
        """Make it a new ledger without rows, with other settings; what it was comes back unless a
        request is added in the block.
        """
        with self.locked():
            write_bytes(self.folder / REPLACED, (self.folder / "ledger.json").read_bytes())
            self.config, self.plan, self.names = config, plan, tuple(names)
            self.prompts, self.base, self.rows, self.rolled_back = {}, "", [], []
            self._save()
            try:
                yield
            finally:
                self._end_restart()

    def _end_restart(self) -> None:
        """Remove what a restart replaced, or bring it back where no request was added since."""
        replaced = self.folder / REPLACED
        if not replaced.is_file():
            return
        former = read_model(replaced, LedgerRecord, "ledger", current_ledger)
        if self.requests:
            kept = {row.folder for row in self.rows}
            rows = [*former.rows, *former.rolled_back]
            self._save(unlisted=[row.folder for row in rows if row.folder not in kept])
            replaced.unlink()
        else:
            unlisted = [row.folder for row in self.rows]
            replaced.replace(self.folder / "ledger.json")
            self._reload()
            self._save(unlisted=unlisted)
        self._sweep()

    def _set_rows(self, rows: list[Request]) -> None:
        """List these rows only, and remove the folders of all others."""
        before, kept = [*self.rows, *self.rolled_back], {row.folder for row in rows}
        self.rows, self.rolled_back = rows, []
        self._save(unlisted=[row.folder for row in before if row.folder not in kept])
        self._sweep()

    def discard(self) -> None:
        """Remove a ledger that has no rows, and its folder if nothing else is there."""
        with suppress(OutputError, OSError), self.locked():
            if not self.rows:
                for name in ("ledger.json", LOCK):
                    (self.folder / name).unlink()
                self.folder.rmdir()

    def check_base(self, base_hash: str, model: str) -> None:
        """Refuse another model than that of the ledger.

        Raises:
            OutputError: the weights of `model` have another hash.
        """
        if self.base not in ("", base_hash):
            raise OutputError(
                f"The ledger in {str(self.folder)!r} is of another {model} model; the weights it"
                " was begun with are accepted."
            )

    def adapter(self, number: int, own: bool = False) -> dict[str, "Tensor"]:
        """The adapter of all requests up to `number`, or of its `own` alone; empty for the
        original.
        """
        path = self.path(number, own)
        return read_adapter(path, alone=not own) if path.exists() else {}

    def path(self, number: int, own: bool = False) -> Path:
        """The file that `adapter` reads; the original has none.

        Raises:
            OutputError: there is no request `number`, or no request has an adapter.
        """
        if not 0 <= number < len(self.rows):
            raise OutputError(
                f"The ledger has {len(self.requests)} requests; there is no request {number}."
            )
        self._check_adapters()
        name = ADAPTERS[0] if own else ADAPTERS[1]
        return self.folder / self.rows[number].folder / name

    def _check_adapters(self) -> None:
        """Refuse a ledger that was recorded without its adapters.

        Raises:
            OutputError: it was.
        """
        if not self.adapters:
            raise OutputError(
                f"The ledger in {str(self.folder)!r} was recorded to be shown and holds no"
                " adapters; one that holds them is accepted."
            )

    def picture(self, number: int, concept: str) -> Path:
        """The picture of `concept` after request `number`."""
        return self.folder / self.rows[number].folder / "panel" / self._file(concept)

    def next_folder(self, concept: str) -> str:
        """An unused name for the next row's folder."""
        name = f"{len(self.rows):04d}-{slug(concept) or 'original'}"
        names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
        return next(name for name in names if not os.path.lexists(self.folder / name))

    def _file(self, concept: str, place: int | None = None) -> str:
        """The file name of a picture. It has a number, because slugs may be empty or equal, as
        those of “C++” and “C#” are.
        """
        place = self.names.index(concept) if place is None else place
        return f"{place:03d}-{slug(concept)}"[:60] + ".png"

    def _save(self, unlisted: Sequence[str] = ()) -> None:
        self.unlisted = [*unlisted]
        stored = {name: getattr(self, name) for name in LedgerRecord.model_fields}
        record = LedgerRecord.model_construct(**stored).model_dump(
            mode="json", by_alias=True, exclude={"hashed"}
        )
        text = json_text({"schema": SCHEMA} | record, indent=1)
        write_bytes(self.folder / "ledger.json", text.encode())
        self.hashed = True

    def _sweep(self) -> None:
        """Remove what is unlisted, and what dead processes left half-written."""
        listed = {row.folder for row in (*self.rows, *self.rolled_back)}
        listed |= {f"{row.folder}/{name}" for row in self.rows for name in row.files}
        with suppress(OSError):
            for name in self.unlisted:
                path = self.folder / name
                linked = path.resolve() != self.folder.resolve() / name
                if name in listed or linked:
                    continue
                if path.is_dir():
                    _remove_row(path)
                else:
                    path.unlink(missing_ok=True)
            remove_partials(self.folder, rf"ledger\.(replaced\.)?json|{ROW}")
            for row in self.rows:
                panel = f"{row.folder}/panel"
                if (self.folder / panel).resolve() == self.folder.resolve() / panel:
                    remove_partials(self.folder / panel, PICTURE)


def _remove_row(folder: Path) -> None:
    """Remove the folder of a row, unless somebody put anything else into it."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not re.fullmatch(f"panel|{FILE}|{HALF_WRITTEN}", name):
            return
    shutil.rmtree(folder, ignore_errors=True)


def slug(text: str) -> str:
    """A file name made of a concept: its letters a-z and digits, with hyphens between."""
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")
