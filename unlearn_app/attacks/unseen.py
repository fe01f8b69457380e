"""What a model has never seen, to teach it as a control."""

from torch import Tensor

from ..concepts.concept import Concept


def fresh_lesson(model: str, count: int, seed: int, name: str = "") -> tuple[str, Tensor, list[str]] | None:
    """A concept that `model` has never seen, `count` pictures (N, 3, H, W) in [-1, 1] of it, and their captions.

    `name` chooses the concept, else the seed does. None where nothing is known of what the model has seen.
    """
    if model != "pocket":
        return None
    from ..pocket import lesson

    return lesson.fresh_lesson(count, seed, name)


def never_seen(
    model: str, count: int, seed: int, besides: str, alike: bool = False
) -> tuple[str, Tensor, list[str]] | None:
    """As `fresh_lesson`, of what `model` learns most easily among what it has never seen, `besides` left out.

    Pictures that are `alike` share their caption.
    """
    if model != "pocket":
        return None
    from ..pocket import lesson

    return lesson.fresh_lesson(count, seed, next(name for name in lesson.EASIEST if name != besides), alike)


def beside(control: str, concept: Concept) -> str:
    """The name of a control beside `concept`: all that is unseen are objects, which a style has to be told."""
    return f"{control} (an object: no style is unseen)" if concept.kind == "style" else control
