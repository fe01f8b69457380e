"""The main job: how good model and judges are, what unlearning costs, what attacks bring back."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..attacks.runner import controls, result_of
from ..common.atomic_files import write_bytes
from ..common.paths import ROOT
from ..concepts.catalog import known_concepts, preview_concept
from ..evaluation.base_rates import record, relearning_key
from ..models.latent_store import OFF, VARIABLE
from ..pocket.lesson import EASIEST
from ..pocket.measures import (
    generate_scenes,
    generation_scores,
    held_out_scenes,
    judge_scores,
    on_one_prompt,
    on_reconstruction,
    sample_scenes,
)
from ..pocket.world.dataset import rendered, scenes
from ..runs.folder import Run
from ..runs.provenance import peak_memory_gb
from ..runs.workflow import run
from ..settings.events import AttackCheckpoint
from ..settings.groups import CompareConfig, RegularizeConfig
from ..settings.run_config import RunConfig, make_config
from .cells import SMOKE, Experiment, assigned, machines, run_settings, short_hash, stored
from .page.visit import page_times
from .tables import median_of, quote, render

CONCEPTS = tuple(known.name for known in known_concepts() if not known.fresh)
BASE_SEEDS = 6
GENERATED_SEED = 4_000_000
"""Pictures from this seed on were never used to choose anything."""
SAMPLING = {
    "steps": CompareConfig.sampling_steps,
    "guidance_scale": CompareConfig.guidance_scale,
    "first_seed": GENERATED_SEED,
}
RETAIN_GROUPS = ("near", "far")
RUN_BARS = {
    "unlearned": (10, False),
    "near": (10, False),
    "far": (5, False),
    "relearned": (60, True),
}
"""In percent and points, the value that a run may reach at most, or at least where True."""
WITHIN = 9
"""Percent by which a run may miss a bar and still count: one picture of a comparison."""
SHOWN: dict[str, Callable[[bool], Sequence[Any]]] = {
    "rendered": lambda smoke: scenes("held_out", 28 if smoke else 1400, 0),
    "reconstruction": lambda smoke: scenes("held_out", 28 if smoke else 1400, 0)[
        : 4 if smoke else 200
    ],
    "generated": lambda smoke: sample_scenes(1)[::47] if smoke else sample_scenes(2),
    "held-out": lambda smoke: held_out_scenes(4 if smoke else 150),
    "diversity": lambda smoke: range(4 if smoke else 200),
}
"""By measurement of the bundled model, the scenes that are looked at, or repetitions of one prompt;
fewer in a smoke.
"""
TIMED = "cat"
"""The concept by which a whole process and the page are timed."""
RUN, BASE, PROCESS, PAGE = "run", "base", "process", "page"


@dataclass(frozen=True)
class JobPart:
    """One measurement: of the bundled model, a run, a base rate, a whole process, or the page."""

    kind: str
    subject: str = ""
    """The concept of a run, the kind of concept of a base rate."""
    seed: int = 0


class MainJob(Experiment):
    """Everything that the page promises, timed on this machine."""

    name = "main-job"

    def cells(self) -> list[JobPart]:
        concepts = CONCEPTS[:1] if self.smoke else CONCEPTS
        runs = [JobPart(RUN, name, seed) for name in concepts for seed in range(self.seeds)]
        model = [JobPart(kind) for kind in SHOWN]
        return [*model, *runs, *self.base_rates(), JobPart(PROCESS), JobPart(PAGE)]

    def base_rates(self) -> list[JobPart]:
        """The cells of what the default attack teaches of something never seen."""
        count = 1 if self.smoke else BASE_SEEDS
        return [JobPart(BASE, kind, seed) for kind in EASIEST for seed in range(count)]

    def key(self, cell: JobPart) -> str:
        if not cell.subject:
            return cell.kind
        return f"{cell.kind}-{cell.subject.replace(' ', '-')}-{cell.seed}"

    def config(self, cell: JobPart) -> dict[str, Any]:
        base = {"base": self.model.base_hash}
        if cell.kind in (RUN, PROCESS, PAGE):
            run = self._run(cell) if cell.kind == RUN else make_config(TIMED)
            return {"config": in_use(run), "prompts": short_hash(preview_concept(run))} | base
        if cell.kind == BASE:
            run, taught = self._run(cell), make_config(EASIEST[cell.subject][0])
            return {
                "key": relearning_key(run, self.model),
                "prompts": short_hash(preview_concept(taught)),
                "count": run.compare.forget,
                "seed": cell.seed,
                "judge": self.judge.version,
            }
        own = base | {
            "judge": self.judge.version,
            "second": self.second.version,
            "pictures": len(SHOWN[cell.kind](self.smoke)),
        }
        if cell.kind not in ("rendered", "reconstruction"):
            own["sampler"] = SAMPLING
        return own

    def alone(self, cell: JobPart) -> bool:
        return True

    def measure(
        self, cell: JobPart, known: dict[str, Any], shared: None
    ) -> Iterator[Mapping[str, Any]]:
        asked = SHOWN[cell.kind](self.smoke) if cell.kind in SHOWN else ()
        ways = {
            "rendered": lambda: judge_scores(self.judge, rendered(asked), asked),
            "reconstruction": lambda: on_reconstruction(self.model, asked),
            "diversity": lambda: on_one_prompt(self.model, len(asked), **SAMPLING),
            **dict.fromkeys(("generated", "held-out"), lambda: self._quality(asked)),
            RUN: lambda: self._whole_run(cell),
            BASE: lambda: self._taught(cell),
            PROCESS: lambda: whole_process(self.smoke),
            PAGE: page_times,
        }
        yield ways[cell.kind]()

    def line(self, cell: JobPart, values: Mapping[str, Any]) -> str:
        if cell.kind != RUN:
            return " ".join(part for part in (cell.kind, cell.subject) if part)
        shares = {column: own["forget"]["accuracy"] for column, own in values["scores"].items()}
        shown = ", ".join(f"{column} {share:.0%}" for column, share in shares.items())
        return f"{cell.subject}, seed {cell.seed}: {shown}"

    def report(self) -> str:
        found = {cell: stored(self, cell)[0] for cell in self.cells()}
        runs = {cell: values for cell, values in found.items() if cell.kind == RUN}
        parts = {kind.replace("-", "_"): found[JobPart(kind)] for kind in (*SHOWN, PROCESS, PAGE)}
        rows = [measures(values["scores"]) for values in runs.values()]
        text = render(
            "main-job.md",
            **parts,
            runs=runs,
            base=self.rates(),
            of_runs={name: median_of([row[name] for row in rows], ".0f") for name in rows[0]},
            within=statistics.mean(map(near_the_bars, rows)),
            devices=machines(self.folder),
        )
        write_bytes(self.folder.with_name(f"{self.folder.name}.md"), text.encode())
        if self.extent.ships:
            self.record_base_rates()
            source = "Measured by `python -m unlearn_app bench main-job`. "
            quote("main-job", source + text.partition("\n\n| concept")[0])
        return text

    def record_base_rates(self) -> None:
        """Write the stored base rates to the file that ships, where the extent replaces it."""
        if self.extent.ships:
            record("relearning", self.rates())

    def rates(self) -> dict[str, Any]:
        """By kind of concept what the base rate depends on, and right of all pictures by attack
        step, over all seeds.
        """
        found: dict[str, Any] = {}
        for cell in self.base_rates():
            key = relearning_key(self._run(cell), self.model)
            rate = {"config": key, "name": EASIEST[cell.subject][0], "marks": {}}
            marks = found.setdefault(cell.subject, rate)["marks"]
            for step, (right, n) in stored(self, cell)[0].items():
                before = marks.get(step, (0, 0))
                marks[step] = before[0] + right, before[1] + n
        return found

    def _run(self, cell: JobPart) -> RunConfig:
        concept = cell.subject
        if cell.kind == BASE:
            concept = next(known.name for known in known_concepts() if known.kind == cell.subject)
        return make_config(concept, seed=cell.seed, **(SMOKE if self.smoke else {}))

    def _quality(self, shown: Sequence[Any]) -> Any:
        pictures = generate_scenes(self.model, shown, **SAMPLING)
        return generation_scores(self.judge, self.second, pictures, shown)

    def _whole_run(self, cell: JobPart) -> dict[str, Any]:
        """Scores, verdict and timing of one run with the default settings."""
        with tempfile.TemporaryDirectory() as folder:
            result_of(run(self._run(cell), Path(folder) / "run", model=self.model))
            made = Run.open(Path(folder) / "run").record
        return {key: made[key] for key in ("scores", "verdict", "timing")}

    def _taught(self, cell: JobPart) -> dict[str, tuple[int, int]]:
        """How often something never seen is shown by attack step when the default adversary teaches
        it: right of n.
        """
        config, marks = self._run(cell), {}
        for event in controls(self.model, preview_concept(config), config, self.judge):
            if isinstance(event, AttackCheckpoint) and event.step:
                score = event.scores["forget"]
                marks[str(event.step)] = score.hits, score.n
        return marks


def in_use(config: RunConfig) -> dict[str, Any]:
    """The settings that a run depends on."""
    used = {"resist": config.resist.on, "regularize": config.regularize != RegularizeConfig()}
    return {name: value for name, value in run_settings(config).items() if used.get(name, True)}


def whole_process(smoke: bool) -> dict[str, Any]:
    """Wall time and peak memory of `run --preset fast`, from process start to the written folder,
    where nothing was sampled before.
    """
    command = [sys.executable, "-m", "unlearn_app", "run", "--concept", TIMED]
    command += assigned(SMOKE if smoke else {})
    with tempfile.TemporaryDirectory() as folder:
        command += ["--out", f"{folder}/run"]
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {VARIABLE: OFF}, capture_output=True, text=True
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return {"seconds": seconds, "peak_gb": peak_memory_gb(of_ended_child=True) or 0.0}


def measures(scores: Mapping[str, Any]) -> dict[str, float]:
    """What `RUN_BARS` limits, from the scores of a run: how much of the concept each column shows,
    in percent, and what forgetting costs of the retain groups, in points.
    """
    shown = {
        column: {group: 100 * own["accuracy"] for group, own in groups.items()}
        for column, groups in scores.items()
    }
    lost = {group: shown["original"][group] - shown["unlearned"][group] for group in RETAIN_GROUPS}
    return {column: groups["forget"] for column, groups in shown.items()} | lost


def near_the_bars(row: Mapping[str, float]) -> bool:
    """Whether what a run shows and loses, in percent and points, is within `WITHIN` of all bars."""
    return all(
        row[name] >= bar - WITHIN if at_least else row[name] <= bar + WITHIN
        for name, (bar, at_least) in RUN_BARS.items()
    )
