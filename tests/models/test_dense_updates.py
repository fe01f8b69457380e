"""Weights that are trained themselves: restored bit for bit, published as what they differ by, and
the same pictures once they are read back.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearn_app.common.errors import ConfigError, ModelError
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.adapter_files import adapter_bytes, read_adapter
from unlearn_app.models.diffusers.plain_weights import without_adapter
from unlearn_app.models.generate import generate
from unlearn_app.models.lora import layer_factors, product
from unlearn_app.models.sizes import adapter_size
from unlearn_app.models.weight_differences import difference_name, weight_name
from unlearn_app.settings.groups import MODULES

NEAR = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    return load_model(str(tiny_pipeline))


@pytest.fixture(autouse=True)
def untouched(model) -> Iterator[None]:
    """Every test leaves the very tensors of the original in the network, bit for bit."""
    model.drop_adapters()
    own = named(model)
    before = {name: weight.detach().clone() for name, weight in own.items()}
    yield
    model.drop_adapters()
    after = named(model)
    assert all(after[name] is weight for name, weight in own.items())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not any(weight.requires_grad for weight in after.values())


def named(model) -> dict[str, Tensor]:
    """The weights in the network, by the names that they have without adapters."""
    return {without_adapter(name): weight for name, weight in model.network.named_parameters()}


@pytest.fixture
def asked(model) -> SimpleNamespace:
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    arguments = x, torch.tensor([100, 700]), model.encode_text(["a cat", "a dog"])
    return SimpleNamespace(
        predict=lambda params=None: model.predict(*arguments, params).detach(),
        frozen=lambda: model.frozen(*arguments),
    )


def moved(model, modules: str = "all", by: float = 0.02) -> dict[str, Tensor]:
    """Weights in the slot that differ from the original ones, and by what."""
    source, changes = torch.Generator().manual_seed(5), {}
    for name, weight in model.reset_weights("unlearn", modules).items():
        changes[name] = by * torch.randn(weight.shape, generator=source)
        weight.data.add_(changes[name])
    return changes


def test_fresh_weights_change_nothing_and_moved_ones_do_only_while_they_are_active(
    model, asked
) -> None:
    base = asked.frozen()
    model.reset_weights("unlearn")
    with model.active("unlearn"):
        assert torch.equal(asked.predict(), base)
    moved(model)
    assert torch.equal(asked.predict(), base)
    with model.active("unlearn"):
        assert not torch.allclose(asked.predict(), base, **NEAR)
        assert torch.equal(asked.frozen(), base)


@pytest.mark.parametrize("modules", MODULES)
def test_only_the_chosen_weights_are_trained_and_published(model, modules: str) -> None:
    chosen = model.reset_weights("unlearn", modules)
    names = {
        "all": lambda n: True,
        "not_cross": lambda n: ".attn2." not in n,
        "cross": lambda n: ".attn2." in n,
        "self": lambda n: ".attn1." in n,
        "attention": lambda n: ".attn1." in n or ".attn2." in n,
        "keys_values": lambda n: ".attn2.to_k." in n or ".attn2.to_v." in n,
        "convolutions": lambda n: ".conv" in n,
        "locon": lambda n: (
            ".conv" in n or (("attentions" in n or "ff.net" in n) and "norm" not in n)
        ),
    }[modules]
    model.drop_adapters()
    assert {*chosen} == {n for n in named(model) if names(n)}
    model.reset_weights("unlearn", modules)
    with model.training("unlearn") as params:
        trained = {n for n, p in named(model).items() if p.requires_grad}
    assert trained == {*params} == {*chosen}
    assert {*model.adapter_state("unlearn")} == {difference_name(name) for name in chosen}


def test_the_update_is_the_difference_of_the_weights(model) -> None:
    base = {name: weight.detach().clone() for name, weight in model.weights().items()}
    changes = moved(model, "attention")
    after = model.weights("unlearn")
    state = model.adapter_state("unlearn")
    for name, weight in after.items():
        wanted = base[name] + changes[name] if name in changes else base[name]
        assert torch.equal(weight, wanted)
        if name in changes:
            assert torch.equal(state[difference_name(name)], weight.detach() - base[name])
    assert {weight_name(name) for name in state} == {*changes}


def test_merged_weights_predict_the_same_and_a_fresh_adapter_goes_on_top(model, asked) -> None:
    moved(model)
    base = asked.frozen()
    with model.active("unlearn"):
        own = asked.predict()
    with pytest.raises(RuntimeError, match="on purpose"), model.merged("unlearn"):
        assert torch.equal(asked.frozen(), own)
        raise RuntimeError("on purpose")
    assert torch.equal(asked.frozen(), base)
    with model.active("unlearn"):  # as an attack finds the model
        model.reset_adapter("relearn", 4, 4.0, 0)
        with model.merged("unlearn"), model.training("relearn") as params:
            assert torch.equal(asked.predict(), own)
            next(p for n, p in params.items() if ".lora_B." in n).data.fill_(0.1)
            assert not torch.equal(asked.predict(), own)
        with model.trainable_base_weights("unlearn") as weights:
            assert torch.equal(asked.predict(), own)
            assert len(weights) == len(model.weights())
        assert torch.equal(asked.predict(), own)
    assert torch.equal(asked.frozen(), base)


def test_an_adapter_and_weights_are_active_together_as_their_sum(model, asked) -> None:
    changes = moved(model, "cross")
    model.reset_adapter("relearn", 4, 4.0, 0)
    state = model.adapter_state("relearn")
    for name in [name for name in state if ".lora_B." in name]:
        state[name] = 0.02 * torch.randn(state[name].shape)
    model.load_adapter("relearn", state)
    with model.active("unlearn", "relearn"):
        both = asked.predict()
    model.drop_adapters()
    factors, sums = layer_factors(state), {}
    for name, weight in model.weights().items():
        plain = without_adapter(name)
        sums[name] = weight + changes.get(plain, 0)
        if (layer := plain.removesuffix(".weight")) in factors:
            sums[name] = sums[name] + product(factors[layer]).float().view(weight.shape)
    with model.active():
        torch.testing.assert_close(asked.predict(sums), both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modules", ["all", "not_cross", "keys_values", "convolutions"])
def test_a_dense_file_gives_the_same_pictures_once_read_back(
    model, tmp_path: Path, modules: str
) -> None:
    path = tmp_path / "unlearn.safetensors"
    moved(model, modules)
    path.write_bytes(adapter_bytes(model.adapter_state("unlearn"), {}))
    with model.active("unlearn"):
        own = model.decode(model.sample(["a cat"], [0], steps=2, guidance_scale=2.0))
    size = adapter_size(model, 8, modules, "full")
    assert size <= path.stat().st_size <= size + 60_000
    model.drop_adapters()
    how = {"sampling_steps": 2, "guidance_scale": 2.0}
    (again,) = generate(model, ["a cat"], [0], adapters=[(path, 1.0)], **how)
    shown = ((own[0].permute(1, 2, 0).numpy() + 1) * 127.5).round()
    assert np.abs(shown - np.asarray(again, dtype=float)).max() <= 1
    model.drop_adapters()
    (original,) = generate(model, ["a cat"], [0], **how)
    assert np.abs(shown - np.asarray(original, dtype=float)).max() > 3, "without it they differ"


def test_the_file_holds_the_names_that_others_read(model) -> None:
    """ComfyUI adds `LAYER.diff` to `LAYER.weight` and `LAYER.diff_b` to `LAYER.bias`."""
    moved(model, "convolutions")
    names = {name.rpartition(".")[2] for name in model.adapter_state("unlearn")}
    assert names == {"diff", "diff_b"}


@pytest.mark.parametrize("modules", ["convolutions", "locon"])
def test_a_low_rank_update_of_convolutions_is_exact_when_merged(model, asked, modules) -> None:
    params = model.reset_adapter("unlearn", 4, 8.0, 0, modules)
    for name, tensor in params.items():
        if ".lora_B." in name:
            tensor.data.normal_(std=0.02)
    assert any(t.ndim == 4 and t.shape[-1] == 3 for n, t in params.items() if ".lora_A." in n)
    with model.active("unlearn"):
        own = asked.predict()
    assert not torch.allclose(own, asked.frozen(), **NEAR)
    with model.merged("unlearn"):
        torch.testing.assert_close(asked.frozen(), own, rtol=1e-4, atol=1e-5)
    state = model.adapter_state("unlearn")
    model.drop_adapters()
    model.load_adapter("unlearn", state)
    with model.active("unlearn"):
        torch.testing.assert_close(asked.predict(), own, rtol=1e-4, atol=1e-5)


def test_a_low_rank_update_of_convolutions_is_loaded_by_diffusers(
    model, tiny_pipeline: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    params = model.reset_adapter("unlearn", 4, 8.0, 0, "locon")
    for name, tensor in params.items():
        if ".lora_B." in name:
            tensor.data.normal_(std=0.05)
    x, t = torch.randn(1, *model.latent_shape), torch.tensor([300])
    cond = model.encode_text(["a cat"])
    with model.active("unlearn"):
        own = model.predict(x, t, cond).detach()
    (tmp_path / "a.safetensors").write_bytes(adapter_bytes(model.adapter_state("unlearn"), {}))
    pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
    pipe.load_lora_weights(str(tmp_path), weight_name="a.safetensors")
    with torch.no_grad():
        theirs = pipe.unet(x, t, cond.states).sample
    torch.testing.assert_close(theirs, own, rtol=1e-3, atol=1e-4)


def of_first(change: Callable[[Tensor], Tensor]) -> Callable[[dict], dict]:
    return lambda state: state | {n: change(state[n]) for n in [next(iter(state))]}


NONSENSE: dict[str, tuple[Callable[[dict], dict], str]] = {
    "NaN": (of_first(lambda d: d * float("nan")), "not finite"),
    "huge": (of_first(lambda d: d.fill_(1e6)), "too large"),
    "whole numbers": (of_first(torch.Tensor.int), "int32"),
    "empty": (of_first(lambda d: d[:0]), "empty"),
    "factors beside them": (
        lambda state: state | {"x.lora_A.weight": torch.ones(1, 2)},
        "one of the two is accepted|pairs of lora_A.weight and lora_B.weight",
    ),
    "another shape": (of_first(lambda d: d[None].clone()), "other layers"),
    "other layers": (lambda state: {f"x{n}": d for n, d in state.items()}, "other layers"),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_a_sentence_and_leaves_the_slot_usable(model, tmp_path, kind: str) -> None:
    moved(model, "keys_values")
    good, (change, sentence) = model.adapter_state("unlearn"), NONSENSE[kind]
    bad = change({name: difference.clone() for name, difference in good.items()})
    with pytest.raises(ModelError, match=sentence):
        model.load_adapter("unlearn", bad)
    model.load_adapter("unlearn", good)
    if sentence != "other layers":
        path = tmp_path / "a.safetensors"
        save_file({f"unet.{name}": tensor for name, tensor in bad.items()}, path)
        with pytest.raises(ModelError, match=sentence):
            read_adapter(path)


def test_layers_that_a_model_does_not_have_are_refused_by_name(model, monkeypatch) -> None:
    known = {name: pattern for name, pattern in model._patterns.items() if name != "convolutions"}
    monkeypatch.setattr(model, "_patterns", known)
    with pytest.raises(ConfigError, match="modules=convolutions names; all, cross"):
        model.reset_adapter("unlearn", 4, 4.0, 0, "convolutions")
    with pytest.raises(ConfigError, match="modules=convolutions names; all, cross"):
        model.reset_weights("unlearn", "convolutions")


def test_a_half_precision_network_trains_in_float32_and_is_restored(model, asked) -> None:
    model.network.half()
    base = {name: weight.detach().clone() for name, weight in named(model).items()}
    try:
        changes = moved(model, "keys_values", by=1e-4)
        with model.training("unlearn") as params:
            assert {weight.dtype for weight in model.network.parameters()} == {torch.float32}
            assert {*params} == {*changes}
            asked.predict()
        assert {*model.adapter_state("unlearn")} == {difference_name(name) for name in changes}
        model.drop_adapters()
        for name, weight in named(model).items():
            assert weight.dtype == torch.float16
            assert torch.equal(weight, base[name])
    finally:
        model.drop_adapters()
        model.network.float()
        stored = load_file(Path(model.name) / "unet" / "diffusion_pytorch_model.safetensors")
        for name, weight in named(model).items():
            weight.data.copy_(stored[name])
