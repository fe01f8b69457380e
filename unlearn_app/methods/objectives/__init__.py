"""Training objectives, one method per file: `(model, batch, params) -> scalar`."""

from typing import Protocol

from torch import Tensor

from ...models.protocols import Denoiser, NoisyBatch, Params


class Objective(Protocol):
    """A frozen dataclass whose fields are the method's hyperparameters.

    Class attributes may say what else the method needs: `mixes_anchor_pictures = True` noises the
    anchor's pictures as often as the concept's, so that the target is also learned where the
    forgotten prompt will lead; `random_labels = True` puts random retain prompts into
    `batch.anchor`; `trains_on_pictures = True` retains with the diffusion loss whatever the
    settings say; `suggested = {"unlearn.lr": 4e-3}` replaces defaults of the settings where the
    user says nothing; `advice = {"style": "..."}` is shown to who forgets an object or a style. A
    field `salient` is the share of output units that may move, by the size of the dense forget
    gradient.
    """

    def __call__(self, model: Denoiser, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        """The loss to minimise, a scalar."""
