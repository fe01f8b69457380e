"""The report on paper 1: tables, claims with their verdicts, and a figure."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...evaluation.statistics import mean_interval
from ..cells import read_cells
from ..claims import Claim, Pair, grouped, paired
from ..tables import line, render, with_ends, write_report

RETAIN = ("near", "far")
TICKS = {200: (0, 50, 100), 510: (0, 25, 50, 75)}
"""Tick values of the two axes of the figure, by the x coordinate of their zero."""
SUM, NEAR, RESTRICTED = "sum + diversified", "restricted", "restricted + diversified"


@dataclass(frozen=True)
class RemovalResult:
    """One removal, compared with the original on the same prompts and seeds; shares in percent and
    their differences in points.
    """

    tasks: tuple[str, ...]
    target: str
    arm: str
    seed: int
    ua: float
    ra_loss: float
    held_out: float
    """Change of the alignment on held-out retain prompts; `train`: on those of training."""
    train: float
    kid: float
    """Less that of the original's own pictures; `kid_se` is the standard error of the result."""
    kid_se: float
    step_s: float
    conflict: float
    rises: float
    captions: dict[str, float] | None = None
    """Of pictures of the user's captions: change of the alignment, and distances to the original's,
    each less that of the original's own pictures; None where there are no captions.
    """


Results = Sequence[RemovalResult]


def _negative(name: str) -> Callable[[RemovalResult], float]:
    return lambda found: -getattr(found, name)


_FORGOTTEN, _KEPT, _CLOSE = attrgetter("ua"), _negative("ra_loss"), _negative("kid")
_MORE = {"task": "class", "unit": "points"}
CLAIMS = (
    Claim("The restricted gradient keeps more than the sum", RESTRICTED, SUM, _KEPT, **_MORE),
    Claim("It forgets no less than the sum", RESTRICTED, SUM, _FORGOTTEN, **_MORE),
    Claim("A diversified retain set keeps more than near neighbours", RESTRICTED, NEAR, _KEPT,
          **_MORE),
    Claim("The same without the restriction", SUM, "sum", _KEPT, **_MORE),
    Claim("It stays closer to the original's distribution than the sum", RESTRICTED, SUM, _CLOSE,
          task="class", unit="KID"),
    Claim("It forgets more than SalUn", RESTRICTED, "SalUn", _FORGOTTEN, **_MORE),
    Claim("It keeps more than SalUn", RESTRICTED, "SalUn", _KEPT, **_MORE),
    *(
        Claim("Its held-out alignment is better than the sum's", RESTRICTED, SUM,
              lambda found: 100 * found.held_out, task=task, unit="0.01")
        for task in ("style", "unsafe")
    ),
)  # fmt: skip


def read_results(folder: Path) -> list[RemovalResult]:
    """All measured removals of `folder` whose original is measured too."""
    originals: dict[Pair, Any] = {}
    removals = []
    for config, values in read_cells(folder).values():
        if "arm" in config:
            removals.append((config, values))
        elif "target" in config:
            originals[config["target"], config["seed"]] = values
    return [
        _result(config, values, base)
        for config, values in removals
        if (base := originals.get((config["target"], config["seed"])))
    ]


def _result(config: dict[str, Any], values: dict[str, Any], base: dict[str, Any]) -> RemovalResult:
    def accuracy(stored: dict[str, Any], groups: Sequence[str]) -> float:
        right = "".join(stored["right"][group] for group in groups)
        return 100 * right.count("1") / len(right)

    def change(groups: Sequence[str]) -> float:
        pairs = [zip(values["alignment"][g], base["alignment"][g], strict=True) for g in groups]
        return statistics.mean(after - before for pair in pairs for after, before in pair)

    return RemovalResult(
        tuple(config["tasks"]),
        config["target"],
        config["arm"],
        config["seed"],
        ua=100 - accuracy(values, ["forget"]),
        ra_loss=accuracy(base, RETAIN) - accuracy(values, RETAIN),
        held_out=change(RETAIN),
        train=change(["train"]),
        kid=values["kid"] - base["kid"],
        kid_se=math.hypot(values["kid_se"], base["kid_se"]),
        step_s=values["step_s"],
        conflict=100 * values["conflict"],
        rises=100 * max(values["rises"].values()),
        captions={
            name: found - base["captions"][name] for name, found in values["captions"].items()
        }
        if "captions" in values
        else None,
    )


def judged(claim: Claim, found: Results) -> str:
    """One line: the difference paired by target and seed, its 95 % interval, and the verdict."""
    own = [one for one in found if claim.task in one.tasks]
    arms = claim.better, claim.worse
    pairs = paired(own, attrgetter("arm"), arms, attrgetter("target", "seed"))
    if not pairs:
        return line(claim.text, claim.task, "not measured", "–")
    interval = mean_interval([claim.statistic(a) - claim.statistic(b) for a, b in pairs])
    said = f"{with_ends(interval, '+.3g')} {claim.unit}, {len(pairs)} pairs"
    return line(claim.text, claim.task, said, f"**{claim.label(interval)}**")


