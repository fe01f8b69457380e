"""What the cells of paper 1 say: tables, claims with their verdicts, and a figure."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...evaluation.statistics import mean_interval
from ..cells import read_cells
from ..claims import Claim, grouped
from ..tables import render, write_report

RETAIN = ("near", "far")
SUM, NEAR, RESTRICTED = "sum + diversified", "restricted", "restricted + diversified"


@dataclass(frozen=True)
class RemovalResult:
    """One removal beside the original's pictures of the same prompts and seeds; shares in
    points.
    """

    tasks: tuple[str, ...]
    target: str
    arm: str
    seed: int
    known: float
    """Share of forget pictures in which the original shows the concept."""
    ua: float
    ra_loss: float
    held_out: float
    """Change of the alignment on held-out retain prompts, and below on training ones."""
    train: float
    kid: float
    """Above that of the original's own pictures, and the standard error of both."""
    kid_se: float
    step_s: float
    conflict: float
    rises: float


Results = Sequence[RemovalResult]


def _kept(found: RemovalResult) -> float:
    return -found.ra_loss


def _forgotten(found: RemovalResult) -> float:
    return found.ua


def _close(found: RemovalResult) -> float:
    return -found.kid


def _aligned(found: RemovalResult) -> float:
    return 100 * found.held_out


_MORE = {"task": "class", "unit": "points"}
CLAIMS = (
    Claim("The restricted gradient keeps more than the sum", RESTRICTED, SUM, _kept, **_MORE),
    Claim("It forgets no less than the sum", RESTRICTED, SUM, _forgotten, **_MORE),
    Claim("A diversified retain set keeps more than near neighbours", RESTRICTED, NEAR, _kept,
          **_MORE),
    Claim("The same without the restriction", SUM, "sum", _kept, **_MORE),
    Claim("It stays closer to the original's distribution than the sum", RESTRICTED, SUM, _close,
          task="class", unit="KID"),
    Claim("It forgets more than SalUn", RESTRICTED, "SalUn", _forgotten, **_MORE),
    Claim("It keeps more than SalUn", RESTRICTED, "SalUn", _kept, **_MORE),
    *(
        Claim("Its held-out alignment is better than the sum's", RESTRICTED, SUM, _aligned,
              task=task, unit="0.01")
        for task in ("style", "unsafe")
    ),
)  # fmt: skip


def read_results(folder: Path) -> list[RemovalResult]:
    """All measured removals of `folder` whose original is measured too."""
    stored = [
        (config, values) for config, values in read_cells(folder).values() if "target" in config
    ]
    originals = {
        (config["target"], config["seed"]): values
        for config, values in stored
        if "arm" not in config
    }
    return [
        _result(config, values, base)
        for config, values in stored
        if "arm" in config and (base := originals.get((config["target"], config["seed"])))
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
        known=accuracy(base, ["forget"]),
        ua=100 - accuracy(values, ["forget"]),
        ra_loss=accuracy(base, RETAIN) - accuracy(values, RETAIN),
        held_out=change(RETAIN),
        train=change(["train"]),
        kid=values["kid"] - base["kid"],
        kid_se=math.hypot(values["kid_se"], base["kid_se"]),
        step_s=values["step_s"],
        conflict=100 * values["conflict"],
        rises=100 * max(values["rises"].values()),
    )


def judged(claim: Claim, found: Results) -> str:
    """One line: the paired difference by target and seed, its 95 % interval, and what it
    decides.
    """
    sides = [
        {
            (one.target, one.seed): claim.statistic(one)
            for one in found
            if one.arm == arm and claim.task in one.tasks
        }
        for arm in (claim.better, claim.worse)
    ]
    differences = claim.differences(*sides)
    if not differences:
        return f"| {claim.text} | {claim.task} | not measured | – |"
    mean, low, high = interval = mean_interval(list(differences.values()))
    said = f"{mean:+.3g} ({low:+.3g} to {high:+.3g}) {claim.unit}, {len(differences)} pairs"
    return f"| {claim.text} | {claim.task} | {said} | **{claim.label(interval)}** |"


def by_arm(found: Results) -> dict[str, list[RemovalResult]]:
    """The results of each arm, best first by what it forgets less what it costs."""
    arms = grouped(found, attrgetter("arm"))

    def cost(arm: str) -> float:
        return statistics.mean(max(one.ra_loss, 0) - one.ua for one in arms[arm])

    return {arm: arms[arm] for arm in sorted(arms, key=cost)}


