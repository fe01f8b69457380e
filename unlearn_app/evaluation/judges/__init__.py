"""Judges: they score pictures and never condition the model they judge."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Classifier(Protocol):
    """A judge that tells classes apart."""

    name: str
    version: str

    def classes(self, axis: str) -> list[str]:
        """The classes an axis tells apart."""

    def classify(self, images: Tensor, axis: str) -> Tensor:
        """Probabilities (B, classes) of images (B, 3, H, W) in [-1, 1]."""


class Detector(Protocol):
    """Looks for one thing in pictures."""

    name: str
    version: str
    threshold: float

    def __call__(self, images: Tensor) -> Tensor:
        """How sure it is (B,) of images (B, 3, H, W) in [-1, 1]; from `threshold` on it counts as
        found.
        """


class Scorer(Classifier, Protocol):
    """An image-text judge, with a second one of another build to check it, and a detector, where
    there are such.
    """

    higher_is_better: bool
    second: Classifier | None
    detector: Detector | None

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
