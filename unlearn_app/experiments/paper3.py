"""The tables of paper 3 (2511.07970): what twelve requests in a row do to a model, and what holds
it together.
"""

import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image

from ..common.errors import OutputError
from ..common.json_values import to_json
from ..common.paths import POCKET
from ..continual.ledger import Ledger, Request, slug
from ..continual.metrics import ContinualMetrics, counted, request_metrics
from ..continual.panel import PanelPrompts, other_kind
from ..continual.sequence import add_original, append, postpone
from ..evaluation.judges import Scorer
from ..evaluation.judges.pocket_judge import PocketJudge
from ..models.catalog import load_backend
from ..models.protocols import Backend
from ..settings.groups import SequenceConfig
from ..settings.run_config import RunConfig
from ..training.latent_dataset import CachedSampler
from .cells import ROOT, grown, own_share, short_hash
from .paper3_claims import SHARES
from .paper3_grid import (
    AT_ONCE,
    FIRST_BASE,
    PLAIN,
    SEQUENCES,
    SMOKE_ARMS,
    Job,
    grid,
    kept,
    looked_at,
    marks,
    panel,
)
from .paper3_tables import write_results

WORK = ROOT / "work"


def run_bench(
    out: Path, seeds: int = 3, smoke: bool = False, full: bool = False, split: str = "test"
) -> Iterator[str]:
    """Measure or resume the cells under `out/paper3`, write tables and figure beside them, and
    yield lines to print.

    A cell is a sequence and grows by the state after each mark; the ledgers that carry the adapters
    from one request to the next stand in `work`. With `split` "dev" everything is judged by prompts
    and seeds that the test never uses, in a folder of its own.
    """
    name = "paper3" + ("" if split == "test" else f"-{split}")
    folder = out / (f"{name}-smoke" if smoke else name)
    jobs = [job for job in grid(1 if smoke else seeds) if full or job.cut]
    if smoke:
        first = "objects", 0, 0, FIRST_BASE
        jobs = [
            j for j in jobs if (j.domain, j.order, j.seed, j.base) == first and j.arm in SMOKE_ARMS
        ]
    jobs = own_share(jobs, lambda job: (job.domain, job.seed))
    work = out / f"{name}-work" if smoke else WORK / name
    bench = _Bench(folder, work, load_backend(), PocketJudge.load(POCKET / "judge"), smoke, split)
    for row, job in enumerate(jobs, 1):
        found = bench.measure(job)
        shares = "  ".join(f"{name} {_share(found[name])}" for name in SHARES)
        yield (
            f"{row}/{len(jobs)} {job.domain}, {job.base}, {job.arm}, order {job.order}, seed"
            f" {job.seed}: {shares}"
        )
    yield write_results(folder)


