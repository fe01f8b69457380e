"""Findings with the outcome that a test asks for."""

from typing import Any

from unlearn_app.evaluation.finding import Finding


def made_finding(
    kind: str = "inversion",
    hits: int = 10,
    n: int = 12,
    base: int | None = 0,
    m: int = 12,
    **changes: Any,
) -> Finding:
    """An attack that succeeds at the first `hits` of `n` prompts, beside a control that does at the
    first `base` of `m`; without a control where `base` is None.
    """
    control = {"name": "pumpkin, never seen", "hits": [row < (base or 0) for row in range(m)]}
    values = {
        "kind": kind,
        "settings": {},
        "budget": "7 steps",
        "counts": True,
        "by_prompt": False,
        "tries": 4,
        "hits": tuple(row < hits for row in range(n)),
        "first": (False,) * n,
        "control": None if base is None else control,
        "missing": "nobody knows" if base is None else "",
        "pictures": (),
        "proof": None,
        "seconds": 1.0,
        "command": "",
        "environment": {},
        "sure": 0.6,
    }
    return Finding(**values | changes)
