"""The report on paper 1: what development chose, tables, claims with their verdicts, a figure."""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...concepts.concept import Kind
from ...evaluation.statistics import holm, mean_interval, p_value
from ..cells import read_cells
from ..claims import HELD, MET, Pair, grouped
from ..tables import line, render, with_ends, write_report
from .arms import (
    ARMS,
    DESCENT,
    DESCENTS,
    ESD,
    ESD_EQUAL,
    FINETUNE,
    HARMLESS_ARMS,
    KINDS,
    NEAR,
    ONE_SIDED,
    PRESERVE,
    RGD,
    SALUN,
    SALUN_EQUAL,
    STAGES,
    SUM,
    SUM_DESCENT,
    SUM_NEAR,
    TUNED,
    UNIFORM,
    Setting,
)
from .tuning import Trial, Trials, narrowed

RETAIN = ("near", "far")
TICKS = {240: (0, 50, 100), 550: (0, 25, 50, 75)}
"""Tick values of the two axes of the figure, by the x coordinate of their zero."""
CERTAIN = 0.05
"""A claim is decided where its p-value, adjusted for all of its table, is below this."""


@dataclass(frozen=True)
class RemovalResult:
    """One removal, compared with the original on the same prompts and seeds; shares in percent and
    their differences in points. What an arm has not measured is None.
    """

    kind: Kind
    target: str
    arm: str
    seed: int
    ua: float
    near_lost: float
    far_lost: float
    kept_lost: float
    """Over every other concept, each with the same weight; `near_lost` of the closest relatives."""
    held_out: float
    """Change of the alignment on held-out retain prompts; `train`: on those of training."""
    train: float
    kid: float
    """Less that of the original's own pictures; `kid_se` is the standard error of the result."""
    kid_se: float
    forwards: float
    step_s: float
    conflict: float
    rises: float
    gate: float
    """Share of steps in which the forget term had a gradient."""
    second_ua: float | None = None
    """By the second judge: 100 less the mean probability of the concept."""
    second_held: float | None = None
    """Change of its mean probability of what held-out retain prompts ask for, in points."""
    harmless: Mapping[str, Sequence[float]] | None = None
    """Percent of pictures that are right after each round of harmless fine-tuning, by group, before
    any first.
    """
    captions: Mapping[str, float] | None = None
    """Of pictures of the user's captions: change of the alignment, and distances to the original's,
    each less that of the original's own pictures; None where there are no captions.
    """

    @property
    def returned(self) -> float | None:
        """Points by which the concept is seen more often after all harmless rounds."""
        return self.harmless["forget"][-1] - self.harmless["forget"][0] if self.harmless else None


@dataclass(frozen=True)
class Followed:
    """Both losses of one removal on fixed held-out batches after every step: shares of steps, in
    percent.
    """

    kind: Kind
    target: str
    arm: str
    seed: int
    forget_worse: float
    """Steps with the gate open after which the concept's loss is lower."""
    retain_worse: float
    either_worse: float
    own: float
    """Steps that raise a loss of their own batch, to first order."""
    steps: int
    forget: float
    """The change of the concept's loss over all steps; `retain`: of the retain loss."""
    retain: float


Results = Sequence[RemovalResult]
Found = Sequence[RemovalResult] | Sequence[Followed]


@dataclass(frozen=True)
class Contrast:
    """A sentence about a weighted sum over arms of one number, a mean over targets, which should be
    above `low`; `paper` is the paper's own number for it.
    """

    text: str
    arms: Mapping[str, float]
    number: str
    paper: str = ""
    low: float = 0.0
    sign: int = 1
    """-1 where less of the number is better."""
    unit: str = "points"
    exploratory: bool = False
    words: tuple[str, str] = HELD

    def by_target(self, found: Found) -> dict[str, float]:
        """The sum at each target that has all arms; seeds that all arms have are averaged."""
        values: dict[Pair, dict[str, float]] = {}
        for one in found:
            value = getattr(one, self.number, None)
            if one.arm in self.arms and value is not None:
                values.setdefault((one.target, one.seed), {})[one.arm] = value
        whole = {
            pair: self.sign * sum(weight * own[arm] for arm, weight in self.arms.items())
            for pair, own in values.items()
            if own.keys() == self.arms.keys()
        }
        targets = grouped(whole, lambda pair: pair[0])
        return {
            target: statistics.mean(whole[pair] for pair in pairs)
            for target, pairs in targets.items()
        }

    def seeds(self, found: Found) -> int:
        """The seeds of its arms."""
        return len({one.seed for one in found if one.arm in self.arms})


