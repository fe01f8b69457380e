"""Which attack is the default: what attacks of several strengths bring back, and what they teach of
the never seen.

An attack that teaches the model what it has never seen proves nothing by bringing a concept back.
So the default is the strongest attack at which never-seen concepts stay rare, on development
targets only.
"""

import itertools
import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..attacks.relearn import Relearn
from ..attacks.runner import attack_context, checkpoints
from ..attacks.unseen import fresh_lesson
from ..common.atomic_files import write_bytes
from ..concepts.catalog import preview_concept
from ..concepts.concept import Concept
from ..evaluation.comparison import comparison_prompts, generate_column, score
from ..evaluation.judges import Scorer
from ..evaluation.judges.loading import load_scorer
from ..models.catalog import load_backend
from ..models.protocols import Backend
from ..pocket.world.split import DEVELOPMENT_FRESH, DEVELOPMENT_OBJECTS, DEVELOPMENT_STYLES
from ..settings.events import Step
from ..settings.groups import AttackConfig
from ..settings.run_config import RunConfig, make_config
from ..training.unlearning import forget
from .cells import SMOKE, cell, own_share

STRENGTHS: tuple[tuple[int, float], ...] = tuple(
    itertools.product((10, 25, 50), (5e-4, 1e-3, 2e-3))
)
"""Steps and learning rates of the attacks; each has its own schedule."""
NEVER_SEEN, BROUGHT_BACK = 0.30, 0.60
"""Bars: the most that an attack may teach of the never seen, and the least that it has to bring
back, as medians.
"""
UNLEARNED = "unlearned"


def run_bench(out: Path, seeds: int = 1, smoke: bool = False) -> Iterator[str]:
    """Measure or resume the cells under `out/calibration`, write `out/calibration.md`, and yield
    lines to print.
    """
    folder = out / ("calibration-smoke" if smoke else "calibration")
    backend, judge = load_backend(), load_scorer("pocket", [])
    strengths = STRENGTHS[:1] if smoke else STRENGTHS
    concepts = (*DEVELOPMENT_OBJECTS, *DEVELOPMENT_STYLES, *DEVELOPMENT_FRESH)
    jobs = list(
        itertools.product(range(1 if smoke else seeds), concepts[-2:] if smoke else concepts)
    )
    for seed, name in own_share(jobs, lambda job: job):
        config = make_config(name, seed=seed, **(SMOKE if smoke else {}))
        asked = {
            "config": config,
            "strengths": strengths,
            "base": backend.base_hash,
            "judge": judge.version,
        }
        found = cell(
            folder,
            f"{name.replace(' ', '-')}-{seed}",
            asked,
            lambda config=config: measure(backend, judge, config, strengths),
        )
        yield f"{name}, seed {seed}: " + ", ".join(
            f"{kind} {right}/{n}" for kind, (right, n) in found.items()
        )
    text = table(folder)
    write_bytes(out / f"{folder.name}.md", text.encode())
    yield text


def measure(
    backend: Backend, judge: Scorer, config: RunConfig, strengths: tuple[tuple[int, float], ...]
) -> dict[str, tuple[int, int]]:
    """How many of how many pictures show the concept, unlearned and after each attack of
    `strengths`.

    What the model has never seen is not unlearned, but taught.
    """
    concept, found = preview_concept(config), {}
    backend.drop_adapters()
    adapter = None
    if concept.name not in DEVELOPMENT_FRESH:
        for _ in forget(backend, concept, config):
            pass
        adapter = backend.adapter_state("unlearn")
        with backend.active("unlearn"):
            found[UNLEARNED] = _shown(backend, judge, concept, config)
    for steps, lr in strengths:
        backend.drop_adapters()
        if adapter:
            backend.load_adapter("unlearn", adapter)
        attacked = replace(config, attack=replace(config.attack, steps=steps, lr=lr))
        found[f"{steps} x {lr:g}"] = _attacked(backend, judge, concept, attacked)
    backend.drop_adapters()
    return found


def _attacked(
    backend: Backend, judge: Scorer, concept: Concept, config: RunConfig
) -> tuple[int, int]:
    lesson = None
    if concept.name in DEVELOPMENT_FRESH:
        lesson = fresh_lesson(config.model, config.attack.pictures, config.seed, concept.name)
    context = attack_context(backend, concept, config, lesson=lesson)
    attack = Relearn(training=config.attack)

    def look(step: Step) -> tuple[int, int]:
        return _shown(backend, judge, concept, config)

    *_, shown = checkpoints(backend, attack, context, look, steps=())
    return shown


def _shown(backend: Backend, judge: Scorer, concept: Concept, config: RunConfig) -> tuple[int, int]:
    prompts = [row for row in comparison_prompts(concept, config.compare) if row[0] == "forget"]
    painted = generate_column(backend, "relearned", prompts, config.compare, config.seed, judge)
    shown = score(painted.pictures)["forget"]
    return round(shown.accuracy * shown.n), shown.n


def table(folder: Path) -> str:
    """The medians over concepts, seeds averaged inside them, as Markdown, with the default
    marked.
    """
    shares = _by_concept(folder)
    known = {name: values for name, values in shares.items() if name not in DEVELOPMENT_FRESH}
    fresh = {name: values for name, values in shares.items() if name in DEVELOPMENT_FRESH}
    default = f"{AttackConfig.steps} x {AttackConfig.lr:g}"
    lines = [
        (
            "| attack: steps x rate | brought back, median (lowest to highest) | never seen, the"
            " same | both bars |"
        ),
        "|---|---|---|---|",
    ]
    for kind in next(iter(shares.values())):
        if kind == UNLEARNED:
            continue
        back, taught = ([values[kind] for values in group.values()] for group in (known, fresh))
        met = bool(back and taught) and _met(back, taught)
        name = f"**{kind}**" if kind == default else kind
        lines.append(f"| {name} | {_spread(back)} | {_spread(taught)} | {'yes' if met else 'no'} |")
    head = (
        f"Development targets only: {len(known)} concepts that were unlearned and {len(fresh)} that"
        f" the model has never seen. Bars: never seen ≤ {NEVER_SEEN:.0%}, brought back ≥"
        f" {BROUGHT_BACK:.0%}. The default is bold.\n\n"
    )
    return head + "\n".join(lines) + "\n"


def _met(back: list[float], taught: list[float]) -> bool:
    return statistics.median(taught) <= NEVER_SEEN and statistics.median(back) >= BROUGHT_BACK


def _by_concept(folder: Path) -> Mapping[str, Mapping[str, float]]:
    """Share of pictures that show the concept, by concept and kind of attack."""
    found: dict[str, dict[str, list[float]]] = {}
    for path in sorted(folder.glob("*.json")):
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values = found.setdefault(stored["config"]["config"]["concept"], {})
        for kind, (right, n) in stored["values"].items():
            values.setdefault(kind, []).append(right / n)
    ordered = sorted(found.items(), key=lambda item: len(item[1]))
    return {
        name: {kind: statistics.mean(v) for kind, v in values.items()} for name, values in ordered
    }


def _spread(shares: list[float]) -> str:
    if not shares:
        return "not measured"
    return f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"
