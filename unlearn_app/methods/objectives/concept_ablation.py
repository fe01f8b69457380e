"""Concept ablation."""

from dataclasses import dataclass

from torch import Tensor

from ...common.registry import register
from ...models.protocols import Denoiser, NoisyBatch, Params
from . import TargetObjective


@register("objective", "concept_ablation")
@dataclass(frozen=True)
class ConceptAblation(TargetObjective):
    """Makes the concept's prompt generate its anchor.

    Concept ablation, 2303.13516, equation 3 (model-based variant): e(x_t, c*) -> stop-gradient of
    e*(x_t, anchor), with e* the frozen model. Deviations: the loss weight w_t is 1, x_t is a noised
    picture of the concept's own prompt as well as of the anchor's, and by default all of
    cross-attention learns it, not its keys and values alone.
    """

    mixes_anchor_pictures = True
    suggested = {"unlearn.modules": "cross", "unlearn.lr": 4e-3}

    def target(self, model: Denoiser, batch: NoisyBatch, params: Params | None) -> Tensor:
        return model.frozen(batch.x_t, batch.t, batch.anchor)
