"""The table of the main job: how good model and judge are, what forgetting costs, what the attack
brings back.
"""

import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..attacks.runner import controls
from ..common.json_values import to_json
from ..common.paths import POCKET
from ..concepts.catalog import known_concepts, preview_concept
from ..evaluation.base_rates import record, relearning_key
from ..evaluation.judges import Classifier, Scorer
from ..evaluation.judges.second_judge import SecondJudge
from ..evaluation.statistics import wilson
from ..models.catalog import load_backend
from ..models.protocols import Backend
from ..pocket.lesson import EASIEST
from ..pocket.measures import (
    SceneSampler,
    generation_scores,
    held_out_scenes,
    on_one_prompt,
    on_reconstruction,
    on_renderings,
    sample_scenes,
)
from ..pocket.world.dataset import scenes
from ..pocket.world.rendering import Scene
from ..runs.folder import Run
from ..runs.workflow import run
from ..settings.events import GROUPS, AttackCheckpoint
from ..settings.groups import CompareConfig, RegularizeConfig
from ..settings.run_config import RunConfig, make_config
from .cells import ROOT, SMOKE, cell, own_share, quote_in_readme
from .page import page_times

CONCEPTS = tuple(known.name for known in known_concepts() if not known.fresh)
BASE_SEEDS = 6
GENERATED_SEED, HELD_OUT, DIVERSE = 4_000_000, 150, 200
"""Pictures from this seed on were never used to choose anything."""
WITHIN = 0.09
"""One picture of a comparison, as a share: runs within one picture of the bars are counted."""


def run_bench(out: Path, seeds: int = 3, smoke: bool = False) -> Iterator[str]:
    """Measure or resume every cell under `out/main-job`, write `out/main-job.md`, and yield lines
    to print.

    Of several processes one does it all: it times whole runs and the page.
    """
    folder = out / ("main-job-smoke" if smoke else "main-job")
    if not own_share([folder], str):
        return
    backend = load_backend()
    yield "the bundled model"
    values = _of_the_model(folder, backend, smoke)
    values["runs"] = {}
    for (name, seed), found in _runs(folder, backend, seeds, smoke):
        values["runs"][name, seed] = found
        shown = (
            f"{c} {found['scores'][c]['forget']['accuracy']:.0%}"
            for c in ("original", "unlearned", "relearned")
        )
        yield f"{name}, seed {seed}: {', '.join(shown)}"
    yield "what the same adversary teaches of something never seen"
    values["base"] = measure_base_rates(out, smoke)
    yield "a whole run in its own process"
    values["process"] = cell(
        folder, "process", {"base": backend.base_hash}, lambda: whole_process(smoke)
    )
    yield "the page"
    values["page"] = cell(folder, "page", {"base": backend.base_hash}, page_times)
    text = table(values)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{folder.name}.md").write_text(text, encoding="utf-8")
    if not smoke and out.resolve().is_relative_to(ROOT):
        source = "Measured by `python -m unlearn_app bench main-job`. "
        quote_in_readme("main-job", source + text.partition("\n\n| concept")[0])
    yield text


