"""How timesteps weigh in the denoiser's loss."""

import pytest
import torch

from unlearn_app.models.parameterization import VPrediction
from unlearn_app.pocket.training.denoiser import Weighting


def test_min_snr_caps_the_weight_of_little_noise() -> None:
    snr = torch.tensor([0.5, 5.0, 20.0])
    schedule = VPrediction(snr / (snr + 1))
    factors = Weighting(min_snr=5.0).factors(schedule, torch.arange(3))
    # min(SNR, 5) / (SNR + 1), by hand.
    assert factors.tolist() == pytest.approx([0.5 / 1.5, 5 / 6, 5 / 21])


def test_without_a_cap_all_weigh_alike() -> None:
    schedule = VPrediction(torch.rand(4))
    assert Weighting().factors(schedule, torch.arange(4)).tolist() == [1.0] * 4
