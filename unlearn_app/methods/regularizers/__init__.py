"""Regularizers: what keeps an update small or away from the rest of the model, in addition to the
gradient rule and the optimizer.

A regularizer is one file. Its fields declared with `setting()` are settings `regularize.FIELD`,
whose names no other regularizer may use; the other fields are filled in by `build`. Parameters are
LoRA factors by name, `LAYER.lora_A.SLOT.weight` (rank, in) and `LAYER.lora_B.SLOT.weight` (out,
rank); an update is `scale * B A`. Convolutions count as matrices (out, in * height * width). Where
the weights themselves are trained, parameters are these, by their own names.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ...common.errors import ConfigError
from ...concepts.concept import Concept, KnownConcept
from ...models.lora import Updates
from ...models.protocols import Model, NoisyBatch, Params


@dataclass(frozen=True)
class RegularizedRun:
    """The facts of one run that regularizers are built from.

    `concept_states` returns the text states (N, D) of the tokens that carry the concept; `erased`
    are concepts that were forgotten before; `scale` is the LoRA scale of the update, alpha / rank.
    `reference` holds the factors of updates that are merged into the model already and count as
    part of the update. `loss` is the forget loss and `batches` are its batches; both are None where
    nothing is forgotten by training. `known` is the vocabulary of the model, if it has one.
    """

    model: Model
    concept: Concept
    concept_states: Callable[[], Tensor]
    erased: Sequence[Concept] = ()
    scale: float = 1.0
    reference: Params = field(default_factory=dict)
    loss: Callable[[Model, NoisyBatch], Tensor] | None = None
    batches: Iterator[NoisyBatch] | None = None
    known: Sequence[KnownConcept] = ()


class Regularizer:
    """A frozen dataclass; every method but `build` does nothing unless it is overridden.

    Regularizers are listed and applied by `registry_order`, and by name within the same order.
    """

    registry_order: int = 0

    def check(self, modules: str, weights: str) -> None:
        """Refuse settings that cannot hold where `weights` of `modules` are trained, as
        `unlearn.weights` and `unlearn.modules` name them.

        Raises:
            ConfigError: naming the setting.
        """

    def build(self, run: RegularizedRun) -> "Regularizer | None":
        """The regularizer for one run, whose methods below are used; None where its settings ask
        for nothing.

        Raises:
            ConfigError: nothing would be left to learn from.
        """

    def note(self) -> str:
        """What to say about the run afterwards, in a sentence; empty for nothing."""
        return ""

    def restrict_merged(self, updates: Updates) -> Updates:
        """Merged dense updates (out, in) by layer, restricted as the run restricts its own."""
        return updates

    def begin_(self, params: Params) -> None:
        """Move `params` in place into the allowed set, before the first step."""

    def penalty(self, params: Params) -> Tensor | None:
        """A scalar to add to the loss, or None; it is added after the gradient rule."""

    def modify_grads_(self, params: Params) -> None:
        """Change the gradients of `params` in place, before the optimizer step."""

    def project_(self, params: Params) -> None:
        """Move `params` in place back into the allowed set, after the optimizer step."""


def check_factored(setting: str, weights: str) -> None:
    """Refuse a regularization of LoRA factors where the weights themselves are trained.

    Raises:
        ConfigError: naming the setting.
    """
    if weights != "lora":
        raise ConfigError(
            f"{setting} holds LoRA factors back and unlearn.weights is {weights};"
            f" unlearn.weights=lora is accepted with it.",
            setting,
        )