def _of_the_model(folder: Path, backend: Backend, smoke: bool) -> dict[str, Any]:
    """What is measured of the bundled model and its judges, before anything is forgotten."""
    judge, second = _judge(), SecondJudge.load(POCKET / "second")
    count, per_pair = (28, 1) if smoke else (1400, 2)
    shared = {"base": backend.base_hash, "judge": judge.version, "second": second.version}
    sampler = SceneSampler(
        CompareConfig.sampling_steps, CompareConfig.guidance_scale, GENERATED_SEED
    )
    values: dict[str, Any] = {}

    def measured(
        name: str, shown: Sequence[Scene], measure: Callable[[], Any], **asked: Any
    ) -> Any:
        return cell(folder, name, shared | {"pictures": len(shown), **asked}, measure)

    held = scenes("held_out", count, 0)
    values["rendered"] = measured("rendered", held, lambda: on_renderings(judge, held))
    some = held[: count // 7]
    values["reconstruction"] = measured(
        "reconstruction", some, lambda: on_reconstruction(backend, some)
    )
    for name, wanted in (
        ("generated", sample_scenes(per_pair)[:: 8 if smoke else 1]),
        ("held-out", held_out_scenes(8 if smoke else HELD_OUT)),
    ):
        measure = partial(on_generated, backend, judge, second, wanted, sampler)
        values[name] = measured(name, wanted, measure, sampler=sampler)
    same = range(DIVERSE // (8 if smoke else 1))
    measure = partial(on_one_prompt, backend, sampler, len(same))
    values["diversity"] = measured("diversity", same, measure, sampler=sampler)
    return values


def _runs(
    folder: Path, backend: Backend, seeds: int, smoke: bool
) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    for name, seed in itertools.product(
        CONCEPTS[:1] if smoke else CONCEPTS, range(1 if smoke else seeds)
    ):
        config = make_config(name, seed=seed, **(SMOKE if smoke else {}))
        asked = {"config": _in_use(config), "base": backend.base_hash}
        yield (
            (name, seed),
            cell(
                folder,
                f"run-{name.replace(' ', '-')}-{seed}",
                asked,
                partial(one_run, config, backend),
            ),
        )


def measure_base_rates(out: Path, smoke: bool = False) -> dict[str, Any]:
    """What the default attack teaches of something never seen, by kind of concept; shipped where
    `out` is our own.
    """
    folder = out / ("main-job-smoke" if smoke else "main-job")
    backend, judge = load_backend(), _judge()
    rates = {kind: _base(folder, backend, judge, kind, smoke) for kind in EASIEST}
    if not smoke and out.resolve().is_relative_to(ROOT):
        record("relearning", rates)
    return rates


def _base(folder: Path, backend: Backend, judge: Scorer, kind: str, smoke: bool) -> dict[str, Any]:
    """The base rate of the default attack for concepts of `kind`: what it depends on, and right of
    n by step.
    """
    concept = next(known.name for known in known_concepts() if known.kind == kind)
    config, marks = make_config(concept, **(SMOKE if smoke else {})), {}
    key = relearning_key(config, backend.base_hash)
    for seed in range(1 if smoke else BASE_SEEDS):
        asked = {"key": key, "count": config.compare.forget, "seed": seed, "judge": judge.version}
        measure = partial(taught_by, backend, judge, replace(config, seed=seed))
        for step, (right, n) in cell(folder, f"base-{kind}-{seed}", asked, measure).items():
            before = marks.get(step, (0, 0))
            marks[step] = before[0] + right, before[1] + n
    return {"config": key, "name": EASIEST[kind][0], "marks": marks}


def _in_use(config: RunConfig) -> dict[str, Any]:
    """The settings that a run depends on."""
    used = {"resist": config.resist.on, "regularize": config.regularize != RegularizeConfig()}
    return {name: value for name, value in to_json(config).items() if used.get(name, True)}


def _judge() -> Any:
    from ..evaluation.judges.pocket_judge import PocketJudge

    return PocketJudge.load(POCKET / "judge")


def on_generated(
    backend: Backend,
    judge: Scorer,
    second: Classifier,
    wanted: Sequence[Scene],
    sampler: SceneSampler,
) -> dict[str, Any]:
    """Everything measured of pictures of `wanted` by the original model."""
    return generation_scores(judge, second, sampler(backend, wanted), wanted)


def taught_by(backend: Backend, judge: Scorer, config: RunConfig) -> dict[str, tuple[int, int]]:
    """How often something never seen is shown by attack step when the default adversary teaches it:
    right of n.
    """
    marks = {}
    for event in controls(backend, preview_concept(config), config, judge):
        if isinstance(event, AttackCheckpoint) and event.step:
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
    """Wall time and peak memory of `run --preset fast`, from process start to the written
    folder.
    """
    folder = Path(tempfile.mkdtemp())
    command = [
        sys.executable,
        "-m",
        "unlearn_app",
        "run",
        "--concept",
        "cat",
        "--out",
        str(folder / "run"),
    ]
    command += [
        word
        for name, value in (SMOKE if smoke else {}).items()
        for word in ("--set", f"{name}={value}")
    ]
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
    return (
        f"{statistics.median(numbers) * unit:.0f} ({min(numbers) * unit:.0f} to"
        f" {max(numbers) * unit:.0f})"
    )


def _share(stored: dict[str, Any], axis: str) -> str:
    low, high = wilson(stored[axis] * stored["pictures"], stored["pictures"])
    return f"{stored[axis]:.1%} ({low:.1%} to {high:.1%})"


def _model_rows(values: dict[str, Any]) -> list[tuple[str, str, str]]:
    generated, rebuilt = values["generated"], values["reconstruction"]
    judged = generated["judge"]
    by_style, varied = generated["sharpness_by_style"], values["diversity"]
    blurred, speckled = min(by_style, key=by_style.get), max(by_style, key=by_style.get)
    range_of = f"{blurred} {by_style[blurred]:.2f} to {speckled} {by_style[speckled]:.2f}"
    rendered = values["rendered"]
    return [
        (
            "judge on renderings of held-out compositions, object / style",
            "97 % / 98 %",
            (
                f"{_share(rendered, 'object')} / {_share(rendered, 'style')}, n ="
                f" {rendered['pictures']}"
            ),
        ),
        (
            "judge on generated pictures, object / style",
            "99 % / 99 %",
            f"{_share(judged, 'object')} / {_share(judged, 'style')}, n = {judged['pictures']}",
        ),
        (
            "second judge on the same",
            "98 % / 99 %",
            f"{generated['second']['object']:.1%} / {generated['second']['style']:.1%}",
        ),
        (
            "probability of the right object, mean / share below 0.6",
            "≥ 0.95 / ≤ 3 %",
            f"{judged['sure']:.2f} / {judged['unsure']:.1%}",
        ),
        (
            "sharpness: gradient over that of renderings, all / by style",
            "0.95 to 1.1 / 0.85 to 1.2",
            f"{generated['sharpness']:.2f} / {range_of}",
        ),
        (
            "PSNR to the closest rendering, median / worst tenth",
            "≥ 21 / ≥ 17 dB",
            _ratio(generated),
        ),
        (
            "the same on held-out compositions",
            "within 2 dB",
            f"{_ratio(values['held-out'])}, n = {values['held-out']['judge']['pictures']}",
        ),
        (
            "reconstruction of held-out compositions, mean / worst",
            "≥ 29 / ≥ 24 dB",
            (
                f"{rebuilt['mean']:.1f} (sd {rebuilt['sd']:.1f}) / {rebuilt['worst']:.1f} dB, n ="
                f" {rebuilt['pictures']}"
            ),
        ),
        (
            "diversity: rarest value of each offset, over its share in the world",
            "≥ 0.5",
            ", ".join(f"{name} {share:.2f}" for name, share in varied.items()),
        ),
    ]


def _ratio(found: dict[str, Any]) -> str:
    return f"{found['psnr']['median']:.1f} / {found['psnr']['worst_tenth']:.1f} dB"


def _run_rows(
    runs: dict[tuple[str, int], dict[str, Any]], base: dict[str, Any]
) -> list[tuple[str, str, str]]:
    def accuracies(column: str, group: str) -> list[float]:
        return [run["scores"][column][group]["accuracy"] for run in runs.values()]

    forgotten, relearned = accuracies("unlearned", "forget"), accuracies("relearned", "forget")
    lost = {
        g: [
            a - b
            for a, b in zip(accuracies("original", g), accuracies("unlearned", g), strict=True)
        ]
        for g in GROUPS
    }
    within = [
        f <= 0.10 + WITHIN and n <= 0.10 + WITHIN and r <= 0.05 + WITHIN and a >= 0.60 - WITHIN
        for f, n, r, a in zip(forgotten, lost["near"], lost["far"], relearned, strict=True)
    ]
    return [
        ("forget accuracy, original, %", "≥ 85", _spread(accuracies("original", "forget"))),
        ("forget accuracy, unlearned, %", "≤ 10", _spread(forgotten)),
        (
            "near / far accuracy lost, points",
            "≤ 10 / ≤ 5",
            f"{_spread(lost['near'])} / {_spread(lost['far'])}",
        ),
        ("forget accuracy after the default attack, %", "≥ 60", _spread(relearned)),
        (
            "runs within one picture of all four",
            "≥ 90 %",
            f"{sum(within) / len(within):.0%} of {len(within)}",
        ),
        *(
            (
                f"the same attack teaching a never-seen {kind}, {rate['name']}",
                "≤ 30 %",
                ", ".join(
                    f"{right / n:.0%} after {step} steps"
                    for step, (right, n) in rate["marks"].items()
                ),
            )
            for kind, rate in base.items()
        ),
    ]


def table(values: dict[str, Any]) -> str:
    """The benchmark as Markdown."""
    process = values["process"]
    spent = f"{process['seconds']:.0f} s, {process['peak_gb']:.1f} GB"
    rows = [
        *_model_rows(values),
        *_run_rows(values["runs"], values["base"]),
        ("`run --preset fast`, whole process", "60 s, 2.5 GB", spent),
        (
            "page ready / first recorded picture / Stop answered",
            "8 s / 1 s / 1 s",
            values["page"]["text"],
        ),
    ]
    head = (
        f"Median (lowest to highest) over {len(values['runs'])} runs; intervals of shares are 95 %"
        " Wilson.\n\n"
    )
    lines = [
        "| measure | bar | measured |",
        "|---|---|---|",
        *(f"| {a} | {b} | {c} |" for a, b, c in rows),
    ]
    return head + "\n".join(lines) + "\n\n" + _run_table(values["runs"])


def _run_table(runs: dict[tuple[str, int], dict[str, Any]]) -> str:
    lines = [
        (
            "| concept | seed | forget: original → unlearned → relearned | near: the first two |"
            " far: the same | verdict |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for (name, seed), stored in runs.items():
        s = {
            c: {g: f"{v['accuracy']:.0%}" for g, v in groups.items()}
            for c, groups in stored["scores"].items()
        }
        cells = [name, str(seed), " → ".join(s[c]["forget"] for c in s)]
        cells += [f"{s['original'][g]} → {s['unlearned'][g]}" for g in ("near", "far")]
        lines.append("| " + " | ".join([*cells, stored["verdict"]["label"]]) + " |")
    return "\n".join(lines) + "\n"
