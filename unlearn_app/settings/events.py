"""What a run reports while it works: frozen values that the page, the command line and the library
render.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from PIL.Image import Image
from pydantic import Field, PlainSerializer, SkipValidation

TrainingStage = Literal["unlearn", "attack"]
Column = Literal["original", "unlearned", "relearned"]
Group = Literal["forget", "near", "far"]
Axis = Literal["forgotten", "near", "far", "resisted"]
Value = str | float | bool | None
"""What a judge says of a picture: a class, or how sure it is."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
COLUMNS: tuple[Column, ...] = ("original", "unlearned", "relearned")
GROUPS: tuple[Group, ...] = ("forget", "near", "far")
FRAMED: Mapping[Group, int] = {"forget": 2, "near": 1, "far": 1}
"""How many pictures of each group a frame of the timeline holds."""


@dataclass(frozen=True)
class Sampling:
    """How a picture is sampled: denoising steps, the scale of classifier-free guidance, and the
    scheduler as diffusers calls it; "" where an earlier record does not say.
    """

    steps: Count
    guidance_scale: float
    scheduler: str = ""


@dataclass(frozen=True)
class Stage:
    """A new part of the run has begun: a plain-language line, and the share of the whole run done
    before it.
    """

    name: Literal["load", "concept", "retain", "unlearn", "attack", "compare", "write"]
    text: str
    fraction: float


@dataclass(frozen=True)
class Step:
    """One optimizer step of unlearning or of the attack.

    Dictionaries are keyed by term ("forget", "retain", "relearn"). `cosine` is the angle cosine
    between the two gradients before combination (None with one term); `conflict` says it was
    negative; `gate` says that the forget term had a gradient at all (None with one term). `changes`
    are the changes of the losses that the step really taken, optimizer included, makes to first
    order on its own batch: a rule of restricted gradients keeps them from being positive. A number
    that was not finite is None in a step that is read back.
    """

    stage: TrainingStage
    step: Count
    total: Count = 0
    losses: dict[str, float | None] = field(default_factory=dict)
    weights: dict[str, float | None] = field(default_factory=dict)
    norms: dict[str, float | None] = field(default_factory=dict)
    cosine: float | None = None
    conflict: bool = False
    gate: bool | None = None
    changes: dict[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class PanelProgress:
    """How many concepts of the panel have their pictures, and how many there are; of the last one
    which of its pictures are `right`, in the judge's eyes if there is one, and its first picture.
    """

    done: int
    total: int
    name: str
    right: tuple[bool | None, ...]
    image: Image = field(compare=False)


@dataclass(frozen=True)
class Picture:
    """A picture by the model after `step` steps of `stage`; step 0 is the model before it.

    A picture of the comparison has a `column`, a `group` and an `index` in it, and says what its
    prompt `expects` to be seen. `alignment`, `predicted` and `correct` are what the judge says of
    it, `judges` what every further judge says, by the judge's name. `image` is there while a run is
    on, `file` where the picture is stored.
    """

    stage: TrainingStage
    step: Count
    prompt: str
    seed: Count
    sampler: Sampling
    index: Count
    column: Column | None = None
    group: Group | None = None
    expects: str = ""
    alignment: float | None = None
    predicted: str | None = None
    correct: bool | None = None
    judges: Mapping[str, Value] = field(default_factory=dict)
    image: Annotated[Image | None, SkipValidation, Field(exclude=True)] = field(
        default=None, compare=False
    )
    file: Annotated[Path, PlainSerializer(Path.as_posix)] | None = None


@dataclass(frozen=True)
class Preview:
    """Pictures by the model under training at `step`, of the same prompts and seeds each time."""

    stage: TrainingStage
    step: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Images:
    """All pictures of one column, judged, in the order of groups and prompts."""

    column: Column
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class GroupScore:
    """Accuracy and mean alignment (both None without a judge) over n pictures.

    `accuracies` are those by every further judge that names classes, and `found` the shares of
    pictures in which a detector found what it looks for, both by the judge's name.
    """

    accuracy: Share | None
    alignment: float | None
    n: Count
    accuracies: Mapping[str, Share] = field(default_factory=dict)
    found: Mapping[str, Share] = field(default_factory=dict)

    @property
    def hits(self) -> int | None:
        """How many pictures the judge finds right; None without one."""
        return None if self.accuracy is None else round(self.accuracy * self.n)


@dataclass(frozen=True)
class AttackCheckpoint:
    """How far the attack has come after `step` steps: pictures of the comparison from the attacked
    model, and its score on the concept; after the last step all pictures and scores.

    A control, which `control` names, has only the score on the concept that it teaches.
    """

    step: int
    pictures: tuple[Picture, ...]
    scores: dict[Group, GroupScore]
    control: str = ""


@dataclass(frozen=True)
class Difference:
    """What separates the pictures of one group from the original's at the same prompts and seeds.

    `change` of accuracy with its 95 % interval and McNemar's exact p-value; mean perceptual
    `distance` with its interval, beside `apart`, the distance of two different pictures of the
    original; paired KID with standard error, None under three pictures.
    """

    change: Change
    interval: tuple[Change, Change]
    p: float
    distance: float
    distance_interval: tuple[float, float] | None
    apart: float | None
    kid: float | None
    kid_error: float | None


@dataclass(frozen=True)
class Scores:
    """Every column's scores by group, and what separates each from the original (empty without a
    judge).
    """

    columns: dict[Column, dict[Group, GroupScore]]
    differences: dict[Column, dict[Group, Difference]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """removed, concealed, damaged or inconclusive, the sentences that say why, shares of what is
    good about it, and a `headline` that says who won; "" where an earlier record has none.
    """

    label: Literal["removed", "concealed", "damaged", "inconclusive"]
    reasons: tuple[str, ...]
    axes: Mapping[Axis, Share] = field(default_factory=dict)
    headline: str = ""


@dataclass(frozen=True)
class Done:
    """The run folder is complete (or, after a stop, holds what was reached)."""

    folder: Path
    stopped: bool = False


Event = Stage | Step | PanelProgress | Preview | AttackCheckpoint | Images | Scores | Verdict | Done


UNRESISTING, FRESH = "without resistance", "never seen"
"""The two controls: of a run that resists, the same run without; and a concept that pre-training
never showed.
"""
SHARES = {
    "load": 0.0,
    "originals": 0.01,
    "retain": 0.03,
    "unlearn": 0.05,
    "compare": 0.4,
    "attack": 0.46,
    "controls": 0.97,
    "write": 0.98,
}
"""How far a run with the default settings is when a stage begins, for progress bars."""
