"""Small random pipelines of every family's real classes, for 64-pixel pictures: what is said of a
family is tried on them, by tests and by `bench models`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from ...common.seeds import generator

SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BARE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def letter_tokenizer(**how: Any) -> CLIPTokenizer:
    """A CLIP tokenizer that knows single bytes only: any text works, no vocabulary file is
    needed.
    """
    symbols = sorted(ByteLevel.alphabet())
    tokens = [
        *symbols,
        *(f"{symbol}</w>" for symbol in symbols),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77, **how)


def clip(tokenizer: CLIPTokenizer, kind: Any = CLIPTextModel, **changes: Any) -> Any:
    """A CLIP text encoder of two layers."""
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return kind(CLIPTextConfig(**config | changes))


def projecting(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A CLIP text encoder with a projection, which finds the end token as those of SDXL and SD 3
    do: as the largest id.
    """
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    return clip(tokenizer, CLIPTextModelWithProjection, projection_dim=16, eos_token_id=2, **small)


def t5(prefix: str) -> dict[str, Any]:
    """A T5 encoder and its tokenizer of letters, as the parts `text_encoder` and `tokenizer` with
    the number `prefix`.
    """
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    vocab += [(letter, -3.0) for letter in letters]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=512)
    config = T5Config(vocab_size=len(vocab), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return {f"text_encoder_{prefix}": T5EncoderModel(config), f"tokenizer_{prefix}": tokenizer}


def autoencoder(channels: int = 4, **changes: Any) -> AutoencoderKL:
    """An autoencoder of factor 8."""
    return AutoencoderKL(
        sample_size=64,
        latent_channels=channels,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        **changes,
    )


def unet(**changes: Any) -> UNet2DConditionModel:
    """A UNet of two levels, the first with cross-attention."""
    config = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**config | changes)


def sd1() -> StableDiffusionPipeline:
    """Stable Diffusion 1.x, epsilon prediction."""
    tokenizer, denoiser, vae = letter_tokenizer(), unet(), autoencoder()
    scheduler = PNDMScheduler(
        **SD_BETAS, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1
    )
    parts = {"tokenizer": tokenizer, "text_encoder": clip(tokenizer), "unet": denoiser}
    return StableDiffusionPipeline(**parts, vae=vae, scheduler=scheduler, **BARE)


def sd2() -> StableDiffusionPipeline:
    """Stable Diffusion 2.x: v-prediction, zero terminal SNR, linear projections."""
    tokenizer = letter_tokenizer(pad_token="!")
    scheduler = DDIMScheduler(
        **SD_BETAS,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=clip(tokenizer, hidden_act="gelu"),
        tokenizer=tokenizer,
        unet=unet(
            block_out_channels=(16, 32), use_linear_projection=True, attention_head_dim=(2, 4)
        ),
        scheduler=scheduler,
        **BARE,
    )


def sdxl(**changes: Any) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL base; `changes` are those of the UNet."""
    one, two = letter_tokenizer(), letter_tokenizer(pad_token="!")
    denoiser = unet(
        **{
            "block_out_channels": (16, 32),
            "cross_attention_dim": 32 + 16,
            "use_linear_projection": True,
            "transformer_layers_per_block": (2, 1),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 16,
        }
        | changes
    )
    return StableDiffusionXLPipeline(
        vae=autoencoder(scaling_factor=0.13025),
        text_encoder=clip(one),
        text_encoder_2=projecting(two),
        tokenizer=one,
        tokenizer_2=two,
        unet=denoiser,
        scheduler=EulerDiscreteScheduler(
            **SD_BETAS, timestep_spacing="leading", steps_offset=1, use_karras_sigmas=False
        ),
        add_watermarker=False,
    )


def sd3(words: bool = True, **changes: Any) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 with T5, or without it; `changes` are those of the transformer."""
    tokenizer = letter_tokenizer()
    config = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 32,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**config | changes),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=projecting(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=projecting(tokenizer),
        tokenizer_2=tokenizer,
        **t5("3") if words else {"text_encoder_3": None, "tokenizer_3": None},
    )


def flux(guided: bool = True, side: int = 64) -> FluxPipeline:
    """FLUX.1 dev, or schnell, for pictures of `side` pixels."""
    tokenizer = letter_tokenizer()
    vae = autoencoder(
        scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
    )
    vae.register_to_config(sample_size=side)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    )
    dynamic = {"shift": 3.0, "use_dynamic_shifting": True}
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**dynamic if guided else {"shift": 1.0}),
        vae=vae,
        text_encoder=clip(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
        **t5("2"),
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd1": sd1,
    "sd2": sd2,
    "sdxl": sdxl,
    "sd3": sd3,
    "sd3-without-t5": lambda: sd3(words=False),
    "flux-dev": flux,
    "flux-schnell": lambda: flux(guided=False),
}


def save(folder: Path, made: Callable[[], Any]) -> Path:
    """The pipeline in a folder, the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made().save_pretrained(folder)
    return folder


def strong_adapter(model: Any, modules: str = "all") -> None:
    """Put an adapter that changes every picture into the slot `unlearn` of `model`."""
    made = model.reset_adapter("unlearn", 2, 2.0, seed=1, modules=modules)
    for name, tensor in made.items():
        if "lora_B" in name:
            tensor.data.normal_(std=0.3, generator=generator(5))


def save_judge(folder: Path) -> Path:
    """A small random CLIP network and its tokenizer in a folder, as `--judge clip=FOLDER` takes."""
    tokenizer = letter_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    sizes["num_hidden_layers"] = 1
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    text = sizes | marks | {"vocab_size": len(tokenizer), "max_position_embeddings": 77}
    vision = sizes | {"image_size": 64, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
