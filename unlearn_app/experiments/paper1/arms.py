"""The arms of paper 1's benchmark, what development may choose for each, and the targets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...concepts.concept import Kind
from ...pocket.world.split import DEVELOPMENT_OBJECTS, DEVELOPMENT_STYLES

KINDS: tuple[Kind, ...] = ("object", "style")
BATCHES = {"unlearn.batch_size": 4, "unlearn.pool": 0}
"""Every step of every arm draws four fresh pictures and noises of each term, as the paper draws
eight.
"""
PAPER = {
    "objective": "gradient_ascent",
    "unlearn.retain_loss": "diffusion",
    "unlearn.retain_weight": 1.6,
}
"""Gradient ascent beside the diffusion loss of the retain pictures, 2412.07808."""
ALONE = {"rule": "weighted_sum", "unlearn.retain_loss": "none"}
"""What ESD as published has: no retain term."""
EQUAL = {"rule": "weighted_sum", "unlearn.retain_loss": "diffusion"}
"""What a baseline at equal budget shares with the arms of the paper: the retain term."""
RGD, SUM, ONE_SIDED = "restricted, diversified", "sum, diversified", "one-sided, diversified"
NEAR, SUM_NEAR = "restricted, near", "sum, near"
UNIFORM, SUM_UNIFORM = "restricted, uniform", "sum, uniform"
PRESERVE = "restricted, diversified, preserve"
SALUN, SALUN_EQUAL = "SalUn as published", "SalUn at equal budget"
ESD, ESD_EQUAL = "ESD as published", "ESD at equal budget"
FINETUNE, UCE = "finetune", "UCE"
DESCENT, SUM_DESCENT = "restricted, descent", "sum, descent"


class Setting(NamedTuple):
    """What development chooses: optimizer steps, learning rate, and the method's own strength."""

    steps: int
    lr: float
    strength: float


STEPS = (30, 60, 120)


@dataclass(frozen=True)
class Strength:
    """A method's own setting by its dotted name, its values, and the one to begin with."""

    name: str
    values: tuple[float, float, float, float]
    usual: float


LIMIT = Strength("gradient_ascent.limit", (0.6, 0.8, 1.0, 1.5), 1.0)
ETA = Strength("esd.eta", (0.5, 1.0, 2.0, 3.0), 1.0)
SALIENT = Strength("random_label.salient", (0.25, 0.5, 0.75, 1.0), 0.5)


@dataclass(frozen=True)
class Arm:
    """Settings of an arm, those for a kind of concept only, and what development varies: around a
    middle learning rate and a strength. Arms without a strength are not tuned.

    `cut` is whether it belongs to the declared cut; `group` orders the measuring, so that what a
    claim compares is measured together.
    """

    settings: Mapping[str, Any]
    strength: Strength | None = LIMIT
    lr: Mapping[Kind, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 2e-3))
    by_kind: Mapping[Kind, Mapping[str, Any]] = field(default_factory=dict)
    cut: bool = True
    group: int = 9

    def rates(self, kind: Kind) -> tuple[float, float, float]:
        """Half of the middle rate, the middle rate and its double."""
        return self.lr[kind] / 2, self.lr[kind], self.lr[kind] * 2

    def start(self, kind: Kind) -> Setting:
        """The setting that the narrowing begins with."""
        return Setting(STEPS[1], self.lr[kind], self.strength.usual if self.strength else 0.0)

    def changes(self, kind: Kind, setting: Setting | None) -> dict[str, Any]:
        """The settings of a run."""
        own = {**BATCHES, **self.settings, **self.by_kind.get(kind, {})}
        if setting:
            own |= {"unlearn.steps": setting.steps, "unlearn.lr": setting.lr}
        if setting and self.strength:
            own[self.strength.name] = setting.strength
        return own


def _ascent(rule: str, retain: str, group: int, **more: Any) -> Arm:
    return Arm(PAPER | {"rule": rule, "unlearn.retain": retain}, group=group, **more)


def _esd(more: Mapping[str, Any], **how: Any) -> Arm:
    """ESD-u for objects and ESD-x for styles, as its paper and 2412.07808 have them."""
    layers = {
        "object": {"unlearn.modules": "not_cross"},
        "style": {"unlearn.modules": "cross"},
    }
    rates = {"object": 2e-3, "style": 4e-3}
    return Arm({"objective": "esd", **more}, ETA, rates, layers, **how)


def _both(rate: float) -> dict[Kind, float]:
    return dict.fromkeys(KINDS, rate)


