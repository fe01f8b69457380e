"""Which token of a forget sentence shall be read as which token of its anchor sentence."""

from collections.abc import Sequence
from itertools import takewhile

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
    pairs = list(
        zip(
            evenly_spaced(concept.forget.train, EDITED_PROMPTS),
            evenly_spaced(concept.anchors, EDITED_PROMPTS),
            strict=True,
        )
    )
    old = model.encode_text([prompt.text for prompt, _ in pairs]).states.float()
    new = model.encode_text([anchor for _, anchor in pairs]).states.float()
    forget, anchor = [], []
    for row, (prompt, other) in enumerate(pairs):
        ids = tokens.token_ids(prompt.text), tokens.token_ids(other)
        for position, target in paired_positions(*ids, length=old.shape[1]):
            forget.append(old[row, position])
            anchor.append(new[row, target])
    return torch.stack(forget), torch.stack(anchor)


def paired_positions(
    forget_ids: Sequence[int], anchor_ids: Sequence[int], length: int
) -> list[tuple[int, int]]:
    """Pairs (position in the forget sentence, position in the anchor sentence) of two padded token
    sequences.

    The ids are unpadded, with the start and the end token; `length` is the padded length, and pairs
    beyond it are left out. The sentences differ in the concept only. Their common beginning is
    skipped, because under causal attention its states are equal. Each token of the concept maps to
    the anchor's last token, which has seen the whole anchor, or, where the anchor has no token of
    its own, to the token before it. The common ending maps one to one, and so does the padding,
    whose states have seen the concept as well; where the anchor's sentence is the longer one, the
    forget sentence's last few paddings have no partner. Identical sentences have no pairs.

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
    last = len(anchor) - ending - 1
    concept = [(position, last) for position in range(beginning, len(forget) - ending)]
    rest = zip(
        range(len(forget) - ending, length), range(len(anchor) - ending, length), strict=False
    )
    return [
        (mine, theirs) for mine, theirs in (*concept, *rest) if mine < length and theirs < length
    ]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
