"""Which layers of a denoiser carry an adapter: one table for all architectures.

A row maps every value of `UnlearnConfig.modules`, and `text_readers`, to a pattern of layer names.
"""

from collections.abc import Mapping

UNET_CARRIERS = r"\.(to_q|to_k|to_v|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)$"
UNET_CONVOLUTIONS = r"\.(conv|conv1|conv2|conv_shortcut)$"
IMAGE_STREAM = r"^transformer_blocks\.\d+\.attn2?\.(to_[qkv]|to_out\.0)$"
TEXT_STREAM = r"^transformer_blocks\.\d+\.attn\.(add_[qkv]_proj|to_add_out)$"
BOTH_STREAMS = r"^single_transformer_blocks\.\d+\.attn\.to_[qkv]$"
FEED_FORWARD = (
    r"^transformer_blocks\.\d+\.ff(_context)?\.net\.(0\.proj|2)$"
    r"|^single_transformer_blocks\.\d+\.(proj_mlp|proj_out)$"
)
NONE = r"(?!)"

UNET = {
    "all": UNET_CARRIERS,
    "attention": r"\.attn[12]" + UNET_CARRIERS,
    "cross": r"\.attn2" + UNET_CARRIERS,
    "self": r"\.attn1" + UNET_CARRIERS,
    "keys_values": r"\.attn2\.to_[kv]$",
    "not_cross": r"^(?!.*\.attn2\.).*" + UNET_CARRIERS,
    "convolutions": UNET_CONVOLUTIONS,
    "locon": f"{UNET_CARRIERS}|{UNET_CONVOLUTIONS}",
    "text_readers": r"\.attn2\.to_[kv]$",
}
"""Blocks of self-attention (`attn1`), cross-attention (`attn2`), feed-forward and convolutions.

`all` leaves out the convolutions but for the projections into and out of a block. `convolutions`
are those of the residual blocks and between resolutions, and `locon` is both. Keys and values of
cross-attention read the text states as the text encoder wrote them: `text_readers`.
"""
MMDIT = {
    "all": "|".join([IMAGE_STREAM, TEXT_STREAM, BOTH_STREAMS, FEED_FORWARD]),
    "attention": "|".join([IMAGE_STREAM, TEXT_STREAM, BOTH_STREAMS]),
    "cross": TEXT_STREAM,
    "self": "|".join([IMAGE_STREAM, BOTH_STREAMS]),
    "keys_values": r"^transformer_blocks\.\d+\.attn\.add_[kv]_proj$",
    "not_cross": "|".join([IMAGE_STREAM, BOTH_STREAMS, FEED_FORWARD]),
    "convolutions": NONE,
    "locon": NONE,
    "text_readers": NONE,
}
"""Joint attention over an image stream and a text stream (2403.03206, figure 2).

`cross` are the projections of the text stream: its queries, keys, values and output. FLUX's single
blocks project both streams with the same matrices; these count as `self`. Nothing reads the text
states as the text encoder wrote them but the embedding before the first block: the keys and values
of the text stream read what earlier blocks and the timestep have made of them, so that closed forms
and the projection of text states do not apply.
"""
LAYERS: dict[str, Mapping[str, str]] = {
    "UNet2DConditionModel": UNET,
    "SD3Transformer2DModel": MMDIT,
    "FluxTransformer2DModel": MMDIT,
}
"""The row of each denoiser of diffusers."""