def _against(better: str, worse: str) -> dict[str, float]:
    return {better: 1.0, worse: -1.0}


_MARGIN = 5.0
"""Points that a share may be lower where the paper has both equal."""
CLAIMS = (
    Contrast(f"The restricted gradient forgets no less than the sum (within {_MARGIN:.0f} points)",
             _against(RGD, SUM), "ua", "UA 100 % and 100 % (table 1)", low=-_MARGIN),
    Contrast("It keeps more than the sum, over everything kept", _against(RGD, SUM), "kept_lost",
             "RA +3.7 points, +1.8 at equal batches (table 1)", sign=-1),
    Contrast("It stays closer to the original's distribution than the sum", _against(RGD, SUM),
             "kid", "FID 7.6 lower (table 1)", sign=-1, unit="KID"),
    Contrast("Its held-out alignment is better than the sum's", _against(RGD, SUM), "held_out",
             "+0.002 nudity, +0.019 artist (table 2)", unit=""),
    Contrast("So is its alignment on training prompts", _against(RGD, SUM), "train",
             "+0.012 nudity, +0.021 artist (table 2)", unit=""),
    Contrast("Its held-out alignment is the original's (within 0.01)", {RGD: 1.0}, "held_out",
             "-0.002 nudity, +0.004 artist (table 2)", low=-0.01, unit=""),
    Contrast("A diversified retain set keeps more than near neighbours", _against(RGD, NEAR),
             "kept_lost", "RA +43.6 points (table 3)", sign=-1),
    Contrast("The same without the restriction", _against(SUM, SUM_NEAR), "kept_lost",
             "RA +9.5 points (table 3)", sign=-1),
    Contrast("The restriction gains more by it than the sum",
             {RGD: 1.0, NEAR: -1.0, SUM: -1.0, SUM_NEAR: 1.0}, "kept_lost",
             "+34.1 points (table 3)", sign=-1),
    Contrast("The restriction keeps more than the sum with near neighbours as well",
             _against(NEAR, SUM_NEAR), "kept_lost", "RA +9.9 points (table 3, case 1)", sign=-1),
    Contrast("A diversified retain set has a better held-out alignment than a uniform one",
             _against(RGD, UNIFORM), "held_out", "+0.031 (table 4)", unit=""),
    Contrast("And on training prompts", _against(RGD, UNIFORM), "train", "+0.024 (table 4)",
             unit=""),
    Contrast("It forgets more than SalUn", _against(RGD, SALUN), "ua", "UA +48.8 points (table 1)"),
    Contrast("It keeps more than SalUn", _against(RGD, SALUN), "kept_lost",
             "RA +33.7 points (table 1)", sign=-1),
    Contrast("Its held-out alignment is better than SalUn's", _against(RGD, SALUN), "held_out",
             "+0.038 nudity, +0.072 artist (table 2)", unit=""),
    Contrast("It forgets more than ESD", _against(RGD, ESD), "ua",
             "0 nudity detections, ESD 48 (figure 4)"),
    Contrast("Its held-out alignment is better than ESD's", _against(RGD, ESD), "held_out",
             "+0.021 nudity, +0.022 artist (table 2)", unit=""),
    Contrast("It forgets more than fine-tuning", _against(RGD, FINETUNE), "ua",
             "UA +78.9 points (table 1)"),
    Contrast("After no step is either held-out loss worse (Adam, as it trains)", {RGD: 1.0},
             "either_worse", "monotonic (theorem 4)", low=-1e-9, sign=-1, unit="% of steps"),
    Contrast("The same by plain gradient descent, as it proves", {DESCENT: 1.0}, "either_worse",
             "monotonic (theorem 4)", low=-1e-9, sign=-1, unit="% of steps"),
    Contrast("Either loss is worse after fewer steps than under the sum (Adam)",
             _against(RGD, SUM), "either_worse", "no number", sign=-1, unit="% of steps",
             exploratory=True),
    Contrast("The same by plain gradient descent", _against(DESCENT, SUM_DESCENT), "either_worse",
             "no number", sign=-1, unit="% of steps"),
)  # fmt: skip
BARS = (
    Contrast("The restricted gradient's UA is at least 95 %", {RGD: 1.0}, "ua", low=95.0,
             unit="%", words=MET),
    Contrast("It loses at most 3 points over everything kept", {RGD: 1.0}, "kept_lost", low=-3.0,
             sign=-1, words=MET),
    Contrast("At most 5 points of near relatives", {RGD: 1.0}, "near_lost", low=-5.0, sign=-1,
             words=MET),
    Contrast("Three rounds of harmless fine-tuning bring back at most 10 points", {RGD: 1.0},
             "returned", low=-10.0, sign=-1, words=MET),
    Contrast("They bring back less than after the sum", _against(RGD, SUM), "returned", sign=-1,
             exploratory=True),
    Contrast("They bring back less than after ESD as published", _against(RGD, ESD), "returned",
             sign=-1, exploratory=True),
    Contrast("It forgets more than SalUn at equal budget", _against(RGD, SALUN_EQUAL), "ua",
             exploratory=True),
    Contrast("It keeps more than SalUn at equal budget", _against(RGD, SALUN_EQUAL), "kept_lost",
             sign=-1, exploratory=True),
    Contrast("It forgets more than ESD at equal budget", _against(RGD, ESD_EQUAL), "ua",
             exploratory=True),
    Contrast("It keeps more than ESD at equal budget", _against(RGD, ESD_EQUAL), "kept_lost",
             sign=-1, exploratory=True),
    Contrast("Two-sided keeps more than one-sided", _against(RGD, ONE_SIDED), "kept_lost", sign=-1,
             exploratory=True),
    Contrast("Two-sided forgets more than one-sided", _against(RGD, ONE_SIDED), "ua",
             exploratory=True),
    Contrast("The preserve term keeps more than the diffusion loss", _against(PRESERVE, RGD),
             "kept_lost", sign=-1, exploratory=True),
    Contrast("It forgets as much", _against(PRESERVE, RGD), "ua", low=-_MARGIN, exploratory=True),
    Contrast("The restricted gradient keeps more near relatives than the sum", _against(RGD, SUM),
             "near_lost", sign=-1, exploratory=True),
    Contrast("And more far concepts", _against(RGD, SUM), "far_lost", sign=-1, exploratory=True),
)  # fmt: skip


