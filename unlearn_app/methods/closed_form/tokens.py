"""Which token of a forget sentence is mapped to which token of its anchor sentence."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...concepts.concept import Concept, evenly_spaced
from ...models.protocols import Model, token_access

EDITED_PROMPTS = 24
"""Sentences whose tokens a closed-form edit moves, and as many that it keeps."""


def edited_tokens(model: Model, concept: Concept) -> tuple[Tensor, Tensor]:
    """States (N, D) of the tokens that carry the concept, and those of the anchor's sentence they
    should act like.

    Raises:
        ConfigError: the model offers no single tokens.
    """
    tokens = token_access(model, "Pairing the tokens of concept and anchor")
    prompts = [prompt.text for prompt in evenly_spaced(concept.forget.train, EDITED_PROMPTS)]
    anchors = list(evenly_spaced(concept.anchors, EDITED_PROMPTS))
    old = model.encode_text(prompts).states.float()
    new = model.encode_text(anchors).states.float()
    forget, anchor = [], []
    for row, sentences in enumerate(zip(prompts, anchors, strict=True)):
        for mine, theirs in paired_positions(*map(tokens.token_ids, sentences), old.shape[1]):
            forget.append(old[row, mine])
            anchor.append(new[row, theirs])
    return torch.stack(forget), torch.stack(anchor)


def paired_positions(
    forget_ids: Sequence[int], anchor_ids: Sequence[int], length: int
) -> list[tuple[int, int]]:
    """Pairs (position in the forget sentence, position in the anchor sentence) of two padded token
    sequences.

    The ids are unpadded, with the start and the end token; `length` is the padded length, and pairs
    beyond it are left out. The sentences differ in the concept only. Their common beginning is
    skipped, because under causal attention its states are equal. Each token of the concept maps to
    the anchor's last token, whose state depends on the whole anchor, or, where the anchor has no
    token of its own, to the token before it. The common ending maps one to one, and so does the
    padding, whose states depend on the concept as well; where the anchor's sentence is the longer
    one, the forget sentence's last few paddings have no partner. Identical sentences have no pairs.

    Raises:
        ValueError: the sentences do not begin with the same token.
    """
    forget, anchor = list(forget_ids), list(anchor_ids)
    if forget == anchor:
        return []
    beginning = _common(forget, anchor)
    if beginning == 0:
        raise ValueError("The forget and the anchor sentence must begin with the same start token.")
    ending = _common(forget[beginning:][::-1], anchor[beginning:][::-1])
    end, last = len(forget) - ending, len(anchor) - ending - 1
    concept = [(position, last) for position in range(beginning, end)]
    rest = zip(range(end, length), range(last + 1, length), strict=False)
    return [
        (mine, theirs) for mine, theirs in (*concept, *rest) if mine < length and theirs < length
    ]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    same = [mine == theirs for mine, theirs in zip(one, other, strict=False)]
    return [*same, False].index(False)
