"""What the page shows of a run: folded from its events while it works, or read from its folder
afterwards.
"""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import groupby

from ..evaluation.base_rates import RECORDED, scores_of
from ..evaluation.finding import Finding
from ..runs.findings import judge_again, read_findings
from ..runs.folder import Run
from ..settings.events import (
    FRESH,
    GROUPS,
    SHARES,
    AttackCheckpoint,
    Column,
    Difference,
    Done,
    Event,
    Group,
    GroupScore,
    Images,
    Picture,
    Preview,
    Scores,
    Stage,
    Step,
    Value,
    Verdict,
)
from ..settings.run_config import RunConfig
from .pictures import address

MAX_POINTS = 300


@dataclass(frozen=True)
class Card:
    """One judged picture: its address and what its caption says."""

    column: Column
    group: Group
    index: int
    prompt: str
    seed: int
    src: str
    alignment: float | None
    predicted: str | None
    correct: bool | None
    judges: Mapping[str, Value]


Cards = dict[tuple[Group, int], Card]


@dataclass(frozen=True)
class Frame:
    """The preview pictures of one step of training."""

    stage: str
    step: int
    sources: tuple[str, ...]
    prompts: tuple[str, ...]


@dataclass
class View:
    """Everything on screen about one run. `recorded` says it was made earlier and ships with the
    app.
    """

    config: RunConfig
    recorded: bool = False
    position: int = 0
    stopping: bool = False
    error: str = ""
    stage: Stage | None = None
    step: Step | None = None
    points: list[dict] = field(default_factory=list)
    angles: list[dict] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    cards: dict[Column, Cards] = field(default_factory=dict)
    marks: dict[int, Cards] = field(default_factory=dict)
    """Pictures of the attacked model by attack step, on its way."""
    curve: dict[int, dict[Group, GroupScore]] = field(default_factory=dict)
    controls: dict[str, dict[int, GroupScore]] = field(default_factory=dict)
    scores: dict[Column, dict[Group, GroupScore]] = field(default_factory=dict)
    differences: dict[Column, dict[Group, Difference]] = field(default_factory=dict)
    verdict: Verdict | None = None
    findings: list[Finding] = field(default_factory=list)
    """What attacks have found out since."""
    timing: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    over: bool = False
    started: float = field(default_factory=time.monotonic)

    def apply(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Stage():
                if self.stage is None:
                    self.started = time.monotonic()
                self.stage, self.step = event, None
            case Step():
                self.step = event
                self.points += points_of(event.stage, event.step, event.losses, self.config)
                self.angles += angle_of(event.stage, event.step, event.cosine)
            case Preview():
                self.frames += frames_of(event.pictures)
            case AttackCheckpoint() if event.control:
                if event.control == FRESH:  # then what was measured before is no longer needed
                    self.controls.pop(RECORDED, None)
                self.controls.setdefault(event.control, {})[event.step] = event.scores["forget"]
            case AttackCheckpoint():
                self.take_mark(event.step, event.scores, _cards(event.pictures))
            case Images():
                self.cards[event.column] = _cards(event.pictures)
            case Scores():
                self.scores, self.differences = event.columns, event.differences
                if "unlearned" in event.columns:
                    self.curve = {0: event.columns["unlearned"]} | self.curve
            case Verdict():
                self.verdict = event
            case Done():
                self.stopped, self.over = event.stopped, True

    def take_mark(self, step: int, scores: dict[Group, GroupScore], cards: Cards) -> None:
        """Take in how far the attack has come; step 0 is the unlearned model."""
        self.curve[step] = scores
        if step:
            self.marks[step] = cards
            first = [card for (_, index), card in cards.items() if index == 0]
            self.frames.append(
                Frame("attack", step, tuple(c.src for c in first), tuple(c.prompt for c in first))
            )

    @property
    def fraction(self) -> float:
        """Share of the whole run that is done, in [0, 1]."""
        if self.stage is None:
            return 0.0
        within = self.step.step / max(self.step.total, 1) if self.step else 0.0
        return min(1.0, self.stage.fraction + within * (self._stage_end() - self.stage.fraction))

    def seconds_left(self) -> float | None:
        """The time still needed at the pace so far; None while that is a wild guess."""
        elapsed, fraction = time.monotonic() - self.started, self.fraction
        if fraction < 0.08 or elapsed < 2.0 or self.over:
            return None
        return elapsed * (1.0 - fraction) / fraction

    def _stage_end(self) -> float:
        later = (
            [share for share in SHARES.values() if share > self.stage.fraction]
            if self.stage
            else []
        )
        return min(later, default=1.0)

    def table(self) -> dict[str, list]:
        """Loss points as columns for a plot, thinned by step to about 300 rows."""
        return _thinned(self.points, ("step", "loss", "term"))

    def angle_table(self) -> dict[str, list]:
        """Angles between the forget and the retain gradient as columns for a plot, thinned
        likewise.
        """
        return _thinned(self.angles, ("step", "angle"))

    def curve_table(self) -> dict[str, list]:
        """Share of pictures that show what was asked, in percent, by attack step and group, as
        columns for a plot.

        A control is a group of its own.
        """
        lines = {
            group: {s: scores[group] for s, scores in self.curve.items() if group in scores}
            for group in GROUPS
        }
        points = [
            (step, 100 * score.accuracy, group)
            for group, line in (lines | self.controls).items()
            for step, score in sorted(line.items())
            if score.accuracy is not None
        ]
        return (
            dict(zip(("step", "share", "group"), map(list, zip(*points, strict=True)), strict=True))
            if points
            else {}
        )

    @property
    def total_steps(self) -> int:
        """Length of the plot's axis: the steps of unlearning, then those of the attack."""
        return self.config.unlearn.steps + self.config.attack.steps


def points_of(stage: str, step: int, losses: dict[str, float], config: RunConfig) -> list[dict]:
    """One plot row per loss term; the attack follows unlearning on the same axis."""
    offset = config.unlearn.steps if stage == "attack" else 0
    return [{"step": offset + step, "loss": value, "term": term} for term, value in losses.items()]


def angle_of(stage: str, step: int, cosine: float | None) -> list[dict]:
    """One plot row for the angle in degrees between the two gradients of unlearning; none where
    there is no angle.
    """
    if stage != "unlearn" or cosine is None:
        return []
    return [{"step": step, "angle": math.degrees(math.acos(max(-1.0, min(1.0, cosine))))}]


def _thinned(points: list[dict], names: tuple[str, ...]) -> dict[str, list]:
    stride = max(1, -(-len(points) // MAX_POINTS))
    kept = [point for point in points if point["step"] % stride == 0]
    return {name: [point[name] for point in kept] for name in names}


def view_of(run: Run, recorded: bool = False) -> View:
    """The view of a run folder, as it stood when the run ended, judged with what attacks have found
    out since.
    """
    view = View(run.config, recorded=recorded, over=True, stopped=run.status == "stopped")
    view.timing = dict(run.record.get("timing") or {})
    view.scores, view.differences, view.findings = (
        run.scores,
        run.differences,
        read_findings(run.folder),
    )
    view.verdict = judge_again(run, view.findings)
    for step in run.steps:
        view.points += points_of(step["stage"], step["step"], step["losses"], run.config)
        view.angles += angle_of(step["stage"], step["step"], step.get("cosine"))
    view.frames += frames_of(run.previews)
    for picture in run.pictures:
        view.cards.setdefault(picture.column, {}).update(_cards([picture]))
    view.controls = run.controls | (
        {} if run.controls or not run.base else {RECORDED: scores_of(run.base)}
    )
    for step, scores, pictures in run.curve:
        view.take_mark(step, scores, _cards(pictures))
    return view


def frames_of(pictures: Iterable[Picture]) -> list[Frame]:
    """Previews as frames, one for each step."""
    frames = []
    for (stage, step), some in groupby(pictures, lambda picture: (picture.stage, picture.step)):
        shown = list(some)
        sources = tuple(address(picture.image or picture.file) for picture in shown)
        frames.append(Frame(stage, step, sources, tuple(picture.prompt for picture in shown)))
    return frames


def _cards(pictures: Iterable[Picture]) -> Cards:
    return {(picture.group, picture.index): _card(picture) for picture in pictures}


def _card(picture: Picture) -> Card:
    values = {item.name: getattr(picture, item.name) for item in fields(Card) if item.name != "src"}
    return Card(src=address(picture.image or picture.file), **values)
