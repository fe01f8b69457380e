"""Meta-unlearning (2410.12777): each step simulates an attack and makes it fail."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.seeds import generator
from ...models.lora import update_of
from ...models.protocols import Denoiser, MetaBatch, NoisyBatch, Params
from . import Loss

BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class MetaUnlearning:
    """Makes a short fine-tuning on the concept fail, by simulating one and training on its result.

    Meta-unlearning, 2410.12777: with theta' the weights after M attack steps from theta, J = -b_F
    L(theta'; F) - b_R [L(theta'; R) - L(theta; R)] - b_U [L(theta'; U) - L(theta; U)], added to any
    unlearning loss; F, R, U are forget, related and unrelated pictures. Deviations: theta are the
    merged weights of a LoRA defender, so that the adversary never continues the defender's own
    factors, whose gradients depend on how the product is split; F of the outer loss is not what the
    attack trains on; L is truncated at `cap`, because its ascent is unbounded, and an attack that
    ends in infinities has failed and teaches nothing; before and after use the same pictures, noise
    and timesteps. First order takes theta' - theta for a constant, as the released code does;
    second order differentiates through the attack, as the paper says. Under the goal "forget" the
    first term is b_F L_unlearn(theta'; F) instead, with `objective` as L_unlearn: the attacked
    model shall still meet the method's own loss. It has a floor, so it needs no cap, and it asks
    for the same picture before and after. The preset fast takes it, the preset full the paper's.

    `weights` is what the simulated adversary trains: "full", or "lora", a fresh adapter on every
    matrix.
    """

    loss: Loss
    objective: Loss | None = None
    goal: str = "lose"
    lr: float = 3e-4
    weights: str = "full"
    optimizer: str = "adam"
    rank: int = 8
    alpha: float = 8.0
    forget: float = 1.0
    related: float = 0.0
    unrelated: float = 0.0
    cap: float = 1.0
    order: str = "first"
    eps: float = 1e-8

    def __call__(self, model: Denoiser, batch: MetaBatch, params: Params | None = None) -> Tensor:
        """J, a scalar; its gradient reaches the factors of the `unlearn` slot."""
        before = {
            name: _with_finite_gradient(weight)
            for name, weight in model.weights("unlearn", params).items()
        }
        with model.active():
            after = self.attacked(model, before, batch)
            if self.goal == "forget":
                value = self.forget * self._finite(self.objective(model, batch.forget, after))
            else:
                value = -self.forget * self._bounded(model, batch.forget, after)
            for weight, data in ((self.related, batch.related), (self.unrelated, batch.unrelated)):
                if weight:
                    risen = self._bounded(model, data, after) - self._bounded(model, data, before)
                    value = value - weight * risen
        return value

    def _bounded(self, model: Denoiser, batch: NoisyBatch, weights: Params) -> Tensor:
        return self._finite(self.loss(model, batch, weights)).clamp(max=self.cap)

    def _finite(self, loss: Tensor) -> Tensor:
        return loss if torch.isfinite(loss) else loss.new_full((), self.cap)

    def attacked(self, model: Denoiser, before: Params, batch: MetaBatch) -> Params:
        """All weights after the attack on `batch.support`, differentiable in `before` as `order`
        says.
        """
        exact = self.order == "second"
        start = before if exact else _detached(before)
        trained, memory = self._fresh(start, batch.seed), {}
        for step, support in enumerate(batch.support, 1):
            loss = self.loss(model, support, self._applied(start, trained))
            gradients = torch.autograd.grad(
                loss, list(trained.values()), create_graph=exact, allow_unused=True
            )
            for name, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    move = self._move(name, gradient, memory, step)
                    trained[name] = trained[name] - self.lr * move
            if not exact:
                trained = {name: t.detach().requires_grad_() for name, t in trained.items()}
        return self._applied(before, trained if exact else _detached(trained))

    def _fresh(self, weights: Params, seed: int) -> Params:
        """What the adversary trains, with no effect yet: an update of every weight, or the factors
        of an update of every matrix.
        """
        if self.weights == "full":
            return {
                name: torch.zeros_like(weight).requires_grad_() for name, weight in weights.items()
            }
        source, factors = generator(seed), {}
        for name, weight in weights.items():
            if weight.ndim == 2:
                bound = weight.shape[1] ** -0.5
                a = (2 * torch.rand(self.rank, weight.shape[1], generator=source) - 1) * bound
                factors[f"{name}.A"] = a.to(weight).requires_grad_()
                factors[f"{name}.B"] = weight.new_zeros(weight.shape[0], self.rank).requires_grad_()
        return factors

    def _applied(self, weights: Params, trained: Mapping[str, Tensor]) -> Params:
        if self.weights == "full":
            return {name: weight + trained[name] for name, weight in weights.items()}
        applied = dict(weights)
        for name in weights:
            if f"{name}.A" in trained:
                b = self.alpha / self.rank * trained[f"{name}.B"]
                applied[name] = weights[name] + update_of((trained[f"{name}.A"], b))
        return applied

    def _move(
        self, name: str, gradient: Tensor, memory: dict[str, tuple[Tensor, Tensor]], step: int
    ) -> Tensor:
        """The direction of SGD or Adam, differentiable; Adam's eps is added under the root, so
        that the derivative at zero is finite.
        """
        if self.optimizer == "sgd":
            return gradient
        first, second = memory.get(name, (0.0, 0.0))
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient.square()
        memory[name] = first, second
        mean, square = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
        return mean / (square + self.eps**2).sqrt()


def _detached(tensors: Params) -> Params:
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _with_finite_gradient(weight: Tensor) -> Tensor:
    """`weight`, with its gradient set to 0 where it is not finite."""
    if not weight.requires_grad:
        return weight
    same = weight.view_as(weight)
    same.register_hook(lambda gradient: torch.where(torch.isfinite(gradient), gradient, 0.0))
    return same
