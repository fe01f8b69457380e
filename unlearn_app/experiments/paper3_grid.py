"""What paper 3 is measured on: sequences of requests, arms, and the pictures that are looked at."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..concepts.catalog import known_concepts, preview_concept, tuning_prompts
from ..concepts.concept import Prompt, also_named, evenly_spaced
from ..continual.panel import PANEL_SEEDS, PanelPrompts
from ..continual.sequence_data import with_allowed_anchor
from ..settings.groups import SequenceConfig, UnlearnConfig
from ..settings.presets import KEYS_VALUES, REGULARIZATION_PRESETS
from ..settings.run_config import RunConfig, make_config, make_plan
from .cells import SMOKE

SEQUENCES: dict[str, tuple[str, ...]] = {
    "objects": ("cat", "fish", "ship", "burger", "sunflower", "ghost",
                "rabbit", "frog", "airplane", "pizza", "sword", "tree"),
    "styles": ("van gogh", "mosaic", "neon", "pop art", "sketch", "cartoon",
               "watercolor", "stained glass", "blueprint", "woodcut", "vintage", "pointillism"),
}  # fmt: skip
"""In the first order; the second one is the reverse."""
MARKS = (1, 3, 6, 9, 12)
"""Requests after which the state is a cell."""
BASES: dict[str, dict[str, Any]] = {
    "concept ablation": {"objective": "concept_ablation"},
    "EraseDiff": {"objective": "erasediff"},
    "ESD": {"objective": "esd"},
}
FIRST_BASE = next(iter(BASES))
"""The method that every arm is measured with."""
PLAIN, PROJECTION = "sequential", "projection"
BOTH, SMALL = "projection + selective", "projection + L2"
UNHELD, ALL_LAYERS, AT_ONCE = "sequential, no retention", "sequential, all layers", "simultaneous"
HOLDING: dict[str, dict[str, Any]] = {
    "L1": REGULARIZATION_PRESETS["l1"],
    "L2": REGULARIZATION_PRESETS["l2"],
    "selective": REGULARIZATION_PRESETS["selective"],
    "TIES": {"sequence.regime": "independent"},
    PROJECTION: REGULARIZATION_PRESETS["projection"],
    BOTH: REGULARIZATION_PRESETS["projection"] | {"regularize.select": 0.5},
    SMALL: REGULARIZATION_PRESETS["projection+l2"],
}
"""The arms that hold a sequence back."""
ARMS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    **HOLDING,
    AT_ONCE: {"sequence.regime": "simultaneous"},
    UNHELD: {"rule": "weighted_sum", "unlearn.retain_weight": 1e-3},
    ALL_LAYERS: {"unlearn.modules": "all", "unlearn.lr": UnlearnConfig.lr},
}
"""All but the last train keys and values only, so each is compared to a plain sequence of the same
layers.

