"""The diffusion loss on pictures."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import mse_loss

from ...models.protocols import Denoiser, NoisyBatch, Params


@dataclass(frozen=True)
class Diffusion:
    """The loss that the model was pre-trained with, in its own parameterization (2006.11239,
    equation 14, where that is epsilon).

    On pictures of the concept it is the adversary's relearning objective.
    """

    def __call__(self, model: Denoiser, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        learned = model.parameterization
        target = learned.target(batch.x0, batch.noise, batch.t)
        prediction = model.predict(batch.x_t, batch.t, batch.cond, params)
        root = learned.loss_weight(batch.t).to(prediction).sqrt().view(-1, 1, 1, 1)
        return mse_loss(root * prediction, root * target)
