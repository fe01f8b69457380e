"""What a denoiser predicts: epsilon, v or the velocity of a flow, and how pictures become noise.

In all three x_t mixes a latent x0 with noise, and the prediction together with x_t determines both.
Latents are (B, C, H, W), timesteps (B,).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..common.errors import ModelError


class Parameterization(Protocol):
    """The forward process of a model and the meaning of its prediction."""

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """`x_t` (B, C, H, W) at timesteps `t` (B,)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model is trained to predict at `x_t` (B, C, H, W)."""

    def to_x0(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The latents (B, C, H, W) that a prediction implies."""

    def to_noise(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The noise (B, C, H, W) that a prediction implies."""

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Timesteps (count,) to train at, on the CPU."""

    def loss_weight(self, t: Tensor) -> Tensor:
        """The weight (B,) of each row in the training loss."""


@dataclass(frozen=True)
class _VariancePreserving:
    """x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise (2006.11239, equation 4).

    `alphas_cumprod` (T,) holds a_t from the least noise to the most; `t` counts from 0.
    """

    alphas_cumprod: Tensor

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The factors (B, 1, 1, 1) of x0 and of the noise in x_t."""
        alpha = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """See `Parameterization`."""
        signal, sigma = self.levels(t)
        return signal * x0 + sigma * noise

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Whole numbers from 0 to T - 1, uniform."""
        return torch.randint(len(self.alphas_cumprod), (count,), generator=generator)

    def loss_weight(self, t: Tensor) -> Tensor:
        """1: the simple loss of 2006.11239, equation 14."""
        return torch.ones(len(t), device=t.device)


class Epsilon(_VariancePreserving):
    """The model predicts the noise (2006.11239)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noise."""
        return noise

    def to_x0(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """(x_t - sqrt(1 - a_t) prediction) / sqrt(a_t), which is not finite where a_t is 0."""
        signal, sigma = self.levels(t)
        return (x_t - sigma * prediction) / signal

    def to_noise(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The prediction."""
        return prediction


class VPrediction(_VariancePreserving):
    """The model predicts v = sqrt(a_t) noise - sqrt(1 - a_t) x0 (2202.00512)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """v."""
        signal, sigma = self.levels(t)
        return signal * noise - sigma * x0

    def to_x0(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """sqrt(a_t) x_t - sqrt(1 - a_t) v."""
        signal, sigma = self.levels(t)
        return signal * x_t - sigma * prediction

    def to_noise(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """sqrt(1 - a_t) x_t + sqrt(a_t) v."""
        signal, sigma = self.levels(t)
        return sigma * x_t + signal * prediction


@dataclass(frozen=True)
class Flow:
    """The model predicts the velocity noise - x0 of a straight path (rectified flow, 2209.03003).

    x_t = (1 - s) x0 + s noise with s = t / `timesteps`, and `t` from 0 (no noise) to `timesteps`.
    `shift` moves the timesteps that are drawn towards noise, as 2403.03206, equation 23, does for
    large pictures.
    """

    timesteps: int = 1000
    shift: float = 1.0

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """See `Parameterization`."""
        share = self._share(t, x0)
        return (1 - share) * x0 + share * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The velocity."""
        return noise - x0

    def to_x0(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """x_t - s v."""
        return x_t - self._share(t, x_t) * prediction

    def to_noise(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """x_t + (1 - s) v."""
        return x_t + (1 - self._share(t, x_t)) * prediction

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """The scheduler's own timesteps, float32, each as likely."""
        share = (torch.randint(self.timesteps, (count,), generator=generator) + 1) / self.timesteps
        return self.shift * share / (1 + (self.shift - 1) * share) * self.timesteps

    def loss_weight(self, t: Tensor) -> Tensor:
        """1, as in 2209.03003."""
        return torch.ones(len(t), device=t.device)

    def _share(self, t: Tensor, like: Tensor) -> Tensor:
        """The share s (B, 1, 1, 1) of noise in x_t."""
        return (t.to(like) / self.timesteps).view(-1, 1, 1, 1)


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
    return VARIANCE_PRESERVING[kind](scheduler.alphas_cumprod.to(device, torch.float32))
