"""What the page shows of a run, collected from its events or read from its folder, and the progress
of attacks on it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby

from ..evaluation.base_rates import RECORDED, scores_of
from ..evaluation.finding import Finding
from ..evaluation.verdict import recovery_rule
from ..runs.findings import judge_again, read_findings, rule_of
from ..runs.folder import Run
from ..service.pace import TimeLeft
from ..settings.events import (
    COLUMNS,
    FRESH,
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
from .html import progress
from .pictures import address

TO_CONTROL = 0.45
"""An attack and its control take about this share of the work each; loading takes the rest."""


@dataclass(frozen=True)
class Card:
    """A picture without its pixels, and what gives it an address."""

    picture: Picture
    given: Callable[[], str]

    @cached_property
    def src(self) -> str:
        """The address of its file."""
        return self.given()


Cards = dict[tuple[Group, int], Card]


@dataclass(kw_only=True)
class Progress:
    """How far a job has come, collected from its events."""

    position: int = 0
    """How many jobs come before it."""
    stopping: bool = False
    stage: Stage | None = None
    step: Step | None = None

    def apply(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, Stage):
            self.stage, self.step = event, None
        elif isinstance(event, Step):
            self.step = event

    @property
    def within(self) -> float:
        """Share of the steps of this stage that are done, in [0, 1]."""
        return self.step.step / max(self.step.total, 1) if self.step else 0.0

    @property
    def steps(self) -> list[str]:
        """The step in words, where there is one."""
        return [f"step {self.step.step} of {self.step.total}"] if self.step else []


@dataclass
class ViewState(Progress):
    """Everything on screen about one run. `recorded` says that it came with the app."""

    config: RunConfig
    owner: str = ""
    """The name of the run's folder, with which its pictures are deleted."""
    recorded: bool = False
    error: str = ""
    losses: list[dict] = field(default_factory=list)
    """Step, loss and term; the attack follows unlearning on the same axis."""
    angles: list[dict] = field(default_factory=list)
    """Step, and angle in degrees between the gradients of forget and retain loss."""
    previews: list[Cards] = field(default_factory=list)
    """Pictures by the model while it forgot, of one step each, oldest first."""
    cards: dict[Column, Cards] = field(default_factory=dict)
    checkpoints: dict[int, Cards] = field(default_factory=dict)
    """Pictures of the attacked model by attack step."""
    curve: dict[int, dict[Group, GroupScore]] = field(default_factory=dict)
    """Scores by attack step; step 0 is the unlearned model."""
    controls: dict[str, dict[int, GroupScore]] = field(default_factory=dict)
    scores: dict[Column, dict[Group, GroupScore]] = field(default_factory=dict)
    differences: dict[Column, dict[Group, Difference]] = field(default_factory=dict)
    verdict: Verdict | None = None
    rule: str = field(default_factory=recovery_rule)
    """What counts as a recovery of the concept, as far as it is known."""
    findings: list[Finding] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    over: bool = False
    left: TimeLeft | None = None
    """How long it still takes; None before it begins."""

    def apply(self, event: Event) -> None:
        """Take in one event."""
        super().apply(event)
        match event:
            case Step():
                self._add_step(event)
            case Preview():
                self.previews.append(self._cards(event.pictures))
            case AttackCheckpoint() if event.control:
                if event.control == FRESH:  # measured by the run itself, replaces the recorded one
                    self.controls.pop(RECORDED, None)
                self.controls.setdefault(event.control, {})[event.step] = event.scores["forget"]
            case AttackCheckpoint():
                self.curve[event.step] = event.scores
                if event.step:
                    self.checkpoints[event.step] = self._cards(event.pictures)
            case Images():
                self.cards[event.column] = self._cards(event.pictures)
            case Scores():
                self.scores, self.differences = event.columns, event.differences
                if "unlearned" in event.columns:
                    self.curve = {0: event.columns["unlearned"]} | self.curve
            case Verdict():
                self.verdict = event
            case Done():
                self.stopped, self.over = event.stopped, True

    def _add_step(self, event: Step) -> None:
        place = event.step + (self.config.unlearn.steps if event.stage == "attack" else 0)
        self.losses += [
            {"step": place, "loss": loss, "term": term} for term, loss in event.losses.items()
        ]
        if event.stage == "unlearn" and event.cosine is not None:
            angle = math.degrees(math.acos(max(-1.0, min(1.0, event.cosine))))
            self.angles.append({"step": event.step, "angle": angle})

    def _cards(self, pictures: Iterable[Picture]) -> Cards:
        return {(picture.group, picture.index): self._card(picture) for picture in pictures}

    def _card(self, picture: Picture) -> Card:
        if picture.image:
            src = address(picture.image, self.owner)
            return Card(replace(picture, image=None), lambda: src)
        # Most pictures of recorded runs are never shown.
        return Card(picture, partial(address, picture.file, self.owner))


@dataclass
class AttackProgress(Progress):
    """How far attacks of these kinds have come."""

    kinds: tuple[str, ...]
    done: int = 0

    def apply(self, event: Event | Finding) -> None:
        """Take in one event."""
        super().apply(event)
        if isinstance(event, Finding):
            self.done, self.stage, self.step = self.done + 1, None, None

    @property
    def fraction(self) -> float:
        """Share of the attacks that is done, in [0, 1]."""
        begin = self.stage.fraction if self.stage else 0.0
        return min(1.0, (self.done + min(begin + TO_CONTROL * self.within, 1.0)) / len(self.kinds))

    def html(self) -> str:
        """The progress as a line of text and a bar."""
        count = len(self.kinds)
        number = [f"attack {min(self.done + 1, count)} of {count}"] if count > 1 else []
        text, details = self.stage.text if self.stage else "Getting ready…", number + self.steps
        return progress(text, details, self.fraction, "the attacks", self.stopping, self.position)


def stored_state(run: Run, recorded: bool = False) -> ViewState:
    """The final state of a run, read from its folder, with all findings and the verdict that
    follows from them.
    """
    stopped = run.status == "stopped"
    state = ViewState(run.config, run.folder.name, recorded, over=True, stopped=stopped)
    state.timing = dict(run.record.get("timing") or {})
    state.scores, state.differences = run.scores, run.differences
    state.findings = read_findings(run.folder)
    state.verdict = judge_again(run, state.findings)
    state.rule = rule_of(run, state.findings)
    for line in run.steps:
        state.apply(Step(**line))
    for (stage, step), shown in groupby(run.previews, lambda shown: (shown.stage, shown.step)):
        state.apply(Preview(stage, step, tuple(shown)))
    for column in COLUMNS:
        if pictures := tuple(picture for picture in run.pictures if picture.column == column):
            state.apply(Images(column, pictures))
    state.controls = run.controls
    if run.base and not run.controls:
        state.controls = {RECORDED: scores_of(run.base)}
    for step, scores, pictures in run.curve:
        state.apply(AttackCheckpoint(step, tuple(pictures), scores))
    return state