class _Bench:
    """What is the same for all sequences, and what arms of the same sequence share."""

    def __init__(
        self, folder: Path, work: Path, backend: Backend, judge: Scorer, smoke: bool, split: str
    ) -> None:
        self._folder, self._work, self._backend, self._judge = folder, work, backend, judge
        self._smoke, self._split = smoke, split
        self._painter, self._painted = CachedSampler(), ("", 0, 0)

    def measure(self, job: Job) -> dict[str, Any]:
        """The cell of `job`, with a state for every mark; the last one."""
        config, plan = job.settings(self._smoke)
        names = job.requests(self._smoke)
        asked = panel(job.domain, job.seed, self._smoke, self._split)
        key = "-".join([job.domain, str(job.order), str(job.seed), job.base, job.arm])
        wanted = to_json(job) | {
            "cut": job.cut,
            "requests": list(names),
            "kept": list(kept(job.domain)),
        }
        wanted |= {
            "plan": to_json(plan),
            "run": config.command(),
            "base_model": self._backend.base_hash,
        }
        wanted |= {"panel": digest(asked), "split": self._split}
        states: dict[str, Any] = {}
        for number in marks(names):

            def reached(known: dict[str, Any], number: int = number) -> dict[str, Any]:
                if str(number) in known:
                    return known
                ledger = self._served(self._work / slug(key), job, asked, number)
                return known | {
                    str(number): state_of(ledger, number, SEQUENCES[job.domain], kept(job.domain))
                }

            states = grown(self._folder, slug(key), wanted, reached)
        return states[str(len(names))]

    def _served(self, folder: Path, job: Job, asked: PanelPrompts, number: int) -> Ledger:
        """The ledger in `folder` with at least `number` requests, begun or continued."""
        (config, plan), names = job.settings(self._smoke), job.requests(self._smoke)
        ledger = opened(folder, config, plan, asked, self._backend.base_hash, names)
        if not ledger.rows:
            original = self._original(job, asked)
            pictures = {name: Image.open(original.picture(0, name)) for name in asked}
            ledger.base = original.base
            ledger.add(original.rows[0], {}, {}, pictures)
        if self._painted != (job.domain, job.order, job.seed):
            self._painter, self._painted = CachedSampler(), (job.domain, job.order, job.seed)
        for place in range(len(ledger.rows), number + 1):
            if job.arm == AT_ONCE and place not in marks(names):
                postpone(ledger, names[place - 1], kept(job.domain))
                continue
            look = looked_at(asked, job, place, self._smoke)
            how = {"prompts": look, "held_out": kept(job.domain), "sampler": self._painter}
            for _ in append(ledger, names[place - 1], self._backend, self._judge, **how):
                pass
        return ledger

    def _original(self, job: Job, asked: PanelPrompts) -> Ledger:
        """What the original model shows, painted once for all arms of a domain and seed."""
        first = replace(job, order=0, base=FIRST_BASE, arm=PLAIN)
        folder = self._work / slug(f"original-{job.domain}-{job.seed}")
        ledger = opened(folder, *first.settings(self._smoke), asked, self._backend.base_hash, ())
        if not ledger.rows:
            for _ in add_original(ledger, self._backend, self._judge, prompts=asked):
                pass
        return ledger


def digest(asked: PanelPrompts) -> str:
    """A short hash of the pictures that are looked at: every prompt and seed."""
    return short_hash(
        {name: [[prompt.text, seed] for prompt, seed in own] for name, own in asked.items()}
    )


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
    try:
        ledger = Ledger.open(folder)
        if _is_of(ledger, config, plan, asked, base, names):
            return ledger
    except OutputError:
        pass  # there is none, or it is damaged
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
    if (ledger.config, ledger.plan, ledger.names) != (config, plan, tuple(asked)):
        return False
    if not ledger.rows:
        return True
    seen = {name: found.named for name, found in ledger.rows[0].panel.items()}
    wanted = {}
    for name, own in asked.items():
        others = other_kind(config, [prompt for prompt, _ in own])
        wanted[name] = tuple(other.expects if other else "" for other in others)
    requests = [row.concept for row in ledger.requests]
    return (ledger.base, seen, requests) == (base, wanted, list(names[: len(requests)]))


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
    erased = [before.concept for before in rows[1:]]
    shown = {
        "ua": [right for name in erased for right in row.panel[name].right],
        "ra_i": [right for own in counted(row, names, asked, True).values() for right in own],
        "ra_c": [right for own in counted(row, names, asked, False).values() for right in own],
    }
    return to_json(request_metrics(rows, names, asked)[-1]) | {
        "original": _shares(request_metrics(untouched, names, asked)[-1]),
        "pictures": {name: _row(right) for name, right in shown.items()},
        "seconds": row.seconds,
        "cumulative_s": round(sum(seconds_of(rows)), 2),
        "steps": sum(before.steps for before in rows),
        "notes": list(row.notes),
        "threads": torch.get_num_threads(),
        "processes": PartialState().num_processes,
    }


def seconds_of(rows: Sequence[Request]) -> list[float]:
    """What each request took; a postponed one what lies on the line between its neighbours that
    were served.
    """
    served = [number for number, row in enumerate(rows) if row.steps or not number]
    found = [row.seconds for row in rows]
    for before, after in itertools.pairwise(served):
        for number in range(before + 1, after):
            share = (number - before) / (after - before)
            found[number] = rows[before].seconds + share * (
                rows[after].seconds - rows[before].seconds
            )
    return found


def _shares(found: ContinualMetrics) -> dict[str, float | None]:
    return {name: getattr(found, name) for name in SHARES}


def _row(right: Sequence[bool | None]) -> str:
    return "".join(str(int(bool(one))) for one in right)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