ARMS: dict[str, Arm] = {
    RGD: _ascent("restricted", "diversified", 0),
    SUM: _ascent("weighted_sum", "diversified", 0),
    NEAR: _ascent("restricted", "near", 1),
    SUM_NEAR: _ascent("weighted_sum", "near", 1),
    UNIFORM: _ascent("restricted", "uniform", 2),
    SALUN: Arm(
        {
            "objective": "random_label",
            "rule": "weighted_sum",
            "unlearn.retain": "uniform",
            "unlearn.retain_loss": "diffusion",
            "unlearn.retain_weight": 1.0,
        },
        SALIENT,
        _both(6e-3),
        group=3,
    ),
    ESD: _esd(ALONE, group=3),
    FINETUNE: Arm({"objective": "retain_only", "rule": "weighted_sum"}, None, group=3),
    ONE_SIDED: _ascent("one_sided", "diversified", 4),
    PRESERVE: Arm(PAPER | {"rule": "restricted", "unlearn.retain_loss": "preserve"}, group=5),
    SALUN_EQUAL: Arm(
        EQUAL | {"objective": "random_label", "unlearn.retain_weight": 1.0},
        SALIENT,
        _both(6e-3),
        group=6,
    ),
    ESD_EQUAL: _esd(EQUAL | {"unlearn.retain_weight": 3.0}, group=6),
    UCE: Arm({"objective": "uce"}, None, group=6),
    SUM_UNIFORM: _ascent("weighted_sum", "uniform", 7, cut=False),
    "one-sided, near": _ascent("one_sided", "near", 7, cut=False),
    "restricted, Adam's metric": _ascent("restricted_adam", "diversified", 7, cut=False),
    "ESD, all layers": Arm(
        ALONE | {"objective": "esd", "unlearn.modules": "all"},
        ETA,
        cut=False,
    ),
    "EraseDiff as published": Arm(
        {
            "objective": "erasediff",
            "rule": "barrier",
            "unlearn.retain_loss": "diffusion",
            "unlearn.retain_weight": 5.0,
        },
        Strength("barrier.eta", (0.25, 0.5, 1.0, 2.0), 0.5),
        _both(3e-3),
        cut=False,
    ),
    "SDD at equal budget": Arm(
        EQUAL | {"objective": "sdd"},
        Strength("unlearn.retain_weight", (0.5, 1.0, 2.0, 4.0), 1.0),
        _both(5e-3),
        cut=False,
    ),
    "concept ablation at equal budget": Arm(
        EQUAL | {"objective": "concept_ablation", "unlearn.modules": "cross"},
        Strength("unlearn.retain_weight", (1.5, 3.0, 5.0, 10.0), 3.0),
        _both(4e-3),
        cut=False,
    ),
    "RECE": Arm({"objective": "rece"}, None, cut=False),
}
"""What is not tuned has no strength: fine-tuning forgets nothing, and edits have a closed form.

As published is what the method's own paper trains with beside its loss: SalUn one fixed retain
sentence, ESD no retain term. At equal budget is with the retain pictures of the paper's arms.
"""
TUNED = {name: arm for name, arm in ARMS.items() if arm.strength}
MAIN = (RGD, SUM)
SECOND_MODEL = (RGD, SUM, UNIFORM)
"""The arms of the smaller table that repeats the main claims on another bundled model."""
DESCENTS: dict[str, str] = {DESCENT: RGD, SUM_DESCENT: SUM}
"""The main arms by plain gradient descent, for which the paper proves its claim; both with what
development chose for the restricted gradient, so that nothing but the rule differs.
"""
DESCENT_STEPS, DESCENT_LR = 30, 0.1
HARMLESS_ARMS = (RGD, SUM, ESD)
"""Arms whose result an honest user fine-tunes."""

TUNING_SEED = 1000
"""The seed of every trial; no test has it."""
STAGES = ("steps", "learning rate", "strength")
TUNED_ON: dict[Kind, tuple[tuple[str, str], ...]] = {
    "object": (("cat", "hammer"), ("rose", "car"), ("pizza", "ghost")),
    "style": (("van gogh", "neon"), ("sketch", "pop art"), ("mosaic", "vintage")),
}
"""Development targets by stage of the narrowing."""
DEVELOPMENT: dict[Kind, tuple[str, ...]] = {
    "object": DEVELOPMENT_OBJECTS,
    "style": DEVELOPMENT_STYLES,
}
"""What a trial may keep."""
CUT_TARGETS: dict[Kind, tuple[str, ...]] = {
    "object": ("dog", "fish", "sunflower", "ship", "airplane",
               "apple", "knife", "bomb", "scissors", "robot"),
    "style": ("watercolor", "stained glass", "blueprint", "woodcut", "cartoon", "arcade"),
}  # fmt: skip
"""Test targets of the declared cut, at least one of each family."""
MORE_TARGETS: dict[Kind, tuple[str, ...]] = {
    "object": ("rabbit", "bear", "frog", "tree", "burger", "santa"),
    "style": ("pointillism", "ink", "chalk"),
}
"""The other test targets, of the full grid. The plain style is no target, since it is the anchor of
all others.
"""
KIND_OF: dict[str, Kind] = {
    name: kind
    for kind in KINDS
    for name in (*sum(TUNED_ON[kind], ()), *CUT_TARGETS[kind], *MORE_TARGETS[kind])
}
"""The kind of every target."""
