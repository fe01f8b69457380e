"""What `ledger.json` holds: the requests, and the schema of the whole file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, model_validator

from ..common.json_values import to_json
from ..common.record_files import Record, accepted
from ..concepts.concept import Prompt
from ..settings.events import Count
from ..settings.run_config import config_from_dict, make_plan

SCHEMA = "unlearn-ledger/5"
"""The schema that is written."""
FOURTH = "unlearn-ledger/4"
"""The one before, without hashes and prompts."""
ROW = r"(\d{4,9})-[a-z0-9-]+"
"""The folder of a row; the number is its place."""
PICTURE = r"(\d{3,9})-[a-z0-9-]*\.png"
"""A picture in the folder "panel" of a row; the number is the place of its concept in the panel."""
ADAPTERS = ("own.safetensors", "combined.safetensors")
"""The adapter of a row's request, and that of all requests so far."""
FILE = rf"(?:own|combined)\.safetensors|panel/{PICTURE}"
HALF_WRITTEN = rf"panel/\.{PICTURE}\.\d+-\w+\.partial"


def _name_of(what: str, pattern: str) -> AfterValidator:
    def check(name: str) -> str:
        if not re.fullmatch(pattern, name):
            raise ValueError(f"{name[:80]!r} is no name of {what}")
        return name

    return AfterValidator(check)


Amount = Annotated[float, Field(ge=0)]
Named = Annotated[str, Field(min_length=1)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RowFolder = Annotated[str, _name_of("a row's folder", ROW)]
RowFile = Annotated[str, _name_of("a row's file", FILE)]
Unlisted = Annotated[str, _name_of("a row's folder or file", f"{ROW}(/({FILE}))?")]
# Not typed as the settings that they are: pydantic would read those, which loads torch.
Config = Annotated[Any, PlainValidator(accepted(config_from_dict)), PlainSerializer(to_json)]
Plan = Annotated[
    Any, PlainValidator(accepted(lambda values: make_plan(**values))), PlainSerializer(to_json)
]


@dataclass(frozen=True)
class ConceptScore:
    """One concept of the panel after one request; values are None without a judge.

    `right` says whether each picture shows the concept, and `alignment` is their mean alignment
    with their prompts. A prompt may name a concept of the other kind: `named` is its name, or "",
    for each picture, and `other_kind_right`, in the file "beside", whether the picture shows it,
    None where there is none.
    """

    kind: Literal["object", "style"]
    right: Annotated[tuple[bool | None, ...], Field(min_length=1)]
    alignment: float | None
    other_kind_right: Annotated[tuple[bool | None, ...], Field(alias="beside")] = ()
    named: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """The share of pictures that show the concept; None without a judge."""
        return None if None in self.right else sum(self.right) / len(self.right)


def _of_the_same_pictures(score: ConceptScore) -> ConceptScore:
    for further in (score.other_kind_right, score.named):
        if further and len(further) != len(score.right):
            raise ValueError(f"{len(score.right)} pictures have {len(further)} other answers")
    return score


@dataclass(frozen=True)
class Request:
    """One row of the ledger; row 0 is the original model, which has no concept and no `config`.

    `drift` is the Frobenius norm of the whole update since the original, `config` the settings of
    the request's training, a `RunConfig`. `files` are the hashes (SHA-256) of the row's files by
    name. `Ledger.add` fills in `folder` and `files`.
    """

    concept: str
    kind: Literal["", "object", "style"]
    anchor: str
    folder: RowFolder
    seconds: Amount
    steps: Count
    drift: Amount
    panel: dict[str, Annotated[ConceptScore, AfterValidator(_of_the_same_pictures)]]
    notes: tuple[str, ...] = ()
    config: Config | None = None
    files: Mapping[RowFile, Hash] = field(default_factory=dict)


class PromptRecord(Record):
    """A prompt of the panel with the seed of its picture."""

    text: str
    axis: str
    expects: str
    seed: Count


PanelPrompt = Annotated[
    PromptRecord,
    AfterValidator(lambda entry: (Prompt(entry.text, entry.axis, entry.expects), entry.seed)),
    PlainSerializer(lambda pair: to_json(pair[0]) | {"seed": pair[1]}),
]


class LedgerRecord(Record):
    """The whole file; `hashed` is False for a record of the schema `FOURTH`."""

    VERSION: ClassVar[str] = SCHEMA
    base: str
    config: Config
    plan: Plan
    names: tuple[Named, ...]
    prompts: dict[str, tuple[PanelPrompt, ...]]
    rows: list[Request]
    rolled_back: list[Request]
    unlisted: list[Unlisted]
    hashed: bool
    adapters: bool = True

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
