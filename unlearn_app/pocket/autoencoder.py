"""The autoencoder: an encoder that is the linear patch code, and a decoder grown from coarse to fine to invert it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .latents import PatchBasis, pictures_to_tensor

LATENT_NOISE = 0.1
LOG_VARIANCE = -12.0
ANCHOR = 100.0
WARM_UP = 30
COARSER_WEIGHT = 0.25
EDGE_WEIGHT = 0.5
CROP, MARGIN = 8, 8
JOIN = 200
SAMPLE_ROWS = 10_000


# ---- encoder: the linear code written into convolution weights -------------------------------------------


def write_encoder(autoencoder: nn.Module, basis: PatchBasis, pictures: np.ndarray) -> None:
    """Set the encoder's weights so that its mean is `basis.encode`, without any training.

    Every residual branch is silenced, which leaves a chain of stride-2 convolutions; each maps 2 x 2 cells to the
    coefficients that matter most for the code (reduced-rank regression on `pictures` (N, H, W, 3) uint8). The
    normalisation before the output is held still by a pair of large constant channels per group, and
    silu(z) - silu(-z) = z undoes its activation. The log-variance is a small constant.
    """
    encoder = autoencoder.encoder
    with torch.no_grad():
        _silence_branches(encoder)
        widths = autoencoder.config.block_out_channels
        _write_taps(encoder.conv_in, torch.eye(3))
        features = pictures_to_tensor(pictures)
        for level in range(len(widths) - 1):
            cells = _cells(features)
            last = level == len(widths) - 2
            weight, bias = _fit_level(cells, features.shape[2] // 2, basis, pictures, None if last else widths[level])
            features = _grid(cells @ weight + bias, features.shape[2] // 2)
            if last:
                weight, bias = _mirrored(weight, bias, widths[-1], autoencoder.config.norm_num_groups)
            _write_downsampler(encoder.down_blocks[level].downsamplers[0].conv, weight, bias)
        _write_output(autoencoder, basis.rows.shape[0])


def _silence_branches(encoder: nn.Module) -> None:
    for module in encoder.modules():
        if hasattr(module, "conv_shortcut"):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            nn.init.zeros_(module.conv1.weight)
            if module.conv_shortcut is not None:
                _write_taps(module.conv_shortcut, torch.eye(module.conv_shortcut.in_channels))


def _write_taps(conv: nn.Conv2d, matrix: Tensor) -> None:
    """Make `conv` a per-pixel linear map; `matrix` (outputs, inputs) may be smaller than the convolution."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    centre = conv.kernel_size[0] // 2
    conv.weight[: matrix.shape[0], : matrix.shape[1], centre, centre] = matrix


