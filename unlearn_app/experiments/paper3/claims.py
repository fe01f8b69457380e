"""The claims on sequences of requests: the paper's and ours, each tested over concepts."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import stats

from ...evaluation.statistics import holm, mean_interval, p_value
from ..claims import HELD, Interval, grouped
from ..tables import number_of, table, with_ends
from .measure import (
    ALONE,
    APART,
    ARITHMETIC,
    AT_ONCE,
    EXACT,
    FIRST_BASE,
    HOLDING,
    L1,
    L2,
    MIDDLE,
    MIXED,
    OURS,
    PAPERS,
    PLAIN,
    REHEARSED,
    SECOND_BASE,
    SELECTIVE,
    TIES,
    WITH_SELECTION,
    shares,
)
from .states import (
    KIND_DOMAINS,
    WAY,
    Results,
    Unit,
    by_concept,
    by_sequence,
    mean,
    rate,
    statistic_of,
    units,
)

MATCHED = 5.0
"""The most points by which the UA of the arm that keeps more may be lower in a comparison,
whichever of the two it is.
"""
LEVEL = 0.05
PAPER_KEEPS: dict[str, dict[str, tuple[float, float, float]]] = {
    "objects": {
        PLAIN: (100, 13, 5.5),
        L1: (99, 18, 4),
        L2: (99, 22, 39),
        SELECTIVE: (99, 24, 63.5),
        TIES: (97, 36.5, 77.5),
        AT_ONCE: (99, 39.5, 46),
        PAPERS: (97, 60, 58),
    },
    "styles": {
        PLAIN: (99.5, 15, 45.5),
        L1: (98, 13, 83),
        L2: (98, 11, 74),
        SELECTIVE: (100, 16.5, 99),
        TIES: (98.5, 39, 73),
        AT_ONCE: (99, 18.5, 98.5),
    },
}
"""UA, RA-I and RA-C of the paper after twelve requests with its concept ablation, in percent, read
off the authors' figures (within two points).
"""


@dataclass(frozen=True)
class Row:
    """One claim that is tested: its words, the values of its units, and the bound that they are
    compared with; `sign` is -1 where the claim is that the mean lies below it.
    """

    text: str
    where: str
    arms: str
    paper: str
    values: tuple[float, ...] = ()
    bound: float = 0.0
    sign: int = 1
    unit: str = "points"
    ua: str = "–"
    counted: str = ""
    p: float | None = None
    """Where it is no t-test; `interval` is then given too."""
    interval: Interval | None = None
    ahead: float = 0.0
    """By how many points the UA of the first arm is higher, where what forgets less keeps more by
    that.
    """
    exploratory: bool = False
    """Whether it counts for no other row; its own p-value is not corrected then."""
    words: tuple[str, str] = HELD

    @property
    def ends(self) -> Interval | None:
        """The mean with its 95 % interval; None of nothing."""
        return self.interval or (mean_interval(self.values) if self.values else None)

    @property
    def chance(self) -> float:
        """The two-sided p-value; 1 for a single value."""
        if self.p is not None or not self.values:
            return 1.0 if self.p is None else self.p
        return p_value(self.values, self.bound)

    def verdict(self, chance: float) -> str:
        """The verdict, from a p-value that is corrected for the table; an arm that keeps more and
        forgets less by more than `MATCHED` is not comparable.
        """
        if self.ends is None:
            return "not tested"
        more = self.ends[0] > self.bound
        if chance >= LEVEL:
            return "undecided"
        if (self.ahead if more else -self.ahead) < -MATCHED:
            return "not comparable"
        return self.words[0 if more == (self.sign > 0) else 1]


def judged(rows: Sequence[Row]) -> list[str]:
    """The verdict of each row, corrected by Holm over those of the table that are tested and not
    exploratory.
    """
    counted = [at for at, row in enumerate(rows) if row.ends is not None and not row.exploratory]
    corrected = dict(zip(counted, holm([rows[at].chance for at in counted]), strict=True))
    return [row.verdict(corrected.get(at, row.chance)) for at, row in enumerate(rows)]


HEADS = (
    "claim", "domain", "arms", "the paper's", "here (95 % interval)", "UA, %", "of", "verdict",
)  # fmt: skip


def claims_table(rows: Sequence[Row]) -> str:
    """Claims with their verdicts, as Markdown."""
    lines = [
        (
            f"{row.text} (exploratory)" if row.exploratory else row.text,
            row.where,
            row.arms,
            row.paper,
            f"{with_ends(row.ends, '+.1f' if row.unit == 'points' else '.2f')} {row.unit}".strip()
            if row.ends
            else "–",
            row.ua,
            row.counted or "–",
            f"**{verdict}**",
        )
        for row, verdict in zip(rows, judged(rows), strict=True)
    ]
    return table(HEADS, lines)


def compared(
    results: Results,
    text: str,
    domain: str,
    one: str,
    other: str,
    name: str,
    paper: str = "–",
    *,
    ways: tuple[tuple[str, str], tuple[str, str]] = (WAY, WAY),
    bound: float = 0.0,
    sign: int = 1,
    exploratory: bool = False,
) -> Row:
    """A claim that one arm's rate lies above another's, concept by concept; one that forgets less
    is no better for keeping more.
    """
    sides = (ways[0], one), (ways[1], other)
    values = results.differences(*sides, domain, statistic_of(name))
    erased = [_erased(results, *side, domain) for side in sides]
    rehearsed = [", rehearsed" if way[1] == REHEARSED else "" for way in ways]
    return Row(
        text,
        domain,
        f"{one}{rehearsed[0]} – {other}{rehearsed[1]}",
        paper,
        tuple(by_concept(values)),
        bound,
        sign,
        ua=", ".join("–" if share is None else f"{share:.0f}" for share in erased)
        if values
        else "–",
        counted=counts(values),
        ahead=erased[0] - erased[1] if values and name in ("ra_i", "ra_c") else 0.0,
        exploratory=exploratory,
    )


def _erased(results: Results, way: tuple[str, str], arm: str, domain: str) -> float | None:
    """The mean UA of an arm in a domain."""
    return mean(by_concept(units(results.of(way, arm, domain), rate("ua"))))


def counts(values: Mapping[Unit, float]) -> str:
    """How many concepts, sequences and seeds there are."""
    if not values:
        return ""
    sequences, seeds, names = ({unit[place] for unit in values} for place in range(3))
    said = f"{number_of(len(names), 'concept')}, {number_of(len(sequences), 'sequence')}"
    return f"{said}, {number_of(len(seeds), 'seed')}"


def paper_claims(results: Results) -> list[Row]:
    """What the paper claims, in its own way, one row each."""
    rows = []
    for domain in KIND_DOMAINS:
        theirs = PAPER_KEEPS[domain]
        values = units(results.of(WAY, PLAIN, domain), rate("ra_i"))
        erased = _erased(results, WAY, PLAIN, domain)
        rows.append(
            Row(
                "Plain requests leave less than half of their own domain",
                domain,
                PLAIN,
                f"{theirs[PLAIN][1]:g}",
                tuple(by_concept(values)),
                50.0,
                -1,
                unit="%",
                ua="–" if erased is None else f"{erased:.0f}",
                counted=counts(values),
            )
        )
        for arm in (L1, L2, SELECTIVE, TIES, PAPERS, AT_ONCE):
            for place, (name, what) in enumerate(
                (("ra_i", "Keeps more of its own domain"), ("ra_c", "Keeps more of the other")), 1
            ):
                paper = f"{theirs[arm][place] - theirs[PLAIN][place]:+g}" if arm in theirs else "–"
                rows.append(compared(results, what, domain, arm, PLAIN, name, paper))
        rows.append(forgets_as_much(results, domain))
        second = _second(results, domain)
        paper = f"{theirs[PAPERS][1] - theirs[TIES][1]:+g}" if PAPERS in theirs else "–"
        text = "The projection keeps more of its own domain than the best other arm"
        rows.append(compared(results, text, domain, PAPERS, second, "ra_i", paper))
        text = "Selection adds to the projection"
        rows.append(
            compared(results, text, domain, WITH_SELECTION, PAPERS, "ra_i", "said, no number")
        )
        rows.append(similarity(results, domain))
    return [*rows, easier(results), *drifts(results)]


def _second(results: Results, domain: str) -> str:
    """The arm of the paper's others that keeps most of its own domain here, of those whose UA is
    within `MATCHED` points of the projection's; of all where none is.
    """
    found = {
        arm: mean(by_concept(units(results.of(WAY, arm, domain), rate("ra_i"))))
        for arm in (L1, L2, SELECTIVE, TIES)
    }
    known = {arm: share for arm, share in found.items() if share is not None}
    erased = {arm: _erased(results, WAY, arm, domain) for arm in (PAPERS, *known)}
    alike = [
        arm
        for arm in known
        if erased[PAPERS] is not None and abs(erased[arm] - erased[PAPERS]) <= MATCHED
    ]
    return max(alike or known, key=lambda arm: known[arm], default=TIES)


def forgets_as_much(results: Results, domain: str) -> Row:
    """The arms of the paper that hold a sequence back forget as much as plain requests, their mean,
    within `MATCHED` points.
    """
    theirs = PAPER_KEEPS[domain]
    arms = [arm for arm in (L1, L2, SELECTIVE, TIES, PAPERS) if results.of(WAY, arm, domain)]
    each = [results.differences((WAY, arm), (WAY, PLAIN), domain, rate("ua")) for arm in arms]
    shared = set.intersection(*map(set, each)) if each else set()
    values = {unit: statistics.mean(own[unit] for own in each) for unit in sorted(shared)}
    read = [theirs[arm][0] for arm in theirs if arm not in (PLAIN, AT_ONCE)]
    return Row(
        f"What holds back forgets as much, within {MATCHED:g} points",
        domain,
        f"mean of {len(arms)} arms – {PLAIN}",
        f"{statistics.mean(read) - theirs[PLAIN][0]:+.1f}",
        tuple(by_concept(values)),
        -MATCHED,
        counted=counts(values),
    )


def similarity(results: Results, domain: str, last: bool = False) -> Row:
    """What is nearer to an erased concept is kept less: the paper's r, after the first request of
    plain sequences, or after the last.
    """
    text = "What is nearer to the erased is kept less, after "
    text += "the last request" if last else "one request"
    found = [
        s
        for s in results.tests
        if (s.way, s.arm, s.domain) == (WAY, PLAIN, domain) and (s.last if last else s.number == 1)
    ]
    near = units(found, lambda state: dict(state.found["similar"]))
    paper = "r = -0.63" if domain == "styles" and not last else "–"
    row = _correlated(text, domain, paper, near, units(found, rate("ra_i")))
    return replace(row, exploratory=last)


def _correlated(
    text: str, domain: str, paper: str, near: Mapping[Unit, float], left: Mapping[Unit, float]
) -> Row:
    """A claim that two values of the same concepts fall together, seeds averaged."""
    pairs = grouped([unit for unit in near if unit in left], lambda unit: (unit[0], unit[2]))
    x, y = (
        [statistics.mean(values[unit] for unit in own) for own in pairs.values()]
        for values in (near, left)
    )
    row = Row(text, domain, PLAIN, paper, sign=-1, unit="(r)")
    if len(pairs) < 4 or len(set(x)) < 2 or len(set(y)) < 2:
        return row
    found = stats.pearsonr(x, y)
    ends = found.confidence_interval()
    interval = float(found.statistic), float(ends.low), float(ends.high)
    counted = f"{len(pairs)} kept concepts of {len({key[0] for key in pairs})} sequences"
    return Row(
        text, domain, PLAIN, paper, sign=-1, unit="(r)", counted=counted,
        p=float(found.pvalue), interval=interval,
    )  # fmt: skip


def easier(results: Results) -> Row:
    """The other domain is easier to keep than the own one, over the arms that hold a sequence
    back.
    """
    gaps: dict[Unit, float] = {}
    for domain in KIND_DOMAINS:
        states = [s for arm in HOLDING for s in results.of(WAY, arm, domain)]
        for (name, seed), own in grouped(states, lambda s: (s.cell.sequence, s.cell.seed)).items():
            found = [shares(s.found, s.requests, s.kept) for s in own]
            gap = [100 * (one["ra_c"] - one["ra_i"]) for one in found if one["ra_c"] is not None]
            gaps |= {(name, seed, "gap"): statistics.mean(gap)} if gap else {}
    return Row(
        "The other domain is kept more easily than the own one",
        "both",
        "RA-C – RA-I, mean of all that hold back",
        "-2 to +83",
        tuple(by_sequence(gaps)),
        counted=number_of(len(by_sequence(gaps)), "sequence") if gaps else "",
    )


def drifts(results: Results) -> list[Row]:
    """A plain sequence moves the weights further than all at once, and than each request alone."""
    rows = []
    for other, paper in ((AT_ONCE, "3.4 – 1.2"), (APART, "3.4 – 1.7")):
        values = {
            unit: value
            for domain in KIND_DOMAINS
            for unit, value in results.differences(
                (WAY, PLAIN), (WAY, other), domain, lambda s: {"drift": s.found["drift"]}
            ).items()
        }
        rows.append(
            Row(
                "A sequence of requests moves the weights further",
                "both",
                f"{PLAIN} – {other}",
                paper,
                tuple(by_sequence(values)),
                unit="(norm)",
                counted=number_of(len(by_sequence(values)), "sequence") if values else "",
            )
        )
    return rows


def own_claims(results: Results) -> list[Row]:
    """Our own questions, one row each; what rests on the one mixed sequence is exploratory."""
    rows = []
    for domain in (*KIND_DOMAINS, MIXED):
        asked = [
            ("Keeps more than the paper's projection", OURS, PAPERS, "ra_i"),
            ("Keeps more than exact vectors of concepts", OURS, EXACT, "ra_i"),
            ("A price as well keeps more than the projection", MIDDLE, OURS, "ra_i"),
            ("The projection as well keeps more than the price", MIDDLE, L2, "ra_i"),
            ("Merging by signs keeps more than by sums", TIES, ARITHMETIC, "ra_i"),
        ]
        alone = domain == MIXED
        if alone:
            text = f"Keeps more than {PLAIN}, in one sequence"
            asked = [(text, arm, PLAIN, "ra_i") for arm in (L2, TIES, PAPERS, MIDDLE)]
        rows += [compared(results, text, domain, *arms, exploratory=alone) for text, *arms in asked]
        rows += [
            compared(
                results, "Less comes back by itself than with plain requests", domain, arm, PLAIN,
                "relapse", sign=-1, exploratory=alone,
            )
            for arm in (L2, TIES, PAPERS, MIDDLE)
        ]  # fmt: skip
        if not alone:
            rows.append(similarity(results, domain, last=True))
        rehearsed = (FIRST_BASE, REHEARSED)
        rows.append(
            compared(
                results, "Rehearsal keeps more", domain, PLAIN, PLAIN, "ra_i",
                ways=(rehearsed, WAY), exploratory=alone,
            )
        )  # fmt: skip
        rows += [
            compared(
                results, f"Keeps more than {PLAIN}, rehearsed as well", domain, arm, PLAIN,
                "ra_i", ways=(rehearsed, rehearsed), exploratory=True,
            )
            for arm in ((MIDDLE,) if alone else (L2, TIES, PAPERS, OURS, MIDDLE))
        ]  # fmt: skip
        if not alone:
            second = (SECOND_BASE, ALONE)
            rows += [
                compared(
                    results, f"Keeps more than {PLAIN} by {SECOND_BASE} as well", domain, arm,
                    PLAIN, "ra_i", ways=(second, second), exploratory=arm != PAPERS,
                )
                for arm in (L2, TIES, PAPERS)
            ]  # fmt: skip
    return rows
