"""Dense updates: differences of whole weights, by the names that ComfyUI reads, `LAYER.diff` for
`LAYER.weight` and `LAYER.diff_b` for `LAYER.bias`.

What a defender publishes who trains the weights themselves. Importing this module does not load
torch.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..common.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

BIAS = ".diff_b"
ENDINGS = {".weight": ".diff", ".bias": BIAS}
"""The ending of a difference by that of its weight."""


def difference_name(weight: str) -> str:
    """The name of the difference of a weight.

    Raises:
        ValueError: it is neither a weight nor a bias of a layer.
    """
    for own, ending in ENDINGS.items():
        if weight.endswith(own):
            return weight.removesuffix(own) + ending
    raise ValueError(f"{weight!r} is no weight or bias of a layer.")


def weight_name(difference: str) -> str:
    """The name of the weight that a difference belongs to."""
    own = next(own for own, ending in ENDINGS.items() if difference.endswith(ending))
    return difference.removesuffix(ENDINGS[own]) + own


def is_difference(name: str) -> bool:
    """Whether a tensor of that name is a difference, and no LoRA factor."""
    return name.endswith(tuple(ENDINGS.values()))


def is_dense(state: Iterable[str]) -> bool:
    """Whether an update holds differences of weights."""
    return any(map(is_difference, state))


def check_differences(
    state: Mapping[str, "Tensor"], said: str, kinds: Iterable[str], largest: float
) -> None:
    """Refuse differences that spoil every picture; error messages begin with `said`, which names
    the update.

    Raises:
        ModelError: LoRA factors among them, numbers of other kinds than `kinds`, or numbers that
            are not finite or above `largest`.
    """
    for name, tensor in state.items():
        if not is_difference(name):
            raise ModelError(
                f"{said} holds both LoRA factors and differences of weights; one of the two is"
                " accepted."
            )
        if (kind := str(tensor.dtype).removeprefix("torch.")) not in kinds:
            raise ModelError(f"{said} holds {kind} numbers; {', '.join(kinds)} are accepted.")
        if not tensor.numel() or not float(tensor.abs().max()) <= largest:
            raise ModelError(
                f"{said} holds differences that are empty, not finite or too large; numbers up to"
                f" {largest} are accepted."
            )
