"""What a click costs: forward passes of the denoiser and seconds by stage, and how soon there is a
picture.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..attacks.runner import result_of
from ..common import registry
from ..continual.sequence import run_request
from ..models.latent_store import LatentStore
from ..runs.attack_run import run_attacks
from ..runs.folder import Run
from ..runs.workflow import run
from ..settings.attacks import QUICK
from ..settings.cost import GRADIENT
from ..settings.events import AttackCheckpoint, Images, Preview, Stage
from ..settings.presets import DEFAULT_SEQUENCE_OBJECTIVE, request_settings
from ..settings.run_config import make_config, make_plan
from .cells import SMOKE, Experiment, read_cells
from .tables import render, table, write_report

CONCEPT = "cat"
BATCH, REPEATS = 32, 10
"""Pictures of a bare forward pass, and how often it is repeated."""
SIDE = 1024
"""Of the square matrices by whose product the machine is measured."""
BARE = "bare"
STORES = ("empty", "filled")
WITH_PICTURES = (Images, Preview, AttackCheckpoint)


@dataclass(frozen=True)
class Work:
    """Something that a visitor asks for, with a store of latents that is empty or filled by the
    same work; or the bare forward pass.
    """

    kind: str
    store: str = ""


class Speed(Experiment):
    """Count and time what the page offers, on this machine."""

    name = "speed"

    def cells(self) -> list[Work]:
        kinds = ASKED if not self.smoke else ("run",)
        return [Work(BARE), *(Work(kind, store) for kind in kinds for store in STORES)]

    def config(self, cell: Work) -> dict[str, Any]:
        runs = [_config(kind, self.smoke) for kind in ("run", "resist")]
        machine = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
        return {"base": self.model.base_hash, "runs": runs, "machine": machine}

    def alone(self, cell: Work) -> bool:
        return True

    def measure(
        self, cell: Work, known: dict[str, Any], shared: None
    ) -> Iterator[Mapping[str, Any]]:
        if cell.kind == BARE:
            yield bare_forward(self.model)
            return
        with tempfile.TemporaryDirectory() as folder, _own_store(self.model, Path(folder)):
            for turn in range(1 + STORES.index(cell.store)):
                events = ASKED[cell.kind](self, Path(folder) / str(turn))
                found = counted(self.model.network, events)
        self.model.drop_adapters()
        yield found

    def line(self, cell: Work, values: Mapping[str, Any]) -> str:
        if cell.kind == BARE:
            return f"a forward pass: {1000 * values['seconds']:.1f} ms a picture"
        return f"{cell.kind}, store {cell.store}: {values['forwards']:,} forward passes"

    def report(self) -> str:
        return write_results(self.folder)


def _config(kind: str, smoke: bool) -> Any:
    small = SMOKE if smoke else {}
    return make_config(CONCEPT, **({"resist.on": True} if kind == "resist" else {}), **small)


def _run(job: Speed, out: Path, kind: str = "run") -> Iterator[Any]:
    return run(_config(kind, job.smoke), out, model=job.model)


def _attack(job: Speed, out: Path) -> Iterator[Any]:
    """The attacks alone; the run that they are made on is neither counted nor stored."""
    store, job.model.store = job.model.store, None
    try:
        result_of(_run(job, out))
    finally:
        job.model.store = store
    return run_attacks(Run.open(out), QUICK, model=job.model)


def _request(job: Speed, out: Path) -> Iterator[Any]:
    """As `continual` makes it unless the user says otherwise."""
    hold = registry.world(registry.DEFAULT_MODEL).regularization_preset(DEFAULT_SEQUENCE_OBJECTIVE)
    asked = request_settings(hold) | (SMOKE if job.smoke else {})
    config = make_config(CONCEPT, objective=DEFAULT_SEQUENCE_OBJECTIVE, **asked)
    return run_request(config, make_plan(), out, job.model)


ASKED: Mapping[str, Callable[[Speed, Path], Iterator[Any]]] = {
    "run": _run,
    "run that resists": lambda job, out: _run(job, out, "resist"),
    "attacks of quick": _attack,
    "first ledger request": _request,
}


@contextmanager
def _own_store(model: Any, folder: Path) -> Iterator[None]:
    """A store of its own for the model."""
    before, model.store = model.store, LatentStore(folder / "latents.sqlite")
    try:
        yield
    finally:
        model.store = before


def counted(network: nn.Module, events: Iterator[Any]) -> dict[str, Any]:
    """Forward passes for one picture, and seconds, by stage and in all, of the work that yields
    `events`; a gradient counts as three forward passes.
    """
    forwards, seconds, now = Counter[str](), Counter[str](), "load"

    def count(_: nn.Module, arguments: tuple, __: dict[str, Any]) -> None:
        learns = torch.is_grad_enabled()
        forwards[now] += len(arguments[0]) * (GRADIENT if learns else 1)

    begun = last = time.perf_counter()
    first = None
    hook = network.register_forward_pre_hook(count, with_kwargs=True)
    try:
        for event in events:
            moment = time.perf_counter()
            seconds[now] += moment - last
            last = moment
            if isinstance(event, Stage):
                now = event.name
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
def bare_forward(model: Any) -> dict[str, float]:
    """Seconds and 10^9 operations of a forward pass for one picture in batches of `BATCH`, and how
    many a second the machine does in a product of matrices in the same precision.
    """
    draw = torch.Generator().manual_seed(0)
    x_t = torch.randn((BATCH, *model.latent_shape), generator=draw).to(model.device)
    t = torch.full((BATCH,), 500, device=model.device)
    cond = model.encode_text([CONCEPT] * BATCH)
    with FlopCounterMode(display=False) as counter:
        model.predict(x_t, t, cond)
    forward = _fastest(lambda: model.predict(x_t, t, cond))
    square = torch.randn((SIDE, SIDE), generator=draw).to(model.device)
    if model.mixes:
        square = square.bfloat16()
    product = _fastest(lambda: square @ square)
    return {
        "seconds": forward / BATCH,
        "gflop": counter.get_total_flops() / BATCH / 1e9,
        "machine_gflops": 2 * SIDE**3 / product / 1e9,
        "bfloat16": bool(model.mixes),
    }


def _fastest(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


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
    text = render("speed.md", bare=bare, batch=BATCH, side=SIDE, table=table(heads, rows))
    return write_report(folder, text)
