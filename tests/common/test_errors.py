"""What memory was too small for is said in a sentence."""

import pytest
import torch

from unlearn_app.common.errors import OutOfMemory, enough_memory

CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8.00 GiB"


def of_the_cpu() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def of(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("fail", "asked"),
    [
        (lambda: of(torch.OutOfMemoryError(CUDA)), "20.00 GiB more"),
        (of_the_cpu, "1152921504.6 GB more"),
        (
            lambda: of(RuntimeError("MPS backend out of memory (Tried to allocate 2.0 GB)")),
            "2.0 GB",
        ),
        (lambda: of(MemoryError("Unable to allocate 7.28 TiB for an array")), "7.28 TiB more"),
        (lambda: of(MemoryError()), "than there is; lower"),
    ],
)
def test_it_names_what_needed_how_much_and_what_to_lower(fail, asked: str) -> None:
    with pytest.raises(OutOfMemory) as raised, enough_memory("Unlearning", "unlearn.batch_size"):
        fail()
    said = str(raised.value)
    assert said.startswith("Unlearning needs more memory than there is")
    assert asked in said
    assert said.endswith("lower unlearn.batch_size.")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("Unlearning", "nothing"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
