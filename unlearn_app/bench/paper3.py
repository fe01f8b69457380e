"""The tables of paper 3 (2511.07970): what twelve requests in a row do to a model, and what holds it together."""

import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..backend import Backend
from ..catalog import POCKET, known_concepts, load_backend
from ..config import RunConfig, make_config, make_plan
from ..continual import anchored, append, begin
from ..ledger import Ledger, Request, slug, standings
from ..runs import to_json
from ..scorers import Scorer
from ..scorers.pocket_judge import PocketJudge
from ..settings import HOLDS, SequenceConfig
from .cells import ROOT, SMOKE, cell, own_share
from .paper3_tables import BASES, KEPT, MARKS, write_results

SEQUENCES: dict[str, tuple[str, ...]] = {
    "objects": ("cat", "fish", "ship", "burger", "sunflower", "ghost",
                "rabbit", "frog", "airplane", "pizza", "sword", "tree"),
    "styles": ("van gogh", "mosaic", "neon", "pop art", "sketch", "cartoon",
               "watercolor", "stained glass", "blueprint", "woodcut", "vintage", "pointillism"),
}  # fmt: skip
"""In the first order; the second one is the reverse."""
ARMS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "L1": HOLDS["small changes (L1)"],
    "L2": HOLDS["small changes (L2)"],
    "selective": HOLDS["important rows only"],
    "TIES": {"sequence.regime": "independent", "sequence.weight": 1.5},
    "projection": HOLDS["projection"],
    "projection + selective": HOLDS["projection"] | {"regularize.select": 0.5},
    "simultaneous": {"sequence.regime": "simultaneous"},
    "sequential, keys and values": {"unlearn.modules": "keys_values"},
}
"""The last one is the projection's own control: the same layers, nothing held back."""
SMOKE_EVERY = 4
"""Of the known concepts every this many is on the panel of a smoke."""
WORK = ROOT / "work" / "paper3"


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
        """Whether the declared cut holds it; the others wait for the full grid."""
        return self.order == 0 and self.base == next(iter(BASES))

    def requests(self, smoke: bool) -> tuple[str, ...]:
        """What is asked for, in this order."""
        names = SEQUENCES[self.domain][:: -1 if self.order else 1]
        return names[:3] if smoke else names

    def settings(self, smoke: bool) -> tuple[RunConfig, SequenceConfig]:
        """How each request is trained, and how they follow each other."""
        own = BASES[self.base] | ARMS[self.arm] | (SMOKE if smoke else {})
        plan = {n.partition(".")[2]: value for n, value in own.items() if n.startswith("sequence.")}
        run = {name: value for name, value in own.items() if not name.startswith("sequence.")}
        config = make_config(self.requests(smoke)[0], seed=self.seed, **run)
        return config, make_plan(**{"pictures": 1 if smoke else 4} | plan)


def grid(seeds: int) -> list[Job]:
    """Every sequence, the declared cut first."""
    names = itertools.product(range(seeds), SEQUENCES, range(2), BASES, ARMS)
    jobs = [Job(domain, order, seed, base, arm) for seed, domain, order, base, arm in names]
    return sorted(jobs, key=lambda job: (not job.cut, job.seed))


def run_bench(out: Path, seeds: int = 3, smoke: bool = False, full: bool = False) -> Iterator[str]:
    """Measure or resume the cells under `out/paper3`, write tables and figure beside them, and yield lines to print.

    A cell is the state after one request; the ledgers that carry the adapters from one to the next stand in `work`.
    """
    folder = out / ("paper3-smoke" if smoke else "paper3")
    jobs = [job for job in grid(1 if smoke else seeds) if full or job.cut]
    if smoke:
        jobs = [job for job in jobs if job.domain == "objects"]
    jobs = own_share(jobs, lambda job: job)
    backend, judge = load_backend(), PocketJudge.load(POCKET / "judge")
    for row, job in enumerate(jobs, 1):
        found = measure(folder, out / "paper3-work" if smoke else WORK, backend, judge, job, smoke)
        shares = "  ".join(f"{name} {_share(found[name])}" for name in ("ua", "ra_i", "ra_c"))
        yield f"{row}/{len(jobs)} {job.domain}, {job.base}, {job.arm}, order {job.order}, seed {job.seed}: {shares}"
    yield write_results(folder)


def measure(folder: Path, work: Path, backend: Backend, judge: Scorer, job: Job, smoke: bool) -> dict[str, Any]:
    """The cells of `job`, one per request that is looked at; the values of the last one."""
    config, plan = job.settings(smoke)
    names = job.requests(smoke)
    key = "-".join([job.domain, str(job.order), str(job.seed), job.base, job.arm])
    asked = to_json(job) | {"cut": job.cut, "requests": list(names), "plan": to_json(plan)}
    asked |= {"run": config.command(), "base_model": backend.base_hash}
    known = [entry.name for entry in known_concepts() if not entry.fresh]
    panel = list(dict.fromkeys([*names, *known[::SMOKE_EVERY]])) if smoke else known
    values: dict[str, Any] = {}
    for number in [mark for mark in MARKS if mark < len(names)] + [len(names)]:

        def reached(number: int = number) -> dict[str, Any]:
            ledger = served(work / slug(key), config, plan, names[:number], backend, judge, panel)
            return state_of(ledger, number, names)

        values = cell(folder, slug(f"{key}-{number:02d}"), asked | {"number": number}, reached)
    return values


def served(
    folder: Path,
    config: RunConfig,
    plan: SequenceConfig,
    names: tuple[str, ...],
    backend: Backend,
    judge: Scorer,
    panel: Sequence[str],
) -> Ledger:
    """The ledger in `folder` with at least the requests `names`, begun or continued; `panel` is what is looked at."""
    ledger = Ledger.open(folder) if (folder / "ledger.json").exists() else None
    if ledger is None or (ledger.plan, ledger.config) != (plan, config):
        shutil.rmtree(folder, ignore_errors=True)
        ledger = Ledger.create(folder, config, plan, panel)
    if not ledger.rows:
        for _ in begin(ledger, backend, judge):
            pass
    for name in names[len(ledger.requests) :]:
        for _ in append(ledger, name, backend, judge):
            pass
    return ledger


def state_of(ledger: Ledger, number: int, names: tuple[str, ...]) -> dict[str, Any]:
    """What a cell keeps: shares over concepts that the whole sequence leaves alone, drift and costs.

    The same concepts count as retained from the first request on, so that a curve is about one thing.
    """
    row, rows = ledger.rows[number], ledger.rows[: number + 1]
    anchors = {anchored(ledger.config, name, names[:place]).anchor for place, name in enumerate(names)}
    kept = [name for name in ledger.names if name not in names and name not in anchors]
    found = to_json(standings(rows, kept)[-1])
    original = to_json(standings([rows[0], *(_as_first(r, rows[0]) for r in rows[1:])], kept)[-1])
    pictures = {name: "".join(str(int(bool(right))) for right in seen.right) for name, seen in row.panel.items()}
    return found | {
        "original": {name: original[name] for name in KEPT},
        "seconds": row.seconds,
        "cumulative_s": round(sum(r.seconds for r in rows), 2),
        "steps": sum(r.steps for r in rows),
        "right": pictures,
        "kept": kept,
        "notes": list(row.notes),
    }


def _as_first(row: Request, original: Request) -> Request:
    """A request as if the model had not changed."""
    return replace(row, panel=original.panel)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
