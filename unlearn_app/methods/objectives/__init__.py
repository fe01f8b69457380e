"""Training objectives, one method per file: `(model, batch, params) -> scalar`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import mse_loss

from ...models.protocols import Denoiser, NoisyBatch, Params

Loss = Callable[[Denoiser, NoisyBatch, Params | None], Tensor]
"""What is minimised; every objective is one."""


class Objective(ABC):
    """A frozen dataclass whose fields are the method's hyperparameters.

    The class attributes say what else the method needs. `mixes_anchor_pictures` noises the anchor's
    pictures as often as the concept's, so that the target is also learned where the forgotten
    prompt will lead; `random_labels` puts random retain prompts into `batch.anchor`;
    `trains_on_pictures` retains with the diffusion loss whatever the settings say; `salient` is the
    share of output units that may move, by the size of the dense forget gradient. `suggested`, such
    as {"unlearn.lr": 4e-3}, replaces defaults of the settings where the user says nothing;
    `advice`, such as {"style": "..."}, is shown where an object or a style is forgotten.
    """

    mixes_anchor_pictures: bool = False
    random_labels: bool = False
    trains_on_pictures: bool = False
    salient: float = 1.0
    suggested: Mapping[str, Any] = {}
    advice: Mapping[str, str] = {}

    @abstractmethod
    def __call__(self, model: Denoiser, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        """The loss to minimise, a scalar: a mean over the batch."""


class TargetObjective(Objective):
    """An objective that takes the prediction for the batch's prompts to a target: a mean squared
    distance.
    """

    @abstractmethod
    def target(self, model: Denoiser, batch: NoisyBatch, params: Params | None) -> Tensor:
        """What the model is trained to predict (B, C, H, W), a constant."""

    def __call__(self, model: Denoiser, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        target = self.target(model, batch, params)
        return mse_loss(model.predict(batch.x_t, batch.t, batch.cond, params), target)
