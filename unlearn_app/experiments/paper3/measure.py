"""The benchmark of paper 3: sequences of requests, arms with their development trials, and what is
measured of the model after each request.
"""

import contextlib
import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from ...attacks.runner import result_of
from ...common.atomic_files import write_bytes
from ...common.errors import ConfigError, Diverged, NotFinite, OutputError
from ...common.images import open_png
from ...common.json_values import to_json
from ...common.paths import ROOT
from ...common.registry import DEFAULT_MODEL
from ...concepts.catalog import known_concepts, preview_concept, tuning_prompts
from ...concepts.concept import Kind, KnownConcept, Prompt, also_named, evenly_spaced
from ...concepts.targets import Targets, targets_told
from ...continual.ledger import Ledger, Request, slug
from ...continual.panel import PANEL_SEEDS, PanelPrompts, evaluate_panel
from ...continual.sequence import add_original, append, postpone
from ...continual.sequence_data import drop_retain_prompts, with_allowed_anchor
from ...methods.merging import merge
from ...methods.regularizers.row_mask import IMPORTANCE_BATCHES
from ...methods.regularizers.subspace_projection import concept_vectors
from ...models.lora import dense, frobenius_norm
from ...models.protocols import Model, Params
from ...pocket.world.split import DEVELOPMENT_OBJECTS, DEVELOPMENT_STYLES
from ...settings.cost import GRADIENT
from ...settings.groups import SequenceConfig
from ...settings.presets import EQUAL_BUDGET
from ...settings.run_config import RunConfig, make_plan, with_concept
from ...training.latent_dataset import CachedSampler
from ...training.unlearning import forget
from ..cells import SMOKE, Experiment, names_of, settings, short_hash, stored
from ..paper1.measure import digest
from ..tables import bits

KINDS: dict[str, Kind] = {"objects": "object", "styles": "style"}
DOMAINS = {kind: domain for domain, kind in KINDS.items()}
MIXED = "mixed"
TESTS: dict[str, tuple[str, ...]] = {
    "objects 1": ("dog", "fish", "sunflower", "ship", "apple", "knife", "scissors", "santa"),
    "objects 2": ("rabbit", "frog", "tree", "airplane", "burger", "bomb", "bear", "robot"),
    "styles 1": ("photo", "watercolor", "stained glass", "woodcut", "chalk"),
    "styles 2": ("pointillism", "blueprint", "ink", "cartoon", "arcade"),
    "styles 3": ("arcade", "watercolor", "ink", "blueprint", "photo"),
    "styles 4": ("chalk", "cartoon", "stained glass", "pointillism", "woodcut"),
    MIXED: ("fish", "watercolor", "airplane", "bear", "blueprint", "apple", "knife", "chalk",
            "santa", "tree", "arcade", "dog", "stained glass", "scissors", "ship", "cartoon"),
}  # fmt: skip
"""The requests of each sequence in order, all of test concepts. What a sequence of a domain does
not request of the test concepts is kept; every object is requested in one of two folds and kept in
the other, every style in two of four.
"""
TUNED = {
    "development objects": ("cat", "pizza", "sword", "ghost"),
    "development styles": ("mosaic", "neon", "pop art"),
}
"""The sequences of the trials, all of development concepts."""
BASES: dict[str, dict[str, Any]] = {
    "concept ablation": {"objective": "concept_ablation"},
    "ESD": {"objective": "esd"},
}
FIRST_BASE, SECOND_BASE = BASES
ALONE, REHEARSED = "none", "rehearsed"
REHEARSALS: dict[str, dict[str, Any]] = {
    ALONE: {"unlearn.retain_loss": "none", "rule": "weighted_sum"},
    REHEARSED: {"unlearn.retain_loss": "preserve", "unlearn.retain_weight": 3.0},
}
"""As the paper, whose requests train on nothing that stays; and with a retain term beside it."""
BUDGET = EQUAL_BUDGET | {
    "unlearn.batch_size": 4,
    "unlearn.pool": 16,
    "unlearn.modules": "keys_values",
}
"""Of every request: the paper's batch, and keys and values alone, as the paper trains."""
TEACHERS = ("previous", "original")
"""Whose predictions teach a request of a sequence; which of them is chosen by the trials of plain
requests.
"""
TRIALS = 4
"""Development trials of every arm."""
TUNING_SEED = 1000
"""The seed of every trial; no test has it."""
Trials = tuple[dict[str, Any], ...]


def crossed(fixed: Mapping[str, Any] | None = None, **values: Sequence[Any]) -> Trials:
    """All combinations of values, by names with an underscore for the dot, with what is fixed."""
    names = [name.replace("_", ".", 1) for name in values]
    return tuple(
        dict(fixed or {}) | dict(zip(names, row, strict=True))
        for row in itertools.product(*values.values())
    )


RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)
PLAIN, L1, L2, SELECTIVE = "plain", "L1", "L2", "selective"
TIES, ARITHMETIC = "TIES", "task arithmetic"
PAPERS, EXACT, OURS = "projection, the paper's", "the same, exact", "projection, ours"
WEAK, MIDDLE, STRONG = (f"projection + L2, {how}" for how in ("weak", "middle", "strong"))
WITH_SELECTION = "projection, the paper's, + selective"
AT_ONCE, APART = "simultaneous", "independent"
CONCEPTS = {"regularize.protect": "concepts", "regularize.energy": 1.0}
TOKENS = {"regularize.project": "exact"}
MERGED = {"sequence.regime": "independent"}
ARMS: dict[str, Trials] = {
    PLAIN: crossed(unlearn_lr=RATES),
    L1: crossed(unlearn_lr=(4e-3, 8e-3), regularize_l1=(1e-5, 4e-5)),
    L2: crossed(unlearn_lr=(8e-3, 1.6e-2), regularize_l2=(2e-3, 8e-3)),
    SELECTIVE: crossed(unlearn_lr=(4e-3, 8e-3), regularize_select=(0.1, 0.3)),
    TIES: crossed(
        MERGED | {"sequence.merge": "ties", "sequence.keep": 0.4},
        unlearn_lr=(4e-3, 8e-3),
        sequence_weight=(1.5, 2.5),
    ),
    ARITHMETIC: crossed(
        MERGED | {"sequence.merge": "arithmetic"},
        unlearn_lr=(4e-3, 8e-3),
        sequence_weight=(0.5, 1.0),
    ),
    PAPERS: crossed(
        CONCEPTS | {"regularize.project": "gradients"}, unlearn_lr=(4e-3, 8e-3, 1.6e-2, 3.2e-2)
    ),
    EXACT: crossed(
        CONCEPTS | {"regularize.project": "exact"}, unlearn_lr=(4e-3, 8e-3, 1.6e-2, 3.2e-2)
    ),
    OURS: crossed(TOKENS, unlearn_lr=(4e-3, 1e-2), regularize_energy=(0.8, 0.95)),
    **{
        arm: crossed(
            TOKENS | {"regularize.l2": price},
            unlearn_lr=(8e-3, 1.6e-2),
            regularize_energy=(0.8, 0.95),
        )
        for arm, price in ((WEAK, 1e-3), (MIDDLE, 4e-3), (STRONG, 1.6e-2))
    },
    WITH_SELECTION: crossed(
        CONCEPTS | {"regularize.project": "gradients"},
        unlearn_lr=(8e-3, 1.6e-2),
        regularize_select=(0.3, 0.5),
    ),
    AT_ONCE: crossed({"sequence.regime": "simultaneous"}, unlearn_lr=RATES),
    APART: crossed(MERGED, unlearn_lr=RATES),
}
"""The settings of every arm's trials, as many of each; one is chosen for each kind of concept.

The last two are for reference: all requests trained together, anew at each, and each alone.
"""
HOLDING = (L1, L2, SELECTIVE, TIES, ARITHMETIC, PAPERS, EXACT, OURS, WEAK, MIDDLE, STRONG)
"""The arms that hold a sequence of updates back."""
Way = tuple[str, str, tuple[str, ...]]
"""A base method, with or without rehearsal, and arms."""
CUT: tuple[Way, ...] = (
    (FIRST_BASE, ALONE, tuple(ARMS)),
    (FIRST_BASE, REHEARSED, (PLAIN, L2, TIES, PAPERS, OURS, MIDDLE)),
    (SECOND_BASE, ALONE, (PLAIN, L2, TIES, PAPERS)),
)
"""The declared cut, with one seed; the full grid has every arm of every way, and all seeds."""
CUT_MIXED = {
    (FIRST_BASE, ALONE): (PLAIN, L2, TIES, PAPERS, MIDDLE),
    (FIRST_BASE, REHEARSED): (PLAIN, MIDDLE),
}
"""The arms of the mixed sequence."""
FLOW: tuple[Way, ...] = ((FIRST_BASE, ALONE, (PLAIN, L2, TIES)),)
"""The main claim alone, on another architecture."""
SMOKE_ARMS = (PLAIN, TIES, MIDDLE, AT_ONCE)
"""The arms of a smoke test: each way of serving requests, and one with two regularizers."""
SMOKE_TRIALS, SMOKE_REQUESTS, SMOKE_EVERY = 2, 2, 4
"""A smoke test has so many trials of the first arm and so many requests; every fourth concept that
is not requested is on its panel, with one picture.
"""
PICTURES = {"asked": 4, "object": 4, "style": 6, "others": 2, "development": 8}
"""Pictures of a requested concept, of a kept one by its kind, of one of the other domain, and of a
kept development concept.
"""
ENOUGH = 0.9
"""The unlearning accuracy above which a trial is no better for forgetting more."""
REFUSED = "refused"
"""The value of a cell that says why its sequence ended before its last request."""
ENERGY = "regularize.energy"
"""The setting that an error names where a projection leaves nothing to learn from."""
ALONE_MARKS = 3
"""Requests of the arm `APART` after which what is kept is looked at."""