def read_results(folder: Path) -> list[RemovalResult]:
    """All measured removals of `folder` whose original is measured too."""
    originals: dict[Pair, Any] = {}
    removals = []
    for config, values in read_cells(folder).values():
        if "arm" in config and "stage" not in config and config["arm"] not in DESCENTS:
            removals.append((config, values))
        elif "target" in config and "arm" not in config:
            originals[config["target"], config["seed"]] = values
    return [
        _result(config, values, base)
        for config, values in removals
        if (base := originals.get((config["target"], config["seed"])))
    ]


def _result(config: dict[str, Any], values: dict[str, Any], base: dict[str, Any]) -> RemovalResult:
    def lost(group: str) -> float:
        return percent(base["right"][group]) - percent(values["right"][group])

    def change(name: str, groups: Sequence[str]) -> float:
        pairs = [zip(values[name][g], base[name][g], strict=True) for g in groups]
        return statistics.mean(after - before for pair in pairs for after, before in pair)

    judged_twice = "second" in values and "second" in base
    return RemovalResult(
        config["kind"],
        config["target"],
        config["arm"],
        config["seed"],
        ua=100 - percent(values["right"]["forget"]),
        near_lost=lost("near"),
        far_lost=lost("far"),
        kept_lost=lost("kept"),
        held_out=change("alignment", RETAIN),
        train=change("alignment", ["train"]),
        kid=values["kid"] - base["kid"],
        kid_se=math.hypot(values["kid_se"], base["kid_se"]),
        forwards=values["forwards"],
        step_s=values["step_s"],
        conflict=100 * values["conflict"],
        rises=100 * max(values["rises"].values(), default=0.0),
        gate=percent(values["gate"]),
        second_ua=100 * (1 - statistics.mean(values["second"]["forget"])) if judged_twice else None,
        second_held=100 * change("second", RETAIN) if judged_twice else None,
        harmless={
            group: [percent(right[group]) for right in values["harmless"]]
            for group in values["harmless"][0]
        }
        if values.get("harmless")
        else None,
        captions={
            name: found - base["captions"][name] for name, found in values["captions"].items()
        }
        if "captions" in values
        else None,
    )


def percent(right: str) -> float:
    """The percentage of ones in a row of 0 and 1; 0 of none."""
    return 100 * right.count("1") / len(right) if right else 0.0


def read_followed(folder: Path) -> list[Followed]:
    """The losses on held-out batches of all removals of `folder` that were followed."""
    return [
        followed(config, values)
        for config, values in read_cells(folder).values()
        if "held_out" in values
    ]


