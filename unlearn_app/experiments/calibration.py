"""Which attack is the default: how often attacks of several strengths bring a concept back, and how
often they teach one that the model has never seen.

An attack that teaches the model a concept it has never seen proves nothing by bringing a concept
back. So the default is the strongest attack at which never-seen concepts stay rare, on development
targets only.
"""

import itertools
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..pocket.world.split import DEVELOPMENT_FRESH, DEVELOPMENT_OBJECTS, DEVELOPMENT_STYLES
from ..settings.groups import AttackConfig
from ..settings.run_config import RunConfig, make_config
from .cells import SMOKE, Experiment, read_cells, run_settings
from .claims import grouped
from .known_outcome_models import load_only, relearned, scores_of, unlearn
from .tables import median_of, render, table, write_report

STRENGTHS: tuple[tuple[int, float], ...] = tuple(
    itertools.product((10, 25, 50), (5e-4, 1e-3, 2e-3))
)
"""Steps and learning rates of the attacks; each has its own schedule."""
NEVER_SEEN, BROUGHT_BACK = 0.30, 0.60
"""Bars on median shares after an attack: a never-seen concept may show in this share of pictures at
most, an unlearned one has to show in this share at least.
"""
UNLEARNED = "unlearned"


@dataclass(frozen=True)
class Calibrated:
    """A development target under attacks of every strength."""

    concept: str
    seed: int


class Calibration(Experiment):
    """Unlearn a target and attack it with every strength; what the model has never seen is not
    unlearned, but taught.
    """

    name = "calibration"

    def cells(self) -> list[Calibrated]:
        concepts = (*DEVELOPMENT_OBJECTS, *DEVELOPMENT_STYLES, *DEVELOPMENT_FRESH)
        chosen = concepts[-2:] if self.smoke else concepts
        return [Calibrated(name, seed) for seed in range(self.seeds) for name in chosen]

    def config(self, cell: Calibrated) -> dict[str, Any]:
        return {
            "config": run_settings(self._run(cell)),
            "strengths": self._strengths,
            "base": self.model.base_hash,
            "judge": self.judge.version,
        }

    def measure(
        self, cell: Calibrated, known: dict[str, Any], shared: None
    ) -> Iterator[dict[str, tuple[int, int]]]:
        config, model, found, adapter = self._run(cell), self.model, {}, {}

        def shown() -> tuple[int, int]:
            score = scores_of(model, config, "relearned", self.judge, ("forget",))["forget"]
            return score.hits, score.n

        if cell.concept not in DEVELOPMENT_FRESH:
            adapter = unlearn(model, config)
            with model.active("unlearn"):
                found[UNLEARNED] = shown()
        for steps, lr in self._strengths:
            load_only(model, adapter)
            attack = replace(config.attack, steps=steps, lr=lr)
            found[name_of(steps, lr)] = relearned(model, replace(config, attack=attack), shown)
        model.drop_adapters()
        yield found

    def line(self, cell: Calibrated, values: Mapping[str, Any]) -> str:
        said = ", ".join(f"{kind} {right}/{n}" for kind, (right, n) in values.items())
        return f"{cell.concept}, seed {cell.seed}: {said}"

    def report(self) -> str:
        return write_report(self.folder, report(self.folder))

    @property
    def _strengths(self) -> tuple[tuple[int, float], ...]:
        return STRENGTHS[:1] if self.smoke else STRENGTHS

    def _run(self, cell: Calibrated) -> RunConfig:
        return make_config(cell.concept, seed=cell.seed, **(SMOKE if self.smoke else {}))


def name_of(steps: int, lr: float) -> str:
    """An attack as cells and the report name it."""
    return f"{steps} x {lr:g}"


def report(folder: Path) -> str:
    """The medians over concepts, seeds averaged inside them, as Markdown, with the default
    marked.
    """
    shares = _by_concept(folder)
    known = [own for name, own in shares.items() if name not in DEVELOPMENT_FRESH]
    fresh = [own for name, own in shares.items() if name in DEVELOPMENT_FRESH]
    default, rows = name_of(AttackConfig.steps, AttackConfig.lr), []
    for kind in [kind for kind in next(iter(shares.values())) if kind != UNLEARNED]:
        back, taught = [own[kind] for own in known], [own[kind] for own in fresh]
        met = (
            bool(back and taught)
            and statistics.median(taught) <= NEVER_SEEN
            and statistics.median(back) >= BROUGHT_BACK
        )
        name = f"**{kind}**" if kind == default else kind
        rows.append([name, median_of(back), median_of(taught), "yes" if met else "no"])
    heads = (
        "attack: steps x rate",
        "brought back, median (lowest to highest)",
        "never seen, the same",
        "both bars",
    )
    return render(
        "calibration.md",
        known=len(known),
        fresh=len(fresh),
        unlearned=_unlearned(folder),
        never_seen=f"{NEVER_SEEN:.0%}",
        brought_back=f"{BROUGHT_BACK:.0%}",
        table=table(heads, rows),
    )


def _unlearned(folder: Path) -> str:
    """Steps and pictures of the forgetting that the stored cells attack; empty where they only
    teach.
    """
    runs = [config["config"] for config, _ in read_cells(folder).values()]
    found = {
        f"{run['unlearn']['steps']} steps of {run['unlearn']['batch_size']} pictures a term"
        for run in runs
        if run["concept"] not in DEVELOPMENT_FRESH
    }
    return " or ".join(sorted(found))


def _by_concept(folder: Path) -> dict[str, dict[str, float]]:
    """Share of pictures that show the concept, by concept and kind of attack."""
    targets = grouped(read_cells(folder).values(), lambda stored: stored[0]["config"]["concept"])
    return {
        name: {
            kind: statistics.mean(values[kind][0] / values[kind][1] for _, values in own)
            for kind in own[0][1]
        }
        for name, own in targets.items()
    }
