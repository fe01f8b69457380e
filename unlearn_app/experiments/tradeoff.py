"""The defaults of forgetting: what several settings cost, and what they do to the concept, its
relatives and the rest, on development targets only.
"""

import itertools
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..concepts.catalog import preview_concept
from ..pocket.world.split import DEVELOPMENT_OBJECTS, DEVELOPMENT_STYLES
from ..settings.cost import training_cost
from ..settings.run_config import RunConfig, make_config
from .cells import SMOKE, Experiment, read_cells, run_settings, short_hash
from .known_outcome_models import relearned, scores_of, unlearn
from .main_job import RETAIN_GROUPS, RUN_BARS, WITHIN, near_the_bars
from .tables import line, median_of, render, table, write_report

PARTS = ("modules", "steps", "lr", "batch_size", "pool", "retain_weight")
"""The settings of `unlearn` that are varied."""
Setting = tuple[str, int, float, int, int, float]
GRID: tuple[Setting, ...] = (
    *itertools.product(("cross",), (20, 30, 40), (4e-3,), (4, 8), (16,), (5.0,)),
    *itertools.product(("cross",), (20, 40), (4e-3,), (4,), (8,), (3.0,)),
    ("cross", 40, 4e-3, 4, 0, 5.0),
    ("cross", 30, 4e-3, 8, 8, 3.0),
    *itertools.product(("all",), (20, 40), (2e-3,), (4,), (16,), (5.0,)),
)
KINDS = {"object": DEVELOPMENT_OBJECTS, "style": DEVELOPMENT_STYLES}
ORIGINAL, BACK = "original", "relearned"
Row = dict[str, float]
"""Of one target at one setting: its cost, and percent and points as `RUN_BARS`."""


@dataclass(frozen=True)
class Target:
    """A development target, forgotten at every setting of the grid."""

    concept: str
    seed: int


class Tradeoff(Experiment):
    """Forget every target at every setting, and attack each result; a cell grows by settings."""

    name = "tradeoff"

    def cells(self) -> list[Target]:
        concepts = DEVELOPMENT_OBJECTS + DEVELOPMENT_STYLES
        chosen = concepts[-1:] if self.smoke else concepts
        return [Target(name, seed) for seed in range(self.seeds) for name in chosen]

    def config(self, cell: Target) -> dict[str, Any]:
        run = self._run(cell)
        return {
            "concept": cell.concept,
            "seed": cell.seed,
            "compare": run.compare,
            "attack": run.attack,
            "prompts": short_hash(preview_concept(run)),
            "base": self.model.base_hash,
            "judge": self.judge.version,
        }

    def lacks(self, cell: Target, known: Mapping[str, Any]) -> bool:
        return bool(self._lacking(cell, known))

    def measure(
        self, cell: Target, known: dict[str, Any], shared: None
    ) -> Iterator[dict[str, Any]]:
        found, model = dict(known), self.model
        if ORIGINAL not in found:
            model.drop_adapters()
            found[ORIGINAL] = self._shares(self._run(cell), ORIGINAL)
        for name, config in self._lacking(cell, known).items():
            unlearn(model, config)
            with model.active("unlearn"):
                shares = self._shares(config, "unlearned")
            found[name] = shares | {
                BACK: relearned(model, config, lambda c=config: self._back(c)),
                "cost": training_cost(config),
                "run": short_hash(run_settings(config)),
            }
            model.drop_adapters()
            yield found

    def line(self, cell: Target, values: Mapping[str, Any]) -> str:
        return f"{cell.concept}, seed {cell.seed}: {len(values) - 1} settings"

    def report(self) -> str:
        return write_results(self.folder)

    def _lacking(self, cell: Target, known: Mapping[str, Any]) -> dict[str, RunConfig]:
        """The settings that are not measured, by name."""
        grid = {name_of(values): values for values in (GRID[:1] if self.smoke else GRID)}
        configs = {name: self._run(cell, values) for name, values in grid.items()}
        return {
            name: config
            for name, config in configs.items()
            if known.get(name, {}).get("run") != short_hash(run_settings(config))
        }

    def _run(self, cell: Target, values: Setting | tuple[()] = ()) -> RunConfig:
        varied = {f"unlearn.{part}": value for part, value in zip(PARTS, values, strict=False)}
        changes = (varied | SMOKE) if self.smoke else varied
        return make_config(cell.concept, seed=cell.seed, **changes)

    def _back(self, config: RunConfig) -> float:
        """Percent of pictures in which an attack brought the concept back."""
        scores = scores_of(self.model, config, BACK, self.judge, ("forget",))
        return 100 * scores["forget"].accuracy

    def _shares(self, config: RunConfig, column: str) -> dict[str, float]:
        """Percent of pictures that show what their prompt names, by group."""
        scores = scores_of(self.model, config, column, self.judge)
        return {group: 100 * own.accuracy for group, own in scores.items()}


