"""What a run's records hold: the schemas of run.json, steps.jsonl and finding.json."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from ..common.record_files import Record, accepted
from ..evaluation.relearn_curve import BaseCurve
from ..settings.events import (
    COLUMNS,
    GROUPS,
    Column,
    Count,
    Difference,
    Group,
    GroupScore,
    Picture,
    Share,
    Step,
    Verdict,
)
from ..settings.run_config import config_from_dict
from .records import FINDING, RUN

Positive = Annotated[int, Field(ge=1, le=2**53)]
Seconds = Annotated[float, Field(ge=0)]
Hits = Annotated[tuple[bool, ...], Field(min_length=1)]
Plain = str | int | float | bool | None
Judged = dict[str, str | float | bool | None]


def _where(holds: Callable[[Any], Any], message: str) -> AfterValidator:
    """A validator that refuses values for which `holds` is false."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _shares(base: BaseCurve) -> BaseCurve:
    for right, n in base.marks.values():
        if right > n or not n:
            raise ValueError(f"{right} of {n} pictures; at most all of them are accepted")
    return base


Preview = Annotated[
    Picture, _where(lambda p: p.file is not None, "a picture with a file is accepted")
]
Compared = Annotated[
    Preview,
    _where(lambda p: p.column and p.group, "a picture with a column and a group is accepted"),
]
Score = Annotated[
    GroupScore,
    _where(
        lambda s: s.accuracy is None or s.n, "an accuracy over at least one picture is accepted"
    ),
]
Scores = Annotated[dict[Group, Score], Field(min_length=len(GROUPS))]
Apart = Annotated[
    Difference,
    _where(
        lambda d: (d.kid is None) == (d.kid_error is None),
        "a KID with its error is accepted, or neither",
    ),
]
MOST, MOST_LOOKED_AT, MOST_FRAMES, MOST_MARKS = 10_000, 2_000, 1_000, 100
"""The most pictures of a run's columns, of a mark of its attack and of its timeline, and the most
marks; about twice what the largest settings make, or more.
"""
Limit = Literal["known", "forgotten", "lost", "back", "recovered"]
Relearning = Literal["area", "steps_to_recovery"]


class Checkpoint(Record):
    """What the attacked model showed after a step, of the concept at least."""

    step: Count
    scores: Annotated[
        dict[Group, Score],
        _where(lambda scores: "forget" in scores, "a score on the concept is accepted"),
    ]
    pictures: Annotated[list[Compared], Field(max_length=MOST_LOOKED_AT)]


class ControlCheckpoint(Record):
    """What an attack on a control reached after a step."""

    step: Count
    scores: Annotated[dict[Literal["forget"], Score], Field(min_length=1)]


def _settings(found: dict[str, Any]) -> dict[str, Any]:
    config_from_dict(found)
    return found


def _environment(found: dict[str, Any]) -> dict[str, Any]:
    """Where a result comes from, as `provenance.environment` says."""
    judge, base = found.get("judge"), found.get("base_sha256")
    if not isinstance(judge, str | None) or (judge is not None and not judge.strip()):
        raise ValueError(f"{judge!r} as judge; a name is accepted")
    if not isinstance(base, str | None) or not isinstance(found.get("packages", {}), dict):
        raise ValueError("a text as base_sha256 and versions by package are accepted")
    return found


Pair = Annotated[list[Plain], Field(min_length=2, max_length=2)]
Settings = Annotated[
    dict[str, Plain | dict[str, Plain] | list[Pair]], AfterValidator(accepted(_settings))
]
About = Annotated[
    dict[str, Any],
    _where(
        lambda found: all(
            isinstance(found.get(name), str) for name in ("text", "name", "kind", "anchor")
        ),
        "a text, a name, a kind and an anchor are accepted",
    ),
]
"""What was known of the concept; its prompts stand beside these."""
Environment = Annotated[dict[str, Plain | dict[str, Plain]], AfterValidator(_environment)]


class RunRecord(Record):
    """run.json: what `folder.RunWriter` writes, and `workflow` adds at the end."""

    VERSION: ClassVar[str] = RUN
    status: Literal["complete", "stopped", "diverged"]
    config: Settings
    pictures: Annotated[list[Compared], Field(max_length=MOST)]
    previews: Annotated[list[Preview], Field(max_length=MOST_FRAMES)]
    curve: Annotated[list[Checkpoint], Field(max_length=MOST_MARKS)]
    scores: dict[Column, Scores]
    verdict: Verdict
    controls: dict[str, Annotated[list[ControlCheckpoint], Field(min_length=1)]] = {}
    differences: dict[Column, Annotated[dict[Group, Apart], Field(min_length=len(GROUPS))]] = {}
    base: Annotated[BaseCurve, AfterValidator(_shares)] | None = None
    files: dict[str, str] = {}
    notes: list[str] = []
    """What an audit says of what it was given, in sentences."""
    command: str = ""
    concept: About | None = None
    environment: Environment = {}
    timing: dict[str, Seconds] = {}
    thresholds: Annotated[dict[Limit, Share], Field(min_length=5)] | None = None
    relearning: Annotated[dict[Relearning, float | None], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> "RunRecord":
        reached = {*COLUMNS[: len(self.scores)]}
        if {*self.scores} != reached or {picture.column for picture in self.pictures} != reached:
            raise ValueError(
                "pictures and scores of the same columns, from the first on, are accepted"
            )
        known = {
            score.accuracy is None
            for groups in (*self.scores.values(), *(mark.scores for mark in self.curve))
            for score in groups.values()
        }
        if len(known) > 1:
            raise ValueError("an accuracy in all scores is accepted, or in none")
        return self


class StepLines(Record):
    """steps.jsonl."""

    lines: list[Step]


class Try(Record):
    """A picture that an attack made, which always has a judge."""

    row: Count
    turn: Count
    asked: str
    seed: Count
    file: str
    alignment: float | None
    predicted: str
    correct: bool
    judges: Judged = {}


class Control(Record):
    """What the same attack makes of something never seen."""

    name: str
    hits: Annotated[list[bool], Field(min_length=1)]


class FindingRecord(Record):
    """finding.json: what `findings.write_finding` writes."""

    VERSION: ClassVar[str] = FINDING
    kind: str
    settings: dict[str, Plain]
    budget: str
    counts: bool
    by_prompt: bool
    tries: Positive
    hits: Hits
    first: Hits
    control: Control | None
    missing: str
    pictures: tuple[Try, ...]
    proof: str | None
    seconds: Seconds | None
    command: str
    environment: Environment
    sure: float
    files: dict[str, str] = {}
    """The hashes of its pictures, by name; earlier versions recorded none."""
