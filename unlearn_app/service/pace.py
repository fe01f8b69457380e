"""How long runs take here: seconds per forward pass, learnt from the runs of this process."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..common.registry import DEFAULT_MODEL
from ..settings.cost import run_costs, share_done, training_steps
from ..settings.events import SHARES, Done, Event, Stage, Step
from ..settings.run_config import RunConfig

USUAL: Mapping[str, float] = {
    "originals": 0.006,
    "retain": 0.003,
    "unlearn": 0.0075,
    "compare": 0.0065,
    "attack": 0.008,
    "controls": 0.008,
}
"""Seconds per forward pass of the bundled model on two CPU cores, by part of a run; of other models
it says only which parts are slower than which. Pictures to train on are neither decoded nor judged.
"""
WRITE = "write"
FIXED: Mapping[str, float] = {"load": 0.5, WRITE: 2.0}
"""Seconds of the parts that take no forward passes. Loading is not learnt: a model is loaded
once.
"""
SHOWING = 0.7
"""Seconds from the end of a run until everybody who follows it sees that; they count as writing."""
STORED = ("originals", "retain")
"""The parts whose pictures may be found in the store of latents, and then take no time."""
ASKED = 0.2
"""A part of `STORED` was found there when it took less than so much of what it takes elsewhere."""
SURPRISE, LEAST = 1.2, 0.5
"""The time left may rise when it is more than so many times what was said before, and by more than
so many seconds.
"""


def part_of(stage: Stage) -> str:
    """The part of a run that a stage belongs to."""
    return max((share, name) for name, share in SHARES.items() if share <= stage.fraction + 1e-9)[1]


@dataclass
class Pace:
    """Seconds per forward pass by model and part of a run, from the latest measurements, and those
    of writing; any thread may ask.
    """

    _learnt: dict[str, dict[str, float]] = field(default_factory=lambda: {DEFAULT_MODEL: {}})
    """What was measured of each model that is known; nothing is needed to know the bundled one."""

    def learn(self, model: str, part: str, passes: float, seconds: float) -> None:
        """Take in that a part of so many forward passes of `model` took so many seconds."""
        if part not in (*USUAL, WRITE) or passes <= 0 or seconds <= 0:
            return
        own, found = self._learnt.get(model, {}), seconds / passes
        self._learnt[model] = own | {part: (own.get(part, found) + found) / 2}

    def knows(self, model: str) -> bool:
        """Whether anything is known of how long the model takes."""
        return model in self._learnt

    def seconds(self, config: RunConfig) -> dict[str, float]:
        """How long each part of a run takes, in order; parts that were never measured are as much
        slower than usual as those that were. Of a model that is not known, the parts are right only
        beside each other.
        """
        learnt = self._learnt.get(config.model, {})
        known = [seconds / USUAL[part] for part, seconds in learnt.items() if part in USUAL]
        slower = sum(known) / len(known) if known else 1.0
        costs = run_costs(config)
        return {
            part: learnt.get(part, FIXED[part])
            if part in FIXED
            else costs[part] * learnt.get(part, USUAL[part] * slower)
            for part in SHARES
        }

    def total(self, config: RunConfig) -> float | None:
        """How many seconds a run takes; None where its model is not known."""
        return sum(self.seconds(config).values()) if self.knows(config.model) else None


@dataclass(frozen=True)
class TimeLeft:
    """How many seconds a run still takes, None where nobody knows, whether that is more than was
    said before, and the share of the run that is over, in [0, 1].
    """

    seconds: float | None
    slower: bool
    fraction: float


class Schedule:
    """How far a run has come, by what each of its parts takes here; once the run is complete, it
    teaches `pace` what they took.

    The time left never rises, unless a part takes much longer than expected.
    """

    def __init__(
        self, config: RunConfig, pace: Pace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pace, self._clock, self._model = pace, clock, config.model
        self._config, self._costs = config, run_costs(config)
        self._expected = pace.seconds(config)
        self._known = pace.knows(config.model)
        self._steps = training_steps(config)
        self._looked = self._since = clock()
        self._part = next(iter(SHARES))
        self._within, self._share, self._stepped = 0.0, 0.0, 0.0
        """The share of this part's steps that are done, that of its forward passes, and after how
        many seconds they were.
        """
        self._took: dict[str, float] = {}
        self._done: dict[str, float] = {}
        """The seconds of the parts that are over, and the share of its passes that each did."""
        self._said = float("inf")
        self._slower = False
        self._fraction = 0.0

    def apply(self, event: Event) -> None:
        """Take in one event, as soon as it happens."""
        if isinstance(event, Stage):
            if (part := part_of(event)) != self._part:
                self._finish()
                self._part = part
        elif isinstance(event, Step) and event.stage == self._part:
            self._step(event)
        elif isinstance(event, Done) and not event.stopped:
            self._finish()
            self._teach()

    def _step(self, event: Step) -> None:
        planned = self._steps[event.stage]
        if event.total < planned:
            return  # of an edit that is trained further: all steps of the training are to come
        self._within = event.step / event.total
        self._share = share_done(self._config, event.stage, self._within * planned)
        self._stepped = self._clock() - self._since

    def _finish(self) -> None:
        """This part is over; one that trains may have ended before its last step."""
        now = self._clock()
        self._took[self._part] = self._took.get(self._part, 0.0) + now - self._since
        whole = self._part not in self._steps or self._within >= 1
        self._done[self._part] = 1.0 if whole else self._share
        self._since, self._slower = now, False
        self._within, self._share, self._stepped = 0.0, 0.0, 0.0

    def _teach(self) -> None:
        ratio = self._ratio or 1.0
        for part, seconds in self._took.items():
            if part in STORED and seconds < ASKED * ratio * self._expected[part]:
                continue
            if part == WRITE:
                self._pace.learn(self._model, part, 1, seconds + SHOWING)
            else:
                passes = self._costs.get(part, 0) * self._done[part]
                self._pace.learn(self._model, part, passes, seconds)

    @property
    def _ratio(self) -> float | None:
        """How much slower what this run did was than expected; None before it has done enough."""
        seen = [(took, self._done[part], part) for part, took in self._took.items()]
        seen.append((self._stepped, self._share, self._part))
        paced = [one for one in seen if self._costs.get(one[-1]) and one[-1] not in STORED]
        expected = sum(share * self._expected[part] for _, share, part in paced)
        took = sum(seconds for seconds, _, _ in paced)
        return took / expected if expected > 1.0 and took > 0 else None

    def left(self) -> TimeLeft:
        """The time left now."""
        now, ratio = self._clock(), self._ratio
        if not self._known and ratio is None:
            self._looked, self._fraction = now, max(self._fraction, min(self._passed, 0.99))
            return TimeLeft(None, False, self._fraction)
        order = list(SHARES)
        after = order[order.index(self._part) + 1 :]
        ahead = sum(self._expected[part] for part in after) * (ratio or 1.0)
        found = ahead + self._of_this_part(now - self._since, ratio or 1.0)
        if found > max(SURPRISE * self._said, self._said + LEAST):
            self._slower = True
            self._said = found
        self._said = min(self._said, found)
        # Of what was left of the bar, the share that has passed: it moves on after a rise, too.
        passed, self._looked = now - self._looked, now
        if passed > 0:
            moved = (1 - self._fraction) * passed / (passed + self._said)
            self._fraction = min(self._fraction + moved, 0.99)
        return TimeLeft(self._said, self._slower, self._fraction)

    @property
    def _passed(self) -> float:
        """The share of the run that is over, by what its parts are expected to take."""
        over = sum(self._expected[part] for part in self._took)
        over += self._share * self._expected[self._part]
        return over / sum(self._expected.values())

    def _of_this_part(self, spent: float, ratio: float) -> float:
        """The seconds that this part still takes: the more of it is done, the more its own pace
        tells of the rest, and the less what was expected.
        """
        rest = 1 - self._share
        left = rest * (self._stepped + rest * self._expected[self._part] * ratio)
        return max(left - (spent - self._stepped), 0.05 * left)
