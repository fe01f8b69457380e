"""The encoder of the autoencoder: the linear patch code, computed as convolution weights."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.images import to_tensor
from .latents import PATCH, PatchBasis

LOG_VARIANCE = -12.0
ANCHOR = 100.0
SAMPLE_ROWS = 10_000


def write_encoder(autoencoder: nn.Module, basis: PatchBasis, pictures: np.ndarray) -> None:
    """Set the encoder's weights so that its mean is `basis.encode`, without any training.

    Every residual branch is zero, which leaves a chain of stride-2 convolutions. Each maps 2 x 2
    cells to the coefficients that matter most for the code, by reduced-rank regression on
    `pictures` (N, H, W, 3) uint8. Before the output stands a normalisation: each of its groups has
    a pair of large constant channels, the anchors, which make its statistics constant. The
    activation is undone by silu(z) - silu(-z) = z. The log-variance is a small constant.
    """
    encoder = autoencoder.encoder
    with torch.no_grad():
        _blank_branches(encoder)
        widths = autoencoder.config.block_out_channels
        write_taps(encoder.conv_in, torch.eye(3))
        features = to_tensor(pictures)
        for level in range(len(widths) - 1):
            cells = _cells(features)
            last = level == len(widths) - 2
            weight, bias = _fit_level(
                cells, features.shape[2] // 2, basis, pictures, None if last else widths[level]
            )
            features = _grid(cells @ weight + bias, features.shape[2] // 2)
            if last:
                # One more channel is constant; the last block makes the anchors of it.
                weight = F.pad(weight, (0, 1))
                bias = F.pad(bias, (0, 1), value=1.0)
            _write_downsampler(encoder.down_blocks[level].downsamplers[0].conv, weight, bias)
        mirror = _mirror(basis.rows.shape[0], widths[-1], autoencoder.config.norm_num_groups)
        write_taps(encoder.down_blocks[-1].resnets[0].conv_shortcut, mirror)
        _write_output(autoencoder, basis.rows.shape[0])


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


def _write_downsampler(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """`weight` (4 * inputs, outputs) over the cell's taps in the order of `_cells`."""
    inputs = len(weight) // 4
    outputs = weight.shape[1]
    blank(conv)
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
    """Weight (4 C, rank) and bias of one level; without a rank, of the last level, whose output is
    the code.
    """
    x = to_tensor(pictures)
    if rank is None:
        code = basis.encode(x).permute(0, 2, 3, 1).reshape(len(cells), -1)
        solution = _least_squares(torch.cat([cells, torch.ones(len(cells), 1)], 1), code)
        return solution[:-1], solution[-1]
    if rank >= cells.shape[1]:
        return torch.eye(cells.shape[1]), torch.zeros(cells.shape[1])
    width = x.shape[2] // side
    share = basis.rows.view(-1, 3, PATCH // width, width, PATCH // width, width) / basis.scale.view(
        -1, 1, 1, 1, 1, 1
    )
    functionals = share.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * width * width)
    patches = F.unfold(x, width, stride=width).transpose(1, 2).reshape(len(cells), -1)
    some = slice(None, None, max(1, len(cells) // SAMPLE_ROWS))
    cells = cells[some]
    patches = patches[some]
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
    """The indices of the code, of its negative and of the anchors among `width` channels in
    `groups`.
    """
    size = width // groups
    share = channels // groups
    plus = [group * size + 2 + i for group in range(groups) for i in range(share)]
    minus = [place + share for place in plus]
    anchors = [group * size + i for group in range(groups) for i in (0, 1)]
    return plus, minus, anchors


def _mirror(channels: int, width: int, groups: int) -> Tensor:
    """The matrix (width, channels + 1) that makes the code, its negative, and of the constant
    channel a pair of anchors per group.
    """
    plus, minus, anchors = _group_layout(channels, width, groups)
    matrix = torch.zeros(width, channels + 1)
    matrix[plus, range(channels)] = 1.0
    matrix[minus, range(channels)] = -1.0
    matrix[anchors, channels] = torch.tensor([ANCHOR, -ANCHOR]).repeat(groups)
    return matrix


def _write_output(autoencoder: nn.Module, channels: int) -> None:
    encoder = autoencoder.encoder
    groups = autoencoder.config.norm_num_groups
    width = encoder.conv_norm_out.num_channels
    plus, minus, _ = _group_layout(channels, width, groups)
    blank(encoder.conv_norm_out)
    encoder.conv_norm_out.weight[plus + minus] = ANCHOR * (2 * groups / width) ** 0.5
    taps = torch.zeros(2 * channels, width)
    taps[range(channels), plus] = 1.0
    taps[range(channels), minus] = -1.0
    write_taps(encoder.conv_out, taps)
    encoder.conv_out.bias[channels:] = LOG_VARIANCE
    write_taps(autoencoder.quant_conv, torch.eye(2 * channels))
