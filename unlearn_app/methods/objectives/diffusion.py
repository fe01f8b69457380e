"""The diffusion loss on pictures."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import mse_loss

from ...models.protocols import Backend, NoisyBatch, Params


@dataclass(frozen=True)
class Diffusion:
    """The loss the model was pre-trained with (2006.11239, equation 14, in the model's own
    parameterization).

    On pictures of the concept it is the adversary's relearning objective.
    """

    def __call__(self, backend: Backend, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        """Mean squared distance to the model's training target."""
        target = backend.target(batch.x0, batch.noise, batch.t)
        return mse_loss(backend.predict(batch.x_t, batch.t, batch.cond, params), target)
