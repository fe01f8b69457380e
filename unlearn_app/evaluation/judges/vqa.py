"""A visual question answerer as a further judge, which is asked whether what the prompt names is
there: BLIP-VQA, as the evaluations of T2I-CompBench (2307.06350).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...common.errors import ModelError
from ...common.registry import register
from ...concepts.concept import Concept, Prompt, article
from ...settings.events import Value
from . import Installed
from .clip import in_style
from .pretrained import Pretrained, fetching, is_cached, load_pretrained, normalised

MODEL_ID = "Salesforce/blip-vqa-base"
SOMETHING_ELSE = "something else"
"""The class of a picture that does not show what its prompt names."""


@register("judge", "vqa")
class QuestionJudge:
    """BLIP-VQA, an optional further judge that is asked whether a picture shows what its prompt
    names; it is used where --judge names it.
    """

    scores: ClassVar[bool] = False
    threshold = None

    def __init__(self, loaded: Pretrained) -> None:
        self._model, self._tokenizer, self.name, self.version = loaded
        known = self._tokenizer.get_vocab()
        if not {"yes", "no"} <= known.keys():
            raise ModelError(
                f"The judge {self.name!r} cannot say yes and no; one whose vocabulary holds both is"
                " accepted."
            )
        self._answers = [known["yes"], known["no"]]

    @classmethod
    def for_world(cls, world: Any, concepts: Sequence[Concept]) -> None:
        """None: it is too slow to be used unasked."""
        return None

    @classmethod
    def asked(cls, world: Any, concepts: Sequence[Concept], place: str | None) -> "QuestionJudge":
        """The network in a folder or of a Hugging Face id, by default BLIP-VQA.

        Raises:
            ModelError: it cannot be loaded.
        """
        from transformers import BlipForQuestionAnswering

        return cls(load_pretrained(BlipForQuestionAnswering, place or MODEL_ID))

    @classmethod
    def installed(cls) -> Installed:
        """Whether the default network is cached."""
        return Installed(is_cached(MODEL_ID), MODEL_ID, fetching(MODEL_ID))

    def judge(self, images: Tensor, prompts: Sequence[Prompt]) -> list[dict[str, Value]]:
        """See `Judge`: the class that the prompt expects, or `SOMETHING_ELSE`."""
        rows_of: dict[str, list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of.setdefault(question_of(prompt), []).append(row)
        sure = torch.empty(len(prompts))
        for question, rows in rows_of.items():
            sure[rows] = self.says_yes(images[rows], question)
        return [
            {self.name: prompt.expects if yes > 0.5 else SOMETHING_ELSE}
            for prompt, yes in zip(prompts, sure.tolist(), strict=True)
        ]

    @torch.no_grad()
    def says_yes(self, images: Tensor, question: str) -> Tensor:
        """Probabilities (B,) of the answer yes against no to a question about images (B, 3, H, W)
        in [-1, 1].
        """
        model, side = self._model, self._model.config.vision_config.image_size
        tokens = self._tokenizer([question] * len(images), return_tensors="pt")
        mask = tokens["attention_mask"]
        read = model.text_encoder(
            input_ids=tokens["input_ids"],
            attention_mask=mask,
            encoder_hidden_states=model.vision_model(normalised(images, side)).last_hidden_state,
        ).last_hidden_state
        begin = torch.full((len(read), 1), model.decoder_start_token_id)
        said = model.text_decoder(
            input_ids=begin, encoder_hidden_states=read, encoder_attention_mask=mask
        )
        return said.logits[:, -1, self._answers].softmax(1)[:, 0]


def question_of(prompt: Prompt) -> str:
    """What is asked about the picture of `prompt`."""
    name = prompt.expects
    if prompt.axis == "object":
        return f"is there {article('a', name)} {name} in the picture?"
    return f"is this a picture {in_style(name)}?"
