"""Training objectives, one method per file: `(backend, batch, params) -> scalar`."""

from typing import Protocol

from torch import Tensor

from ..backend import Backend, NoisyBatch, Params


class Objective(Protocol):
    """A frozen dataclass whose fields are the method's hyperparameters."""

    def __call__(self, backend: Backend, batch: NoisyBatch, params: Params | None = None) -> Tensor:
        """The loss to minimise, a scalar."""
