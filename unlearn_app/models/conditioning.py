"""What a prompt becomes for a denoiser: text states and whatever else a model family reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """The conditioning of B prompts; every tensor has one row per prompt.

    `states` (B, L, D) are the text states that cross-attention reads, `pooled` (B, P) one vector of
    the whole prompt, `mask` (B, L) is 1 where a state counts, and `extras` holds what one model
    family reads beside them, such as SDXL's time ids. None is what a model does not read.
    """

    states: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of prompts, B."""
        return len(self.states)

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """The rows of all `parts`, one part after the other; all hold the same kinds of tensors."""
        first, *others = parts
        return first._map(lambda *tensors: torch.cat(tensors), *others)

    def rows(self, rows: slice | Sequence[int] | Tensor) -> "Conditioning":
        """Some of the rows, as a tensor's first axis is indexed."""
        return self._map(lambda tensor: tensor[rows])

    def repeat(self, times: int) -> "Conditioning":
        """All rows `times` times over, (times * B) rows."""
        return self._map(lambda tensor: tensor.repeat(times, *[1] * (tensor.ndim - 1)))

    def expand(self, count: int) -> "Conditioning":
        """One row as `count` equal rows that share its memory."""
        return self._map(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds."""
        own = (self.states, self.pooled, self.mask, *self.extras.values())
        return tuple(tensor for tensor in own if tensor is not None)

    def _map(self, change: Callable[..., Tensor], *others: "Conditioning") -> "Conditioning":
        """What `change` makes of every tensor here and the same one of each of `others`."""
        parts = (self, *others)
        return Conditioning(
            change(*(part.states for part in parts)),
            None if self.pooled is None else change(*(part.pooled for part in parts)),
            None if self.mask is None else change(*(part.mask for part in parts)),
            {name: change(*(part.extras[name] for part in parts)) for name in self.extras},
        )