def name_of(setting: Setting) -> str:
    """A setting as the report names it."""
    layers, *numbers = setting
    return " x ".join([layers, *(format(number, "g") for number in numbers)])


def write_results(folder: Path) -> str:
    """Write a table for each kind of concept and the figure over the stored cells; returns the
    Markdown.
    """
    stored, tables, points = list(read_cells(folder).values()), {}, []
    for kind, names in KINDS.items():
        rows = _by_setting([own for own in stored if own[0]["concept"] in names])
        summed = {name: _summed(own) for name, own in rows.items()}
        best = front({name: (own["cost"], own["within"]) for name, own in summed.items()})
        default = name_of(attrgetter(*PARTS)(make_config(names[0]).unlearn))
        tables[kind] = _table(rows, summed, best, default)
        points += [
            (kind, name, own["cost"], own["within"], name in best) for name, own in summed.items()
        ]
    targets = {kind: {c["concept"] for c, _ in stored} & {*KINDS[kind]} for kind in KINDS}
    text = render(
        "tradeoff.md",
        targets={kind: len(names) for kind, names in targets.items()},
        bars=line(*(f"{name} {bar}" for name, (bar, _) in RUN_BARS.items())),
        tables=tables,
    )
    most = max((cost for _, _, cost, *_ in points), default=1)
    return write_report(folder, text, render("tradeoff.svg", points=points, most=most))


def _table(
    rows: Mapping[str, Sequence[Row]],
    summed: Mapping[str, Row],
    best: Collection[str],
    default: str,
) -> str:
    """A line for each setting, that of the default in bold."""
    lines = [
        [
            f"**{name}**" if name == default else name,
            f"{summed[name]['cost']:,.0f}",
            *(median_of([row[measure] for row in own], ".0f") for measure in RUN_BARS),
            f"{summed[name]['within']:.0%}",
            "yes" if name in best else "",
        ]
        for name, own in rows.items()
    ]
    heads = (
        "layers x steps x rate x batch x pool x retain weight",
        "forward passes",
        "concept shown, %",
        "relatives lost, points",
        "rest lost, points",
        "after the attack, %",
        f"within {WITHIN} of all bars",
        "cheapest of its kind",
    )
    return table(heads, lines)


def front(found: Mapping[str, tuple[float, float]]) -> set[str]:
    """The names for which no other costs less or as little and reaches more, or less and as
    much: the Pareto front of cost against share.
    """
    return {
        name
        for name, (cost, share) in found.items()
        if not any(
            other_cost <= cost and other >= share and (other_cost, other) != (cost, share)
            for other_cost, other in found.values()
        )
    }


def _summed(rows: Sequence[Row]) -> dict[str, float]:
    """The cost of a setting, and the share of its targets within `WITHIN` of all bars."""
    return {
        "cost": statistics.mean(row["cost"] for row in rows),
        "within": statistics.mean(map(near_the_bars, rows)),
    }


def _by_setting(cells: Sequence[tuple[dict, dict]]) -> dict[str, list[Row]]:
    """By setting a row for each target, whose seeds are averaged."""
    found: dict[str, dict[str, list[Row]]] = {}
    for config, values in cells:
        original = values[ORIGINAL]
        for name, own in values.items():
            if name == ORIGINAL:
                continue
            lost = {group: original[group] - own[group] for group in RETAIN_GROUPS}
            known = {"cost": own["cost"]}
            row = known | lost | {"unlearned": own["forget"], BACK: own[BACK]}
            found.setdefault(name, {}).setdefault(config["concept"], []).append(row)
    return {
        name: [
            {part: statistics.mean(row[part] for row in seeds) for part in seeds[0]}
            for seeds in targets.values()
        ]
        for name, targets in found.items()
    }
