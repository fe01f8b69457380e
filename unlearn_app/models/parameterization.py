"""What a denoiser predicts: epsilon, v or the velocity of a flow, and how pictures become noise.

In all three x_t mixes a latent x0 with noise, and the prediction together with x_t determines both.
Latents are (B, C, H, W), timesteps (B,).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..common.errors import ModelError


class Parameterization(ABC):
    """The forward process of a model and the meaning of its prediction."""

    @abstractmethod
    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """`x_t` (B, C, H, W) at timesteps `t` (B,)."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model is trained to predict at `x_t` (B, C, H, W)."""

    @abstractmethod
    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Timesteps (count,) to train at, on the CPU."""

    @abstractmethod
    def timesteps_at(self, shares: Tensor) -> Tensor:
        """The timesteps (B,) below or, for flows, above which those of training lie with the
        probabilities `shares` (B,), in [0, 1).
        """

    def loss_weight(self, t: Tensor) -> Tensor:
        """The weight (B,) of each row in the training loss: 1, the simple loss of 2006.11239,
        equation 14, and that of 2209.03003.
        """
        return torch.ones(len(t), device=t.device)


@dataclass(frozen=True)
class _VariancePreserving(Parameterization):
    """x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise (2006.11239, equation 4).

    `alphas_cumprod` (T,) holds a_t from the least noise to the most; `t` counts from 0.
    """

    alphas_cumprod: Tensor

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The factors (B, 1, 1, 1) of x0 and of the noise in x_t."""
        alpha = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self.levels(t)
        return signal * x0 + sigma * noise

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Whole numbers from 0 to T - 1, uniform."""
        return torch.randint(len(self.alphas_cumprod), (count,), generator=generator)

    def timesteps_at(self, shares: Tensor) -> Tensor:
        return (shares * len(self.alphas_cumprod)).long()


class Epsilon(_VariancePreserving):
    """The model predicts the noise (2006.11239)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise


class VPrediction(_VariancePreserving):
    """The model predicts v = sqrt(a_t) noise - sqrt(1 - a_t) x0 (2202.00512)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self.levels(t)
        return signal * noise - sigma * x0


@dataclass(frozen=True)
class Flow(Parameterization):
    """The model predicts the velocity noise - x0 of a straight path (rectified flow, 2209.03003).

    x_t = (1 - s) x0 + s noise with s = t / `timesteps`, and `t` from 0 (no noise) to `timesteps`.
    `density` is that of the timesteps that are drawn: uniform, or the standard logit-normal of
    2403.03206, section 3.1. `shift` then moves them towards noise, as equation 23 there does for
    large pictures. `loss` is what training compares: the velocity, or the x0 = x_t - s velocity
    that it implies, whose squared distance is s^2 times that of the velocity.
    """

    timesteps: int = 1000
    shift: float = 1.0
    density: Literal["uniform", "logit_normal"] = "uniform"
    loss: Literal["velocity", "x0"] = "velocity"

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        share = (t.to(x0) / self.timesteps).view(-1, 1, 1, 1)
        return (1 - share) * x0 + share * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x0

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Some of the scheduler's own timesteps, float32."""
        if self.density == "uniform":
            below = torch.rand(count, generator=generator)
        else:
            below = torch.randn(count, generator=generator).sigmoid()
        return self._timesteps(below)

    def timesteps_at(self, shares: Tensor) -> Tensor:
        below = shares if self.density == "uniform" else torch.special.ndtri(shares).sigmoid()
        return self._timesteps(below)

    def _timesteps(self, below: Tensor) -> Tensor:
        """The scheduler's timesteps by their places (B,) in its list, in [0, 1)."""
        share = 1 - (below * self.timesteps).floor() / self.timesteps
        return self.shift * share / (1 + (self.shift - 1) * share) * self.timesteps

    def loss_weight(self, t: Tensor) -> Tensor:
        """s^2 where x0 is compared, else 1."""
        return (t / self.timesteps) ** 2 if self.loss == "x0" else super().loss_weight(t)


VARIANCE_PRESERVING = {"epsilon": Epsilon, "v_prediction": VPrediction}


def parameterization_of(scheduler: Any, device: torch.device | str = "cpu") -> Parameterization:
    """The parameterization that a diffusers scheduler is configured for, its levels in float32.

    Raises:
        ModelError: its prediction type is another one.
    """
    config = scheduler.config
    # Flow schedulers have no prediction type but a shift, which dynamic shifting replaces.
    kind = config.get("prediction_type", "flow_prediction" if "shift" in config else None)
    if kind == "flow_prediction":
        dynamic = config.get("use_dynamic_shifting", False)
        shift = 1.0 if dynamic else config.get("shift", config.get("flow_shift", 1.0))
        return Flow(int(config.num_train_timesteps), float(shift))
    if kind not in VARIANCE_PRESERVING:
        raise ModelError(
            f"The prediction type of the model's scheduler is {kind!r};"
            f" {', '.join(VARIANCE_PRESERVING)} or flow_prediction is accepted."
        )
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ModelError(
            f"The model's scheduler is a {type(scheduler).__name__}, whose noise levels are not"
            " those of DDPM; a DDPM, DDIM, Euler or DPM-Solver scheduler is accepted."
        )
    return VARIANCE_PRESERVING[kind](scheduler.alphas_cumprod.to(device, torch.float32))
