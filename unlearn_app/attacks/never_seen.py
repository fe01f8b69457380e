"""A concept that the model has never seen, named by the caller, with pictures of it: the control of
attacks on a model about whose training nothing is known.
"""

from dataclasses import dataclass

from ..concepts.concept import Concept, Lesson, evenly_spaced
from ..concepts.own_pictures import OwnPictures
from ..models.protocols import Model
from ..models.sizes import picture_shape


@dataclass(frozen=True)
class NeverSeen:
    """The words for it, and its pictures, which `own_pictures.read_pictures` reads."""

    name: str
    pictures: OwnPictures

    def lesson(self, model: Model, concept: Concept, count: int) -> Lesson:
        """`count` of the pictures as large as those of the model, and their captions; one without
        is captioned by a prompt that names the `concept`.
        """
        pictures, captions = self.pictures.lesson("", count, picture_shape(model))
        prompts = evenly_spaced(concept.relearn, count)
        named = zip(captions, prompts, strict=True)
        return pictures, [caption or prompt.text for caption, prompt in named]