def _write_downsampler(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """`weight` (4 * inputs, outputs) over the cell's taps in the order of `_cells`."""
    inputs, outputs = len(weight) // 4, weight.shape[1]
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    conv.weight[:outputs, :inputs, :2, :2] = weight.T.reshape(outputs, inputs, 2, 2)
    conv.bias[:outputs] = bias


def _cells(features: Tensor) -> Tensor:
    """(N, C, H, W) to one row of 4 C numbers per 2 x 2 cell."""
    return F.unfold(features, 2, stride=2).transpose(1, 2).reshape(-1, 4 * features.shape[1])


def _grid(rows: Tensor, side: int) -> Tensor:
    return rows.view(-1, side, side, rows.shape[1]).permute(0, 3, 1, 2).contiguous()


def _fit_level(
    cells: Tensor, side: int, basis: PatchBasis, pictures: np.ndarray, rank: int | None
) -> tuple[Tensor, Tensor]:
    """Weight (4 C, rank) and bias of one level; the last level (no rank) regresses the code itself."""
    x = pictures_to_tensor(pictures)
    if rank is None:
        code = basis.encode(x).permute(0, 2, 3, 1).reshape(len(cells), -1)
        solution = _least_squares(torch.cat([cells, torch.ones(len(cells), 1)], 1), code)
        return solution[:-1], solution[-1]
    if rank >= cells.shape[1]:
        return torch.eye(cells.shape[1]), torch.zeros(cells.shape[1])
    width = x.shape[2] // side
    share = basis.rows.view(-1, 3, 16 // width, width, 16 // width, width) / basis.scale.view(-1, 1, 1, 1, 1, 1)
    functionals = share.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * width * width)
    patches = F.unfold(x, width, stride=width).transpose(1, 2).reshape(len(cells), -1)
    some = slice(None, None, max(1, len(cells) // SAMPLE_ROWS))
    cells, patches = cells[some], patches[some]
    solution = _least_squares(cells, patches @ functionals.T)
    covariance = cells.T @ cells / len(cells)
    values, vectors = torch.linalg.eigh(solution.T @ covariance @ solution)
    keep = values.argsort(descending=True)[: min(rank, cells.shape[1])]
    weight = solution @ vectors[:, keep]
    scale = (cells @ weight).square().mean(0).sqrt().clamp_min(1e-6)
    return weight / scale, torch.zeros(len(keep))


def _least_squares(inputs: Tensor, targets: Tensor) -> Tensor:
    gram = inputs.T.double() @ inputs.double()
    ridge = 1e-7 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, inputs.T.double() @ targets.double()).float()


def _group_layout(channels: int, width: int, groups: int) -> tuple[list[int], list[int], list[int]]:
    """Places of the code, of its negative, and of the constant channels among `width` channels in `groups`."""
    size, share = width // groups, channels // groups
    plus = [group * size + 2 + i for group in range(groups) for i in range(share)]
    return plus, [place + share for place in plus], [group * size + i for group in range(groups) for i in (0, 1)]


def _mirrored(weight: Tensor, bias: Tensor, width: int, groups: int) -> tuple[Tensor, Tensor]:
    plus, minus, constant = _group_layout(weight.shape[1], width, groups)
    wide, offset = weight.new_zeros(len(weight), width), bias.new_zeros(width)
    wide[:, plus], wide[:, minus] = weight, -weight
    offset[plus], offset[minus] = bias, -bias
    offset[constant] = torch.tensor([ANCHOR, -ANCHOR]).repeat(groups)
    return wide, offset


def _write_output(autoencoder: nn.Module, channels: int) -> None:
    encoder, groups = autoencoder.encoder, autoencoder.config.norm_num_groups
    width = encoder.conv_norm_out.num_channels
    plus, minus, _ = _group_layout(channels, width, groups)
    nn.init.zeros_(encoder.conv_norm_out.weight)
    nn.init.zeros_(encoder.conv_norm_out.bias)
    encoder.conv_norm_out.weight[plus + minus] = ANCHOR * (2 * groups / width) ** 0.5
    taps = torch.zeros(2 * channels, width)
    taps[range(channels), plus], taps[range(channels), minus] = 1.0, -1.0
    _write_taps(encoder.conv_out, taps)
    encoder.conv_out.bias[channels:] = LOG_VARIANCE
    _write_taps(autoencoder.quant_conv, torch.eye(2 * channels))


# ---- decoder: trained coarse to fine -----------------------------------------------------------------------


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
        if state.step < steps.coarse + steps.crops:
            y, x = torch.randint(hidden.shape[-1] - CROP + 1, (2,), generator=generator).tolist()
            hidden = hidden[:, :, y : y + CROP, x : x + CROP]
            if state.step < steps.coarse + JOIN:
                hidden = hidden.detach()  # the untrained fine levels would undo what the coarse ones know
            pictures = pictures[:, :, 8 * y : 8 * (y + CROP), 8 * x : 8 * (x + CROP)]
            inner = slice(MARGIN, -MARGIN)
        else:
            inner = slice(None)
        decoded = [picture.float()[:, :, inner, inner] for picture in state.model.fine(hidden)]
    pictures = pictures[:, :, inner, inner]
    coarser = sum(_loss(picture, pictures) for picture in decoded[:-1])
    error = decoded[-1] - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return _loss(decoded[-1], pictures) + EDGE_WEIGHT * edges + COARSER_WEIGHT * (loss + coarser)


def draw_pictures(shards: list[np.ndarray], count: int, generator: torch.Generator) -> Tensor:
    """`count` random pictures of one random shard (one shard: few memory pages), (count, 3, H, W) in [-1, 1]."""
    shard = shards[int(torch.randint(len(shards), (), generator=generator))]
    rows = torch.randint(len(shard), (count,), generator=generator).sort().values
    return pictures_to_tensor(shard[rows.numpy()])


def _loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    return F.l1_loss(decoded, pictures) + F.mse_loss(decoded, pictures)
