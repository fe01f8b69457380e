"""Metrics of a model after each request of a ledger: what is erased and what is retained, as shares
of pictures.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .ledger import ConceptScore, Request


@dataclass(frozen=True)
class ContinualMetrics:
    """The metrics after request `number`, in [0, 1]: unlearning accuracy, and retained accuracy in
    the domain of the request (RA-I) and in the other one (RA-C).

    `ra_c_official` is RA-C as the official code counts it, with pictures whose prompts name
    something erased; `drift` the Frobenius norm of the whole update since the original; `relapse`
    the largest rise of an erased concept's accuracy since it was first evaluated as erased.
    """

    number: int
    ua: float | None
    ra_i: float | None
    ra_c: float | None
    ra_c_official: float | None
    drift: float
    relapse: float | None


def request_metrics(
    rows: Sequence[Request],
    kept: Sequence[str] | None = None,
    requested: Collection[str] | None = None,
) -> list[ContinualMetrics]:
    """UA, RA-I and RA-C after every request, over the held-out prompts of the panel.

    `kept` are the concepts that count as retained, by default those that are never requested and no
    anchor. RA-I is over those of the kind of the request, RA-C over the others. Pictures whose
    prompts name something of `requested`, by default every requested concept, are left out, so that
    all points of a curve are about the same pictures. A value is None where something was not
    judged or not evaluated.
    """
    requests = rows[1:]
    if not requests:
        return []
    names = kept_names(rows) if kept is None else kept
    avoided = {row.concept for row in requests} if requested is None else requested
    found = []
    for number, row in enumerate(requests, 1):
        erased = [before.concept for before in requests[:number]]
        left = [_first([row], name) for name in erased]
        first = [_first(requests[place:number], name) for place, name in enumerate(erased)]
        if None in (*left, *first):
            found.append(ContinualMetrics(number, None, None, None, None, row.drift, None))
            continue
        shares = [
            _mean([_mean(right) for right in counted(row, names, avoided, same).values()])
            for same in (True, False)
        ]
        found.append(
            ContinualMetrics(
                number,
                1 - _mean(left),
                *shares,
                ra_c_official=_official(row, {*erased, *names}),
                drift=row.drift,
                relapse=max(now - then for now, then in zip(left, first, strict=True)),
            )
        )
    return found


def counted(
    row: Request, names: Sequence[str], avoided: Collection[str], same: bool
) -> dict[str, tuple[bool | None, ...]]:
    """By concept of `names`, which pictures are right; only concepts of the `same` kind as the
    request, or of the other kind.

    Pictures whose prompt names something of `avoided` are left out, and so are concepts without any
    other picture.
    """
    found = {}
    for name in names:
        seen = row.panel.get(name)
        if seen and (seen.kind == row.kind) == same:
            pairs = zip(seen.right, _named(seen), strict=True)
            found[name] = tuple(right for right, other in pairs if other not in avoided)
    return {name: right for name, right in found.items() if right}


def kept_names(rows: Sequence[Request]) -> list[str]:
    """The concepts of the panel that are never requested and are no request's anchor."""
    asked = {row.concept for row in rows[1:]} | {row.anchor for row in rows[1:]}
    return [name for name in rows[0].panel if name not in asked]


def _official(row: Request, names: Collection[str]) -> float | None:
    """The share of pictures of erased and kept concepts that show what their prompt names of the
    other kind.
    """
    shown: list[bool | None] = []
    for name in names:
        seen = row.panel.get(name)
        if seen and seen.kind == row.kind:
            shown += [right for right in seen.other_kind_right if right is not None]
        elif seen:
            pairs = zip(seen.right, _named(seen), strict=True)
            shown += [right for right, other in pairs if not other or other in names]
    return _mean(shown)


def _named(seen: ConceptScore) -> tuple[str, ...]:
    return seen.named or ("",) * len(seen.right)


def _first(rows: Sequence[Request], name: str) -> float | None:
    """The accuracy of the concept `name` in the first of `rows` that evaluates it."""
    return next((row.panel[name].accuracy for row in rows if name in row.panel), None)


def _mean(values: Sequence[float | None]) -> float | None:
    return None if not values or None in values else sum(values) / len(values)
