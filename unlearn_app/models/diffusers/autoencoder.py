"""Pictures to latents and back, as the configuration of an autoencoder scales and shifts them."""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def encode(vae: Any, pictures: Tensor) -> Tensor:
    """Latents (B, C, h, w), float32, of pictures (B, 3, H, W) in [-1, 1], without noise."""
    raw = vae.encode(pictures).latent_dist.mode().float()
    if shift := vae.config.get("shift_factor"):
        raw = raw - shift
    return raw * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Pictures (B, 3, H, W), about in [-1, 1], of latents (B, C, h, w)."""
    raw = latents / vae.config.scaling_factor
    if shift := vae.config.get("shift_factor"):
        raw = raw + shift
    return vae.decode(raw.to(vae.dtype)).sample