@dataclass(frozen=True)
class RequestSequence:
    """One sequence of requests under one arm; `tried` is the trial whose settings it has, for each
    kind of concept that it requests.
    """

    sequence: str
    base: str
    rehearsal: str
    arm: str
    teacher: str
    tried: tuple[int, ...]
    seed: int

    @property
    def way(self) -> tuple[str, str]:
        """The base method, and with or without rehearsal."""
        return self.base, self.rehearsal

    @property
    def regime(self) -> str:
        """How its requests are served: one of the regimes of a ledger."""
        return ARMS[self.arm][0].get("sequence.regime", "sequential")

    def requests(self, smoke: bool) -> tuple[str, ...]:
        """The requested concepts in order."""
        return sequences()[self.sequence][: SMOKE_REQUESTS if smoke else None]

    def settings(self, smoke: bool, kind: Kind | None = None) -> tuple[RunConfig, SequenceConfig]:
        """The settings of training a request for a concept of a kind, by default the first kind,
        and those of the sequence.
        """
        kinds = kinds_of(self.sequence)
        trial = ARMS[self.arm][self.tried[kinds.index(kind or kinds[0])]]
        own = BUDGET | REHEARSALS[self.rehearsal] | BASES[self.base] | trial
        if self.regime == "sequential":
            own |= {"regularize.teacher": self.teacher}
        own |= SMOKE if smoke else {}
        plan = {n.removeprefix("sequence."): v for n, v in own.items() if n.startswith("sequence.")}
        run = {name: value for name, value in own.items() if not name.startswith("sequence.")}
        first = next(name for name in sequences()[self.sequence] if kind in (None, kind_of(name)))
        return settings(first, seed=self.seed, **run), make_plan(pictures=PICTURES["asked"], **plan)


def sequences() -> dict[str, tuple[str, ...]]:
    """The requests of each sequence; of those that the user brings, one of each kind with two or
    more.

    Raises:
        ConfigError: the user brings no such kind.
    """
    if not targets_told():
        return TESTS | TUNED
    own = {domain: names_of(kind, ()) for domain, kind in KINDS.items()}
    long = {domain: names for domain, names in own.items() if len(names) > 1}
    if not long:
        raise ConfigError(
            "The targets are one of a kind; two or more of a kind are accepted for a sequence.",
            "targets",
        )
    return long


def known() -> tuple[KnownConcept, ...]:
    """What the model was shown, or what the targets that the user brings name."""
    return _known(targets_told())


@cache
def _known(targets: Targets | None) -> tuple[KnownConcept, ...]:
    model = targets.model if targets else DEFAULT_MODEL
    return tuple(entry for entry in known_concepts(model) if not entry.fresh)


def kind_of(name: str) -> Kind:
    """The kind of a known concept."""
    return next(entry.kind for entry in known() if entry.name == name)


def kinds_of(sequence: str) -> tuple[Kind, ...]:
    """The kinds of concept that a sequence requests, objects first."""
    return tuple(sorted({kind_of(name) for name in sequences()[sequence]}))


def same_side(sequence: str) -> list[str]:
    """The concepts that a sequence may look at: all development concepts or all test concepts, or
    those that the user's targets name.
    """
    development = (*DEVELOPMENT_OBJECTS, *DEVELOPMENT_STYLES)
    names = [entry.name for entry in known()]
    if targets_told():
        return names
    return [name for name in names if (name in development) == (sequence in TUNED)]


def kept(sequence: str) -> tuple[str, ...]:
    """The concepts of the requested kinds that a sequence neither requests nor trains on.

    Of the user's own concepts these are no anchor either.
    """
    asked, kinds = sequences()[sequence], kinds_of(sequence)
    left = [n for n in same_side(sequence) if n not in asked and kind_of(n) in kinds]
    if not targets_told():
        return tuple(left)
    config = settings(asked[0])
    anchors = {
        with_allowed_anchor(config, name, asked[:at]).anchor for at, name in enumerate(asked)
    }
    return tuple(name for name in left if name not in anchors)


def others(sequence: str) -> tuple[str, ...]:
    """The concepts of the kinds that a sequence does not request."""
    return tuple(n for n in same_side(sequence) if kind_of(n) not in kinds_of(sequence))


def held_out(sequence: str, request: str) -> tuple[str, ...]:
    """What the training of a request does not name: every concept of its kind that a sequence of
    its side may request or keep. So it is the same in all of them.
    """
    if targets_told():
        return kept(sequence)
    kind = kind_of(request)
    return tuple(n for n in same_side(sequence) if n != request and kind_of(n) == kind)


