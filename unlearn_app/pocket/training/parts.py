"""The shapes of the bundled model's parts, all of them plain diffusers classes."""

from typing import Any

from ...models.diffusers.loading import new_part
from .tower import WIDTH

LATENT_CHANNELS = 64
LATENT_SIDE = 8


def new_scheduler() -> Any:
    """v-prediction with zero terminal SNR (2305.08891): the last timestep of training is pure
    noise, as the first of sampling.

    The stochastic DPM-Solver++ of second order (2211.01095) adds fresh noise at every step as DDPM
    does, by which later steps mend what earlier ones got wrong, and needs fewer of them.
    """
    return new_part(
        "scheduler",
        algorithm_type="sde-dpmsolver++",
        solver_order=2,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
    )


def new_unet(widths: tuple[int, int] = (128, 192), blocks: int = 1) -> Any:
    """The untrained denoiser: 8 x 8 x 64 latents, cross-attention at both levels, with `blocks`
    in each.
    """
    return new_part(
        "unet",
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        layers_per_block=blocks,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=32,
    )


def new_autoencoder() -> Any:
    """The untrained autoencoder: 64 px pictures to 8 x 8 x 64 latents and back.

    The widths are those that `write_decoder` needs, with one group of channels in every
    normalisation, because every group needs anchors of its own.
    """
    return new_part(
        "vae",
        sample_size=64,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 36, 106, 136),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=1,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,  # the pipelines of Stable Diffusion 3 add it
    )