def by_arm(found: Results) -> dict[str, list[RemovalResult]]:
    """The results of each arm, best first by UA less RA lost."""
    arms = grouped(found, attrgetter("arm")).items()
    costs = {arm: statistics.mean(max(one.ra_loss, 0) - one.ua for one in own) for arm, own in arms}
    return dict(sorted(arms, key=lambda item: costs[item[0]]))


def means_by_target(found: Results, *names: str) -> dict[str, list[float]]:
    """The means of several numbers over the seeds of each target."""
    return {
        target: [statistics.mean(getattr(one, name) for one in own) for name in names]
        for target, own in grouped(found, attrgetter("target")).items()
    }


def _reaches(ua: float, lost: float) -> bool:
    """Whether enough is forgotten and enough kept."""
    return ua >= 90 and lost <= 15


def _reached(found: Results) -> float:
    """The share of targets on which an arm meets both bounds, in percent."""
    means = means_by_target(found, "ua", "ra_loss").values()
    return 100 * statistics.mean(_reaches(*own) for own in means)


def short_of(found: Results) -> list[dict[str, Any]]:
    """Every arm that meets both bounds on less than 80 % of its targets, with those it misses."""
    short = []
    for arm, mine in by_arm(found).items():
        means = means_by_target(mine, "ua", "ra_loss")
        missed = {name: own for name, own in means.items() if not _reaches(*own)}
        if 5 * len(missed) > len(means):
            said = [f"{name} {ua:.0f} / {lost:+.0f}" for name, (ua, lost) in missed.items()]
            short.append({"arm": arm, "missed": len(missed), "of": len(means), "means": said})
    return short


def best_arm(found: Results) -> dict[str, Any] | None:
    """The best arm by medians over classes, and whether it meets the bar for the best;
    None where no arm has three classes.
    """
    ranked = []
    for arm, mine in _classes(found).items():
        means = means_by_target(mine, "ua", "ra_loss", "held_out").values()
        if len(means) >= 3:
            ua, lost, held = map(statistics.median, zip(*means, strict=True))
            met = ua >= 95 and lost <= 3 and abs(held) <= 0.01
            shown = {
                "arm": arm,
                "medians": f"{ua:.1f} / {lost:+.1f} / {held:+.3f}",
                "classes": len(means),
                "met": met,
            }
            ranked.append((met, ua - max(lost, 0.0), arm, shown))
    return max(ranked)[-1] if ranked else None


def _classes(found: Results) -> dict[str, list[RemovalResult]]:
    """The results on classes of each arm."""
    return grouped([one for one in found if "class" in one.tasks], attrgetter("arm"))


def report(folder: Path, found: Results) -> str:
    """The report on the results of `folder`, as Markdown."""
    tasks = dict.fromkeys(task for one in found for task in one.tasks)
    targets = grouped(found, attrgetter("target"))
    seeds = {target: len({one.seed for one in own}) for target, own in targets.items()}
    return render(
        "paper1.md",
        name=folder.name,
        tasks={task: by_arm([one for one in found if task in one.tasks]) for task in tasks},
        error=lambda own: statistics.mean(one.kid_se**2 for one in own) ** 0.5,
        reached=_reached,
        best=best_arm(found),
        short=short_of(found),
        claims=[judged(claim, found) for claim in CLAIMS],
        seeds=max(seeds.values(), default=0),
        fewer={name: count for name, count in seeds.items() if count < max(seeds.values())},
        cost=step_cost(folder),
    )


def write_results(folder: Path) -> str:
    """Write report and figure for the cells in `folder`, and return the report."""
    found = read_results(folder)
    return write_report(folder, report(folder, found), figure(found))


def step_cost(folder: Path) -> dict[str, float] | None:
    """How much longer a step takes under the restricted gradient than under the sum, in percent,
    with its interval; None where it was not measured.
    """
    _, seconds = read_cells(folder).get("step-time", (None, None))
    if seconds is None:
        return None
    ours, theirs = seconds[RESTRICTED], seconds[SUM]
    ratios = [100 * (a / b - 1) for a, b in zip(ours, theirs, strict=True)]
    return {
        **dict(zip(("mean", "low", "high"), mean_interval(ratios), strict=True)),
        "rounds": len(ratios),
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
    }


def figure(found: Results) -> str:
    """Class removal: forgetting and what was kept, by arm, with 95 % intervals, as an SVG."""
    arms = []
    for arm, mine in _classes(found).items():
        ua = _mark([one.ua for one in mine], 200, (0, 100), "#d96a10")
        lost = _mark([one.ra_loss for one in mine], 510, (-5, 95), "#2a86d1")
        arms.append({"name": arm, "marks": [ua, lost]})
    ticks = [(left + 2.4 * v, v) for left, values in TICKS.items() for v in values]
    return render("paper1.svg", arms=arms, ticks=ticks)


def _mark(
    values: Sequence[float], left: float, ends: tuple[float, float], colour: str
) -> tuple[float, float, float, str]:
    """Where an interval is drawn, clamped to the `ends` of its axis."""
    mean, low, high = (
        round(left + 2.4 * min(max(v, ends[0]), ends[1]), 1) for v in mean_interval(values)
    )
    return low, mean, high, colour