def panel(sequence: str, seed: int, smoke: bool) -> PanelPrompts:
    """All prompts and seeds that are evaluated in a sequence.

    Prompts that name a requested concept beside their own are left out, unless all of a concept do.
    """
    return _panel(sequence, seed, smoke, targets_told())


@cache
def _panel(sequence: str, seed: int, smoke: bool, _: object) -> PanelPrompts:
    asked, own, rest = sequences()[sequence], kept(sequence), others(sequence)
    if smoke:
        asked, own, rest = asked[:SMOKE_REQUESTS], own[::SMOKE_EVERY], rest[::SMOKE_EVERY]
    counts = dict.fromkeys(asked, PICTURES["asked"])
    split = "dev" if sequence in TUNED else "test"
    for name in own:
        counts[name] = PICTURES["development" if split == "dev" else kind_of(name)]
    counts |= dict.fromkeys(rest, PICTURES["others"])
    numbers = itertools.count(PANEL_SEEDS[split] + 1000 * seed)
    found = {}
    for name, count in counts.items():
        config = settings(name)
        prompts = preview_concept(config).forget.test if split == "test" else tuning_prompts(config)
        if name not in asked:
            rows = zip(prompts, named(prompts), strict=True)
            prompts = [p for p, other in rows if other not in sequences()[sequence]] or prompts
        chosen = evenly_spaced(prompts, 1 if smoke else count)
        found[name] = tuple(zip(chosen, numbers, strict=False))
    return found


