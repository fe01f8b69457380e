"""The benchmark of paper 3: sequences of requests, arms, and the pictures that are judged."""

import contextlib
import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...attacks.runner import result_of
from ...common.errors import ConfigError, OutputError
from ...common.images import open_png
from ...common.json_values import to_json
from ...common.paths import ROOT
from ...common.registry import DEFAULT_MODEL
from ...concepts.catalog import known_concepts, preview_concept, tuning_prompts
from ...concepts.concept import KnownConcept, Prompt, also_named, evenly_spaced
from ...concepts.targets import Targets, targets_told
from ...continual.ledger import Ledger, Request, slug
from ...continual.metrics import counted, request_metrics
from ...continual.panel import PANEL_SEEDS, PanelPrompts
from ...continual.sequence import add_original, append, postpone
from ...continual.sequence_data import with_allowed_anchor
from ...settings.groups import SequenceConfig, UnlearnConfig
from ...settings.presets import EQUAL_BUDGET, KEYS_VALUES, REGULARIZATION_PRESETS
from ...settings.run_config import RunConfig, make_plan
from ...training.latent_dataset import CachedSampler
from ..cells import SMOKE, Experiment, names_of, settings, short_hash
from ..ray_tasks import processes
from ..tables import bits

RATES = ("ua", "ra_i", "ra_c")
SHARES = (*RATES, "ra_c_official")
SEQUENCES: dict[str, tuple[str, ...]] = {
    "objects": ("cat", "fish", "ship", "burger", "sunflower", "ghost",
                "rabbit", "frog", "airplane", "pizza", "sword", "tree"),
    "styles": ("van gogh", "mosaic", "neon", "pop art", "sketch", "cartoon",
               "watercolor", "stained glass", "blueprint", "woodcut", "vintage", "pointillism"),
}  # fmt: skip
"""The requests of each domain in the first order; the second order is the reverse."""
KINDS = {"objects": "object", "styles": "style"}
REQUEST_MARKS = (1, 3, 6, 9, 12)
"""Numbers of requests after which the state of a sequence is stored."""
BASES: dict[str, dict[str, Any]] = {
    "concept ablation": {"objective": "concept_ablation"},
    "EraseDiff": {"objective": "erasediff"},
    "ESD": {"objective": "esd"},
}
FIRST_BASE, SECOND_BASE, _ = BASES
"""The base method of every arm, and that of a few arms more."""
SEQUENTIAL, PROJECTION = "sequential", "projection"
WITH_SELECTION, WITH_L2 = "projection + selective", "projection + L2"
UNHELD, ALL_LAYERS, AT_ONCE = "sequential, no retention", "sequential, all layers", "simultaneous"
HOLDING: dict[str, dict[str, Any]] = {
    "L1": REGULARIZATION_PRESETS["l1"],
    "L2": REGULARIZATION_PRESETS["l2"],
    "selective": REGULARIZATION_PRESETS["selective"],
    "TIES": {"sequence.regime": "independent"},
    PROJECTION: REGULARIZATION_PRESETS["projection"],
    WITH_SELECTION: REGULARIZATION_PRESETS["projection"] | {"regularize.select": 0.5},
    WITH_L2: REGULARIZATION_PRESETS["projection+l2"],
}
"""The arms that limit how far a sequence of updates moves the model from the original."""
ARMS: dict[str, dict[str, Any]] = {
    SEQUENTIAL: {},
    **HOLDING,
    AT_ONCE: {"sequence.regime": "simultaneous"},
    UNHELD: {"rule": "weighted_sum", "unlearn.retain_weight": 1e-3},
    ALL_LAYERS: {"unlearn.modules": "all", "unlearn.lr": UnlearnConfig.lr},
}
"""All but the last train keys and values only, like the plain sequence that they are compared to.

The last two are for reference: the paper's plain sequence, which has no retention, and our plain
sequence on all layers.
"""
STYLE_TUNING: dict[str, dict[str, Any]] = {
    "L2": {"unlearn.lr": 8e-3, "regularize.l2": 8e-3},
    WITH_L2: {"unlearn.lr": 9e-3, "regularize.l2": 8e-3},
}
"""Settings by arm for styles, which are easier to unlearn than objects."""
CONTENDERS, MORE_SEEDS = (SEQUENTIAL, "L2", WITH_L2), 2
"""The plain sequence and the arms close to every bar, and how many extra seeds they have."""
ASKED_PICTURES, KEPT_PICTURES = 4, 48
"""Pictures of each requested concept and of each concept of the other domain, and pictures of all
retained concepts of the own domain together.
"""
SMOKE_ARMS = (SEQUENTIAL, "TIES", WITH_SELECTION, AT_ONCE)
"""The arms of a smoke test: each regime, and one arm with two regularizers."""
SMOKE_REQUESTS, SMOKE_EVERY = 3, 4
"""A smoke test has this many requests; every fourth retained concept is on its panel, with one
picture.
"""


