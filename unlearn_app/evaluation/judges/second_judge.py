"""A second judge of the bundled world: a small vision transformer, so that no verdict depends on
one network.

ViT (2010.11929) with heads only. It shares the renderings and their disturbances with the judge,
and nothing else: no convolution over overlapping windows, no batch statistics, no words.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.registry import register
from ...concepts.concept import Prompt
from ...settings.events import Value
from . import likeliest
from .pocket_judge import SIDE, BundledJudge

PATCH, WIDTH, DEPTH, HEADS = 8, 56, 3, 4


class PatchNet(nn.Module):
    """Patches of 8 x 8 pixels as tokens through a transformer, their mean to a head per axis."""

    def __init__(self, axes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn(1, (SIDE // PATCH) ** 2, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH,
            HEADS,
            2 * WIDTH,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            layer, DEPTH, nn.LayerNorm(WIDTH), enable_nested_tensor=False
        )
        self.heads = nn.ModuleDict(
            {axis: nn.Linear(WIDTH, len(names)) for axis, names in axes.items()}
        )

    def features(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], of any size, to features (B, WIDTH)."""
        patches = self.patches(F.interpolate(images, (SIDE, SIDE), mode="area"))
        return self.blocks(patches.flatten(2).transpose(1, 2) + self.places).mean(1)


@register("judge", "second_judge")
class SecondJudge(BundledJudge):
    """A small vision transformer that checks the bundled judge; it knows no words, so it has no
    alignment.
    """

    scores: ClassVar[bool] = False
    name = "pocket-second"
    folder = "second"
    network = PatchNet
    threshold = None

    def judge(self, images: Tensor, prompts: Sequence[Prompt]) -> list[dict[str, Value]]:
        """See `Judge`: the likeliest class of the prompt's axis."""
        return [{self.name: answer} for answer, _ in likeliest(images, prompts, self)]
