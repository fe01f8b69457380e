"""The encoder of the autoencoder: the linear patch code, computed as convolution weights."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.images import to_tensor
from .latents import PATCH, PatchBasis, patches_of

LOG_VARIANCE = -12.0
ANCHOR = 100.0
SAMPLE_ROWS = 10_000


def write_encoder(autoencoder: nn.Module, basis: PatchBasis, pictures: np.ndarray) -> None:
    """Set the encoder's weights so that its mean is `basis.encode`, without any training.

    Every residual branch is zero, which leaves a chain of three stride-2 convolutions, fitted to
    `pictures` (N, H, W, 3) uint8. The first passes on the 12 numbers of 2 x 2 pixels; the second
    keeps of the 48 of 4 x 4 pixels what matters most for the code; the third is the linear map to
    the code. Before the output stands a normalisation: a pair of large constant channels, the
    anchors, makes its statistics constant. The activation is undone by silu(z) - silu(-z) = z. The
    log-variance is a small constant.
    """
    encoder = autoencoder.encoder
    first, second, third = (block.downsamplers[0].conv for block in encoder.down_blocks[:-1])
    pixels = to_tensor(pictures)
    with torch.no_grad():
        _blank_branches(encoder)
        write_taps(encoder.conv_in, torch.eye(3))
        cells = patches_of(pixels, 2)
        _write_downsampler(first, torch.eye(cells.shape[1]))
        cells = patches_of(_grid(cells, pixels.shape[2] // 2), 2)
        weight = _reduction(cells, pixels, basis, second.out_channels)
        _write_downsampler(second, weight)
        cells = patches_of(_grid(cells @ weight, pixels.shape[2] // 4), 2)
        code = basis.encode(pixels).permute(0, 2, 3, 1).reshape(len(cells), -1)
        solution = _least_squares(F.pad(cells, (0, 1), value=1.0), code)
        # One more channel is constant; the last block makes the anchors of it.
        _write_downsampler(third, F.pad(solution[:-1], (0, 1)))
        third.bias[: solution.shape[1] + 1] = F.pad(solution[-1], (0, 1), value=1.0)
        _write_output(autoencoder, code.shape[1])


def _blank_branches(encoder: nn.Module) -> None:
    for module in encoder.modules():
        if hasattr(module, "conv_shortcut"):
            blank(module.conv2)
            nn.init.zeros_(module.conv1.weight)
            if module.conv_shortcut is not None:
                write_taps(module.conv_shortcut, torch.eye(module.conv_shortcut.in_channels))


def blank(layer: nn.Conv2d | nn.GroupNorm) -> None:
    """Set weight and bias to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def write_taps(conv: nn.Conv2d, matrix: Tensor) -> None:
    """Make `conv` the per-pixel linear map `matrix` (outputs, inputs) of its first channels."""
    blank(conv)
    centre = conv.kernel_size[0] // 2
    conv.weight[: matrix.shape[0], : matrix.shape[1], centre, centre] = matrix


def _write_downsampler(conv: nn.Conv2d, weight: Tensor) -> None:
    """Make `conv` the map `weight` (4 * inputs, outputs) of 2 x 2 cells, in the order of
    `patches_of`.
    """
    inputs = len(weight) // 4
    outputs = weight.shape[1]
    blank(conv)
    conv.weight[:outputs, :inputs, :2, :2] = weight.T.reshape(outputs, inputs, 2, 2)


def _grid(rows: Tensor, side: int) -> Tensor:
    """Rows (N * side * side, C) to feature maps (N, C, side, side)."""
    return rows.view(-1, side, side, rows.shape[1]).permute(0, 3, 1, 2).contiguous()


def _reduction(cells: Tensor, pixels: Tensor, basis: PatchBasis, rank: int) -> Tensor:
    """A matrix (48, rank) from the numbers of 4 x 4 pixels to those that tell most of the code: of
    unit variance, by reduced-rank regression of what they add to it.
    """
    quarter = PATCH // 2
    scaled = basis.rows / basis.scale[:, None]
    by_quarter = scaled.view(-1, 3, 2, quarter, 2, quarter).permute(0, 2, 4, 1, 3, 5)
    functionals = by_quarter.reshape(-1, 3 * quarter * quarter)
    step = max(1, len(cells) // SAMPLE_ROWS)
    cells = cells[::step]
    solution = _least_squares(cells, patches_of(pixels, quarter)[::step] @ functionals.T)
    values, vectors = torch.linalg.eigh(solution.T @ (cells.T @ cells / len(cells)) @ solution)
    weight = solution @ vectors[:, values.argsort(descending=True)[:rank]]
    return weight / (cells @ weight).square().mean(0).sqrt().clamp_min(1e-6)


def _least_squares(inputs: Tensor, targets: Tensor) -> Tensor:
    gram = inputs.T.double() @ inputs.double()
    ridge = 1e-7 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, inputs.T.double() @ targets.double()).float()


def _write_output(autoencoder: nn.Module, channels: int) -> None:
    """Make the anchors, the code and its negative, normalise and activate them, and give back the
    code.
    """
    encoder = autoencoder.encoder
    width = encoder.conv_norm_out.num_channels
    plus = slice(2, 2 + channels)
    minus = slice(2 + channels, 2 + 2 * channels)
    mirror = torch.zeros(width, channels + 1)
    mirror[plus, :-1].fill_diagonal_(1.0)
    mirror[minus, :-1].fill_diagonal_(-1.0)
    mirror[:2, -1] = torch.tensor([ANCHOR, -ANCHOR])
    write_taps(encoder.down_blocks[-1].resnets[0].conv_shortcut, mirror)
    blank(encoder.conv_norm_out)
    encoder.conv_norm_out.weight[2 : minus.stop] = ANCHOR * (2 / width) ** 0.5
    taps = torch.zeros(2 * channels, width)
    taps[:channels, plus].fill_diagonal_(1.0)
    taps[:channels, minus].fill_diagonal_(-1.0)
    write_taps(encoder.conv_out, taps)
    encoder.conv_out.bias[channels:] = LOG_VARIANCE
    write_taps(autoencoder.quant_conv, torch.eye(2 * channels))
