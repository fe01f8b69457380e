"""What an adversary who expects meta-unlearning may do to the published weights before fine-tuning
them on the concept: a harmless warm-up, or noise.

2410.12777 tries no such adversary. Both leave the changed model in the slot `unlearn`, where any
attack begins.
"""

from contextlib import closing

import torch

from ..common.errors import diverging, lower
from ..common.seeds import generator
from ..models.diffusers.plain_weights import without_adapter
from ..models.protocols import Model, Params
from ..models.weight_differences import difference_name
from ..settings.groups import AttackConfig
from ..training.latent_dataset import LatentDataset
from .relearn import fine_tune


def warm_up(model: Model, harmless: LatentDataset, config: AttackConfig, seed: int) -> None:
    """Fine-tune the model under attack on pictures without the concept, away from the weights that
    the defender looked ahead from.

    Raises:
        Diverged: weights are not finite.
    """
    original, reached = _plain(model.weights()), {}
    slot = None if config.weights == "full" else "relearn"
    training = fine_tune(model, harmless, config, seed)
    with diverging(*lower("attack.lr", config.lr)), closing(training):
        for step in training:
            if step.step == step.total:
                reached = _plain(model.weights(slot))
    _publish(model, reached, original)


def add_noise(model: Model, share: float, seed: int) -> None:
    """Add normal noise to every matrix of the model under attack, whose norm is `share` of the
    matrix's own.
    """
    source, weights = generator(seed), _plain(model.weights("unlearn"))
    noisy = {}
    for name, weight in weights.items():
        if weight.ndim > 1:
            noise = torch.randn(weight.shape, generator=source).to(weight)
            noisy[name] = weight + share * weight.norm() / noise.norm() * noise
    _publish(model, weights | noisy, _plain(model.weights()))


def _plain(weights: Params) -> Params:
    """Copies of weights by the names that they have without adapters."""
    return {without_adapter(name): weight.detach().clone() for name, weight in weights.items()}


def _publish(model: Model, weights: Params, original: Params) -> None:
    """Put `weights` into the slot `unlearn`, as their differences from the `original` ones."""
    model.load_adapter(
        "unlearn",
        {
            difference_name(name): weight - original[name]
            for name, weight in weights.items()
            if not torch.equal(weight, original[name])
        },
    )
