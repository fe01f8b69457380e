"""Controls: concepts that a model has never seen, as pictures to teach it."""

from ..common.registry import world
from ..concepts.concept import Concept, Lesson


def fresh_lesson(model: str, count: int, seed: int, name: str = "") -> Lesson | None:
    """`count` pictures of a concept that `model` has never seen; None where none is known.

    `name` chooses the concept, else the seed does.
    """
    return world(model).lesson(count, seed, name)


def never_seen(
    model: str, count: int, seed: int, besides: Concept, alike: bool = False
) -> Lesson | None:
    """`count` pictures of the never-seen concept of the kind of `besides`, itself left out, that
    `model` learns in the fewest steps; None where none is known.

    Pictures that are `alike` share their caption.
    """
    known = world(model)
    easiest = next((name for name in known.unseen(besides.kind) if name != besides.name), None)
    return known.lesson(count, seed, easiest, alike) if easiest else None
