"""The autoencoder's decoder: grown from coarse to fine to invert the linear patch code."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .latents import PatchBasis, pictures_to_tensor

LATENT_NOISE = 0.1
WARM_UP = 30
COARSER_WEIGHT = 0.25
EDGE_WEIGHT = 0.5
CROP, MARGIN = 8, 8
JOIN = 200


class GrowingDecoder(nn.Module):
    """The decoder with a linear read-out after its coarser levels, so that these can learn first and cheaply.

    A read-out turns every feature cell into its patch of pixels; the read-outs are dropped after training.
    """

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.entry, self.decoder = autoencoder.post_quant_conv, autoencoder.decoder
        widths = [block.resnets[-1].out_channels for block in self.decoder.up_blocks[1:-1]]
        self.readouts = nn.ModuleList(nn.Conv2d(width, 3 * (8 >> i) ** 2, 1) for i, width in enumerate(widths))

    def coarse(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, 32, 8, 8) to features (B, C, 16, 16) and their read-out (B, 3, 128, 128)."""
        decoder = self.decoder
        hidden = decoder.up_blocks[0](decoder.mid_block(decoder.conv_in(self.entry(latents))))
        return self._level(hidden, 1)

    def fine(self, hidden: Tensor) -> list[Tensor]:
        """Features (B, C, H, W) of the coarse part to pictures (B, 3, 8 H, 8 W), the last the decoder's own output."""
        blocks, pictures = self.decoder.up_blocks, []
        for level in range(1, len(blocks) - 2):
            hidden, picture = self._level(blocks[level].upsamplers[0](hidden), level + 1)
            pictures.append(picture)
        hidden = blocks[-1](blocks[-2].upsamplers[0](hidden))
        return [*pictures, self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(hidden)))]

    def _level(self, hidden: Tensor, level: int) -> tuple[Tensor, Tensor]:
        for resnet in self.decoder.up_blocks[level].resnets:
            hidden = resnet(hidden, None)
        return hidden, F.pixel_shuffle(self.readouts[level - 1](hidden), 16 >> level)


@dataclass(frozen=True)
class DecoderSteps:
    """Steps of the coarse levels alone, of all levels on crops, and of all levels on whole pictures."""

    coarse: int
    crops: int
    whole: int

    @property
    def total(self) -> int:
        """All steps."""
        return self.coarse + self.crops + self.whole


@dataclass
class DecoderState:
    """Everything a resumed decoder training needs."""

    model: GrowingDecoder
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def new_state(autoencoder: nn.Module, lr: float) -> DecoderState:
    """A fresh training state; read-outs and `autoencoder`'s decoder are trained together.

    Every residual branch starts at zero, which is worth half a decibel in the first hundred steps.
    """
    model = GrowingDecoder(autoencoder)
    for module in model.modules():
        if hasattr(module, "conv_shortcut"):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    return DecoderState(model, torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0))


def train_decoder(
    state: DecoderState,
    basis: PatchBasis,
    shards: list[np.ndarray],
    *,
    steps: DecoderSteps,
    batch_size: int,
    lr: float,
    seed: int,
    autocast: bool,
) -> Iterator[float]:
    """Train all of `steps`, yielding each step's loss.

    Inputs are codes with a little noise, so that imperfect latents decode cleanly. The draws of a step depend on
    `seed` and the step alone.
    """
    device = next(state.model.parameters()).device
    state.model.train()
    while state.step < steps.total:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + state.step)
        pictures = draw_pictures(shards, batch_size, generator)
        latents = basis.encode(pictures)
        latents = latents + LATENT_NOISE * torch.randn(latents.shape, generator=generator)
        loss = _step_loss(state, latents.to(device), pictures.to(device), steps, generator, autocast)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * learning_share(state.step, steps)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
        state.optimizer.step()
        state.step += 1
        yield loss.item()


def learning_share(step: int, steps: DecoderSteps) -> float:
    """Warm-up at the start and when the fine levels join, then a linear fall over the last half."""
    since = step if step < steps.coarse else step - steps.coarse
    return min(1.0, (since + 1) / WARM_UP) * max(0.02, min(1.0, 2 * (1 - step / steps.total)))


def _step_loss(
    state: DecoderState,
    latents: Tensor,
    pictures: Tensor,
    steps: DecoderSteps,
    generator: torch.Generator,
    autocast: bool,
) -> Tensor:
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=autocast):
        hidden, coarse = state.model.coarse(latents)
        loss = _loss(coarse.float(), pictures)
        if state.step < steps.coarse:
            return loss
        rows = columns = slice(None)
        if state.step < steps.coarse + steps.crops:
            y, x = torch.randint(hidden.shape[-1] - CROP + 1, (2,), generator=generator).tolist()
            pictures = pictures[:, :, 8 * y : 8 * (y + CROP), 8 * x : 8 * (x + CROP)]
            rows, columns = _inner(y, hidden.shape[-2]), _inner(x, hidden.shape[-1])
            hidden = hidden[:, :, y : y + CROP, x : x + CROP]
            if state.step < steps.coarse + JOIN:
                hidden = hidden.detach()  # the untrained fine levels would undo what the coarse ones know
        decoded = [picture.float()[:, :, rows, columns] for picture in state.model.fine(hidden)]
    pictures = pictures[:, :, rows, columns]
    coarser = sum(_loss(picture, pictures) for picture in decoded[:-1])
    error = decoded[-1] - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return _loss(decoded[-1], pictures) + EDGE_WEIGHT * edges + COARSER_WEIGHT * (loss + coarser)


def _inner(start: int, cells: int) -> slice:
    """The pixels of a crop that see no false border: a margin is left out unless the picture ends there."""
    return slice(MARGIN if start else 0, 8 * CROP - (MARGIN if start + CROP < cells else 0))


def draw_pictures(shards: list[np.ndarray], count: int, generator: torch.Generator) -> Tensor:
    """`count` random pictures of one random shard (one shard: few memory pages), (count, 3, H, W) in [-1, 1]."""
    shard = shards[int(torch.randint(len(shards), (), generator=generator))]
    rows = torch.randint(len(shard), (count,), generator=generator).sort().values
    return pictures_to_tensor(shard[rows.numpy()])


def _loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    return F.l1_loss(decoded, pictures) + F.mse_loss(decoded, pictures)
