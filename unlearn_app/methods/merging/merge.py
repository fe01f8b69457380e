"""Merging by name: adapters that were made apart become one, as settings say."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...models.lora import Adapter, as_adapter, dense, shaped
from ...settings.groups import SequenceConfig
from .mean import uniform
from .task_arithmetic import arithmetic
from .ties import ties


def merge(
    states: Sequence[Mapping[str, Tensor]], how: SequenceConfig, basis: Tensor | None = None
) -> Adapter:
    """Adapters that were made apart as one of rank `how.rank`; what reads the span of `basis` (in,
    k) stays as it is.

    No merge keeps a span by itself, and neither does a truncation after it, so the projection comes
    between the two: the leading part of dW P reads nothing of the span either.
    """
    updates = [dense(state) for state in states]
    made = {
        "ties": lambda: ties(updates, how.weight, how.keep),
        "uniform": lambda: uniform(updates),
        "arithmetic": lambda: arithmetic(updates, how.weight),
    }[how.merge]()
    if basis is not None:
        made = {
            layer: update - update @ basis.to(update) @ basis.T.to(update)
            for layer, update in made.items()
        }
    return shaped(as_adapter(made, how.rank), states)
