"""A concept that the model has never seen, named by the caller, with pictures of it: the control of
attacks on a model about whose training nothing is known.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from ..common.errors import ConfigError, OutputError
from ..common.images import open_picture, to_tensor
from ..concepts.concept import Concept, Lesson, cycled
from ..models.protocols import Model
from ..models.sizes import ENLARGED

KINDS = (".png", ".jpg", ".jpeg", ".webp")
MOST = 2000
"""The most pictures that are read; an adversary holds no more."""


@dataclass(frozen=True)
class NeverSeen:
    """The words for it, and the folder of its pictures."""

    name: str
    pictures: Path

    def files(self) -> list[Path]:
        """The pictures, by name.

        Raises:
            ConfigError: there are none.
        """
        found = self.pictures.iterdir() if self.pictures.is_dir() else []
        chosen = sorted(path for path in found if path.suffix.casefold() in KINDS)
        if not chosen:
            raise ConfigError(
                f"The folder {str(self.pictures)!r} holds no pictures of {self.name};"
                f" {', '.join(KINDS)} files are accepted.",
                "pictures",
            )
        return chosen[:MOST]

    def lesson(self, model: Model, concept: Concept, count: int) -> Lesson:
        """`count` of the pictures as large as those of the model, their middle, with captions that
        name the concept.

        Raises:
            ConfigError: there are none, or one cannot be read.
        """
        files = cycled(self.files(), count)
        _, height, width = model.latent_shape
        size = (ENLARGED * width, ENLARGED * height)
        try:
            pictures = [
                ImageOps.fit(open_picture(path).convert("RGB"), size, Image.Resampling.LANCZOS)
                for path in files
            ]
        except OutputError as error:
            raise ConfigError(str(error), "pictures") from error
        captions = itertools.islice(
            itertools.cycle(prompt.text for prompt in concept.relearn), count
        )
        return to_tensor(pictures), list(captions)
