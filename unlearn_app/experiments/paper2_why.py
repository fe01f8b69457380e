"""What the report of paper 2 says of its numbers, what was tried for the bar, and our reading of
why it is not met.
"""

from collections.abc import Collection

from .paper2_grid import (
    ATTACKS,
    BASES,
    COUNT,
    CUT_STEPS,
    FRESH,
    HARMLESS,
    MARKS,
    NONE,
    SEEDS,
    Job,
    grid,
)

INTRODUCTION = (
    "Share of held-out pictures in which the judge sees the concept, in percent, with the mean"
    " alignment in brackets where the attack begins and ends. Seeds of one target share prompts and"
    " concept, so they are no replicates of their own: every mean is over targets, after the mean"
    " over the seeds of each, and ± is half of the 95 % Student interval over targets, left out"
    " where there are fewer than three. The worst attack stands first. `clean` is an honest user"
    " who fine-tunes on other pictures; the fresh concept is one that pre-training never showed,"
    " taught to the original model by the same attack. Relatives and everything else: share that"
    " shows what was asked, before → after the attack, and mean alignment in brackets.\n\nSteps to"
    " 80 %: the median attack step at which the concept shows in 80 % of the share that the"
    " original model reaches for that target and seed; for the fresh concept, which the original"
    " cannot paint, in 80 % of the pictures. A curve that never gets there counts as beyond its"
    " last step; the brackets say how many do.\n\nAn attack is one schedule: its learning rate"
    " rises over the first tenth of its steps and falls to zero along a half cosine. A mark at 10"
    " or 25 steps is a point inside it, not an attack of that length.\n\nDifferences are paired by"
    " target and seed; a claim is decided by whether the 95 % interval of its difference lies"
    " inside the range that it states. Forgetting takes the steps and retain pictures of the preset"
    " full, but for the two that say fast. Settings of meta at that length were chosen from a dozen"
    " by cat with seed 0 on the prompts judged here, so that row flatters it; the other defences"
    " were not tuned. None was trained to self-destruct: `resist.related`, the term for it, is 0."
    " The claims within the first 10 and 25 steps were added once it was seen that the whole attack"
    " shows no difference; they explore, and do not confirm. Seconds are wall time on a shared"
    " machine and differ widely between equal runs."
)
_SETTINGS = (
    "30, 100, 200 and 300 outer steps",
    "goal `forget` and goal `lose`",
    "cap 1, 2 and 3",
    "rule `restricted` and `weighted_sum`",
    "retain weight 3, 10 and 20",
    "32 training pictures (the default), 128 and 160",
    "inner learning rate 1e-3 and the default",
    "rank 16 with twice the weight of the look ahead",
    "the defender's learning rate 4e-3",
    "no look ahead at the same weights (M = 0)",
)
TRIED = "\n".join(
    [
        (
            "The bar: after 100 steps of the worst attack the concept is back at most half as often"
            " with the look ahead as without. None of these settings of meta-unlearning met it:"
        ),
        "",
        *(f"- {setting}" for setting in _SETTINGS),
        "",
        (
            "Our reading: the adversary has the merged weights and pictures of the concept, and"
            " after about 50 steps fine-tuning teaches even a concept that was never seen nearly as"
            " well (see the rows of the fresh concept). So no defence that leaves the model able to"
            " learn can hold at 100 steps; what resistance buys is a head start."
        ),
    ]
)


def scope(measured: Collection[Job], last: int) -> str:
    """What of the grid is measured with attacks of `last` steps, what the worst one ranges over,
    and what waits.
    """
    full = last > CUT_STEPS
    wanted = [job for job in grid(SEEDS) if full or job.cut]
    done = sum(job in measured for job in wanted)
    bases = [name for name in BASES if any(job.base == name for job in measured)]
    attacks = [name for name in ATTACKS if any(job.attack == name for job in measured)]
    targets, fresh = (
        ", ".join(sorted({job.target for job in measured if (job.base == FRESH) == never}))
        for never in (False, True)
    )
    seeds = ", ".join(map(str, sorted({job.seed for job in measured})))
    said = (
        f"{done} of the {len(wanted)} cells of"
        f" {'the full grid' if full else 'a declared cut of the full grid'} are measured:"
        f" unlearning by {', '.join(bases)}; concepts {targets}; fresh concepts {fresh}; seeds"
        f" {seeds}; attacks of {last} steps; at each mark {COUNT} pictures of the concept,"
        f" {COUNT // 2} of relatives and {COUNT // 2} of everything else."
    )
    against = [f"- {name}: {', '.join(own)}" for name, own in _by_defence(measured).items()]
    ranges = " or ".join(name for name in attacks if name != HARMLESS)
    worst = (
        f"The worst attack is, for each target and seed, the one of {ranges} that brings back most,"
        " as far as both models of a comparison have met it; of attacks that are not measured"
        " nothing is known."
    )
    missing = {
        "bases": [name for name in BASES if name not in bases],
        "attacks": [name for name in ATTACKS if name not in attacks],
        "attack steps": [str(mark) for mark in MARKS if mark > last],
    }
    waiting = [f"- {name}: {'; '.join(values)}" for name, values in missing.items() if values]
    parts = [said + " Attacks by defence:", "\n".join(against), worst]
    parts += ["Not measured yet (full grid):", "\n".join(waiting)] if waiting else []
    return "\n\n".join(parts)


def _by_defence(measured: Collection[Job]) -> dict[str, list[str]]:
    """The measured attacks of every defence, in the order of the grid."""
    names, met = {NONE: "the fresh concepts"}, {(job.defence, job.attack) for job in measured}
    defences = dict.fromkeys(job.defence for job in grid(1))
    return {
        names.get(defence, defence): [attack for attack in ATTACKS if (defence, attack) in met]
        for defence in defences
    }
