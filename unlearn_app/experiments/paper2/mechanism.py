"""The mechanism that 2410.12777 names, measured: the gradient of an adversary's loss on the concept
is small, and points away from that of relatives.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...attacks.relearn import trained_by
from ...common.seeds import stream_seed
from ...methods.objectives.diffusion import Diffusion
from ...models.protocols import Model, Params
from ...settings.groups import AttackConfig
from ...training.latent_dataset import LatentDataset, noisy_batches

DRAWS = 2
"""How often all pictures are noised; every model meets the same noise and timesteps."""


def attack_gradients(
    model: Model,
    forget: LatentDataset,
    related: LatentDataset,
    attack: AttackConfig,
    seed: int,
) -> dict[str, float]:
    """The losses and gradients with which an attack on the model in the slot `unlearn` begins, in
    what it trains: norms, and the cosine of the two gradients.

    A fresh LoRA begins without effect, so that its gradient is that of its B factors alone.
    """
    with trained_by(model, attack, seed) as params:
        found = {
            name: _gradient(model, data, params, stream_seed("adversary batches", seed))
            for name, data in (("forget", forget), ("related", related))
        }
    return _compared(found)


def _gradient(model: Model, data: LatentDataset, params: Params, seed: int) -> tuple[float, Tensor]:
    """Loss and gradient (P,), in the mean over the draws."""
    batches = noisy_batches(model, data, len(data.x0), seed)
    loss = sum(Diffusion()(model, next(batches), None) for _ in range(DRAWS)) / DRAWS
    parts = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
    return loss.item(), torch.cat([part.flatten().double() for part in parts])


def _compared(found: Mapping[str, tuple[float, Tensor]]) -> dict[str, float]:
    (_, forget), (_, related) = found["forget"], found["related"]
    norms = forget.norm(), related.norm()
    cosine = (forget @ related / (norms[0] * norms[1]).clamp(min=1e-300)).item()
    return {
        "forget_loss": round(found["forget"][0], 6),
        "related_loss": round(found["related"][0], 6),
        "forget_norm": round(norms[0].item(), 6),
        "related_norm": round(norms[1].item(), 6),
        "cosine": round(cosine, 6),
    }
