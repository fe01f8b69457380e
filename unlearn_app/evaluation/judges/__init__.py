"""Judges: they score pictures and never condition the model they judge.

A judge is one file. Its class registers itself, says with `scores` whether it is a `Scorer` or a
`Judge` beside one, and has three class methods:

- `for_world(world, concepts)` is the judge for pictures of `concepts` in a `worlds.World`, or None
  where it cannot judge them, is not installed, or is used only where it is asked for. Of several
  scorers the first by name is used.
- `asked(world, concepts, place)` is the judge that a user named, from the folder or Hugging Face id
  `place` or, if that is None, its own; a `ModelError` says why it cannot be had.
- `installed()` says whether it is here, what it is, and the one command that fetches it.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from ...concepts.concept import Prompt
from ...settings.events import Value


class Installed(NamedTuple):
    """Whether a judge is on this machine, what it is, and the command that fetches it; "" where it
    ships with the program.
    """

    here: bool
    what: str
    command: str


class Classifier(Protocol):
    """A judge that tells classes apart."""

    name: str
    version: str

    def classes(self, axis: str) -> list[str]:
        """The classes an axis tells apart."""

    def classify(self, images: Tensor, axis: str) -> Tensor:
        """Probabilities (B, classes) of images (B, 3, H, W) in [-1, 1]."""


class Judge(Protocol):
    """A judge beside the one that scores: a second opinion, or a detector of one thing."""

    name: str
    version: str
    threshold: float | None
    """From which value on a detector's counts as found; None where the values are classes."""

    def judge(self, images: Tensor, prompts: Sequence[Prompt]) -> list[dict[str, Value]]:
        """What it says of each of the images (B, 3, H, W) in [-1, 1], by its name: a class of the
        prompt's axis, or how sure it is that it found what it looks for.
        """


class Scorer(Classifier, Protocol):
    """The image-text judge that gives every score and verdict, and the `others` beside it."""

    others: tuple[Judge, ...]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Alignment (B,): cosine of image and prompt embeddings, of images (B, 3, H, W) in [-1,
        1].
        """

    def features(self, images: Tensor) -> Tensor:
        """What classes are told by (B, D), of images (B, 3, H, W) in [-1, 1], for distances of
        distributions.
        """

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """How different (B,) each image (B, 3, H, W) looks from its partner: zero for equal
        ones.
        """


def likeliest(
    images: Tensor, prompts: Sequence[Prompt], judge: Classifier
) -> list[tuple[str, float]]:
    """The likeliest class of each image (B, 3, H, W) on its prompt's axis, and its probability."""
    axes = {prompt.axis for prompt in prompts}
    best = {axis: judge.classify(images, axis).max(1) for axis in axes}
    found = []
    for row, prompt in enumerate(prompts):
        values, indices = best[prompt.axis]
        found.append((judge.classes(prompt.axis)[int(indices[row])], float(values[row])))
    return found