def followed(config: Mapping[str, Any], values: Mapping[str, Any]) -> Followed:
    """On how many steps a held-out loss got worse: that of what is kept rose, or that of the
    concept fell although the step was to raise it.
    """
    forget, retain = values["held_out"]["forget"], values["held_out"]["retain"]
    fell = [
        after < before and gate == "1"
        for (before, after), gate in zip(itertools.pairwise(forget), values["gate"], strict=True)
    ]
    rose = [after > before for before, after in itertools.pairwise(retain)]
    count = max(len(rose), 1)
    return Followed(
        config["kind"],
        config["target"],
        config["arm"],
        config["seed"],
        forget_worse=100 * sum(fell) / count,
        retain_worse=100 * sum(rose) / count,
        either_worse=100 * sum(map(max, fell, rose)) / count,
        own=100 * max(values["rises"].values(), default=0.0),
        steps=len(rose),
        forget=forget[-1] - forget[0],
        retain=retain[-1] - retain[0],
    )


def trial_of(config: Mapping[str, Any], values: Mapping[str, Any]) -> Trial:
    """A trial from its cell."""
    right, aligned = values["right"], values["alignment"]
    return Trial(
        config["arm"],
        config["kind"],
        config["stage"],
        config["target"],
        Setting(*config["setting"]),
        forgotten=1 - percent(right["forget"]) / 100,
        kept=percent(right["near"] + right["far"]) / 100,
        alignment=statistics.mean([*aligned["near"], *aligned["far"]]),
    )


def read_trials(folder: Path) -> Trials:
    """All measured trials of `folder`."""
    found = [
        trial_of(config, values)
        for config, values in read_cells(folder).values()
        if "stage" in config
    ]
    return {(t.arm, t.kind, t.stage, t.target, t.setting): t for t in found}


def tuning_rows(trials: Trials) -> list[dict[str, Any]]:
    """What was tried and chosen for each arm and kind of concept, stage by stage."""
    rows = []
    for arm in TUNED:
        for kind in KINDS:
            own = [t for t in trials.values() if (t.arm, t.kind) == (arm, kind)]
            if own:
                rows.append({"arm": arm, "kind": kind, "trials": len(own), **_told(arm, kind, own)})
    return rows


def _told(arm: str, kind: Kind, own: Sequence[Trial]) -> dict[str, Any]:
    found = narrowed(arm, kind, {(t.arm, t.kind, t.stage, t.target, t.setting): t for t in own})
    stages = []
    for stage, name in enumerate(STAGES):
        scores: dict[float, list[float]] = {}
        for trial in own:
            if trial.stage == stage:
                scores.setdefault(trial.setting[stage], []).append(100 * trial.score)
        best = found[stage][stage] if stage < len(found) else None
        said = [
            (f"**{value:g}: {statistics.mean(some):.0f}**" if value == best else
             f"{value:g}: {statistics.mean(some):.0f}")
            for value, some in sorted(scores.items())
        ]  # fmt: skip
        stages.append({"name": name, "said": ", ".join(said) or "–"})
    steps, lr, strength = found[-1] if found else ARMS[arm].start(kind)
    said = f"{steps} x {lr:g}, {ARMS[arm].strength.name} {strength:g}"
    return {"stages": stages, "chosen": said if len(found) == len(STAGES) else "not yet"}


def decided(
    claims: Sequence[Contrast], found: Found, followed_ones: Sequence[Followed]
) -> list[str]:
    """A row of each claim: its number by kind, its interval over targets, its p-value adjusted for
    all claims of the table that are no exploration, and the verdict.
    """
    values = [claim.by_target(found) or claim.by_target(followed_ones) for claim in claims]
    tests = [p_value([*own.values()], claim.low) for claim, own in zip(claims, values, strict=True)]
    counted = [row for row, claim in enumerate(claims) if not claim.exploratory and values[row]]
    adjusted = dict(zip(counted, holm([tests[row] for row in counted]), strict=True))
    kinds = {one.target: one.kind for one in (*found, *followed_ones)}
    rows = []
    for row, (claim, own) in enumerate(zip(claims, values, strict=True)):
        text = claim.text + (" (exploratory)" if claim.exploratory else "")
        if not own:
            rows.append(line(text, claim.paper or "–", "–", "–", "–", "–", "not tested"))
            continue
        seeds = claim.seeds(found) or claim.seeds(followed_ones)
        p = adjusted.get(row, tests[row])
        rows.append(
            line(
                text,
                claim.paper or "–",
                f"{with_ends(claim_interval(claim, own), '+.3g')} {claim.unit}".strip(),
                " / ".join(_of_kind(claim, own, kinds, kind) for kind in KINDS),
                f"{len(own)}, {seeds}",
                f"{p:.3f}" if p >= 0.001 else "< 0.001",
                f"**{verdict(claim, own, p)}**",
            )
        )
    return rows


