"""The tokens of a pipeline whose text encoders read rows of token ids: conditioning from ids, and
from embeddings that stand where a token's would.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..conditioning import Conditioning
from ..protocols import TokenAccess


class TokenizedText(TokenAccess):
    """`TokenAccess`, without `cross_weights`, over the text encoders of `pipe`.

    Several encoders read the same ids; a word vector (E,) is then that of each of them, one after
    the other.
    """

    pipe: Any
    device: torch.device
    readers: Sequence[tuple[str, str]] = (("tokenizer", "text_encoder"),)
    """The names of a tokenizer and of the text encoder that reads its ids, for each encoder."""
    _roundtrip: tuple[Any, Tensor] | None = None
    """A tokenizer, and the ids of its tokens that are read as they are typed."""

    @abstractmethod
    def conditioned(self, outputs: Sequence[Any]) -> Conditioning:
        """The conditioning that what each text encoder returned makes."""

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
        tables = [
            getattr(self.pipe, encoder).get_input_embeddings().weight.detach().to(self.device)
            for _, encoder in self.readers
        ]
        return tables[0] if len(tables) == 1 else torch.cat(tables, 1)

    def encode_ids(self, ids: Tensor, extra: Tensor | None = None) -> Conditioning:
        ids, outputs = ids.to(self.device), []
        with torch.set_grad_enabled(torch.is_grad_enabled() and extra is not None):
            for tokenizer, encoder in self._readers():
                encoder.to(self.device)  # where it is parked elsewhere
                table = encoder.get_input_embeddings().weight
                read, changed = self._padded_for(tokenizer, ids), {}
                if extra is not None:
                    own, extra = extra.tensor_split([table.shape[1]], 1)
                    read, changed = self._lent(encoder, read, own)
                how = {"output_hidden_states": True}
                outputs.append(torch.func.functional_call(encoder, changed, (read,), how))
            return self.conditioned(outputs)

    def _readers(self) -> list[tuple[Any, Any]]:
        return [tuple(getattr(self.pipe, name) for name in names) for names in self.readers]

    def _padded_for(self, tokenizer: Any, ids: Tensor) -> Tensor:
        """Rows of `padded` ids with the padding of another tokenizer of the same vocabulary."""
        if tokenizer.pad_token_id == self.pipe.tokenizer.pad_token_id:
            return ids
        ends = ids == tokenizer.eos_token_id
        return ids.masked_fill(ends.cumsum(1) - ends.long() > 0, tokenizer.pad_token_id)

    def _lent(self, encoder: Any, ids: Tensor, extra: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`ids` with those of the rows of `extra` replaced by tokens that no row holds, and the
        encoder's table with the rows of `extra` in their place, by its name.

        Textual inversion (2208.01618) lengthens the table for good, this changes it for one call;
        longer ids would be taken for the end token by encoders that look for the largest id.
        """
        table = encoder.get_input_embeddings().weight
        used = {*ids.unique().tolist()}
        for tokenizer, _ in self._readers():
            used |= {*tokenizer.all_special_ids}
        free = [token for token in range(len(table)) if token not in used][: len(extra)]
        lent = torch.tensor(free, device=ids.device)
        new = ids >= len(table)
        ids = torch.where(new, lent[(ids - len(table)).clamp(min=0)], ids)
        name = next(name for name, parameter in encoder.named_parameters() if parameter is table)
        return ids, {name: table.detach().index_copy(0, lent, extra.to(table))}
