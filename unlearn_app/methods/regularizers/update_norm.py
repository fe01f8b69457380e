"""What L1 and L2 share: a price on a norm of the update."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...models.lora import Factors, scaled, sum_factors
from ...models.protocols import Params
from . import RegularizedRun, Regularizer


@dataclass(frozen=True)
class UpdateNorm(Regularizer, ABC):
    """Keeps the update small: a price times the sum of a cost over the entries of dW.

    The update norm of 2511.07970. `reference` holds the factors of updates that are merged into the
    model already and count as part of dW: nothing for a distance to the previous request, as the
    paper; all earlier ones for the distance to the original. Deviations: the norm is of the dense
    product, since a norm of the factors would be another penalty (it depends on how the product is
    split); the sum is not divided by the number of weights, so a price is the paper's lambda / N.
    """

    scale: float = field(default=1.0, kw_only=True)

    @property
    @abstractmethod
    def price(self) -> float:
        """What the sum is multiplied by; 0 asks for nothing."""

    @abstractmethod
    def cost(self, factors: Factors) -> Tensor:
        """The sum, a scalar, of one layer's update."""

    def build(self, run: RegularizedRun) -> "UpdateNorm | None":
        """See `Regularizer`."""
        return replace(self, scale=run.scale) if self.price else None

    def penalty(self, params: Params, reference: Params) -> Tensor:
        """The penalty, a scalar."""
        like = next(iter(params.values()))
        earlier = {name: factor.to(like) for name, factor in reference.items()}
        total = like.new_zeros(())
        for factors in sum_factors(scaled(params, self.scale), earlier).values():
            total = total + self.cost(factors)
        return self.price * total
