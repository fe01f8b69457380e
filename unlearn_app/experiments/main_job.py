"""The table of the main job: how good model and judge are, what forgetting costs, what the attack brings back."""

import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..attacks.controls import controls
from ..common.json_values import to_json
from ..common.paths import POCKET
from ..concepts.catalog import preview_concept
from ..evaluation.base_rates import record, relearning_key
from ..evaluation.judges import Scorer
from ..evaluation.statistics import wilson
from ..models.catalog import load_backend
from ..models.protocols import Backend
from ..pocket.dataset import scenes
from ..pocket.latents import pictures_to_tensor
from ..pocket.lesson import EASIEST
from ..pocket.measures import held_out_rows, judge_pictures, paint_scenes, reconstruction_psnr, sample_scenes
from ..pocket.world import Scene, render
from ..runs.folder import Run
from ..runs.workflow import run
from ..settings.events import GROUPS, Mark
from ..settings.groups import CompareConfig, RegularizeConfig
from ..settings.run_config import RunConfig, make_config
from .cells import ROOT, SMOKE, cell, own_share, quote_in_readme
from .page import page_times

CONCEPTS = ("cat", "car", "knife", "robot", "van gogh", "neon", "mosaic")
BASE_SEEDS = 10
UNSEEN_SEED, GENERATED_SEED = 77, 4_000_000
"""Renderings and pictures of these seeds were never used in training, nor to choose anything."""