def claim_interval(claim: Contrast, own: Mapping[str, float]) -> tuple[float, float, float]:
    """The claim's number as it is stated, not as it is better, with its 95 % interval."""
    single = len(claim.arms) == 1 and claim.sign < 0
    return mean_interval([-value if single else value for value in own.values()])


def _of_kind(
    claim: Contrast, own: Mapping[str, float], kinds: Mapping[str, Kind], kind: Kind
) -> str:
    some = {target: value for target, value in own.items() if kinds.get(target) == kind}
    return format(claim_interval(claim, some)[0] + 0.0, "+.3g") if some else "–"


def verdict(claim: Contrast, own: Mapping[str, float], p: float) -> str:
    """Whether the mean over targets is above the claim's bound, below it, or too close to tell."""
    if p >= CERTAIN:
        return "undecided"
    return claim.words[statistics.mean(own.values()) < claim.low]


def by_arm(found: Results) -> dict[str, list[RemovalResult]]:
    """The results of each arm, best first by UA less what is lost over everything kept."""
    arms = grouped(found, attrgetter("arm")).items()
    costs = {
        arm: statistics.mean(max(one.kept_lost, 0) - one.ua for one in own) for arm, own in arms
    }
    return dict(sorted(arms, key=lambda item: costs[item[0]]))


def means(found: Found, number: str | Callable[[Any], float | None]) -> list[float]:
    """The mean over the seeds of each target of a number, where it is known."""
    read = attrgetter(number) if isinstance(number, str) else number
    targets: dict[str, list[float]] = {}
    for one in found:
        if (value := read(one)) is not None:
            targets.setdefault(one.target, []).append(value)
    return [statistics.mean(own) for own in targets.values()]


def report(folder: Path, found: Results, losses: Sequence[Followed] = ()) -> str:
    """The report on the results of `folder`, as Markdown."""
    kinds = dict.fromkeys(one.kind for one in found)
    return render(
        "paper1.md",
        name=folder.name,
        tuning=tuning_rows(read_trials(folder)),
        stages=STAGES,
        kinds={kind: by_arm([one for one in found if one.kind == kind]) for kind in kinds},
        means=means,
        error=lambda own: statistics.mean(one.kid_se**2 for one in own) ** 0.5,
        seeds=lambda own: len({one.seed for one in own}),
        followed={arm: own for arm in (RGD, SUM, *DESCENTS) if (own := _of(losses, arm))},
        harmless=[row for arm in HARMLESS_ARMS for row in harmless_rows(_of(found, arm), arm)],
        claims=decided(CLAIMS, found, losses),
        bars=decided(BARS, found, losses),
        cost=step_cost(folder),
    )


def _of(found: Found, arm: str) -> list[Any]:
    return [one for one in found if one.arm == arm]


def harmless_rows(own: Results, arm: str) -> list[dict[str, Any]]:
    """The percentage of right pictures after each round of harmless fine-tuning, by group."""
    known = [one for one in own if one.harmless]
    if not known:
        return []
    rounds = range(min(len(one.harmless["forget"]) for one in known))
    return [
        {
            "arm": arm,
            "group": group,
            "rounds": [means(known, lambda one, g=group, n=n: one.harmless[g][n]) for n in rounds],
        }
        for group in known[0].harmless
    ]


def write_results(folder: Path) -> str:
    """Write report and figure for the cells in `folder`, and return the report."""
    found = read_results(folder)
    text = report(folder, found, read_followed(folder))
    return write_report(folder, text, figure(found) if found else "")


def step_cost(folder: Path) -> dict[str, float] | None:
    """How much longer a step takes under the restricted gradient than under the sum, in percent,
    with its interval; None where it was not measured.
    """
    _, seconds = read_cells(folder).get("step-time", (None, None))
    if seconds is None:
        return None
    ours, theirs = seconds[RGD], seconds[SUM]
    ratios = [100 * (a / b - 1) for a, b in zip(ours, theirs, strict=True)]
    return {
        **dict(zip(("mean", "low", "high"), mean_interval(ratios), strict=True)),
        "rounds": len(ratios),
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
    }


def figure(found: Results) -> str:
    """Forgetting and what was lost of everything kept, by arm, with 95 % intervals over targets, as
    an SVG.
    """
    arms = []
    for arm, mine in by_arm(found).items():
        ua = _mark(means(mine, "ua"), 240, (0, 100), "#d96a10")
        lost = _mark(means(mine, "kept_lost"), 550, (-5, 95), "#2a86d1")
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