@dataclass(frozen=True)
class RequestSequence:
    """One sequence of requests under one arm."""

    domain: str
    order: int
    seed: int
    base: str
    arm: str

    @property
    def cut(self) -> bool:
        """Whether it belongs to the declared cut; the full grid measures the others too.

        The cut has all arms in the first order with the first base, those for reference with one
        seed; in the reverse order, and with the second base, three arms with one seed.
        """
        if (self.order, self.base) == (0, FIRST_BASE):
            return self.seed == 0 or self.arm not in (UNHELD, ALL_LAYERS)
        few = self.seed == 0 and self.arm in (SEQUENTIAL, PROJECTION, WITH_L2)
        return few and (self.order, self.base) in ((1, FIRST_BASE), (0, SECOND_BASE))

    def requests(self, smoke: bool) -> tuple[str, ...]:
        """The requested concepts in order."""
        names = sequences()[self.domain][:: -1 if self.order else 1]
        return names[: SMOKE_REQUESTS if smoke else None]

    def settings(self, smoke: bool) -> tuple[RunConfig, SequenceConfig]:
        """The settings of training a request, and those of the sequence."""
        tuned = STYLE_TUNING.get(self.arm, {}) if self.domain == "styles" else {}
        own = EQUAL_BUDGET | KEYS_VALUES | BASES[self.base] | ARMS[self.arm] | tuned
        own |= SMOKE if smoke else {}
        plan = {"pictures": ASKED_PICTURES}
        if "sequence.regime" in own:
            plan["regime"] = own.pop("sequence.regime")
        return settings(self.requests(smoke)[0], seed=self.seed, **own), make_plan(**plan)


def sequences() -> dict[str, tuple[str, ...]]:
    """The requests of each domain; of those that the user brings, domains of two or more.

    Raises:
        ConfigError: the user brings no such domain.
    """
    own = {name: names_of(KINDS[name], usual) for name, usual in SEQUENCES.items()}
    long = {domain: names for domain, names in own.items() if len(names) > 1}
    if not long:
        raise ConfigError(
            "The targets are one of a kind; two or more of a kind are accepted for a sequence.",
            "targets",
        )
    return long


def known() -> list[KnownConcept]:
    """What the model was shown, or what the targets that the user brings name."""
    targets = targets_told()
    model = targets.model if targets else DEFAULT_MODEL
    return [entry for entry in known_concepts(model) if not entry.fresh]


def grid(seeds: int) -> list[RequestSequence]:
    """Every sequence, the declared cut first; arms of the same sequence are adjacent."""
    names = itertools.product(range(seeds + MORE_SEEDS), sequences(), range(2), BASES, ARMS)
    cells = [RequestSequence(domain, order, seed, *way) for seed, domain, order, *way in names]
    chosen = [c for c in cells if c.seed < seeds or (c.cut and c.arm in CONTENDERS)]
    return sorted(chosen, key=lambda cell: (not cell.cut, cell.seed))


def kept(domain: str) -> tuple[str, ...]:
    """The concepts of a domain that neither order requests or uses as an anchor; no training prompt
    names them.
    """
    return _kept(domain, targets_told())


@cache
def _kept(domain: str, targets: Targets | None) -> tuple[str, ...]:
    names = sequences()[domain]
    config = settings(names[0])
    anchors = {
        with_allowed_anchor(config, name, order[:place]).anchor
        for order in (names, names[::-1])
        for place, name in enumerate(order)
    }
    own = [entry.name for entry in known() if entry.kind == KINDS[domain]]
    return tuple(name for name in own if name not in {*names, *anchors})


