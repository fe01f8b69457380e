"""The patch code: the principal components of 8 x 8 patches, which the autoencoder computes.

It maps a patch linearly to 64 numbers and is fitted in seconds, so that the denoiser can be trained
before the autoencoder is.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from ...common.images import to_tensor

PATCH = 8


@dataclass(frozen=True)
class PatchBasis:
    """Mean (192,), orthonormal rows (64, 192) and scale (64,) of the components."""

    mean: Tensor
    rows: Tensor
    scale: Tensor

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to latents (B, 64, H/8, W/8) of about unit variance."""
        kernel = (self.rows / self.scale[:, None]).view(len(self.rows), 3, PATCH, PATCH)
        shift = -(self.rows @ self.mean) / self.scale
        return F.conv2d(pictures, kernel, shift, stride=PATCH)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 64, H/8, W/8) to pictures (B, 3, H, W); borders of patches are visible."""
        patches = torch.einsum("bkyx,kp->bpyx", latents, self.rows * self.scale[:, None])
        return F.pixel_shuffle(patches + self.mean[:, None, None], PATCH)

    def save(self, path: Path) -> None:
        """Write the basis as safetensors."""
        save_file({"mean": self.mean, "rows": self.rows.contiguous(), "scale": self.scale}, path)


def patches_of(features: Tensor, side: int) -> Tensor:
    """Feature maps (B, C, H, W) as one row of C * side * side numbers for each patch of `side` x
    `side`.
    """
    columns = F.unfold(features, side, stride=side)
    return columns.transpose(1, 2).flatten(0, 1)


def load_basis(path: Path) -> PatchBasis:
    """Read a basis written by `PatchBasis.save`."""
    return PatchBasis(**load_file(path))


def fit_basis(pictures: np.ndarray, components: int) -> PatchBasis:
    """Principal components of the patches of `pictures` (N, H, W, 3) uint8.

    Each component is divided by the square root of its standard deviation, and all by one number
    that makes the variance about 1. Without the first, fine detail is too weak to be learned;
    divided by the whole deviation, it is as strong as the shapes.
    """
    patches = patches_of(to_tensor(pictures), PATCH)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    order = values.argsort(descending=True)[:components]
    deviation = values[order].sqrt()
    scale = deviation.sqrt()
    scale = scale * (deviation / scale).square().mean().sqrt()
    return PatchBasis(mean, vectors[:, order].T.contiguous(), scale)
