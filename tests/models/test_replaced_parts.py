"""Another whole model in the place of an adapter: it is that model to the bit while its slot is in
use, and the original is itself to the bit before and after.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearn_app.common.errors import ModelError
from unlearn_app.common.seeds import generator
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.plain_weights import plain_weights
from unlearn_app.models.diffusers.replaced_parts import (
    WEIGHTS,
    difference,
    read_replacement,
    save_replacement,
)
from unlearn_app.models.protocols import slots_kept

PROMPTS = ["a cat", "the moon"]


def changed(folder: Path, to: Path) -> Path:
    """A copy of a pipeline with another matrix in the UNet, another row in the table of the text
    encoder, and a tokenizer that reads c as d.
    """
    shutil.copytree(folder, to)
    for part, word in (("unet", "attn2.to_v.weight"), ("text_encoder", "token_embedding.weight")):
        file = next((to / part).glob("*.safetensors"))
        tensors = load_file(file)
        name = next(name for name in tensors if name.endswith(word))
        tensors[name][0] += 1.0
        save_file(tensors, file, metadata={"format": "pt"})
    file = to / "tokenizer" / "tokenizer.json"
    rules = json.loads(file.read_text(encoding="utf-8"))
    rules["model"]["vocab"]["c"] = rules["model"]["vocab"]["d"]
    file.write_text(json.dumps(rules), encoding="utf-8")
    return to


@pytest.fixture(scope="module")
def folder(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(tiny_pipeline, tmp_path_factory.mktemp("published") / "unlearned")


@pytest.fixture(scope="module")
def other(folder: Path) -> Any:
    return load_model(str(folder))


@pytest.fixture(scope="module")
def original(tiny_pipeline: Path) -> Any:
    return load_model(str(tiny_pipeline))


@pytest.fixture
def model(original: Any, other: Any) -> Iterator[Any]:
    original.drop_adapters()
    original.load_replacement(difference(original, other))
    yield original
    original.drop_adapters()


def painted(model: Any) -> torch.Tensor:
    return model.decode(model.sample(PROMPTS, [1, 2], steps=3, guidance_scale=2.0))


def predicted(model: Any) -> torch.Tensor:
    x_t = torch.randn(2, *model.latent_shape, generator=generator(0))
    return model.predict(x_t, torch.tensor([100, 900]), model.encode_text(PROMPTS))


def test_only_what_differs_is_held(model: Any) -> None:
    replacement = model.replacement
    assert {part: len(own) for part, own in replacement.weights.items()} == {
        "unet": 1,
        "text_encoder": 1,
    }
    assert list(replacement.tokenizers) == ["tokenizer"]


def test_an_active_slot_is_the_other_model_to_the_bit(model: Any, other: Any) -> None:
    before = painted(model)
    with model.active("unlearn"):
        assert not model.is_original
        assert torch.equal(painted(model), painted(other))
        assert model.token_ids("a cat") == model.token_ids("a dat")
        with model.active():
            assert torch.equal(painted(model), before)
    assert model.is_original
    assert torch.equal(painted(model), before)
    assert not torch.equal(before, painted(other))


def test_a_merged_slot_is_the_other_model_under_a_fresh_adapter(model: Any, other: Any) -> None:
    model.reset_adapter("relearn", 2, 2.0, 0)
    with model.active("unlearn"), model.merged("unlearn"), model.training("relearn"):
        assert torch.equal(predicted(model).detach(), predicted(other))
    assert torch.equal(plain_weights(model.network)["conv_in.weight"], model.network.conv_in.weight)


def test_all_weights_train_from_the_other_model(model: Any, other: Any) -> None:
    theirs = plain_weights(other.network)
    own = {name: weight.clone() for name, weight in plain_weights(model.network).items()}
    with model.trainable_base_weights("unlearn") as params:
        for name, weight in params.items():
            assert torch.equal(weight, theirs[name.replace(".base_layer.", ".")])
        assert torch.equal(predicted(model).detach(), predicted(other))
    after = plain_weights(model.network)
    assert all(torch.equal(weight, own[name]) for name, weight in after.items())


def test_the_difference_is_scaled_and_negated(model: Any, other: Any, original: Any) -> None:
    whole, before = model.replacement, painted(model)
    name = next(iter(whole.weights["unet"]))
    own = plain_weights(model.network)[name].detach().clone()
    for factor in (0.0, 1.0, -1.0):
        with model.scaled("unlearn", factor), model.active("unlearn"):
            now = plain_weights(model.network)[name]
            expected = own + factor * (whole.weights["unet"][name] - own)
            assert torch.allclose(now, expected, atol=1e-6)
            if factor == 0.0:
                assert torch.equal(painted(model), before)
    assert model.replacement is whole
    with model.active("unlearn"):
        assert torch.equal(painted(model), painted(other))


def test_an_adapter_is_scaled_by_its_factor(original: Any) -> None:
    original.drop_adapters()
    params = original.reset_adapter("unlearn", 2, 2.0, 0)
    for part in params.values():
        part.data.normal_(generator=generator(1))
    with original.active():
        base = predicted(original)
    with original.scaled("unlearn", -0.5), original.active("unlearn"):
        scaled = predicted(original)
    state = {
        name: tensor * (-0.5 if "lora_B" in name else 1.0)
        for name, tensor in original.adapter_state("unlearn").items()
    }
    original.load_adapter("unlearn", state)
    with original.active("unlearn"):
        assert torch.allclose(predicted(original), scaled, atol=1e-5)
    assert not torch.allclose(base, scaled, atol=1e-3)
    original.drop_adapters()
    with pytest.raises(KeyError), original.scaled("unlearn", 1.0):
        pass


def test_weights_of_their_own_are_scaled_by_their_difference(original: Any) -> None:
    original.drop_adapters()
    for weight in original.reset_weights("unlearn", "cross").values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator(1))
    own = {name: weight.clone() for name, weight in plain_weights(original.network).items()}
    with original.active("unlearn"):
        whole = predicted(original)
    with original.scaled("unlearn", -0.5), original.active("unlearn"):
        half = predicted(original)
        now = plain_weights(original.network)
        changed = [name for name, weight in now.items() if not torch.equal(weight, own[name])]
    assert changed
    assert all(".attn2." in name for name in changed)
    state = {name: -0.5 * part for name, part in original.adapter_state("unlearn").items()}
    with original.active("unlearn"):
        assert torch.equal(predicted(original), whole)
    original.load_adapter("unlearn", state)
    with original.active("unlearn"):
        assert torch.allclose(predicted(original), half, atol=1e-5)
    assert not torch.allclose(whole, half, atol=1e-3)
    original.drop_adapters()


def test_an_adapter_of_a_text_encoder_is_scaled_too(original: Any) -> None:
    original.drop_adapters()
    layer = next(
        f"text_encoder.{name}"
        for name, part in original.pipe.text_encoder.named_modules()
        if name.endswith("q_proj")
    )
    width = original.pipe.text_encoder.config.hidden_size
    numbers = torch.randn(2, width, generator=generator(2))
    factors = {
        f"{layer}.lora_A.weight": numbers[:1],
        f"{layer}.lora_B.weight": numbers[1:].T.contiguous(),
    }
    plain = original.encode_text(PROMPTS).states
    assert not original.rereads
    original.load_adapter("unlearn", factors)
    assert original.rereads
    read = {}
    for factor in (0.0, 1.0, -1.0):
        with original.scaled("unlearn", factor), original.active("unlearn"):
            read[factor] = original.encode_text(PROMPTS).states
    assert torch.equal(read[0.0], plain)
    assert not torch.allclose(read[1.0], plain, atol=1e-4)
    assert not torch.allclose(read[1.0], read[-1.0], atol=1e-4)
    assert torch.equal(original.encode_text(PROMPTS).states, plain)
    with original.active("unlearn"):
        assert torch.equal(original.encode_text(PROMPTS).states, read[1.0])
    original.drop_adapters()


def test_other_weights_in_the_second_slot_leave_the_other_model_in_use(
    model: Any, other: Any
) -> None:
    model.reset_weights("relearn", "all")
    with model.active("unlearn"):
        assert torch.equal(predicted(model), predicted(other))
    model.drop_adapters()
    assert not model.rereads


def test_slots_are_restored_with_the_other_model_in_them(model: Any, other: Any) -> None:
    with slots_kept(model):
        model.drop_adapters()
        assert model.replacement is None
    with model.active("unlearn"):
        assert torch.equal(painted(model), painted(other))


def test_a_copy_of_the_original_is_the_original(original: Any, tiny_pipeline: Path) -> None:
    assert difference(original, load_model(str(tiny_pipeline))).is_empty


def test_what_differs_is_read_back_as_it_was_written(model: Any, other: Any, tmp_path) -> None:
    save_replacement(tmp_path / "kept", model.replacement)
    model.load_replacement(read_replacement(tmp_path / "kept", model))
    with model.active("unlearn"):
        assert model.token_ids("a cat") == model.token_ids("a dat")
        assert torch.equal(painted(model), painted(other))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("unet/conv_in.weight", torch.full((32, 4, 3, 3), float("nan")), "not finite"),
        ("unet/conv_in.weight", torch.zeros(2, 2), "another base"),
        ("scheduler/conv_in.weight", torch.zeros(2), "another base"),
        ("unet/none.weight", torch.zeros(2), "another base"),
    ],
)
def test_a_stored_model_that_does_not_fit_is_refused(model, tmp_path, key, value, said) -> None:
    (tmp_path / "kept").mkdir()
    save_file({key: value}, tmp_path / "kept" / WEIGHTS)
    with pytest.raises(ModelError, match=said):
        read_replacement(tmp_path / "kept", model)


def test_a_model_that_predicts_something_else_was_made_for_another_base(
    original: Any, tiny_pipeline: Path, tmp_path: Path
) -> None:
    to = Path(shutil.copytree(tiny_pipeline, tmp_path / "v"))
    file = to / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"prediction_type": "v_prediction"}
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="another base: its prediction_type is 'v_prediction'"):
        difference(original, load_model(str(to)))


def test_a_model_of_another_size_was_made_for_another_base(original: Any) -> None:
    with pytest.raises(ModelError, match="made for another base"):
        difference(original, load_model())
