"""Regularizers: what keeps an update small or away from the rest of the model, beside the gradient
rule and whatever the optimizer does.

A regularizer is one file. Its fields declared with `setting()` are settings `regularize.FIELD`,
which together with those of all other regularizers need names of their own; the other fields are
filled in by `build`. Parameters are LoRA factors by name, `LAYER.lora_A.SLOT.weight` (rank, in) and
`LAYER.lora_B.SLOT.weight` (out, rank); an update is `scale * B A`. Convolutions count as matrices
(out, in * height * width).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ...concepts.concept import Concept
from ...models.lora import Updates
from ...models.protocols import Model, NoisyBatch, Params


@dataclass(frozen=True)
class RegularizedRun:
    """What a regularizer is built from."""

    model: Model
    concept: Concept
    concept_states: Callable[[], Tensor]
    """The text states (N, D) of the tokens that carry the concept."""
    erased: Sequence[Concept] = ()
    """Concepts that were forgotten before."""
    scale: float = 1.0
    """The LoRA scale of the update, alpha / rank."""
    loss: Callable[[Model, NoisyBatch], Tensor] | None = None
    """The forget loss; None where nothing is forgotten by training."""
    batches: Iterator[NoisyBatch] = field(default_factory=lambda: iter(()))
    """Batches of the forget loss."""


class Regularizer:
    """A frozen dataclass. What it does not need stays as it is here: nothing is done."""

    registry_order: ClassVar[int] = 0
    """Regularizers are listed and applied in this order; those of the same order by their names."""

    def check(self, modules: str) -> None:
        """Refuse settings that cannot hold with LoRA on `modules`, as `unlearn.modules` names them.

        Raises:
            ConfigError: naming the setting.
        """

    def build(self, run: RegularizedRun) -> "Regularizer | None":
        """The regularizer for one run; None where its settings ask for nothing.

        Raises:
            ConfigError: nothing would be left to learn from.
        """

    def note(self, run: RegularizedRun) -> str:
        """What to say about the run afterwards, in a sentence; empty for nothing."""
        return ""

    def restrict_merged(self, updates: Updates, run: RegularizedRun) -> Updates:
        """Dense updates (out, in) by layer that were merged, restricted as those of the run are."""
        return updates

    def begin_(self, params: Params) -> None:
        """Move `params` in place into the allowed set, before the first step."""

    def penalty(self, params: Params, reference: Params) -> Tensor | None:
        """A scalar to add to the loss, or None; no competing task, so it never enters the gradient
        rule.
        """

    def modify_grads_(self, params: Params) -> None:
        """Change the gradients of `params` in place, before the optimizer step."""

    def project_(self, params: Params) -> None:
        """Move `params` in place back into the allowed set, after the optimizer step."""
