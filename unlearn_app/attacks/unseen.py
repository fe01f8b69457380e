"""What a model has never seen, to teach it as a control."""

from torch import Tensor

from ..concepts.concept import Concept

Lesson = tuple[str, Tensor, list[str]]
"""The name of a concept, pictures (N, 3, H, W) in [-1, 1] of it, and a caption of each."""


def fresh_lesson(model: str, count: int, seed: int, name: str = "") -> Lesson | None:
    """A concept that `model` has never seen, `count` pictures (N, 3, H, W) in [-1, 1] of it, and
    their captions.

    `name` chooses the concept, else the seed does. None where nothing is known of what the model
    has seen.
    """
    if model != "pocket":
        return None
    from ..pocket import lesson

    return lesson.fresh_lesson(count, seed, name)


def never_seen(
    model: str, count: int, seed: int, besides: Concept, alike: bool = False
) -> Lesson | None:
    """As `fresh_lesson`, of what `model` learns most easily of the kind of `besides` among what it
    has never seen.

    `besides` itself is left out. Pictures that are `alike` share their caption.
    """
    if model != "pocket":
        return None
    from ..pocket import lesson

    easiest = next(name for name in lesson.EASIEST[besides.kind] if name != besides.name)
    return lesson.fresh_lesson(count, seed, easiest, alike)
