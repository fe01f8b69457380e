"""What paper 3 is measured on: sequences of requests, arms, and the pictures that are looked at."""

import contextlib
import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...attacks.runner import result_of
from ...common.errors import OutputError
from ...common.images import open_png
from ...common.json_values import to_json
from ...common.paths import ROOT
from ...concepts.catalog import known_concepts, preview_concept, tuning_prompts
from ...concepts.concept import Prompt, also_named, evenly_spaced
from ...continual.ledger import Ledger, Request, slug
from ...continual.metrics import counted, request_metrics
from ...continual.panel import PANEL_SEEDS, PanelPrompts
from ...continual.sequence import add_original, append, postpone
from ...continual.sequence_data import with_allowed_anchor
from ...settings.groups import SequenceConfig, UnlearnConfig
from ...settings.presets import EQUAL_BUDGET, KEYS_VALUES, REGULARIZATION_PRESETS
from ...settings.run_config import RunConfig, make_config, make_plan
from ...training.latent_dataset import CachedSampler
from ..cells import SMOKE, Experiment, short_hash
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
"""In the first order; the second one is the reverse."""
KINDS = {"objects": "object", "styles": "style"}
KNOWN = [entry for entry in known_concepts() if not entry.fresh]
REQUEST_MARKS = (1, 3, 6, 9, 12)
"""Requests after which the state is a cell."""
BASES: dict[str, dict[str, Any]] = {
    "concept ablation": {"objective": "concept_ablation"},
    "EraseDiff": {"objective": "erasediff"},
    "ESD": {"objective": "esd"},
}
FIRST_BASE, SECOND_BASE, _ = BASES
"""The method that every arm is measured with, and the one that some are."""
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
"""The arms that limit how far a sequence of updates moves the model."""
ARMS: dict[str, dict[str, Any]] = {
    SEQUENTIAL: {},
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
STYLE_TUNING: dict[str, dict[str, Any]] = {
    "L2": {"unlearn.lr": 8e-3, "regularize.l2": 8e-3},
    WITH_L2: {"unlearn.lr": 9e-3, "regularize.l2": 8e-3},
}
"""Settings of arms for sequences of styles, which are unlearned more easily than objects."""
CONTENDERS, MORE_SEEDS = (SEQUENTIAL, "L2", WITH_L2), 2
"""The plain sequence and the arms close to every bar, and how many more seeds they have."""
ASKED_PICTURES, KEPT_PICTURES = 4, 48
"""Pictures of each requested concept and of each concept of the other domain; and of all retained
concepts of the own domain together.
"""
SMOKE_ARMS = (SEQUENTIAL, "TIES", WITH_SELECTION, AT_ONCE)
"""The arms of a smoke: each regime, and one with two regularizers."""
SMOKE_EVERY = 4
"""Every how many of the retained concepts is on the panel of a smoke, with one picture."""


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
        """Whether the declared cut holds it; the others wait for the full grid.

        All arms in one order with one base method, those for reference with one seed, contenders
        with more; in the other order, and with a second method, three arms and a seed.
        """
        if (self.order, self.base) == (0, FIRST_BASE):
            return self.seed == 0 or self.arm not in (UNHELD, ALL_LAYERS)
        few = self.seed == 0 and self.arm in (SEQUENTIAL, PROJECTION, WITH_L2)
        return few and (self.order, self.base) in ((1, FIRST_BASE), (0, SECOND_BASE))

    def requests(self, smoke: bool) -> tuple[str, ...]:
        """The requested concepts in order."""
        return SEQUENCES[self.domain][:: -1 if self.order else 1][: 3 if smoke else None]

    def settings(self, smoke: bool) -> tuple[RunConfig, SequenceConfig]:
        """How each request is trained, and how they follow each other."""
        tuned = STYLE_TUNING.get(self.arm, {}) if self.domain == "styles" else {}
        own = EQUAL_BUDGET | KEYS_VALUES | BASES[self.base] | ARMS[self.arm] | tuned
        own |= SMOKE if smoke else {}
        plan = {"pictures": ASKED_PICTURES}
        for name in [name for name in own if name.startswith("sequence.")]:
            plan[name.removeprefix("sequence.")] = own.pop(name)
        return make_config(self.requests(smoke)[0], seed=self.seed, **own), make_plan(**plan)


def grid(seeds: int) -> list[RequestSequence]:
    """Every sequence, the declared cut first; arms of the same sequence follow each other."""
    names = itertools.product(range(seeds + MORE_SEEDS), SEQUENCES, range(2), BASES, ARMS)
    cells = [RequestSequence(domain, order, seed, *way) for seed, domain, order, *way in names]
    chosen = [c for c in cells if c.seed < seeds or (c.cut and c.arm in CONTENDERS)]
    return sorted(chosen, key=lambda cell: (not cell.cut, cell.seed))


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
    own = [entry.name for entry in KNOWN if entry.kind == KINDS[domain]]
    return tuple(name for name in own if name not in {*names, *anchors})


def panel(domain: str, seed: int, smoke: bool, split: str = "test") -> PanelPrompts:
    """All prompts and seeds that are evaluated in the sequences of a domain: of the requested
    concepts, and of the retained ones of both domains.

    Prompts of the other domain name no requested concept where there are such. The split "dev" is
    for tuning settings: it shares no prompt with the test.
    """
    tested = panel(domain, seed, False) if split != "test" else {}
    taken = {prompt.text for prompts in tested.values() for prompt, _ in prompts}
    own, names = kept(domain), SEQUENCES[domain]
    others = [entry.name for entry in KNOWN if entry.kind != KINDS[domain]]
    if smoke:
        names = RequestSequence(domain, 0, seed, "", "").requests(smoke)
        own, others = own[::SMOKE_EVERY], others[::SMOKE_EVERY]
    counts = dict.fromkeys([*names, *others], ASKED_PICTURES)
    counts |= dict.fromkeys(own, KEPT_PICTURES // len(own))
    numbers = itertools.count(PANEL_SEEDS[split] + 1000 * seed)
    asked = {}
    for name, count in counts.items():
        config = make_config(name)
        askable = preview_concept(config).forget.test if split == "test" else tuning_prompts(config)
        prompts = [prompt for prompt in askable if prompt.text not in taken]
        if name in others:
            rows = zip(prompts, named(prompts), strict=True)
            clean = [prompt for prompt, other in rows if other not in SEQUENCES[domain]]
            prompts = clean or prompts
        chosen = evenly_spaced(prompts, 1 if smoke else count)
        asked[name] = tuple(zip(chosen, numbers, strict=False))
    return asked


def named(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """The concept of the other kind that each prompt names, or ""."""
    others = [also_named(prompt, KNOWN) for prompt in prompts]
    return tuple(other.expects if other else "" for other in others)


def looked_at(asked: PanelPrompts, cell: RequestSequence, number: int, smoke: bool) -> PanelPrompts:
    """The prompts that are evaluated after request `number`: at a mark all but those of concepts
    requested later, else those of the requested concept.
    """
    names = cell.requests(smoke)
    if number not in marks(names):
        return {} if cell.arm == AT_ONCE else {names[number - 1]: asked[names[number - 1]]}
    return {name: prompts for name, prompts in asked.items() if name not in names[number:]}


def marks(names: Sequence[str]) -> list[int]:
    """Requests after which the state of a sequence is kept."""
    return [*(mark for mark in REQUEST_MARKS if mark < len(names)), len(names)]


Original = tuple[Request, dict[str, Image.Image]]
"""The scores of the original model on a panel, the first row of every ledger, with its pictures."""


class Paper3(Experiment):
    """Serve a sequence of requests. A cell grows by the state after each mark.

    The ledgers that carry the adapters from one request to the next stand in `work`. With the split
    "dev" everything is judged by prompts and seeds that the test never uses, in a folder of its
    own.
    """

    name = "paper3"

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self._samplers: dict[Any, CachedSampler] = defaultdict(CachedSampler)

    @property
    def label(self) -> str:
        return self.name if self.extent.split == "test" else f"{self.name}-{self.extent.split}"

    def cells(self) -> list[RequestSequence]:
        small = [RequestSequence("objects", 0, 0, FIRST_BASE, arm) for arm in SMOKE_ARMS]
        return self.chosen(grid(self.seeds), small.__contains__)

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
                    ledger, number, SEQUENCES[cell.domain], kept(cell.domain)
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

    @property
    def _work(self) -> Path:
        return self.extent.out / f"{self.label}-work" if self.smoke else ROOT / "work" / self.label

    def _panel(self, cell: RequestSequence) -> PanelPrompts:
        return panel(cell.domain, cell.seed, self.smoke, self.extent.split)

    def _served(self, cell: RequestSequence, number: int, original: Original) -> Ledger:
        """The ledger of a cell with at least `number` requests, begun or continued."""
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
    """The ledger in `folder` where that is whole and of this very sequence, panel and model; else a
    new one.
    """
    with contextlib.suppress(OutputError):  # there is none, or it is damaged
        ledger = Ledger.open(folder)
        if _is_of(ledger, config, plan, asked, base, names):
            return ledger
    shutil.rmtree(folder, ignore_errors=True)
    return Ledger.create(folder, config, plan, list(asked))


def _is_of(
    ledger: Ledger,
    config: RunConfig,
    plan: SequenceConfig,
    asked: PanelPrompts,
    base: str,
    names: Sequence[str],
) -> bool:
    alike = (ledger.config, ledger.plan, ledger.names) == (config, plan, tuple(asked))
    if not alike or not ledger.rows:
        return alike
    seen = {name: found.named for name, found in ledger.rows[0].panel.items()}
    wanted = {name: named([prompt for prompt, _ in own]) for name, own in asked.items()}
    requests = [row.concept for row in ledger.requests]
    same = (ledger.base, seen, requests) == (base, wanted, list(names[: len(requests)]))
    return same and ledger.prompts in ({}, asked)


def state_of(
    ledger: Ledger, number: int, asked: Sequence[str], left_alone: Sequence[str]
) -> dict[str, Any]:
    """What a cell keeps: shares over what no request of the whole sequence `asked` touches, drift
    and costs.

    `left_alone` is kept of the own domain, and so is all of the other one: the same concepts from
    the first request on, so that a curve is about one thing.
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
    """What each request took; a postponed one what lies on the line between its neighbours that
    were trained.
    """
    trained = {n: row.seconds for n, row in enumerate(rows) if row.steps or not n}
    return np.interp(range(len(rows)), [*trained], [*trained.values()]).tolist()
