"""The schema of `ledger.json`."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..common.record_files import Record

SCHEMA = "unlearn-ledger/5"
"""The schema that is written."""
FOURTH = "unlearn-ledger/4"
"""The one before, without hashes and prompts."""
ROW = r"(\d{4,9})-[a-z0-9-]+"
"""The folder of a row; the number is its place."""
PICTURE = r"(\d{3,9})-[a-z0-9-]*\.png"
"""A picture in the folder "panel" of a row; the number is the place of its concept in the panel."""
FILE = rf"(?:own|combined)\.safetensors|panel/{PICTURE}"
HALF_WRITTEN = rf"panel/\.{PICTURE}\.\d+-\w+\.partial"

Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Named = Annotated[str, Field(min_length=1)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ScoreRecord(Record):
    """How a model stood with one concept of the panel."""

    kind: Literal["object", "style"]
    right: Annotated[list[bool | None], Field(min_length=1)]
    alignment: float | None
    beside: list[bool | None]
    named: list[str]

    @model_validator(mode="after")
    def _of_the_same_pictures(self) -> "ScoreRecord":
        for further in (self.beside, self.named):
            if further and len(further) != len(self.right):
                raise ValueError(f"{len(self.right)} pictures have {len(further)} other answers")
        return self


class PromptRecord(Record):
    """A prompt of the panel with the seed of its picture."""

    text: str
    axis: str
    expects: str
    seed: Count


class RowRecord(Record):
    """The original, or a request with the hashes of its files."""

    concept: str
    kind: Literal["", "object", "style"]
    anchor: str
    folder: str
    seconds: Amount
    steps: Count
    drift: Amount
    panel: dict[str, ScoreRecord]
    notes: list[str]
    config: dict[str, Any] | None
    files: dict[str, Hash]

    @model_validator(mode="after")
    def _names_of_its_own(self) -> "RowRecord":
        if not re.fullmatch(ROW, self.folder):
            raise ValueError(f"{self.folder[:80]!r} is no name of a row's folder")
        for name in self.files:
            if not re.fullmatch(FILE, name):
                raise ValueError(f"{name[:80]!r} is no name of a row's file")
        return self


class LedgerRecord(Record):
    """The whole file; `hashed` is False for a record of the schema `FOURTH`."""

    VERSION: ClassVar[str] = SCHEMA
    base: str
    config: dict[str, Any]
    plan: dict[str, Any]
    names: list[Named]
    prompts: dict[str, list[PromptRecord]]
    rows: list[RowRecord]
    rolled_back: list[RowRecord]
    unlisted: list[str]
    hashed: bool

    @model_validator(mode="after")
    def _rows_follow_one_another(self) -> "LedgerRecord":
        if len({*self.names}) < len(self.names):
            raise ValueError("a concept is in the panel twice")
        for number, row in enumerate([*self.rows, *self.rolled_back]):
            if int(row.folder.partition("-")[0]) != number:
                raise ValueError(f"{row.folder!r} follows {number} rows; one is missing or moved")
            if bool(row.concept) != bool(number):
                raise ValueError(f"the concept of {row.folder!r} is {row.concept!r}")
            for name, score in row.panel.items():
                if name not in self.names:
                    raise ValueError(f"{row.folder!r} has scores of {name!r}, not in the panel")
                asked = self.prompts.get(name, score.right)
                if not len(score.right) == len(asked):
                    raise ValueError(
                        f"{row.folder!r} has {len(score.right)} pictures of {name!r}, which has"
                        f" {len(asked)} prompts"
                    )
        for name in self.unlisted:
            if not re.fullmatch(f"{ROW}(/({FILE}))?", name):
                raise ValueError(f"{name[:80]!r} is no name of a row's folder or file")
        if self.rolled_back and not self.rows:
            raise ValueError("the original is rolled back")
        return self


def current_ledger(record: Any) -> Any:
    """A record of the schema `FOURTH` in the form of `SCHEMA`, with files whose hashes are not
    known; in any other they are.
    """
    if record.get("schema") != FOURTH:
        return record | {"hashed": True}
    rows = [row | {"files": {}} for row in record["rows"]]
    added = {"prompts": {}, "rolled_back": [], "unlisted": [], "hashed": False}
    return record | added | {"schema": SCHEMA, "rows": rows}
