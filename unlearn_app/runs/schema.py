"""What a run's records hold: the schemas of run.json, steps.jsonl and finding.json."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from ..common.record_files import Record
from ..settings.events import COLUMNS, Column, Group, TrainingStage
from .records import FINDING, RUN

Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Hits = Annotated[list[bool], Field(min_length=1)]
Plain = str | int | float | bool | None


class Sampler(Record):
    """How a picture was sampled."""

    steps: Count
    guidance_scale: float
    scheduler: str = ""


class Preview(Record):
    """A picture of the model in training, which nobody judges."""

    stage: TrainingStage
    step: Count
    prompt: str
    seed: Count
    sampler: Sampler
    index: Count
    column: Column | None = None
    group: Group | None = None
    expects: str = ""
    alignment: float | None = None
    predicted: str | None = None
    correct: bool | None = None
    judges: dict[str, str | float | bool | None] = {}
    file: str


class Compared(Preview):
    """A picture of the comparison."""

    column: Column
    group: Group


class Score(Record):
    """Accuracy and alignment of a group, over how many pictures."""

    accuracy: Share | None
    alignment: float | None
    n: Count
    accuracies: dict[str, Share] = {}
    found: dict[str, Share] = {}

    @model_validator(mode="after")
    def _of_something(self) -> "Score":
        if self.accuracy is not None and not self.n:
            raise ValueError("an accuracy over at least one picture is accepted")
        return self


class Groups(Record):
    """Every group of prompts."""

    forget: Score
    near: Score
    far: Score


class ControlGroups(Record):
    """The one group that a control is asked."""

    forget: Score


class Mark(Record):
    """What the attacked model showed after a step."""

    step: Count
    scores: Groups
    pictures: list[Compared]


class ControlMark(Record):
    """What an attack on a control reached after a step."""

    step: Count
    scores: ControlGroups


class Apart(Record):
    """What separates a group of pictures from the original's."""

    change: Change
    interval: Annotated[list[Change], Field(min_length=2, max_length=2)]
    p: float
    distance: float
    distance_interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    apart: float | None
    kid: float | None
    kid_error: float | None

    @model_validator(mode="after")
    def _with_error(self) -> "Apart":
        if (self.kid is None) != (self.kid_error is None):
            raise ValueError("a KID with its error is accepted, or neither")
        return self


class ApartGroups(Record):
    """Every group of prompts."""

    forget: Apart
    near: Apart
    far: Apart


class Base(Record):
    """What the attack makes of something never seen: right pictures of how many, by step."""

    name: str
    marks: dict[
        Annotated[str, Field(pattern="^[0-9]{1,9}$")],
        Annotated[list[Count], Field(min_length=2, max_length=2)],
    ]

    @model_validator(mode="after")
    def _shares(self) -> "Base":
        for right, n in self.marks.values():
            if right > n or not n:
                raise ValueError(f"{right} of {n} pictures; at most all of them are accepted")
        return self


class Judgement(Record):
    """The verdict."""

    label: Literal["removed", "concealed", "damaged", "inconclusive"]
    reasons: list[str]
    axes: dict[Literal["forgotten", "near", "far", "resisted"], Share] = {}


class Limits(Record):
    """The thresholds that the verdict was reached with."""

    known: Share
    forgotten: Share
    lost: Share
    back: Share
    recovered: Share


class Relearning(Record):
    """What is told of the curve of the run's own attack."""

    area: float | None
    steps_to_recovery: float | None


def _settings(found: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, in groups or not; `settings.run_config` says which there are."""
    options = found.get("options", [])
    if not isinstance(found.get("concept"), str) or not isinstance(options, list):
        raise ValueError("a text as concept and a list of options are accepted")
    if not all(isinstance(name, str) for name, _ in options):
        raise ValueError("options with a name are accepted")
    return found


def _about(found: dict[str, Any]) -> dict[str, Any]:
    """What was known of the concept; its prompts stand beside these."""
    if not all(isinstance(found.get(name), str) for name in ("text", "name", "kind", "anchor")):
        raise ValueError("a text, a name, a kind and an anchor are accepted")
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
Settings = Annotated[dict[str, Plain | dict[str, Plain] | list[Pair]], AfterValidator(_settings)]
About = Annotated[dict[str, Any], AfterValidator(_about)]
Environment = Annotated[dict[str, Plain | dict[str, Plain]], AfterValidator(_environment)]


class RunRecord(Record):
    """run.json: what `folder.RunWriter` writes, and `workflow` adds at the end."""

    VERSION: ClassVar[str] = RUN
    status: Literal["complete", "stopped", "diverged"]
    config: Settings
    pictures: list[Compared]
    previews: list[Preview]
    curve: list[Mark]
    scores: dict[Column, Groups]
    verdict: Judgement
    controls: dict[str, Annotated[list[ControlMark], Field(min_length=1)]] = {}
    differences: dict[Column, ApartGroups] = {}
    base: Base | None = None
    files: dict[str, str] = {}
    command: str = ""
    concept: About | None = None
    environment: Environment = {}
    timing: dict[str, Seconds] = {}
    thresholds: Limits | None = None
    relearning: Relearning | None = None

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
            for score in (groups.forget, groups.near, groups.far)
        }
        if len(known) > 1:
            raise ValueError("an accuracy in all scores is accepted, or in none")
        return self


class StepLine(Record):
    """One optimizer step; a number that was not finite is none."""

    stage: TrainingStage
    step: Count
    total: Count = 0
    losses: dict[str, float | None] = {}
    weights: dict[str, float | None] = {}
    norms: dict[str, float | None] = {}
    cosine: float | None = None
    conflict: bool = False
    gate: bool | None = None
    changes: dict[str, float | None] = {}
    seconds: float | None = None


class StepLines(Record):
    """steps.jsonl."""

    lines: list[StepLine]


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
    judges: dict[str, str | float | bool | None] = {}


class Control(Record):
    """What the same attack makes of something never seen."""

    name: str
    hits: Hits


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
    pictures: list[Try]
    proof: str | None
    seconds: Seconds | None
    command: str
    environment: Environment
    sure: float
