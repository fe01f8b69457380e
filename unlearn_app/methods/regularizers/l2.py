"""L2: a price on the square of every change of a weight."""

from dataclasses import dataclass, replace

from torch import Tensor

from ...common.registry import register
from ...models.lora import joined_factors, squared_norm
from ...models.protocols import Params
from ...settings.groups import setting
from . import RegularizedRun, Regularizer


@register("regularizer", "l2")
@dataclass(frozen=True)
class L2(Regularizer):
    """Keeps the update small: `l2` times the sum of dW squared over its entries.

    The update norm of 2511.07970 with power 2. `reference` holds the factors of updates that are
    merged into the model already and count as part of dW: nothing for a distance to the previous
    request, as the paper; all earlier ones for the distance to the original. Deviations: the norm
    is of the dense product, since a norm of the factors would be another penalty (it depends on how
    the product is split); the sum is not divided by the number of weights, so `l2` is the
    paper's lambda / N. The sum is computed from matrices of the rank's size.
    """

    l2: float = setting(0.0, "price of every change of a weight, squared", 0.0, 1e6)
    scale: float = 1.0

    def build(self, run: RegularizedRun) -> "L2 | None":
        """See `Regularizer`."""
        return replace(self, scale=run.scale) if self.l2 else None

    def penalty(self, params: Params, reference: Params) -> Tensor:
        """The penalty, a scalar."""
        total = next(iter(params.values())).new_zeros(())
        for factors in joined_factors(params, reference, self.scale):
            total = total + squared_norm(factors)
        return self.l2 * total