def targets_of(found: Results) -> dict[str, list[RemovalResult]]:
    """The results of each target, all seeds together."""
    return grouped(found, attrgetter("target"))


def _reaches(found: Results) -> bool:
    """Whether a method forgets a target and keeps enough, on the mean over seeds."""
    ua, lost = _means(found, "ua", "ra_loss")
    return ua >= 90 and lost <= 15


def _reached(found: Results) -> float:
    """The share of targets that an arm forgets while it keeps enough, in percent."""
    return 100 * statistics.mean(_reaches(many) for many in targets_of(found).values())


def _error(found: Results) -> float:
    """The standard error of a distance of kernels, from those of its cells."""
    return statistics.mean(one.kid_se**2 for one in found) ** 0.5


def _means(found: Results, *names: str) -> list[float]:
    return [statistics.mean(getattr(one, name) for one in found) for name in names]


def short_of(found: Results) -> list[dict[str, Any]]:
    """Every arm that reaches less than 80 % of its targets, with those that it misses."""
    short = []
    for arm, mine in by_arm(found).items():
        targets = targets_of(mine)
        missed = {name: many for name, many in targets.items() if not _reaches(many)}
        if 5 * len(missed) > len(targets):
            means = {name: _means(many, "ua", "ra_loss") for name, many in missed.items()}
            said = ", ".join(f"{name} {ua:.0f} / {lost:+.0f}" for name, (ua, lost) in means.items())
            short.append({"arm": arm, "missed": len(missed), "of": len(targets), "means": said})
    return short


def best_arm(found: Results) -> dict[str, Any] | None:
    """The arm that stands best by medians over classes, and whether it meets the bar for the best;
    None where no arm has three classes.
    """
    arms = []
    classes = [one for one in found if "class" in one.tasks]
    for arm, mine in grouped(classes, attrgetter("arm")).items():
        targets = targets_of(mine).values()
        means = [_means(many, "ua", "ra_loss", "held_out") for many in targets]
        if len(means) >= 3:
            ua, lost, held = map(statistics.median, zip(*means, strict=True))
            met = ua >= 95 and lost <= 3 and abs(held) <= 0.01
            said = f"{ua:.1f} / {lost:+.1f} / {held:+.3f}"
            arms.append((met, ua - max(lost, 0.0), arm, said, len(means)))
    if not arms:
        return None
    met, _, arm, said, count = max(arms)
    return {"arm": arm, "medians": said, "classes": count, "met": met}


def report(folder: Path, found: Results) -> str:
    """The report on the results of `folder`, as Markdown."""
    tasks = dict.fromkeys(task for one in found for task in one.tasks)
    seeds = {target: len({one.seed for one in own}) for target, own in targets_of(found).items()}
    return render(
        "paper1.md",
        name=folder.name,
        tasks={task: by_arm([one for one in found if task in one.tasks]) for task in tasks},
        error=_error,
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
    """What the restriction costs, from rounds in which both rules took turns; None where that was
    not measured.
    """
    stored = read_cells(folder).get("step-time")
    if stored is None:
        return None
    seconds = stored[1]
    ours, theirs = seconds[RESTRICTED], seconds[SUM]
    ratios = [100 * (a / b - 1) for a, b in zip(ours, theirs, strict=True)]
    mean, low, high = mean_interval(ratios)
    medians = {"ours": statistics.median(ours), "theirs": statistics.median(theirs)}
    return {"mean": mean, "low": low, "high": high, "rounds": len(ratios)} | medians


def figure(found: Results) -> str:
    """Class removal: forgetting and what was kept, by arm, with 95 % intervals, as an SVG."""
    arms = []
    classes = [one for one in found if "class" in one.tasks]
    for arm, mine in grouped(classes, attrgetter("arm")).items():
        ua = _mark([r.ua for r in mine], lambda v: 200 + 2.4 * min(max(v, 0), 100), "#d96a10")
        lost = _mark(
            [r.ra_loss for r in mine], lambda v: 510 + 2.4 * min(max(v, -5), 95), "#2a86d1"
        )
        arms.append({"name": arm, "marks": [ua, lost]})
    ticks = [(200 + 2.4 * v, v) for v in (0, 50, 100)]
    ticks += [(510 + 2.4 * v, v) for v in (0, 25, 50, 75)]
    return render("paper1.svg", arms=arms, ticks=ticks)


def _mark(
    values: Sequence[float], place: Callable[[float], float], colour: str
) -> tuple[float, float, float, str]:
    mean, low, high = mean_interval(values)
    return *(round(place(v), 1) for v in (low, mean, high)), colour
