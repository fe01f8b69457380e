"""What a step takes by the count on tensors without numbers, against what it takes."""

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unlearn_app.common.errors import OutOfMemory
from unlearn_app.experiments.models.estimates import settings_of
from unlearn_app.experiments.models.process_memory import counted, measured_here
from unlearn_app.experiments.models.shapes import FLUX, OWNED, UNET, VAE
from unlearn_app.models import device
from unlearn_app.models.diffusers.estimate import Shape, measured, sides_of
from unlearn_app.models.diffusers.plan import CHUNK, SPARED, fitted
from unlearn_app.models.memory import Cost, Counting, cost_of
from unlearn_app.settings.run_config import make_config

GIB = 2**30
SMALL = UNET | {
    "block_out_channels": [64] * 4,
    "cross_attention_dim": 32,
    "layers_per_block": 1,
}
CARDS = {"SD 1.5": 8, "SDXL": 12, "SD 3.5 medium": 24, "FLUX.1 dev": 48}


def test_a_chain_of_products_is_counted_by_hand() -> None:
    """x (4, 8) in float32, 128 bytes; a = x w and b = a w stay for the backward pass, then b's
    gradient and a's: 4 * 128 and the loss of 4 bytes with its gradient; 2 * 4 * 8 * 8 operations
    per product, of which there are 2 forward and, for x alone, 2 back.
    """
    w = torch.zeros(8, 8, device="meta")
    x = torch.zeros(4, 8, device="meta", requires_grad=True)

    def forward() -> torch.Tensor:
        return (x @ w) @ w

    assert cost_of(forward, [w, x]) == Cost(2 * 128, 2 * 2 * 4 * 8 * 8)

    def both() -> None:
        torch.autograd.grad(forward().sum(), [x])

    assert cost_of(both, [w, x]).flops == 4 * 2 * 4 * 8 * 8


def test_what_is_freed_counts_no_more() -> None:
    x = torch.zeros(256, device="meta")
    with Counting([x]) as counted:
        for _ in range(10):
            y = x + 1
            y = x.view(16, 16)
        z = x.add_(1)
    del y, z
    assert counted.peak <= 2 * 1024
    assert counted.live == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", OWNED)
def test_every_family_fits_a_card_that_people_own(name: str) -> None:
    """From the configuration alone, at the settings of the family in the preset fast. The numbers
    of weights, in millions, are those that are published.
    """
    owned, gigabytes = OWNED[name], CARDS[name]
    asked = settings_of(owned)
    found = measured(owned.denoiser, owned.vae, owned.text, torch.bfloat16, asked.unlearn)
    assert found.weights // 10**6 in (owned.millions - 1, owned.millions)
    assert found.checkpointed.peak < 0.6 * found.kept.peak
    # Frozen weights: a forward and a backward pass of one size, and with parts anew one more.
    assert 1.2 < found.checkpointed.flops / found.kept.flops < 1.5
    plan = fitted(found, asked, "cuda", gigabytes * 10**9, 3e13)
    assert plan.need <= gigabytes * 10**9
    assert owned.card in (0, gigabytes)


def shape(**changes: Any) -> Shape:
    """About Stable Diffusion 1.5 in bfloat16."""
    usual = {
        "itemsize": 2,
        "held": int(1.76 * GIB),
        "text": int(0.23 * GIB),
        "weights": 860 * 10**6,
        "trained": 3_400_000,
        "kept": Cost(int(1.32 * GIB), 1.8e12),
        "checkpointed": Cost(int(0.38 * GIB), 2.75e12),
        "picture": Cost(int(0.2 * GIB), 1.6e12),
        "decoding": int(0.9 * GIB),
    }
    return Shape(**usual | changes)


def config(**changes: Any) -> Any:
    return make_config("cat", **{"unlearn.batch_size": 4, "attack.batch_size": 4} | changes)


@pytest.mark.parametrize(
    ("gibs", "checkpointed", "rows"), [(24, False, None), (6, True, None), (3.4, True, 2)]
)
def test_the_least_effort_that_fits_is_planned(gibs: float, checkpointed: bool, rows: Any) -> None:
    plan = fitted(shape(), config(), "cuda", int(gibs * GIB), 1e13)
    assert (plan.checkpointed, plan.rows) == (checkpointed, rows)
    assert plan.need <= plan.available
    assert plan.need >= shape().held + SPARED


def test_a_cpu_paints_as_many_at_once_as_ever() -> None:
    assert fitted(shape(), config(), "cpu", 64 * GIB, 1e13).chunk == CHUNK == 18
    chunks = [fitted(shape(), config(), "cuda", gibs * GIB, 1e13).chunk for gibs in (4, 8, 80)]
    assert chunks[0] < chunks[1] < chunks[2] == 64


