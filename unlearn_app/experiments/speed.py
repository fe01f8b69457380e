"""What a click costs: forward passes of the denoiser and seconds by stage, and how soon there is a
picture.
"""

import tempfile
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..attacks.runner import result_of
from ..common import registry
from ..continual.sequence import run_request
from ..models.device import processor
from ..models.latent_store import LatentStore
from ..runs.attack_run import run_attacks
from ..runs.folder import Run
from ..runs.workflow import run
from ..settings.attacks import QUICK
from ..settings.cost import GRADIENT
from ..settings.events import AttackCheckpoint, Images, Preview, Stage
from ..settings.presets import DEFAULT_SEQUENCE_OBJECTIVE, request_settings
from ..settings.run_config import RunConfig, make_config, make_plan
from .cells import SMOKE, Experiment, read_cells, run_settings
from .tables import render, table, write_report

CONCEPT = "cat"
BATCH, REPEATS = 32, 10
"""Pictures of a bare forward pass, and how often it is repeated."""
SIDE = 1024
"""Rows of the square matrices by whose product the machine is measured."""
BARE = "bare"
STORES = ("empty", "filled")
SHARED, OTHER_RULE = "shared", "weighted_sum"
"""A store that holds what a run of the same concept by another gradient rule has sampled."""
HOLDS = {
    "empty": "nothing (empty)",
    "filled": "all that the same work asks for (filled)",
    SHARED: "what a run of the same concept by another gradient rule sampled (shared), as of two"
    " visitors one after the other",
}
"""What a store holds, in the report."""
WITH_PICTURES = (Images, Preview, AttackCheckpoint)


@dataclass(frozen=True)
class Work:
    """Something that a visitor asks for, with a store of latents that is empty, filled by the same
    work before, or shared with another run; or the bare forward pass.
    """

    kind: str
    store: str = ""


class Speed(Experiment):
    """Count and time what the page offers, on this machine."""

    name = "speed"

    def cells(self) -> list[Work]:
        kinds, stores = (("run",), STORES[1:]) if self.smoke else (ASKED, STORES)
        asked = [Work(kind, store) for kind in kinds for store in stores]
        return [Work(BARE), *asked, Work("run", SHARED)]

    def config(self, cell: Work) -> dict[str, Any]:
        runs = [run_settings(_config(self.smoke, resists)) for resists in (False, True)]
        machine = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
        return {"base": self.model.base_hash, "runs": runs, "machine": machine}

    def alone(self, cell: Work) -> bool:
        return True

    def measure(
        self, cell: Work, known: dict[str, Any], shared: None
    ) -> Iterator[Mapping[str, Any]]:
        if cell.kind == BARE:
            yield bare_forward(self.model, 1 if self.smoke else REPEATS)
            return
        with (
            tempfile.TemporaryDirectory() as folder,
            _store(self.model, LatentStore(Path(folder) / "latents.sqlite")),
        ):
            if events := self._before(cell, Path(folder) / "before"):
                result_of(events)
            events = ASKED[cell.kind](self, Path(folder) / "counted")
            found = counted(self.model.network, events)
        self.model.drop_adapters()
        yield found

    def _before(self, cell: Work, out: Path) -> Iterator[Any] | None:
        """The work that fills the store; none where it stays empty."""
        if cell.store == SHARED:
            other = replace(_config(self.smoke, resists=False), rule=OTHER_RULE)
            return run(other, out, model=self.model)
        return ASKED[cell.kind](self, out) if cell.store == "filled" else None

    def line(self, cell: Work, values: Mapping[str, Any]) -> str:
        if cell.kind == BARE:
            return f"a forward pass: {1000 * values['seconds']:.1f} ms a picture"
        return f"{cell.kind}, store {cell.store}: {values['forwards']:,} forward passes"

    def report(self) -> str:
        return write_results(self.folder)


@contextmanager
def _store(model: Any, store: LatentStore | None) -> Iterator[None]:
    """A context in which the model keeps its latents in `store`, or nowhere."""
    before, model.store = model.store, store
    try:
        yield
    finally:
        model.store = before


def _config(smoke: bool, resists: bool) -> RunConfig:
    return make_config(CONCEPT, **{"resist.on": resists}, **(SMOKE if smoke else {}))


def _run(job: Speed, out: Path, resists: bool = False) -> Iterator[Any]:
    return run(_config(job.smoke, resists), out, model=job.model)


def _attack(job: Speed, out: Path) -> Iterator[Any]:
    """The attacks alone; the run that they are made on is neither counted nor stored."""
    with _store(job.model, None):
        result_of(_run(job, out))
    return run_attacks(Run.open(out), QUICK, model=job.model)