The last two are for reference: the paper's plain sequence, which retains nothing, and ours on every
layer.
"""
STYLES: dict[str, dict[str, Any]] = {
    "L2": {"unlearn.lr": 8e-3, "regularize.l2": 8e-3},
    SMALL: {"unlearn.lr": 9e-3, "regularize.l2": 8e-3},
}
"""Arms that are tuned otherwise where styles are asked for: they forget more easily, and keep less.
"""
CONTENDERS, MORE_SEEDS = (PLAIN, "L2", SMALL), 2
"""The plain sequence and what comes near every bar, and how many seeds they have beyond the
others'.
"""
ASKED_PICTURES, KEPT_PICTURES = 4, 48
"""Pictures of each requested concept and each of the other domain; of all that is kept of the own
one together.
"""
SMOKE_ARMS = (PLAIN, "TIES", BOTH, AT_ONCE)
"""What a smoke measures: each regime, and what restrains an update in more than one way."""
SMOKE_EVERY = 4
"""Of what is kept every this many is on the panel of a smoke, with one picture."""


@dataclass(frozen=True)
class Job:
    """One sequence of requests under one arm."""

    domain: str
    order: int
    seed: int
    base: str
    arm: str

    @property
    def cut(self) -> bool:
        """Whether the declared cut holds it; the others wait for the full grid.

        All arms in one order with one base method, those for reference with one seed, contenders
        with more; in the other order, and with a second method, three arms and a seed.
        """
        second = list(BASES)[1]
        if (self.order, self.base) == (0, FIRST_BASE):
            return self.seed == 0 or self.arm not in (UNHELD, ALL_LAYERS)
        few = self.seed == 0 and self.arm in (PLAIN, PROJECTION, SMALL)
        return few and (self.order, self.base) in ((1, FIRST_BASE), (0, second))

    def requests(self, smoke: bool) -> tuple[str, ...]:
        """What is asked for, in this order."""
        names = SEQUENCES[self.domain][:: -1 if self.order else 1]
        return names[:3] if smoke else names

    def settings(self, smoke: bool) -> tuple[RunConfig, SequenceConfig]:
        """How each request is trained, and how they follow each other."""
        tuned = ARMS[self.arm] | (STYLES.get(self.arm, {}) if self.domain == "styles" else {})
        own = KEYS_VALUES | BASES[self.base] | tuned | (SMOKE if smoke else {})
        plan = {n.partition(".")[2]: value for n, value in own.items() if n.startswith("sequence.")}
        run = {name: value for name, value in own.items() if not name.startswith("sequence.")}
        config = make_config(self.requests(smoke)[0], seed=self.seed, **run)
        return config, make_plan(**{"pictures": ASKED_PICTURES} | plan)


def grid(seeds: int) -> list[Job]:
    """Every sequence, the declared cut first; arms of the same sequence follow each other."""
    names = itertools.product(range(seeds + MORE_SEEDS), SEQUENCES, range(2), BASES, ARMS)
    jobs = [Job(domain, order, seed, base, arm) for seed, domain, order, base, arm in names]
    jobs = [job for job in jobs if job.seed < seeds or (job.cut and job.arm in CONTENDERS)]
    return sorted(jobs, key=lambda job: (not job.cut, job.seed))


@cache
def kept(domain: str) -> tuple[str, ...]:
    """The concepts of a domain that no order asks for or reads as an anchor; nothing of them is
    trained on.
    """
    names, config = SEQUENCES[domain], make_config(SEQUENCES[domain][0])
    anchors = {
        with_allowed_anchor(config, name, order[:place]).anchor
        for order in (names, names[::-1])
        for place, name in enumerate(order)
    }
    kind = preview_concept(config).kind
    known = [entry.name for entry in known_concepts() if not entry.fresh and entry.kind == kind]
    return tuple(name for name in known if name not in names and name not in anchors)


def panel(domain: str, seed: int, smoke: bool, split: str = "test") -> PanelPrompts:
    """All that is ever looked at in the sequences of a domain: what is requested, and what is kept
    of either domain.

    Of the other domain only prompts are chosen that name nothing requested, as long as there are
    some. With `split` "dev" it is what settings are tuned by: nothing of it is in the panel of the
    test.
    """
    tested = panel(domain, seed, False) if split != "test" else {}
    taken = {prompt.text for prompts in tested.values() for prompt, _ in prompts}
    own, names = kept(domain), SEQUENCES[domain]
    kind = preview_concept(make_config(names[0])).kind
    known = [entry for entry in known_concepts() if not entry.fresh]
    others = [entry.name for entry in known if entry.kind != kind]
    if smoke:
        names, own, others = (
            Job(domain, 0, seed, "", "").requests(smoke),
            own[::SMOKE_EVERY],
            others[::SMOKE_EVERY],
        )
    counts = dict.fromkeys([*names, *others], ASKED_PICTURES) | dict.fromkeys(
        own, KEPT_PICTURES // len(own)
    )
    numbers = itertools.count(PANEL_SEEDS[split] + 1000 * seed)
    asked = {}
    for name, count in counts.items():
        config = make_config(name)
        askable = preview_concept(config).forget.test if split == "test" else tuning_prompts(config)
        prompts = [prompt for prompt in askable if prompt.text not in taken]
        if name in others:
            clean = [prompt for prompt in prompts if named(prompt, known) not in SEQUENCES[domain]]
            prompts = clean or prompts
        asked[name] = tuple(
            (prompt, next(numbers)) for prompt in evenly_spaced(prompts, 1 if smoke else count)
        )
    return asked


def named(prompt: Prompt, known: Sequence[Any]) -> str:
    """What of the other kind a prompt names, or nothing."""
    other = also_named(prompt, known)
    return other.expects if other else ""


def looked_at(asked: PanelPrompts, job: Job, number: int, smoke: bool) -> PanelPrompts:
    """What is tested after a request: at a mark all that counts by then, else the concept just
    requested.
    """
    names = job.requests(smoke)
    if number not in marks(names):
        return {} if job.arm == AT_ONCE else {names[number - 1]: asked[names[number - 1]]}
    return {name: prompts for name, prompts in asked.items() if name not in names[number:]}


def marks(names: Sequence[str]) -> list[int]:
    """Requests after which the state of a sequence is a cell."""
    return [*(mark for mark in MARKS if mark < len(names)), len(names)]
