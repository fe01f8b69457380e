"""The shapes of the models that people own, as their repositories state them, and smaller ones of
the same architectures whose memory can be measured here.
"""

from dataclasses import dataclass
from typing import Any

from ...models.diffusers.single_file import STABLE_DIFFUSION_1, STABLE_DIFFUSION_XL

MILLION = 10**6
UNET = STABLE_DIFFUSION_1["unet/config.json"]
SDXL_UNET, SDXL_VAE = (STABLE_DIFFUSION_XL[f"{part}/config.json"] for part in ("unet", "vae"))
VAE = STABLE_DIFFUSION_1["vae/config.json"]
WIDE_VAE = VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
"""The autoencoder of SD 3 and FLUX, whose latents have 16 channels."""
SD_35_MEDIUM = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 128,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}
FLUX = {"_class_name": "FluxTransformer2DModel", "patch_size": 1, "guidance_embeds": True}


@dataclass(frozen=True)
class Owned:
    """A model that people own: the class of its pipelines, its denoiser and autoencoder, the
    numbers in its text encoders, the numbers in its denoiser that are published, in millions, and
    the gigabytes of the card that it should fit; 0 where no bar is set.
    """

    pipeline: str
    denoiser: dict[str, Any]
    vae: dict[str, Any]
    text: int
    millions: int
    card: int


OWNED: dict[str, Owned] = {
    "SD 1.5": Owned("StableDiffusionPipeline", UNET, VAE, 123 * MILLION, 860, 8),
    "SDXL": Owned(
        "StableDiffusionXLPipeline",
        SDXL_UNET,
        STABLE_DIFFUSION_XL["vae/config.json"],
        818 * MILLION,
        2567,
        12,
    ),
    "SD 3.5 medium": Owned(
        "StableDiffusion3Pipeline", SD_35_MEDIUM, WIDE_VAE, 5581 * MILLION, 2243, 0
    ),
    "FLUX.1 dev": Owned("FluxPipeline", FLUX, WIDE_VAE, 4885 * MILLION, 11901, 0),
}


@dataclass(frozen=True)
class Reduced:
    """The architecture of a model that people own, made smaller by `changes`, with latents of
    `side` along each side.
    """

    model: str
    changes: dict[str, Any]
    side: int

    @property
    def denoiser(self) -> dict[str, Any]:
        """Its configuration."""
        return OWNED[self.model].denoiser | self.changes

    @property
    def vae(self) -> dict[str, Any]:
        """The configuration of an autoencoder as much smaller."""
        return OWNED[self.model].vae | {"block_out_channels": [32, 64, 128, 128]}


def _sd(width: int, layers: int, side: int) -> Reduced:
    return Reduced(
        "SD 1.5",
        {
            "block_out_channels": [width] * 4,
            "cross_attention_dim": 4 * width,
            "layers_per_block": layers,
        },
        side,
    )


def _sdxl(width: int, depths: list[int], side: int) -> Reduced:
    changes = {
        "block_out_channels": [width, 2 * width, 4 * width],
        "cross_attention_dim": 4 * width,
        "attention_head_dim": [2, 4, 8],
        "transformer_layers_per_block": depths,
    }
    return Reduced("SDXL", changes, side)


def _sd3(heads: int, layers: int, side: int) -> Reduced:
    changes = {
        "num_layers": layers,
        "num_attention_heads": heads,
        "caption_projection_dim": 64 * heads,
        "joint_attention_dim": 512,
        "dual_attention_layers": list(range(layers // 2)),
    }
    return Reduced("SD 3.5 medium", changes, side)


def _flux(heads: int, double: int, single: int, side: int) -> Reduced:
    changes = {
        "num_layers": double,
        "num_single_layers": single,
        "num_attention_heads": heads,
        "joint_attention_dim": 512,
    }
    return Reduced("FLUX.1 dev", changes, side)


REDUCED: dict[str, Reduced] = {
    "SD 1.5, small": _sd(64, 1, 32),
    "SD 1.5, middle": _sd(96, 1, 48),
    "SDXL, small": _sdxl(32, [1, 1, 2], 32),
    "SDXL, middle": _sdxl(64, [1, 1, 2], 40),
    "SD 3.5 medium, small": _sd3(4, 3, 32),
    "SD 3.5 medium, middle": _sd3(6, 4, 48),
    "FLUX.1 dev, small": _flux(2, 1, 2, 32),
    "FLUX.1 dev, middle": _flux(3, 1, 3, 48),
}
"""What is measured here; a step of a middle shape takes a few seconds on a CPU."""