def _request(job: Speed, out: Path) -> Iterator[Any]:
    """The first request to a ledger, with the defaults of the command `continual`."""
    hold = registry.world(registry.DEFAULT_MODEL).regularization_preset(DEFAULT_SEQUENCE_OBJECTIVE)
    asked = request_settings(hold) | (SMOKE if job.smoke else {})
    config = make_config(CONCEPT, objective=DEFAULT_SEQUENCE_OBJECTIVE, **asked)
    return run_request(config, make_plan(), out, job.model)


ASKED: Mapping[str, Callable[[Speed, Path], Iterator[Any]]] = {
    "run": _run,
    "run that resists": lambda job, out: _run(job, out, resists=True),
    "attacks of quick": _attack,
    "first ledger request": _request,
}


def counted(network: nn.Module, events: Iterator[Any]) -> dict[str, Any]:
    """Forward passes for one picture, and seconds, by stage and in total, of the work that yields
    `events`; a gradient counts as three forward passes.
    """
    forwards, seconds, stage = Counter[str](), Counter[str](), "load"

    def count(_: nn.Module, arguments: tuple) -> None:
        forwards[stage] += len(arguments[0]) * (GRADIENT if torch.is_grad_enabled() else 1)

    begun = last = time.perf_counter()
    first = None
    hook = network.register_forward_pre_hook(count)
    try:
        for event in events:
            moment = time.perf_counter()
            seconds[stage] += moment - last
            last = moment
            if isinstance(event, Stage):
                stage = event.name
            if first is None and isinstance(event, WITH_PICTURES):
                first = moment - begun
    finally:
        hook.remove()
    return {
        "forwards": forwards.total(),
        "seconds": round(last - begun, 3),
        "first_picture": first,
        "forwards_by_stage": dict(forwards),
        "seconds_by_stage": {name: round(spent, 3) for name, spent in seconds.items()},
    }


@torch.no_grad()
def bare_forward(model: Any, repeats: int) -> dict[str, float]:
    """Seconds and GFLOP of a forward pass for one picture in batches of `BATCH`, and the GFLOP/s
    of the machine in a product of matrices of the same precision, each the best of `repeats`.
    """
    draw = torch.Generator().manual_seed(0)
    x_t = torch.randn((BATCH, *model.latent_shape), generator=draw).to(model.device)
    t = torch.full((BATCH,), 500, device=model.device)
    cond = model.encode_text([CONCEPT] * BATCH)
    with FlopCounterMode(display=False) as counter:
        model.predict(x_t, t, cond)
    forward = _fastest(lambda: model.predict(x_t, t, cond), repeats)
    square = torch.randn((SIDE, SIDE), generator=draw).to(model.device)
    if model.mixes:
        square = square.bfloat16()
    product = _fastest(lambda: square @ square, repeats)
    return {
        "seconds": forward / BATCH,
        "gflop": counter.get_total_flops() / BATCH / 1e9,
        "machine_gflops": 2 * SIDE**3 / product / 1e9,
        "bfloat16": bool(model.mixes),
        "processor": processor(),
    }


def _fastest(work: Callable[[], Any], repeats: int) -> float:
    return min(timeit.repeat(work, number=1, repeat=repeats))


def write_results(folder: Path) -> str:
    """Write the table over the stored cells; returns the Markdown."""
    found = {key: values for key, (_, values) in read_cells(folder).items()}
    bare = found.pop(BARE)
    rows = []
    for name, own in found.items():
        kind, _, store = name.rpartition("-")
        least = own["forwards"] * bare["seconds"]
        first = own["first_picture"]
        stages = (
            f"{stage} {count:,} ({own['seconds_by_stage'].get(stage, 0):.1f} s)"
            for stage, count in own["forwards_by_stage"].items()
        )
        rows.append(
            [
                kind.replace("-", " "),
                store,
                f"{own['forwards']:,}",
                f"{own['forwards'] * bare['gflop'] / 1000:.2f}",
                f"{own['seconds']:.1f}",
                f"{own['seconds'] / least:.2f}" if least else "–",
                "–" if first is None else f"{first:.1f}",
                ", ".join(stages),
            ]
        )
    heads = (
        "work",
        "store",
        "forward passes",
        "TFLOP",
        "seconds",
        "seconds over bare ones",
        "first picture, s",
        "by stage",
    )
    used = {name.rpartition("-")[-1] for name in found}
    text = render(
        "speed.md",
        bare=bare,
        batch=BATCH,
        side=SIDE,
        table=table(heads, rows),
        stores=[said for store, said in HOLDS.items() if store in used],
        pictures=any(own["first_picture"] is not None for own in found.values()),
    )
    return write_report(folder, text)