def panel(domain: str, seed: int, smoke: bool, split: str = "test") -> PanelPrompts:
    """All prompts and seeds that are evaluated in the sequences of a domain: those of the requested
    concepts, and of the retained concepts of both domains.

    Prompts of the other domain that name a requested concept are left out, unless all of a concept
    do. The split "dev" is for tuning settings: it shares no prompt with the test.
    """
    tested = panel(domain, seed, False) if split != "test" else {}
    taken = {prompt.text for prompts in tested.values() for prompt, _ in prompts}
    own, names = kept(domain), sequences()[domain]
    others = [entry.name for entry in known() if entry.kind != KINDS[domain]]
    if smoke:
        names, own, others = names[:SMOKE_REQUESTS], own[::SMOKE_EVERY], others[::SMOKE_EVERY]
    counts = dict.fromkeys([*names, *others], ASKED_PICTURES)
    counts |= dict.fromkeys(own, KEPT_PICTURES // max(len(own), 1))
    numbers = itertools.count(PANEL_SEEDS[split] + 1000 * seed)
    asked = {}
    for name, count in counts.items():
        config = settings(name)
        askable = preview_concept(config).forget.test if split == "test" else tuning_prompts(config)
        prompts = [prompt for prompt in askable if prompt.text not in taken]
        if name in others:
            rows = zip(prompts, named(prompts), strict=True)
            clean = [prompt for prompt, other in rows if other not in sequences()[domain]]
            prompts = clean or prompts
        chosen = evenly_spaced(prompts, 1 if smoke else count)
        asked[name] = tuple(zip(chosen, numbers, strict=False))
    return asked


def named(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """The concept of the other kind that each prompt names, "" where it names none."""
    others = [also_named(prompt, known()) for prompt in prompts]
    return tuple(other.expects if other else "" for other in others)


def looked_at(asked: PanelPrompts, cell: RequestSequence, number: int, smoke: bool) -> PanelPrompts:
    """The prompts that are evaluated after request `number`: at a mark all except those of concepts
    requested later, else those of the requested concept alone.
    """
    names = cell.requests(smoke)
    if number not in marks(names):
        return {} if cell.arm == AT_ONCE else {names[number - 1]: asked[names[number - 1]]}
    return {name: prompts for name, prompts in asked.items() if name not in names[number:]}


def marks(names: Sequence[str]) -> list[int]:
    """Numbers of requests after which the state of this sequence is stored."""
    return [*(mark for mark in REQUEST_MARKS if mark < len(names)), len(names)]


Original = tuple[Request, dict[str, Image.Image]]
"""The original model on a panel: its row, which is the first of every ledger, and its pictures."""


class Paper3(Experiment):
    """Run a sequence of requests. A cell grows by the state after each mark.

    The ledgers, which carry the adapters from one request to the next, stand in `work`. The split
    "dev" has other prompts and seeds than the test, and a folder of its own.
    """

    name = "paper3"

    @property
    def label(self) -> str:
        return self.name if self.extent.split == "test" else f"{self.name}-{self.extent.split}"

    def cells(self) -> list[RequestSequence]:
        first, arms = next(iter(sequences())), SMOKE_ARMS[: 2 if self.extent.targets else None]
        small = [RequestSequence(first, 0, 0, FIRST_BASE, arm) for arm in arms]
        every = [cell for cell in grid(self.seeds) if cell.cut or self.extent.full]
        return self.chosen(every, small.__contains__)

    def config(self, cell: RequestSequence) -> dict[str, Any]:
        run, plan = cell.settings(self.smoke)
        panel_of = self._panel(cell).items()
        asked = {name: [[prompt.text, seed] for prompt, seed in own] for name, own in panel_of}
        return to_json(cell) | {
            "cut": cell.cut,
            "requests": list(cell.requests(self.smoke)),
            "kept": list(kept(cell.domain)),
            "plan": to_json(plan),
            "run": run.command(),
            "base_model": self.model.base_hash,
            "panel": short_hash(asked),
            "split": self.extent.split,
        }

    def lacks(self, cell: RequestSequence, known: Mapping[str, Any]) -> bool:
        return str(len(cell.requests(self.smoke))) not in known

    def shared_by(self, cell: RequestSequence) -> tuple[str, int]:
        return cell.domain, cell.seed

    def prepare(self, cell: RequestSequence) -> Original:
        first, asked = replace(cell, order=0, base=FIRST_BASE, arm=SEQUENTIAL), self._panel(cell)
        folder = self._work / slug(f"original-{cell.domain}-{cell.seed}")
        ledger = opened(folder, *first.settings(self.smoke), asked, self.model.base_hash, ())
        if not ledger.rows:
            result_of(add_original(ledger, self.model, self.judge, prompts=asked))
        pictures = {name: open_png(ledger.picture(0, name)) for name in asked}
        return ledger.rows[0], pictures

    def measure(
        self, cell: RequestSequence, known: dict[str, Any], shared: Original
    ) -> Iterator[dict[str, Any]]:
        states = dict(known)
        for number in marks(cell.requests(self.smoke)):
            if str(number) not in states:
                ledger = self._served(cell, number, shared)
                states[str(number)] = state_of(
                    ledger, number, sequences()[cell.domain], kept(cell.domain)
                )
                yield states

    def line(self, cell: RequestSequence, values: Mapping[str, Any]) -> str:
        last = values[str(len(cell.requests(self.smoke)))]
        said = {name: "–" if last[name] is None else f"{last[name]:.0%}" for name in SHARES}
        shares = "  ".join(f"{name} {share}" for name, share in said.items())
        way = f"{cell.domain}, {cell.base}, {cell.arm}, order {cell.order}, seed {cell.seed}"
        return f"{way}: {shares}"

    def report(self) -> str:
        from .report import write_results

        return write_results(self.folder)

    @cached_property
    def _samplers(self) -> dict[Any, CachedSampler]:
        return defaultdict(CachedSampler)

    @property
    def _work(self) -> Path:
        if self.extent.targets:
            return self.extent.out / f"{self.folder.name}-work"
        return self.extent.out / f"{self.label}-work" if self.smoke else ROOT / "work" / self.label

    def _panel(self, cell: RequestSequence) -> PanelPrompts:
        return panel(cell.domain, cell.seed, self.smoke, self.extent.split)

    def _served(self, cell: RequestSequence, number: int, original: Original) -> Ledger:
        """The ledger of a cell with at least `number` requests, new or continued."""
        names, held_out = cell.requests(self.smoke), kept(cell.domain)
        asked, folder = self._panel(cell), self._work / self.key(cell)
        ledger = opened(folder, *cell.settings(self.smoke), asked, self.model.base_hash, names)
        if not ledger.rows:
            row, pictures = original
            with ledger.locked():
                ledger.base, ledger.prompts = self.model.base_hash, asked
                ledger.add(row, {}, {}, pictures)
        sampler = self._samplers[cell.domain, cell.order, cell.seed]
        for place in range(len(ledger.rows), number + 1):
            request = names[place - 1]
            if cell.arm == AT_ONCE and place not in marks(names):
                postpone(ledger, request, held_out)
                continue
            how = {"prompts": looked_at(asked, cell, place, self.smoke), "held_out": held_out}
            result_of(append(ledger, request, self.model, self.judge, sampler=sampler, **how))
        return ledger


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


def state_of(
    ledger: Ledger, number: int, asked: Sequence[str], left_alone: Sequence[str]
) -> dict[str, Any]:
    """What a cell stores of request `number`: the metrics, the original's shares, and the costs.

    Retained are `left_alone` of the own domain and all concepts of the other one, the same after
    every request; pictures whose prompts name a concept of the whole sequence `asked` are left out.
    """
    row, rows = ledger.rows[number], ledger.rows[: number + 1]
    names = [n for n, seen in row.panel.items() if n in left_alone or seen.kind != row.kind]
    untouched = [rows[0], *(replace(before, panel=rows[0].panel) for before in rows[1:])]
    original = request_metrics(untouched, names, asked)[-1]
    shown = {
        "ua": [row.panel[before.concept].right for before in rows[1:]],
        "ra_i": counted(row, names, asked, True).values(),
        "ra_c": counted(row, names, asked, False).values(),
    }
    return to_json(request_metrics(rows, names, asked)[-1]) | {
        "original": {name: getattr(original, name) for name in SHARES},
        "pictures": {name: bits(itertools.chain(*right)) for name, right in shown.items()},
        "seconds": row.seconds,
        "cumulative_s": round(sum(seconds_of(rows)), 2),
        "steps": sum(before.steps for before in rows),
        "notes": list(row.notes),
        "threads": torch.get_num_threads(),
        "processes": processes(),
    }


def seconds_of(rows: Sequence[Request]) -> list[float]:
    """The seconds of each request; those of a postponed one are interpolated between the trained
    requests before and after it.
    """
    trained = {n: row.seconds for n, row in enumerate(rows) if row.steps or not n}
    return np.interp(range(len(rows)), [*trained], [*trained.values()]).tolist()