@pytest.mark.parametrize(
    ("changes", "gibs", "said"),
    [
        ({}, 2, "a lower unlearn.rank or a smaller model is accepted"),
        ({"attack.weights": "full"}, 24, "attack.weights=lora is accepted"),
        ({"resist.on": True}, 16, "resist.on=no or resist.weights=lora is accepted"),
        ({"resist.on": True, "resist.order": "second"}, 48, "resist.order=first or fewer"),
    ],
)
def test_what_does_not_fit_is_refused_and_says_what_to_lower(
    changes: dict[str, Any], gibs: int, said: str
) -> None:
    with pytest.raises(OutOfMemory) as raised:
        fitted(shape(), config(**changes), "cuda", gibs * GIB, 1e13)
    assert said in str(raised.value)
    assert f"there is {gibs}.0 GiB" in str(raised.value)


def test_less_of_the_optimizer_needs_less() -> None:
    needs = [
        fitted(
            shape(),
            config(**{"attack.weights": "full", "attack.optimizer": optimizer}),
            "cuda",
            200 * GIB,
            1e13,
        ).need
        for optimizer in ("adam", "adam8bit", "sgd")
    ]
    assert needs[0] > needs[1] > needs[2]


def test_the_sentence_says_how_it_fits() -> None:
    plan = fitted(shape(), config(), "cuda", int(3.4 * GIB), 2e13)
    said = plan.sentence()
    assert "of 3.4 GiB of memory, with gradients of 2 pictures at a time and gradient" in said
    assert said.endswith("a step about 1.1 s")


def test_sides_need_not_be_equal() -> None:
    assert sides_of({"sample_size": [8, 12]}) == (8, 12)
    assert sides_of({"sample_size": 64}) == (64, 64)
    assert sides_of(FLUX) == (128, 128)


@pytest.mark.slow
def test_the_count_is_what_a_process_takes() -> None:
    """Peak resident memory of each piece of work on a CPU over that of the idle process; only
    Linux, where CI runs, lets a process begin its peak anew.
    """
    assert counted("SDXL, small") == pytest.approx(measured_here("SDXL, small"), rel=0.1)


def test_a_convolution_holds_its_input_once_more() -> None:
    """1 x 2 x 8 x 8 numbers in, 1 x 4 x 8 x 8 out, of 4 bytes; the copy goes afterwards."""
    x, weight = (torch.zeros(*sizes, device="meta") for sizes in ((1, 2, 8, 8), (4, 2, 3, 3)))
    with Counting([x, weight]) as found:
        made = functional.conv2d(x, weight, padding=1)
    assert found.live == 4 * 4 * 64 == made.untyped_storage().nbytes()
    assert found.peak == found.live + 4 * 2 * 64


@pytest.mark.slow
def test_whole_weights_take_more_than_an_adapter() -> None:
    groups = (
        make_config("cat", **{"unlearn.weights": weights, "unlearn.modules": "all"}).unlearn
        for weights in ("lora", "full")
    )
    lora, full = (measured(SMALL, VAE, 0, torch.bfloat16, group) for group in groups)
    assert full.weights == full.trained > 10 * lora.trained
    assert full.held == lora.held + 4 * full.weights


def test_the_refusal_names_whole_weights() -> None:
    whole = config(**{"unlearn.weights": "full"})
    with pytest.raises(OutOfMemory, match=r"unlearn\.weights=lora or a smaller model is accepted"):
        fitted(shape(), whole, "cuda", GIB, 1e13)


def test_text_encoders_stay_in_the_memory_of_a_cpu() -> None:
    small, large = (fitted(shape(text=size), config(), "cpu", 64 * GIB, 1e13) for size in (0, GIB))
    assert large.need == small.need + GIB


def test_attention_that_is_computed_again_is_counted_once_more() -> None:
    """Twice forward and once backward, 1 + 1 + 2.5, over once forward and backward."""
    given = [torch.zeros(1, 2, 8, 4, device="meta", requires_grad=True) for _ in range(3)]

    def plain() -> torch.Tensor:
        return functional.scaled_dot_product_attention(*given)

    def again() -> torch.Tensor:
        return checkpoint(
            lambda *each: functional.scaled_dot_product_attention(*each),
            *given,
            use_reentrant=False,
        )

    one, two = (
        cost_of(lambda made=made: torch.autograd.grad(made().sum(), given), given).flops
        for made in (plain, again)
    )
    assert two / one == pytest.approx(4.5 / 3.5)


def test_what_a_process_holds_counts_as_available(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"MemAvailable": 100, "RssAnon": 20}
    monkeypatch.setattr(device, "_kilobytes", lambda _, name: known[name])
    assert device.available_memory(torch.device("cpu")) == 120 * 1024