def run_bench(out: Path, seeds: int = 3, smoke: bool = False) -> Iterator[str]:
    """Measure or resume every cell under `out/main-job`, write `out/main-job.md`, and yield lines to print.

    Of several processes one does it all: it times whole runs and the page.
    """
    folder = out / ("main-job-smoke" if smoke else "main-job")
    if not own_share([folder], str):
        return
    count = 28 if smoke else 1400
    backend, judge = load_backend(), _judge()
    values: dict[str, Any] = {}
    yield "judge on unseen renderings"
    shared = {"pictures": count, "seed": UNSEEN_SEED, "base": backend.base_hash}
    values["rendered"] = cell(folder, "rendered", shared, lambda: judge_on_renderings(judge, count))
    yield "reconstruction"
    values["reconstruction"] = cell(folder, "reconstruction", shared, lambda: reconstruction(backend, count // 7))
    yield "judge on generated pictures"
    per_pair = 1 if smoke else 2
    asked = {"per_pair": per_pair, "base": backend.base_hash, "steps": 10, "guidance": 3.0}
    values["generated"] = cell(folder, "generated", asked, lambda: judge_on_generated(backend, judge, per_pair, smoke))
    values["runs"] = {}
    for (name, seed), found in _runs(folder, backend, seeds, smoke):
        values["runs"][name, seed] = found
        shown = (f"{c} {found['scores'][c]['forget']['accuracy']:.0%}" for c in ("original", "unlearned", "relearned"))
        yield f"{name}, seed {seed}: {', '.join(shown)}"
    yield "what the same adversary teaches of something never seen"
    key, values["base"] = _base(folder, backend, judge, smoke)
    yield "a whole run in its own process"
    values["process"] = cell(folder, "process", {"base": backend.base_hash}, lambda: whole_process(smoke))
    yield "the page"
    values["page"] = cell(folder, "page", {"base": backend.base_hash}, page_times)
    text = table(values)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{folder.name}.md").write_text(text, encoding="utf-8")
    if not smoke and out.resolve().is_relative_to(ROOT):
        record("relearning", {"config": key, "name": EASIEST[0], "marks": values["base"]})
        painted = 2 * sum(getattr(CompareConfig, group) for group in GROUPS)
        record("pace", statistics.median(run["timing"]["compare_s"] for run in values["runs"].values()) / painted)
        source = "Measured by `python -m unlearn_app bench main-job`. "
        quote_in_readme("main-job", source + text.partition("\n\n| concept")[0])
    yield text


def _runs(folder: Path, backend: Backend, seeds: int, smoke: bool) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    for name, seed in itertools.product(CONCEPTS[:1] if smoke else CONCEPTS, range(1 if smoke else seeds)):
        config = make_config(name, seed=seed, **(SMOKE if smoke else {}))
        asked = {"config": _in_use(config), "base": backend.base_hash}
        yield (
            (name, seed),
            cell(folder, f"run-{name.replace(' ', '-')}-{seed}", asked, partial(one_run, config, backend)),
        )


def _base(
    folder: Path, backend: Backend, judge: Scorer, smoke: bool
) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """What the base rate of the default attack depends on, and the rate by step over all seeds: right of n."""
    config, marks = make_config(CONCEPTS[0], **(SMOKE if smoke else {})), {}
    key = relearning_key(config, backend.base_hash)
    for seed in range(1 if smoke else BASE_SEEDS):
        asked = {"key": key, "count": config.compare.forget, "seed": seed}
        measure = partial(taught_by, backend, judge, replace(config, seed=seed))
        for step, (right, n) in cell(folder, f"base-{seed}", asked, measure).items():
            before = marks.get(step, (0, 0))
            marks[step] = before[0] + right, before[1] + n
    return key, marks


def _in_use(config: RunConfig) -> dict[str, Any]:
    """The settings that a run depends on."""
    used = {"resist": config.resist.on, "regularize": config.regularize != RegularizeConfig()}
    return {name: value for name, value in to_json(config).items() if used.get(name, True)}


def _judge() -> Any:
    from ..evaluation.judges.pocket_judge import PocketJudge

    return PocketJudge.load(POCKET / "judge")


def judge_on_renderings(judge: Any, count: int) -> dict[str, Any]:
    """Judge accuracies on fresh renderings of known objects."""
    shown, pictures = _unseen(count)
    return asdict(judge_pictures(judge, pictures, shown)) | {"n": count}


def reconstruction(backend: Backend, count: int) -> dict[str, Any]:
    """PSNR in dB of encoding and decoding fresh renderings, mean and spread over pictures."""
    psnr = reconstruction_psnr(backend, _unseen(count)[1])
    return {"psnr": psnr.mean().item(), "psnr_sd": psnr.std().item(), "n": count}


def judge_on_generated(backend: Backend, judge: Any, per_pair: int, smoke: bool) -> dict[str, Any]:
    """Judge accuracies on pictures of every object x style by the original model, of every third in a smoke."""
    wanted = sample_scenes(per_pair, GENERATED_SEED)[:: 3 if smoke else 1]
    with backend.active():
        pictures = paint_scenes(backend, wanted, steps=10, guidance_scale=3.0)
    held = held_out_rows(wanted)
    unseen = judge_pictures(judge, pictures[held], [wanted[row] for row in held])
    return asdict(judge_pictures(judge, pictures, wanted)) | {"n": len(wanted), "held_out": asdict(unseen)}


def _unseen(count: int) -> tuple[list[Scene], torch.Tensor]:
    shown = scenes("valid", count, UNSEEN_SEED)
    return shown, pictures_to_tensor(np.stack([np.asarray(render(scene)) for scene in shown]))


def taught_by(backend: Backend, judge: Scorer, config: RunConfig) -> dict[str, tuple[int, int]]:
    """How often something never seen is shown by attack step when the default adversary teaches it: right of n."""
    marks = {}
    for event in controls(backend, preview_concept(config), config, judge, lambda: False):
        if isinstance(event, Mark) and event.step:
            score = event.scores["forget"]
            marks[str(event.step)] = round(score.accuracy * score.n), score.n
    return marks


def one_run(config: Any, backend: Backend) -> dict[str, Any]:
    """Scores, verdict and timing of one run with the default settings."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in run(config, Path(folder) / "run", backend=backend):
            pass
        record = Run.open(Path(folder) / "run").record
    return {key: record[key] for key in ("scores", "verdict", "timing")}


def whole_process(smoke: bool) -> dict[str, Any]:
    """Wall time and peak memory of `run --preset fast`, from process start to the written folder."""
    folder = Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "unlearn_app", "run", "--concept", "cat", "--out", str(folder / "run")]
    command += [word for name, value in (SMOKE if smoke else {}).items() for word in ("--set", f"{name}={value}")]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident_kib(process.pid))
            time.sleep(0.2)
        if process.returncode:
            raise RuntimeError(process.stderr.read().decode()[-500:])
        return {"seconds": time.perf_counter() - started, "peak_gb": peak * 1024 / 1e9}
    finally:
        process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _resident_kib(pid: int) -> int:
    """The process's own high-water mark, 0 where /proc does not exist."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def _spread(numbers: list[float], unit: float = 100.0) -> str:
    return f"{statistics.median(numbers) * unit:.0f} ({min(numbers) * unit:.0f} to {max(numbers) * unit:.0f})"


def _share(stored: dict[str, Any], axis: str) -> str:
    low, high = wilson(stored[axis] * stored["n"], stored["n"])
    return f"{stored[axis]:.1%} ({low:.1%} to {high:.1%})"


def _model_rows(values: dict[str, Any]) -> list[tuple[str, str, str]]:
    rendered, generated, rebuilt = values["rendered"], values["generated"], values["reconstruction"]
    pair = [f"{_share(stored, 'object')} / {_share(stored, 'style')}" for stored in (rendered, generated)]
    held = generated["held_out"]
    composed = f"{held['object']:.1%} / {held['style']:.1%}, n = {held['pictures']}"
    return [
        ("judge on unseen renderings, object / style", "97 % / 98 %", f"{pair[0]}, n = {rendered['n']}"),
        ("judge on generated pictures, object / style", "85 % / 90 %", f"{pair[1]}, n = {generated['n']}"),
        ("the same on held-out compositions", "", composed),
        ("reconstruction of unseen renderings", "22 dB", f"{rebuilt['psnr']:.1f} dB (sd {rebuilt['psnr_sd']:.1f})"),
    ]


def _run_rows(
    runs: dict[tuple[str, int], dict[str, Any]], base: dict[str, tuple[int, int]]
) -> list[tuple[str, str, str]]:
    taught = ", ".join(f"{right / n:.0%} after {step} steps" for step, (right, n) in base.items())

    def accuracies(column: str, group: str) -> list[float]:
        return [r["scores"][column][group]["accuracy"] for r in runs.values()]

    lost = {
        g: [a - b for a, b in zip(accuracies("original", g), accuracies("unlearned", g), strict=True)] for g in GROUPS
    }
    return [
        ("forget accuracy, original, %", "≥ 85", _spread(accuracies("original", "forget"))),
        ("forget accuracy, unlearned, %", "≤ 10", _spread(accuracies("unlearned", "forget"))),
        ("near / far accuracy lost, points", "≤ 10 / ≤ 5", f"{_spread(lost['near'])} / {_spread(lost['far'])}"),
        ("forget accuracy after the default attack, %", "≥ 60", _spread(accuracies("relearned", "forget"))),
        ("the same attack teaching something never seen", "", taught),
    ]


def table(values: dict[str, Any]) -> str:
    """The benchmark as Markdown."""
    process = values["process"]
    spent = f"{process['seconds']:.0f} s, {process['peak_gb']:.1f} GB"
    rows = [
        *_model_rows(values),
        *_run_rows(values["runs"], values["base"]),
        ("`run --preset fast`, whole process", "60 s, 2.5 GB", spent),
        ("page ready / first recorded picture / Stop answered", "8 s / 1 s / 1 s", values["page"]["text"]),
    ]
    head = f"Median (lowest to highest) over {len(values['runs'])} runs; intervals of shares are 95 % Wilson.\n\n"
    lines = ["| measure | bar | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    return head + "\n".join(lines) + "\n\n" + _run_table(values["runs"])


def _run_table(runs: dict[tuple[str, int], dict[str, Any]]) -> str:
    lines = [
        "| concept | seed | forget: original → unlearned → relearned | near: the first two | far: the same | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for (name, seed), stored in runs.items():
        s = {c: {g: f"{v['accuracy']:.0%}" for g, v in groups.items()} for c, groups in stored["scores"].items()}
        cells = [name, str(seed), " → ".join(s[c]["forget"] for c in s)]
        cells += [f"{s['original'][g]} → {s['unlearned'][g]}" for g in ("near", "far")]
        lines.append("| " + " | ".join([*cells, stored["verdict"]["label"]]) + " |")
    return "\n".join(lines) + "\n"