def named(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """The concept of the other kind that each prompt names, "" where it names none."""
    entries = known()
    found = [also_named(prompt, entries) for prompt in prompts]
    return tuple(other.expects if other else "" for other in found)


def marks(cell: RequestSequence, smoke: bool) -> list[int]:
    """Numbers of requests after which the whole panel is evaluated."""
    last = len(cell.requests(smoke))
    if cell.sequence in TUNED or cell.arm == APART:
        return [last]
    return sorted({*([] if cell.arm == AT_ONCE else [1]), (last + 1) // 2, last})


def looked_at(asked: PanelPrompts, cell: RequestSequence, number: int, smoke: bool) -> PanelPrompts:
    """The prompts that are evaluated after request `number`: at a mark all except those of concepts
    requested later, else those of the requested concept alone.
    """
    names = cell.requests(smoke)
    if number not in marks(cell, smoke):
        return {names[number - 1]: asked[names[number - 1]]}
    return {name: prompts for name, prompts in asked.items() if name not in names[number:]}


def settings_hash(run: RunConfig) -> str:
    """A short hash of all settings that training a request depends on, besides concept and seed,
    whether they are defaults or not.
    """
    return short_hash([digest(run), run.regularize])


def forwards(run: RunConfig) -> int:
    """The forward passes on one picture of training one request, without the pictures that it
    trains on, which all arms share; a gradient counts three.
    """
    unlearn = run.unlearn
    terms = 1 if unlearn.retain_loss == "none" else 2
    taught = terms + (2 if run.objective == "esd" else 0)  # whose target has three predictions
    scored = IMPORTANCE_BATCHES if run.regularize.select < 1 else 0
    pooled = min(unlearn.steps, unlearn.pool or unlearn.steps)
    return unlearn.batch_size * (GRADIENT * (terms * unlearn.steps + scored) + taught * pooled)


def forwards_in_all(cell: RequestSequence, smoke: bool) -> int:
    """The forward passes of training all requests of a sequence as they come; all at once is
    trained anew at each of them, with the steps of all so far.
    """
    kinds = [kind_of(name) for name in cell.requests(smoke)]
    costs = [forwards(cell.settings(smoke, kind)[0]) for kind in kinds]
    return sum(itertools.accumulate(costs)) if cell.arm == AT_ONCE else sum(costs)


def accuracy(right: str) -> float:
    """The share of ones."""
    return right.count("1") / len(right)


def shares(state: Mapping[str, Any], requests: Sequence[str], stay: Sequence[str]) -> dict:
    """UA, RA-I and RA-C of a state, in [0, 1]: the mean over concepts of those erased, kept of
    their own domain (`stay`) and of the other; None without any.
    """
    right = {name: accuracy(own) for name, own in state["right"].items()}
    groups = {
        "ua": [1 - share for name, share in right.items() if name in requests],
        "ra_i": [share for name, share in right.items() if name in stay],
        "ra_c": [share for name, share in right.items() if name not in (*requests, *stay)],
    }
    return {name: sum(own) / len(own) if own else None for name, own in groups.items()}


def score(state: Mapping[str, Any], requests: Sequence[str], stay: Sequence[str]) -> float:
    """What trials are chosen by: how much is kept in both domains of what forgets enough.

    An unlearning accuracy below `ENOUGH` counts more than anything that is kept.
    """
    found = shares(state, requests, stay)
    return 10 * min(found["ua"], ENOUGH) + (found["ra_i"] + found["ra_c"]) / 2


def best_trial(found: Mapping[int, float]) -> int:
    """The trial with the highest score, of equal ones the first; the first where there is none."""
    return max(sorted(found), key=lambda trial: found[trial], default=0)


def best_teacher(found: Mapping[str, Sequence[Mapping[int, float]]]) -> str:
    """The teacher whose best trials, one for each kind, have the highest scores in all."""
    sums = {
        teacher: sum(max(own.values()) for own in kinds)
        for teacher, kinds in found.items()
        if kinds and all(kinds)
    }
    return max(sums, key=lambda teacher: sums[teacher], default=TEACHERS[0])


Original = tuple[Request, dict[str, Image.Image]]
"""The original model on a panel: its row, which is the first of every ledger, and its pictures."""


class Paper3(Experiment):
    """Run a sequence of requests. A cell grows by the state after each mark; one whose training
    diverges, or is refused by a projection that leaves nothing to learn from, ends there.

    Trials come first: those of plain requests, which decide on the teacher, then those of all other
    arms; the tests, with what the trials chose, are known once these are stored. The ledgers, and
    adapters that are trained alone, stand in `work`.
    """

    name = "paper3"

    def cells(self) -> list[RequestSequence]:
        if self.extent.targets:
            return self._of_targets()
        ways = self._ways()
        found = [
            cell
            for way in ways
            for teacher in self._teachers()
            for cell in self._trials(way, PLAIN, teacher)
        ]
        if not self.smoke and self._measured(found):
            found += [
                cell
                for way, arms in ways.items()
                for arm in arms
                if arm != PLAIN
                for cell in self._trials(way, arm, self._teacher(way))
            ]
        return found + self._tests() if self._measured(found) else found

    def _measured(self, cells: Sequence[RequestSequence]) -> bool:
        return not any(self.lacks(cell, stored(self, cell)[0]) for cell in cells)

    def config(self, cell: RequestSequence) -> dict[str, Any]:
        runs = [cell.settings(self.smoke, kind) for kind in kinds_of(cell.sequence)]
        asked = panel(cell.sequence, cell.seed, self.smoke)
        texts = {name: [[prompt.text, seed] for prompt, seed in own] for name, own in asked.items()}
        return to_json(cell) | {
            "requests": list(cell.requests(self.smoke)),
            "kinds": list(kinds_of(cell.sequence)),
            "kept": [name for name in kept(cell.sequence) if name in asked],
            "plan": to_json(runs[0][1]),
            "settings": [settings_hash(run) for run, _ in runs],
            "base_model": self.model.base_hash,
            "panel": short_hash(texts),
            "judge": f"{self.judge.name} {self.judge.version}",
        }

    def lacks(self, cell: RequestSequence, known: Mapping[str, Any]) -> bool:
        return not {REFUSED, str(len(cell.requests(self.smoke)))} & known.keys()

    def shared_by(self, cell: RequestSequence) -> tuple[str, int]:
        return cell.sequence, cell.seed

    def prepare(self, cell: RequestSequence) -> Original:
        config, plan = cell.settings(self.smoke)
        usual = settings(config.concept, seed=config.seed), make_plan(pictures=plan.pictures)
        if self.smoke:
            usual = settings(config.concept, seed=config.seed, **SMOKE), usual[1]
        asked = panel(cell.sequence, cell.seed, self.smoke)
        folder = self._work / slug(f"original-{cell.sequence}-{cell.seed}")
        ledger = opened(folder, *usual, asked, self.model.base_hash, ())
        if not ledger.rows:
            result_of(add_original(ledger, self.model, self.judge, prompts=asked))
        return ledger.rows[0], {name: open_png(ledger.picture(0, name)) for name in asked}

    def measure(
        self, cell: RequestSequence, known: dict[str, Any], shared: Original
    ) -> Iterator[dict[str, Any]]:
        states = dict(known)
        how = self._apart if cell.arm == APART else self._merged
        for number in marks(cell, self.smoke):
            if str(number) in states:
                continue
            earlier = next(reversed(states.values()), {"first": {}})["first"]
            try:
                if cell.regime == "independent":
                    states[str(number)] = how(cell, number, shared[0], earlier)
                else:
                    states[str(number)] = self._of_ledger(cell, number, shared)
            except (ConfigError, NotFinite) as error:
                if not isinstance(error, Diverged | NotFinite) and error.field != ENERGY:
                    raise
                yield states | {REFUSED: str(error)}
                return
            yield states

    def line(self, cell: RequestSequence, values: Mapping[str, Any]) -> str:
        requests = cell.requests(self.smoke)
        said = values.get(REFUSED)
        if not said:
            found = shares(values[str(len(requests))], requests, kept(cell.sequence))
            said = ", ".join(f"{n} {'–' if v is None else f'{v:.0%}'}" for n, v in found.items())
        rehearsed = "" if cell.rehearsal == ALONE else ", rehearsed"
        way = f"{cell.base}{rehearsed}, {cell.arm}, trial {'/'.join(map(str, cell.tried))}"
        return f"{cell.sequence}, {way}, {cell.teacher} teacher, seed {cell.seed}: {said}"

    def report(self) -> str:
        from .report import write_results

        return write_results(self.folder)

    def _ways(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """The arms by way of the extent."""
        if self.extent.bundled != DEFAULT_MODEL:
            return {way[:2]: way[2] for way in FLOW}
        if self.smoke:
            return {(FIRST_BASE, ALONE): SMOKE_ARMS}
        if self.extent.full:
            return dict.fromkeys(itertools.product(BASES, REHEARSALS), tuple(ARMS))
        return {way[:2]: way[2] for way in CUT}

    def _teachers(self) -> tuple[str, ...]:
        return TEACHERS[: 1 if self.smoke else None]

    def _trials(self, way: tuple[str, str], arm: str, teacher: str) -> list[RequestSequence]:
        tuned = list(TUNED)[: 1 if self.smoke else None]
        count = range(SMOKE_TRIALS if self.smoke else TRIALS)
        return [
            RequestSequence(name, *way, arm, teacher, (trial,), TUNING_SEED)
            for name in tuned
            for trial in count
        ]

    def _scores(self, way: tuple[str, str], arm: str, teacher: str, name: str) -> dict[int, float]:
        """The scores of the measured trials of an arm on one of the tuned sequences."""
        found = {}
        for cell in self._trials(way, arm, teacher):
            if cell.sequence == name:
                values, _ = stored(self, cell)
                requests = cell.requests(self.smoke)
                if state := values.get(str(len(requests))):
                    found[cell.tried[0]] = score(state, requests, kept(name))
        return found

    def _teacher(self, way: tuple[str, str]) -> str:
        return best_teacher(
            {
                teacher: [self._scores(way, PLAIN, teacher, name) for name in TUNED]
                for teacher in self._teachers()
            }
        )

    def _tests(self) -> list[RequestSequence]:
        """The tests, arms of a claim whole before the next: first the folds of every way, then the
        mixed sequence; all of the first seed before the next.
        """
        ways, flow = self._ways(), self.extent.bundled != DEFAULT_MODEL
        folds = [name for name in TESTS if name != MIXED][: 1 if self.smoke else None]
        mixed = {way: arms for way, arms in CUT_MIXED.items() if way in ways}
        if self.smoke or flow:
            mixed = {}
        elif self.extent.full:
            mixed = {way: tuple(a for a in arms if a != AT_ONCE) for way, arms in ways.items()}
        asked = [(name, way, arm) for way, arms in ways.items() for arm in arms for name in folds]
        second = next((at for at, (_, way, _) in enumerate(asked) if way[0] != FIRST_BASE), None)
        whole = [(MIXED, way, arm) for way, arms in mixed.items() for arm in arms]
        if second is not None:
            asked[second:second] = whole
        seeds = range(self.seeds if self.extent.full else 1)
        chosen = {(way, arm): self._chosen(way, arm) for _, way, arm in asked}
        return [
            RequestSequence(
                name,
                *way,
                arm,
                chosen[way, arm][0],
                tuple(chosen[way, arm][1][kind] for kind in kinds_of(name)),
                seed,
            )
            for seed in seeds
            for name, way, arm in asked
        ]

    def _chosen(self, way: tuple[str, str], arm: str) -> tuple[str, dict[Kind, int]]:
        """The teacher of an arm, and its best trial by kind."""
        teacher = self._teacher(way)
        tuned = {kinds_of(name)[0]: name for name in TUNED}
        scores = {kind: self._scores(way, arm, teacher, name) for kind, name in tuned.items()}
        return teacher, {kind: best_trial(found) for kind, found in scores.items()}

    def _of_targets(self) -> list[RequestSequence]:
        """The sequences of the user's own concepts, with the first trial's settings: there are no
        concepts to tune by.
        """
        names = list(sequences())[: 1 if self.smoke else None]
        arms = SMOKE_ARMS[:2] if self.smoke else tuple(ARMS)
        return [
            RequestSequence(name, FIRST_BASE, ALONE, arm, TEACHERS[0], (0,), seed)
            for seed in range(self.seeds)
            for arm in arms
            for name in names
        ]

    @cached_property
    def _samplers(self) -> dict[int, CachedSampler]:
        return defaultdict(CachedSampler)

    @property
    def _work(self) -> Path:
        own = f"{self.folder.name}-work"
        ships = not (self.smoke or self.extent.targets)
        return ROOT / "work" / own if ships else self.extent.out / own

    def _of_ledger(self, cell: RequestSequence, number: int, original: Original) -> dict[str, Any]:
        ledger = self._served(cell, number, original)
        names = [row.concept for row in ledger.rows[1 : number + 1]]
        first = {
            name: seen
            for at, name in enumerate(names, 1)
            if (seen := _first(ledger.rows[at : number + 1], name))
        }
        adapter = ledger.adapter(number)
        return self._state(cell, ledger.rows[0], ledger.rows[number], first, [adapter])

    def _served(self, cell: RequestSequence, number: int, original: Original) -> Ledger:
        """The ledger of a cell with at least `number` requests, new or continued."""
        names = cell.requests(self.smoke)
        asked, folder = panel(cell.sequence, cell.seed, self.smoke), self._work / self.key(cell)
        ledger = opened(folder, *cell.settings(self.smoke), asked, self.model.base_hash, names)
        if not ledger.rows:
            row, pictures = original
            with ledger.locked():
                ledger.base, ledger.prompts = self.model.base_hash, asked
                ledger.add(row, {}, {}, pictures)
        for place in range(len(ledger.rows), number + 1):
            request = names[place - 1]
            held = held_out(cell.sequence, request)
            if cell.arm == AT_ONCE and place not in marks(cell, self.smoke):
                postpone(ledger, request, held)
                continue
            how = {
                "config": cell.settings(self.smoke, kind_of(request))[0],
                "prompts": looked_at(asked, cell, place, self.smoke),
                "held_out": held,
                "sampler": self._samplers[cell.seed],
            }
            result_of(append(ledger, request, self.model, self.judge, **how))
        return ledger

    def _merged(
        self, cell: RequestSequence, number: int, original: Request, earlier: Mapping[str, str]
    ) -> dict[str, Any]:
        """The state of requests that are trained alone and merged; `earlier` holds what each showed
        first.
        """
        names, first = cell.requests(self.smoke)[:number], dict(earlier)
        plan = cell.settings(self.smoke)[1]
        own = [self._own(cell, name) for name in names]
        row, merged = original, None
        for at in range(len(first) + 1, number + 1):
            merged = merge(own[:at], plan)
            row = self._evaluated(cell, names[at - 1], at, merged.state)
            first[names[at - 1]] = bits(row.panel[names[at - 1]].right)
        lost = f"The merged rank {merged.rank} leaves out {merged.error:.1%} (Frobenius norm)."
        return self._state(cell, original, replace(row, notes=(lost,)), first, [merged.state])

    def _apart(
        self, cell: RequestSequence, number: int, original: Request, _: Mapping[str, str]
    ) -> dict[str, Any]:
        """Each request alone on the original; what is kept is looked at after a few of them."""
        names = cell.requests(self.smoke)
        looked = set(evenly_spaced(range(1, number + 1), min(ALONE_MARKS, number)))
        asked, seen, own = panel(cell.sequence, cell.seed, self.smoke), {}, []
        for at, name in enumerate(names, 1):
            adapter = self._own(cell, name)
            own.append(adapter)
            rest = [other for other in asked if other not in names] if at in looked else []
            row = self._evaluated(
                cell, name, at, adapter, {n: asked[n] for n in asked if n in (name, *rest)}
            )
            for other, found in row.panel.items():
                seen[other] = (*seen.get(other, ()), *found.right)
        panel_of = {
            name: replace(original.panel[name], right=right, other_kind_right=(), named=())
            for name, right in seen.items()
        }
        first = {name: bits(seen[name]) for name in names}
        return self._state(cell, original, replace(row, panel=panel_of), first, own)

    def _own(self, cell: RequestSequence, name: str) -> Params:
        """The adapter of a request that is trained alone, once for all sequences and merges."""
        config = with_concept(cell.settings(self.smoke, kind_of(name))[0], name)
        held = held_out(cell.sequence, name)
        depends = [name, cell.seed, settings_hash(config), sorted(held), self.model.base_hash]
        path = self._work / "alone" / f"{short_hash(depends)}.safetensors"
        if not path.exists():
            concept = with_allowed_anchor(config, name, held)
            gone = [preview_concept(with_concept(config, other)) for other in held]
            self.model.drop_adapters()
            config = replace(config, anchor=concept.anchor)
            task, sampler = drop_retain_prompts(concept, gone), self._samplers[cell.seed]
            for _ in forget(self.model, task, config, sampler=sampler):
                pass
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, save(self.model.adapter_state("unlearn")))
        return load(path.read_bytes())

    def _evaluated(
        self,
        cell: RequestSequence,
        name: str,
        number: int,
        adapter: Params,
        prompts: PanelPrompts | None = None,
    ) -> Request:
        """A row of the model with an adapter, as a ledger has one, after request `number`."""
        config = cell.settings(self.smoke)[0]
        asked = panel(cell.sequence, cell.seed, self.smoke)
        prompts = prompts or looked_at(asked, cell, number, self.smoke)
        seen, _ = result_of(evaluate_panel(config, prompts, self.model, self.judge, adapter))
        return Request(name, kind_of(name), "", "", 0.0, 0, frobenius_norm(adapter), seen)

    def _state(
        self,
        cell: RequestSequence,
        original: Request,
        row: Request,
        first: Mapping[str, str],
        adapters: Sequence[Params],
    ) -> dict[str, Any]:
        """What a cell stores of a state: which pictures show what they should, of the original and
        now, and of every erased concept first; how far the weights and what they make of text
        states have moved, the mean over `adapters`.
        """
        requests = cell.requests(self.smoke)
        erased = [name for name in requests if name in row.panel]
        moved = [movement(self.model, adapter, self._vectors(cell)) for adapter in adapters]
        norms = [layer_norms(adapter) for adapter in adapters]
        return {
            "right": {name: bits(seen.right) for name, seen in row.panel.items()},
            "original": {name: bits(original.panel[name].right) for name in row.panel},
            "first": dict(first),
            "moved": {name: _mean([own[name] for own in moved]) for name in moved[0]},
            "similar": self._similar(cell, erased),
            "layers": {layer: _mean([own[layer] for own in norms]) for layer in norms[0]},
            "drift": _mean([frobenius_norm(adapter) for adapter in adapters]),
            "forwards": forwards_in_all(cell, self.smoke),
            "notes": list(row.notes),
        }

    def _vectors(self, cell: RequestSequence) -> dict[str, Tensor]:
        """The mean text state of every requested and kept concept; empty where no layer reads text
        states as they are.
        """
        if not self.model.cross_weights():
            return {}
        asked = panel(cell.sequence, cell.seed, self.smoke)
        names = [n for n in asked if n in cell.requests(self.smoke) or n in kept(cell.sequence)]
        return {
            name: concept_vectors(self.model, [prompt for prompt, _ in asked[name]]).mean(0)
            for name in names
        }

    def _similar(self, cell: RequestSequence, erased: Sequence[str]) -> dict[str, float]:
        """The largest cosine of every kept concept's text state to that of an erased one."""
        vectors = self._vectors(cell)
        return {
            name: max(float(torch.cosine_similarity(own, vectors[n], 0)) for n in erased)
            for name, own in vectors.items()
            if name not in cell.requests(self.smoke)
        }


def movement(model: Model, adapter: Params, vectors: Mapping[str, Tensor]) -> dict[str, float]:
    """How far an update moves the keys and values of text states: |dW c| / |W c| over all layers
    that read text states, by concept.
    """
    if not vectors:
        return {}
    updates, weights = dense(adapter), model.cross_weights()
    found = {}
    for name, vector in vectors.items():
        c = vector.cpu().double()
        moved = sum((updates[layer] @ c).square().sum() for layer in weights if layer in updates)
        whole = sum((weight.cpu().double() @ c).square().sum() for weight in weights.values())
        found[name] = float(moved / whole) ** 0.5
    return found


def layer_norms(adapter: Params) -> dict[str, float]:
    """The Frobenius norm of an update by layer."""
    return {layer: float(update.norm()) for layer, update in dense(adapter).items()}


def opened(
    folder: Path,
    config: RunConfig,
    plan: SequenceConfig,
    asked: PanelPrompts,
    base: str,
    names: Sequence[str],
) -> Ledger:
    """The ledger in `folder`, if it is undamaged and of this sequence, panel and model; else a new
    one.
    """
    with contextlib.suppress(OutputError):  # there is none, or it is damaged
        ledger = Ledger.open(folder)
        same = (ledger.config, ledger.plan, ledger.names) == (config, plan, tuple(asked))
        if same and (not ledger.rows or _can_go_on(ledger, asked, base, names)):
            return ledger
    shutil.rmtree(folder, ignore_errors=True)
    return Ledger.create(folder, config, plan, list(asked))


def _can_go_on(ledger: Ledger, asked: PanelPrompts, base: str, names: Sequence[str]) -> bool:
    """Whether the rows of a ledger are of this model and these prompts, and begin with `names`."""
    seen = {name: found.named for name, found in ledger.rows[0].panel.items()}
    wanted = {name: named([prompt for prompt, _ in own]) for name, own in asked.items()}
    requests = [row.concept for row in ledger.requests]
    same = (ledger.base, seen, requests) == (base, wanted, list(names[: len(requests)]))
    return same and ledger.prompts in ({}, asked)


def _first(rows: Sequence[Request], name: str) -> str:
    """Which pictures of a concept are right in the first of `rows` that evaluates it."""
    return next((bits(row.panel[name].right) for row in rows if name in row.panel), "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
