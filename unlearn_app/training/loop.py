"""The one training loop: unlearning and relearning differ only in what they pass to `fit`."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR

from ..common.errors import ConfigError, NotFinite
from ..methods.gradient_rules import GradientRule
from ..methods.gradient_rules.combination import Preconditioner, combine, cosine_of
from ..methods.objectives import Loss
from ..methods.regularizers import Regularizer
from ..models.protocols import Denoiser, MetaBatch, NoisyBatch, Params
from ..settings.events import Step
from ..settings.groups import EIGHT_BIT

ADVICE = "lower the learning rate"


@dataclass(frozen=True)
class Term:
    """One loss of the training: its objective, its stream of batches and its weight in the rule."""

    objective: Loss
    batches: Iterator[NoisyBatch] | Iterator[MetaBatch]
    weight: float = 1.0


def fit(
    model: Denoiser,
    params: Params,
    terms: Mapping[str, Term],
    rule: GradientRule,
    *,
    stage: str,
    steps: int,
    lr: float,
    optimizer: str = "adam",
    decay: float = 0.0,
    regularizers: Sequence[Regularizer] = (),
) -> Iterator[Step]:
    """Train `params` and yield after each of `steps`; closing the iterator stops the training.

    The gradients of all terms are taken at the same weights and combined by `rule` over the whole
    trainable vector, then penalties are added. The learning rate falls along a half cosine after a
    tenth of warm-up. A rule in the optimizer's metric gets its step without Adam's momentum.

    Raises:
        NotFinite: a loss or a weight is not finite; the weights are as after the step before.
    """
    tensors = list(params.values())
    preconditioner = Preconditioner() if getattr(rule, "preconditioned", False) else None
    plain = preconditioner or optimizer == "sgd"
    kind = SGD if plain else adam_8bit() if optimizer == EIGHT_BIT else AdamW
    stepper = kind(tensors, lr=lr, weight_decay=decay)
    schedule = LambdaLR(stepper, lambda step: _warm_cosine(step, max(steps, 1)))
    weights = [term.weight for term in terms.values()]
    preference = tensors[0].new_tensor(weights, dtype=torch.float64)
    for regularizer in regularizers:
        regularizer.begin_(params)
    for step in range(1, steps + 1):
        started = time.perf_counter()
        losses, gradients = _term_gradients(model, params, terms, step)
        metric = preconditioner(gradients, preference) if preconditioner else None
        update, chosen, gramian = combine(gradients, rule, preference, metric)
        _write_gradient(params, update, regularizers)
        before = _joined(tensors)
        stepper.step()
        schedule.step()
        for regularizer in regularizers:
            regularizer.project_(params)
        changes = gradients.double() @ _moved(tensors, before, step).double()
        measured = _measured(tuple(terms), chosen, changes, gramian)
        seconds = time.perf_counter() - started
        yield Step(stage, step, steps, losses, **measured, seconds=seconds)


def adam_8bit() -> Any:
    """AdamW of bitsandbytes, whose states take a quarter of the memory (2110.02861).

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            f"attack.optimizer is {EIGHT_BIT!r}, which needs bitsandbytes (pip install"
            " bitsandbytes); adam or sgd is accepted.",
            "attack.optimizer",
        ) from error
    return AdamW8bit


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@torch.no_grad()
def _moved(tensors: Sequence[Tensor], before: Tensor, step: int) -> Tensor:
    """The change (P,) of the weights since `before` the step.

    Raises:
        NotFinite: a weight is not finite; all are as `before` again.
    """
    after = _joined(tensors)
    if after.isfinite().all():
        return after - before
    pieces = before.split([tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))
    raise NotFinite(f"a weight is not finite after step {step}", ADVICE)


def _measured(
    terms: Sequence[str], weights: Tensor, changes: Tensor, gramian: Tensor
) -> dict[str, Any]:
    """What a step says of its terms: their weights in the update, the change of each loss to first
    order, the norms of the gradients and, of the first two, whether they conflict.
    """
    cosine = cosine_of(gramian)
    return {
        "weights": dict(zip(terms, weights.tolist(), strict=True)),
        "changes": dict(zip(terms, changes.tolist(), strict=True)),
        "norms": dict(zip(terms, gramian.diagonal().sqrt().tolist(), strict=True)),
        "cosine": cosine,
        "conflict": cosine is not None and cosine < 0,
        "gate": bool(gramian[0, 0] > 0) if len(terms) > 1 else None,
    }


def _warm_cosine(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / max(1, steps // 10))
    return warm_up * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * step / steps))))


def _term_gradients(
    model: Denoiser, params: Params, terms: Mapping[str, Term], step: int
) -> tuple[dict[str, float], Tensor]:
    losses, rows = {}, []
    for name, term in terms.items():
        parts = []
        for share, batch in _parts(next(term.batches), getattr(model, "rows_at_once", None)):
            loss = share * term.objective(model, batch, None)
            if not torch.isfinite(loss):
                raise NotFinite(f"the {name} loss is {loss.item()} at step {step}", ADVICE)
            gradient = _gradient(loss, params)
            parts.append((loss.item(), gradient))
        losses[name], total = reduce(lambda a, b: (a[0] + b[0], a[1].add_(b[1])), parts)
        rows.append(total)
    return losses, torch.stack(rows)


def _parts(
    batch: NoisyBatch | MetaBatch, size: int | None
) -> Iterable[tuple[float, NoisyBatch | MetaBatch]]:
    """A batch in parts of at most `size` rows, whose gradients are accumulated: every loss is a
    mean over rows. A simulated attack stays whole.
    """
    return batch.split(size) if isinstance(batch, NoisyBatch) else [(1.0, batch)]


def _gradient(loss: Tensor, params: Params) -> Tensor:
    """The gradient of `loss` as one vector (P,), zero in what it does not depend on."""
    parts = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
    return torch.cat([part.flatten().float() for part in parts])


def _write_gradient(params: Params, update: Tensor, regularizers: Sequence[Regularizer]) -> None:
    """Give `params` the `update` (P,) and the gradients of all penalties as their gradients."""
    penalties = [value for part in regularizers if (value := part.penalty(params)) is not None]
    penalty = _gradient(sum(penalties), params).to(update) if penalties else 0.0
    pieces = (update + penalty).split([tensor.numel() for tensor in params.values()])
    for tensor, piece in zip(params.values(), pieces, strict=True):
        tensor.grad = piece.view_as(tensor).to(tensor.dtype)
    for regularizer in regularizers:
        regularizer.modify_grads_(params)
