"""What the page shows of a run: collected from its events while it works, or read from its folder
afterwards.
"""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

from ..evaluation.base_rates import RECORDED, scores_of
from ..evaluation.finding import Finding
from ..runs.findings import judge_again, read_findings
from ..runs.folder import Run
from ..settings.events import (
    COLUMNS,
    FRESH,
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
    Verdict,
)
from ..settings.run_config import RunConfig
from .pictures import address


@dataclass(frozen=True)
class Card:
    """A picture of the comparison without its pixels, and the address of those."""

    picture: Picture
    src: str


Cards = dict[tuple[Group, int], Card]


@dataclass
class ViewState:
    """Everything on screen about one run. `recorded` says that it came with the app."""

    config: RunConfig
    recorded: bool = False
    position: int = 0
    """How many runs come before it."""
    stopping: bool = False
    error: str = ""
    stage: Stage | None = None
    step: Step | None = None
    losses: list[dict] = field(default_factory=list)
    """Step, loss and term; the attack follows unlearning on the same axis."""
    angles: list[dict] = field(default_factory=list)
    """Step, and angle in degrees between the gradients of forget and retain loss."""
    frames: list[list[Card]] = field(default_factory=list)
    """Preview pictures of one step of training each, oldest first."""
    cards: dict[Column, Cards] = field(default_factory=dict)
    checkpoints: dict[int, Cards] = field(default_factory=dict)
    """Pictures of the attacked model by attack step."""
    curve: dict[int, dict[Group, GroupScore]] = field(default_factory=dict)
    """Scores by attack step; step 0 is the unlearned model."""
    controls: dict[str, dict[int, GroupScore]] = field(default_factory=dict)
    scores: dict[Column, dict[Group, GroupScore]] = field(default_factory=dict)
    differences: dict[Column, dict[Group, Difference]] = field(default_factory=dict)
    verdict: Verdict | None = None
    findings: list[Finding] = field(default_factory=list)
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
                self.add_step(event.stage, event.step, event.losses, event.cosine)
            case Preview():
                self.frames += frames_of(event.pictures)
            case AttackCheckpoint() if event.control:
                if event.control == FRESH:  # measured by the run itself, in place of the recorded
                    self.controls.pop(RECORDED, None)
                self.controls.setdefault(event.control, {})[event.step] = event.scores["forget"]
            case AttackCheckpoint():
                self.add_checkpoint(event.step, event.scores, event.pictures)
            case Images():
                self.cards[event.column] = cards_of(event.pictures)
            case Scores():
                self.scores, self.differences = event.columns, event.differences
                if "unlearned" in event.columns:
                    self.curve = {0: event.columns["unlearned"]} | self.curve
            case Verdict():
                self.verdict = event
            case Done():
                self.stopped, self.over = event.stopped, True

    def add_step(
        self, stage: str, step: int, losses: Mapping[str, float], cosine: float | None
    ) -> None:
        """Take in the losses of one optimizer step, and the angle between its gradients."""
        place = step + (self.config.unlearn.steps if stage == "attack" else 0)
        self.losses += [
            {"step": place, "loss": loss, "term": term} for term, loss in losses.items()
        ]
        if stage == "unlearn" and cosine is not None:
            angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
            self.angles.append({"step": step, "angle": angle})

    def add_checkpoint(
        self, step: int, scores: dict[Group, GroupScore], pictures: Iterable[Picture]
    ) -> None:
        """Take in scores and pictures after `step` attack steps; step 0 is the unlearned model."""
        self.curve[step] = scores
        if step:
            cards = self.checkpoints[step] = cards_of(pictures)
            self.frames.append([card for (_, index), card in cards.items() if index == 0])

    @property
    def fraction(self) -> float:
        """Share of the whole run that is done, in [0, 1]."""
        if self.stage is None:
            return 0.0
        begin = self.stage.fraction
        end = min((share for share in SHARES.values() if share > begin), default=1.0)
        within = self.step.step / max(self.step.total, 1) if self.step else 0.0
        return min(1.0, begin + within * (end - begin))

    def seconds_left(self) -> float | None:
        """The time still needed at the pace so far; None before there is a pace."""
        elapsed, fraction = time.monotonic() - self.started, self.fraction
        if fraction < 0.08 or elapsed < 2.0 or self.over:
            return None
        return elapsed * (1.0 - fraction) / fraction

    @property
    def total_steps(self) -> int:
        """Steps of unlearning and of the attack together."""
        return self.config.unlearn.steps + self.config.attack.steps


def stored_state(run: Run, recorded: bool = False) -> ViewState:
    """The state at the end of a run, read from its folder, with the findings and the verdict of
    today.
    """
    state = ViewState(run.config, recorded=recorded, over=True, stopped=run.status == "stopped")
    state.timing = dict(run.record.get("timing") or {})
    state.scores, state.differences = run.scores, run.differences
    state.findings = read_findings(run.folder)
    state.verdict = judge_again(run, state.findings)
    for step in run.steps:
        state.add_step(step["stage"], step["step"], step["losses"], step.get("cosine"))
    state.frames += frames_of(run.previews)
    for column in COLUMNS:
        if pictures := [picture for picture in run.pictures if picture.column == column]:
            state.cards[column] = cards_of(pictures)
    state.controls = run.controls
    if run.base and not run.controls:
        state.controls = {RECORDED: scores_of(run.base)}
    for step, scores, pictures in run.curve:
        state.add_checkpoint(step, scores, pictures)
    return state


def cards_of(pictures: Iterable[Picture]) -> Cards:
    """Pictures by group and index."""
    return {(picture.group, picture.index): _card(picture) for picture in pictures}


def frames_of(pictures: Iterable[Picture]) -> list[list[Card]]:
    """Previews by the step of training they belong to."""
    steps = groupby(pictures, lambda picture: (picture.stage, picture.step))
    return [[_card(picture) for picture in shown] for _, shown in steps]


def _card(picture: Picture) -> Card:
    return Card(replace(picture, image=None), address(picture.image or picture.file))
