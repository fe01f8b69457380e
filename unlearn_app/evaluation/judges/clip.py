"""OpenCLIP as the judge of real models, as 2412.07808 uses it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ...common.registry import register
from ...concepts.concept import Concept
from . import Judge

MODEL_ID = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@register("judge", "clip")
class ClipScorer:
    """OpenCLIP ViT-B-32 (laion2b_s34b_b79k), the judge of real models: cosine alignment, and
    zero-shot classes among the prompts' own answers.
    """

    scores: ClassVar[bool] = True
    name = MODEL_ID
    version = "laion2b_s34b_b79k"
    others: tuple[Judge, ...] = ()

    def __init__(
        self, model: torch.nn.Module, tokenizer: object, axes: Mapping[str, Sequence[str]]
    ) -> None:
        self._model, self._tokenizer, self._axes = model.eval(), tokenizer, axes

    @classmethod
    def for_world(cls, world: Any, concepts: Sequence[Concept]) -> "ClipScorer | None":
        """The scorer where the world has no judges of its own; it chooses among the prompts'
        answers and the anchors.
        """
        return None if world.assets else cls.load(answers(concepts))

    @classmethod
    def load(cls, axes: Mapping[str, Sequence[str]]) -> "ClipScorer | None":
        """The scorer if its weights are on this machine or can be fetched, else None.

        Raises:
            ModelError: some of its weights are missing.
        """
        from transformers import CLIPModel, CLIPTokenizer

        from ...models.diffusers.loading import load_whole

        said = f"The judge {MODEL_ID} cannot be loaded: it"
        try:
            model = load_whole(CLIPModel, MODEL_ID, said)
            return cls(model, CLIPTokenizer.from_pretrained(MODEL_ID), axes)
        except (OSError, ValueError):
            return None

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Unit image embeddings (B, D)."""
        pixels = interpolate(
            (images + 1) / 2, size=(224, 224), mode="bicubic", antialias=True
        ).clamp(0, 1)
        pixels = (pixels - pixels.new_tensor(MEAN).view(1, 3, 1, 1)) / pixels.new_tensor(
            DEVIATION
        ).view(1, 3, 1, 1)
        features = self._model.visual_projection(
            self._model.vision_model(pixel_values=pixels).pooler_output
        )
        return normalize(features.float(), dim=1)

    @torch.no_grad()
    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        features = self._model.text_projection(self._model.text_model(**tokens).pooler_output)
        return normalize(features.float(), dim=1)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine (B,) of each image with its own prompt."""
        return (self.features(images) * self._embed_texts(prompts)).sum(1)

    def classes(self, axis: str) -> list[str]:
        """The answers that occur on `axis` in this run."""
        return list(self._axes[axis])

    def classify(self, images: Tensor, axis: str) -> Tensor:
        """Zero-shot probabilities (B, classes)."""
        template = "a photo of a {}" if axis == "object" else "a picture, {}"
        texts = self._embed_texts([template.format(name) for name in self.classes(axis)])
        return (self._model.logit_scale.exp() * self.features(images) @ texts.T).softmax(1)

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """One minus the cosine (B,) of the two embeddings."""
        return 1 - (self.features(images) * self.features(others)).sum(1)


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
