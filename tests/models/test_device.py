"""Which precision a model gets on which device."""

import pytest
import torch

from unlearn_app.models.device import SMALL, choose_dtype, fits_bfloat16

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def computes_bfloat16(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or answer

    monkeypatch.delenv("UNLEARN_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)


def test_a_gpu_that_computes_in_bfloat16_holds_large_models_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computes_bfloat16(monkeypatch, True)
    assert choose_dtype(CUDA, SMALL + 1) == torch.bfloat16
    assert choose_dtype(CUDA) == torch.bfloat16, "of a model whose size is unknown"


def test_small_models_are_held_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    computes_bfloat16(monkeypatch, True)
    assert choose_dtype(CUDA, SMALL) == torch.float32


def test_a_gpu_that_emulates_bfloat16_never_gets_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computes_bfloat16(monkeypatch, False)
    assert choose_dtype(CUDA, SMALL + 1) == torch.float32
    assert not fits_bfloat16(CUDA)


def test_a_cpu_holds_all_models_in_float32() -> None:
    assert choose_dtype(CPU, SMALL + 1) == torch.float32


def test_float32_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    computes_bfloat16(monkeypatch, True)
    monkeypatch.setenv("UNLEARN_PRECISION", "float32")
    assert choose_dtype(CUDA, SMALL + 1) == torch.float32
