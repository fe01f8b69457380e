"""CLIP as the judge of any words, by default the OpenCLIP network that 2412.07808 uses."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...common.registry import register
from ...concepts.concept import Concept, article
from ...concepts.distractors import distractors
from . import Installed, Judge
from .pretrained import NotFetched, Pretrained, fetching, is_cached, load_pretrained, normalised

MODEL_ID = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
SAID = re.compile(r"(?:in|by|as|of) ")
"""How the prompts of real models begin to name a style, such as "in the style of Van Gogh"."""


@register("judge", "clip")
class ClipScorer:
    """CLIP, by default OpenCLIP ViT-B-32 (laion2b_s34b_b79k), the judge of real models: cosine
    alignment, and zero-shot classes among the prompts' own answers and distractors of their kind.
    """

    scores: ClassVar[bool] = True
    others: tuple[Judge, ...] = ()

    def __init__(self, loaded: Pretrained, axes: Mapping[str, Sequence[str]]) -> None:
        self._model, self._tokenizer, self.name, self.version = loaded
        self._axes = axes
        self._class_texts = cache(self._class_texts)

    @classmethod
    def for_world(cls, world: Any, concepts: Sequence[Concept]) -> "ClipScorer | None":
        """The default network where the world has no judges of its own, and the weights are here or
        can be fetched.

        Raises:
            ModelError: some of its weights are missing.
        """
        if world.assets:
            return None
        try:
            return cls.asked(world, concepts, None)
        except NotFetched:
            return None

    @classmethod
    def asked(cls, world: Any, concepts: Sequence[Concept], place: str | None) -> "ClipScorer":
        """The network in a folder or of a Hugging Face id, by default OpenCLIP, in any world.

        Raises:
            ModelError: it cannot be loaded.
        """
        from transformers import CLIPModel

        axes = choices(concepts, world)
        return cls(load_pretrained(CLIPModel, place or MODEL_ID), axes)

    @classmethod
    def installed(cls) -> Installed:
        """Whether the default network is cached."""
        return Installed(is_cached(MODEL_ID), MODEL_ID, fetching(MODEL_ID))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Unit image embeddings (B, D) of pictures (B, 3, H, W) in [-1, 1], on the CPU."""
        side = self._model.config.vision_config.image_size
        seen = self._model.vision_model(pixel_values=normalised(images, side))
        return normalize(self._model.visual_projection(seen.pooler_output), dim=1)

    @torch.no_grad()
    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        longest = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        read = self._model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        return normalize(self._model.text_projection(read.pooler_output), dim=1)

    def _class_texts(self, axis: str) -> Tensor:
        return self._embed_texts([caption_of(name, axis) for name in self.classes(axis)])

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine (B,) of each image with its own prompt."""
        return (self.features(images) * self._embed_texts(prompts)).sum(1)

    def classes(self, axis: str) -> list[str]:
        """The answers that occur on `axis` in this run, and distractors."""
        return list(self._axes[axis])

    @torch.no_grad()
    def classify(self, images: Tensor, axis: str) -> Tensor:
        """Zero-shot probabilities (B, classes)."""
        likeness = self.features(images) @ self._class_texts(axis).T
        return (self._model.logit_scale.exp() * likeness).softmax(1)

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """One minus the cosine (B,) of the two embeddings."""
        return 1 - (self.features(images) * self.features(others)).sum(1)


def caption_of(name: str, axis: str) -> str:
    """The sentence by which CLIP knows a class."""
    if axis == "object":
        return f"a photo of {article('a', name)} {name}"
    return f"a picture {in_style(name)}"


def in_style(name: str) -> str:
    """What follows “a picture” where it has the style `name`, which may say so itself."""
    return name if SAID.match(name) else f"in {name} style"


def choices(concepts: Sequence[Concept], world: Any) -> dict[str, list[str]]:
    """By axis what a judge may answer: what the prompts of `concepts` ask for, the anchors, and
    distractors of the same kind.
    """
    known = world.known_concepts()
    found = answers(concepts)
    return {axis: [*own, *distractors(axis, own, known)] for axis, own in found.items()}


def answers(concepts: Sequence[Concept]) -> dict[str, list[str]]:
    """By axis what the prompts of `concepts` ask for, and the anchors; without its own class, an
    anchor's picture would be counted as one of the others.
    """
    pairs = [
        (p.axis, p.expects)
        for c in concepts
        for split in (c.forget, c.near, c.far)
        for p in split.test
    ]
    pairs += [(c.forget.test[0].axis, c.instead) for c in concepts if c.instead]
    axes: dict[str, list[str]] = {}
    for axis, answer in dict.fromkeys(pairs):
        axes.setdefault(axis, []).append(answer)
    return axes
