"""The text encoder of a pipeline: conditioning from sentences, from token ids, and from embeddings
that stand where a token's would.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..conditioning import Conditioning
from ..protocols import TextEncoder, TokenAccess


class TokenizedText(TextEncoder, TokenAccess):
    """`TextEncoder` and, without `cross_weights`, `TokenAccess` over the text encoder of `pipe`."""

    pipe: Any
    _roundtrip: tuple[Any, Tensor] | None = None
    """A tokenizer, and the ids of its tokens that are read as they are typed."""

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        states, _ = self.pipe.encode_prompt(
            list(prompts), self.device, 1, do_classifier_free_guidance=False
        )
        return Conditioning(states)

    def token_ids(self, prompt: str) -> list[int]:
        tokenizer = self.pipe.tokenizer
        return tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids

    def padded(self, ids: Sequence[int]) -> list[int]:
        tokenizer = self.pipe.tokenizer
        length = tokenizer.model_max_length
        padding = [tokenizer.pad_token_id] * (length - 2 - len(ids))
        return [tokenizer.bos_token_id, *ids[: length - 2], tokenizer.eos_token_id, *padding]

    def words(self, ids: Sequence[int]) -> str:
        return self.pipe.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    @property
    def roundtrip_token_ids(self) -> Tensor:
        tokenizer = self.pipe.tokenizer  # another one while another model stands in
        if self._roundtrip is None or self._roundtrip[0] is not tokenizer:
            ids = [
                token
                for token in range(len(self.word_vectors()))
                if self.token_ids(self.words([token]))[1:-1] == [token]
            ]
            self._roundtrip = tokenizer, torch.tensor(ids)
        return self._roundtrip[1]

    def word_vectors(self) -> Tensor:
        return self.pipe.text_encoder.get_input_embeddings().weight.detach()

    def encode_ids(self, ids: Tensor, extra: Tensor | None = None) -> Conditioning:
        encoder, ids = self.pipe.text_encoder, ids.to(self.device)
        if extra is None:
            with torch.no_grad():
                return Conditioning(encoder(ids)[0])
        # Textual inversion (2208.01618) lengthens the table for good, this for one call.
        table = encoder.get_input_embeddings().weight
        name = next(name for name, parameter in encoder.named_parameters() if parameter is table)
        longer = {name: torch.cat([table.detach(), extra.to(table)])}
        return Conditioning(torch.func.functional_call(encoder, longer, (ids,))[0])
