"""L1: a price on the size of every change of a weight."""

from dataclasses import dataclass, replace

from torch import Tensor

from ...common.registry import register
from ...models.lora import joined_factors, update_of
from ...models.protocols import Params
from ...settings.groups import setting
from . import RegularizedRun, Regularizer


@register("regularizer", "l1")
@dataclass(frozen=True)
class L1(Regularizer):
    """Keeps the update small: `l1` times the sum of |dW| over its entries.

    The update norm of 2511.07970 with power 1. `reference` holds the factors of updates that are
    merged into the model already and count as part of dW: nothing for a distance to the previous
    request, as the paper; all earlier ones for the distance to the original. Deviations: the norm
    is of the dense product, since a norm of the factors would be another penalty (it depends on how
    the product is split); the sum is not divided by the number of weights, so `l1` is the
    paper's lambda / N.
    """

    l1: float = setting(0.0, "price of every change of a weight, absolute", 0.0, 1e3)
    scale: float = 1.0

    def build(self, run: RegularizedRun) -> "L1 | None":
        """See `Regularizer`."""
        return replace(self, scale=run.scale) if self.l1 else None

    def penalty(self, params: Params, reference: Params) -> Tensor:
        """The penalty, a scalar."""
        total = next(iter(params.values())).new_zeros(())
        for factors in joined_factors(params, reference, self.scale):
            total = total + update_of(factors).abs().sum()
        return self.l1 * total
