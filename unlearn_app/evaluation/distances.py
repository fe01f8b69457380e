"""Distances of distributions of pictures."""

import torch
from torch import Tensor


def kid(features: Tensor, reference: Tensor) -> tuple[float, float]:
    """Kernel distance of two sets of features (N, D) and (M, D), and its standard error by the
    jackknife.

    KID of 1801.01401: the unbiased squared maximum mean discrepancy under (x . y / D + 1)^3; it may
    be negative. The official code averages over random blocks, whose spread is no standard error of
    the whole.

    Raises:
        ValueError: a set has fewer than three rows.
    """
    n, m, size = len(features), len(reference), features.shape[1]
    if min(n, m) < 3:
        raise ValueError(f"KID needs at least 3 pictures a side; there are {n} and {m}.")
    x, y = features.double(), reference.double()
    xx, yy, xy = ((a @ b.T / size + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    rows_x, rows_y = xx.sum(1) - xx.diagonal(), yy.sum(1) - yy.diagonal()
    sum_x, sum_y, cross = rows_x.sum(), rows_y.sum(), xy.sum()
    whole = sum_x / (n * (n - 1)) + sum_y / (m * (m - 1)) - 2 * cross / (n * m)
    without_x = (sum_x - 2 * rows_x) / ((n - 1) * (n - 2)) + sum_y / (m * (m - 1))
    without_x = without_x - 2 * (cross - xy.sum(1)) / ((n - 1) * m)
    without_y = sum_x / (n * (n - 1)) + (sum_y - 2 * rows_y) / ((m - 1) * (m - 2))
    without_y = without_y - 2 * (cross - xy.sum(0)) / (n * (m - 1))
    variance = sum(
        (k - 1) / k * (part - part.mean()).square().sum()
        for k, part in ((n, without_x), (m, without_y))
    )
    return whole.item(), torch.as_tensor(variance).sqrt().item()


def frechet(features: Tensor, reference: Tensor) -> float:
    """Fréchet distance of two sets of features (N, D) and (M, D), each taken for a normal
    distribution: |mu - nu|^2 + tr(S + T - 2 (S T)^(1/2)).

    FID of 1706.08500 with the judge's features in place of Inception's, so that values compare
    within one judge only. It is biased upwards where there are fewer pictures than features.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    if min(len(features), len(reference)) < 2:
        raise ValueError(
            "A Fréchet distance needs at least 2 pictures a side; there are"
            f" {len(features)} and {len(reference)}."
        )
    x, y = features.double(), reference.double()
    s, t = torch.atleast_2d(x.T.cov()), torch.atleast_2d(y.T.cov())
    # The eigenvalues of S T are those of the symmetric R T R with R R = S.
    values, vectors = torch.linalg.eigh(s)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ t @ root).clamp(min=0).sqrt().sum()
    means = (x.mean(0) - y.mean(0)).square().sum()
    return (means + s.trace() + t.trace() - 2 * shared).item()


def paired_kid(features: Tensor, reference: Tensor) -> tuple[float, float]:
    """Kernel distance of pictures of the same prompts and seeds, features (N, D) each, and its
    jackknife error.

    The U-statistic of Gretton et al. (2012), which leaves every picture's own partner out: exactly
    zero for equal sets, where `kid`, made for independent ones, is negative.

    Raises:
        ValueError: there are fewer than three pairs, or the sets differ in size.
    """
    n, size = features.shape
    if n < 3 or len(reference) != n:
        raise ValueError(
            f"A paired KID needs at least 3 pairs; there are {n} and {len(reference)} pictures."
        )
    x, y = features.double(), reference.double()
    within, across = sum((a @ a.T / size + 1) ** 3 for a in (x, y)), (x @ y.T / size + 1) ** 3
    table = within - across - across.T
    rows = table.sum(1) - table.diagonal()
    without = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))
    error = ((n - 1) / n * (without - without.mean()).square().sum()).sqrt()
    return (rows.sum() / (n * (n - 1))).item(), error.item()
