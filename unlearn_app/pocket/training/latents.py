"""Latents by principal components: 8 x 8 patches of pictures to 64 numbers, the target the
autoencoder learns.

A linear code is ready in seconds, so the denoiser can train while the convolutional encoder and
decoder learn to reproduce and to invert it.
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
    """Mean (192,), orthonormal rows (64, 192) and a scale per component (64,)."""

    mean: Tensor
    rows: Tensor
    scale: Tensor

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to latents (B, 64, H/8, W/8) of about unit variance."""
        kernel = (self.rows / self.scale[:, None]).view(len(self.rows), 3, PATCH, PATCH)
        shift = -(self.rows @ self.mean) / self.scale
        return F.conv2d(pictures, kernel, shift, stride=PATCH)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to the linear reconstruction (B, 3, H, W); blocky at patch borders."""
        patches = torch.einsum("bkyx,kp->bpyx", latents, self.rows * self.scale[:, None])
        return F.pixel_shuffle(patches + self.mean[:, None, None], PATCH)

    def save(self, path: Path) -> None:
        """Write the basis as safetensors."""
        save_file({"mean": self.mean, "rows": self.rows.contiguous(), "scale": self.scale}, path)


def load_basis(path: Path) -> PatchBasis:
    """Read a basis written by `PatchBasis.save`."""
    return PatchBasis(**load_file(path))


def fit_basis(pictures: np.ndarray, components: int) -> PatchBasis:
    """Principal components of the patches of `pictures` (N, H, W, 3) uint8.

    Each component is divided by the square root of its standard deviation, then all by one number:
    between raw components (fine detail too quiet to be learned) and whitened ones (fine detail as
    loud as the shapes).
    """
    pixels = to_tensor(pictures)
    patches = F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    order = values.argsort(descending=True)[:components]
    deviation = values[order].sqrt()
    scale = deviation.sqrt()
    scale = scale * (deviation / scale).square().mean().sqrt()
    return PatchBasis(mean, vectors[:, order].T.contiguous(), scale)
