"""How far the attacks on a finished run have come."""

from dataclasses import dataclass
from typing import Any

from ..evaluation.finding import Finding
from ..settings.events import Stage, Step
from .html import progress

TO_CONTROL = 0.45
"""An attack and its control take about this share of the work each; loading takes the rest."""


@dataclass
class AttackProgress:
    """Collected from the events of attacks of these kinds."""

    kinds: tuple[str, ...]
    done: int = 0
    stage: Stage | None = None
    step: Step | None = None
    position: int = 0
    """How many jobs come before them."""
    stopping: bool = False

    def apply(self, event: Any) -> None:
        """Take in one event."""
        if isinstance(event, Finding):
            self.done, self.stage, self.step = self.done + 1, None, None
        elif isinstance(event, Stage):
            self.stage, self.step = event, None
        elif isinstance(event, Step):
            self.step = event

    @property
    def fraction(self) -> float:
        """Share of the attacks that is done, in [0, 1]."""
        within = self.stage.fraction if self.stage else 0.0
        within += TO_CONTROL * self.step.step / max(self.step.total, 1) if self.step else 0.0
        return min(1.0, (self.done + min(within, 1.0)) / len(self.kinds))

    def html(self) -> str:
        """A line and a bar that say so."""
        number, count, details = self.done + 1, len(self.kinds), []
        if count > 1:
            details.append(f"attack {min(number, count)} of {count}")
        if self.step:
            details.append(f"step {self.step.step} of {self.step.total}")
        text = self.stage.text if self.stage else "Getting ready…"
        return progress(text, details, self.fraction, "the attacks", self.stopping, self.position)
