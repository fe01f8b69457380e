"""The store of latents: what comes from it is what would be sampled, and it never stands in the
way.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from small_runs import TINY

from unlearn_app.attacks.runner import result_of
from unlearn_app.models import latent_store
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.latent_store import (
    LatentStore,
    Recorder,
    ShippedLatents,
    key_of,
    user_store,
)
from unlearn_app.models.protocols import SamplingOverrides
from unlearn_app.runs.folder import Run
from unlearn_app.runs.workflow import run
from unlearn_app.settings.run_config import make_config

PROMPTS, SEEDS = ["a cat", "a dog"], [3, 4]
HOW = {"steps": 2, "guidance_scale": 3.0}
KEYS = b"exact", "portable"


@pytest.fixture
def store(tmp_path: Path) -> LatentStore:
    return LatentStore(tmp_path / "below" / "latents.sqlite")


@pytest.fixture
def model(tiny_pipeline: Path, store: LatentStore):
    """A model with the store, whose denoiser counts how often it is asked."""
    loaded = load_pipeline(tiny_pipeline, "tiny")
    loaded.store = store
    loaded.asked = 0

    def count(*_) -> None:
        loaded.asked += 1

    loaded.network.register_forward_pre_hook(count)
    return loaded


def test_the_same_is_sampled_once_and_comes_back_bit_for_bit(model) -> None:
    first = model.sample(PROMPTS, SEEDS, **HOW)
    asked = model.asked
    again = model.sample(PROMPTS, SEEDS, **HOW)
    assert model.asked == asked > 0
    assert torch.equal(first, again)
    model.store = None
    assert torch.equal(first, model.sample(PROMPTS, SEEDS, **HOW))


@pytest.mark.parametrize(
    "other",
    [
        {"seeds": [3, 5]},
        {"prompts": ["a cat", "a bird"]},
        {"prompts": ["a dog", "a cat"]},
        {"steps": 3},
        {"guidance_scale": 2.0},
        {"overrides": SamplingOverrides(eta=0.5)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_differs_is_sampled(model, other: dict) -> None:
    usual = {"prompts": PROMPTS, "seeds": SEEDS, **HOW}
    model.sample(**usual)
    asked = model.asked
    model.sample(**usual | other)
    assert model.asked > asked


def test_only_the_original_is_stored(model) -> None:
    original = model.sample(PROMPTS, SEEDS, **HOW)
    model.reset_adapter("unlearn", 2, 2.0, seed=0)
    for name, tensor in model._params("unlearn").items():
        if ".lora_B." in name:
            tensor.data.fill_(0.3)
    with model.active("unlearn"):
        unlearned = model.sample(PROMPTS, SEEDS, **HOW)
    with model.merged("unlearn"):
        merged = model.sample(PROMPTS, SEEDS, **HOW)
    with model.trainable_base_weights("unlearn"):
        trained = model.sample(PROMPTS, SEEDS, **HOW)
    assert all(not torch.equal(original, other) for other in (unlearned, merged, trained))
    assert torch.equal(original, model.sample(PROMPTS, SEEDS, **HOW))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch) -> None:
    times = iter(range(100))
    monkeypatch.setattr(latent_store.time, "time", lambda: next(times))
    latents = torch.arange(100.0)
    monkeypatch.setattr(latent_store, "LARGEST", 1000)
    store = LatentStore(tmp_path / "small")
    for number in range(5):
        store.put(bytes([number]), latents)
    assert torch.equal(store.get(bytes([0])), latents)
    store.put(bytes([5]), latents)
    left = [number for number in range(6) if store.get(bytes([number])) is not None]
    assert left == [0, 3, 4, 5]


@pytest.mark.parametrize("kind", ["damaged", "folder", "a file above it"])
def test_a_store_that_cannot_be_used_costs_time_only(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "latents.sqlite"
    if kind == "damaged":
        file.write_bytes(b"x" * 5000)
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_text("mine")
        file = file / "latents.sqlite"
    latents = torch.ones(2, 3)
    assert LatentStore(file).recall(*KEYS, lambda: latents) is latents
    assert ShippedLatents(file, LatentStore(file)).recall(*KEYS, lambda: latents) is latents


def test_the_variable_names_the_folder_or_switches_the_store_off(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(latent_store.VARIABLE, "off")
    assert user_store() is None
    monkeypatch.setenv(latent_store.VARIABLE, str(tmp_path))
    user_store().put(b"key", torch.ones(1))
    assert [path.name for path in tmp_path.iterdir()] == ["latents.sqlite"]


def test_a_key_tells_shape_dtype_and_facts() -> None:
    tensor = torch.zeros(2, 4)
    keys = [
        key_of((tensor,), 1),
        key_of((tensor,), 2),
        key_of((tensor.view(4, 2),), 1),
        key_of((tensor.half(),), 1),
        key_of((tensor, tensor), 1),
    ]
    assert len(set(keys)) == len(keys)


def test_what_ships_is_found_on_another_machine_and_the_rest_is_asked_behind(
    model, store: LatentStore, tmp_path: Path, monkeypatch
) -> None:
    model.store = recorder = Recorder()
    sampled = model.sample(PROMPTS, SEEDS, **HOW)
    recorder.save(tmp_path / "latents.npz")
    monkeypatch.setattr("unlearn_app.models.diffusers.pipeline.machine", lambda _: ["another"])
    model.store = ShippedLatents(tmp_path / "latents.npz", store)
    asked = model.asked
    assert torch.equal(model.sample(PROMPTS, SEEDS, **HOW), sampled)
    assert model.asked == asked
    other = model.sample(PROMPTS, [7, 8], **HOW)
    asked = model.asked
    assert torch.equal(model.sample(PROMPTS, [7, 8], **HOW), other)
    assert model.asked == asked, "the store behind it keeps what does not ship"


def test_a_run_is_the_same_without_a_store_with_an_empty_and_with_a_filled_one(
    model, store: LatentStore, tiny_pipeline: Path, tmp_path: Path
) -> None:
    config, found = make_config("cat", model=str(tiny_pipeline), **TINY), []
    for number, own in enumerate([None, store, store]):
        model.store = own
        result_of(run(config, tmp_path / str(number), model=model))
        files = Run.open(tmp_path / str(number)).record["files"]
        found.append({n: h for n, h in files.items() if n.endswith((".png", ".safetensors"))})
    without, empty, filled = found
    assert len(without) > 2
    assert empty == without
    assert filled == without


def test_what_diffusers_notes_for_itself_does_not_change_a_key(model) -> None:
    model.sample(PROMPTS, SEEDS, **HOW)
    asked, config = model.asked, dict(model.pipe.scheduler.config)
    model.pipe.scheduler._internal_dict = FrozenDict(config | {"_use_default_values": ["b", "a"]})
    model.sample(PROMPTS, SEEDS, **HOW)
    assert model.asked == asked


def test_states_without_prompts_do_not_ship(model) -> None:
    model.store = recorder = Recorder()
    model.sample(model.encode_text(PROMPTS), SEEDS, **HOW)
    assert not recorder.latents


def test_what_ships_is_kept_bit_for_bit_and_a_damaged_file_is_asked_behind(tmp_path: Path) -> None:
    odd = torch.tensor([[0.1, -0.0, float("inf"), 6e-8], [65504.0, -3.3, 1.0, 2.0]]).half()
    single, behind = torch.tensor([[[[0.3]]]]).half(), torch.zeros(1)
    file = tmp_path / "latents.npz"
    Recorder({"odd": odd, "single": single}).save(file)
    store = ShippedLatents(file, SimpleNamespace(recall=lambda *_: behind))
    for key, kept in (("odd", odd), ("single", single)):
        found = store.recall(b"", key, lambda: behind).half()
        assert torch.equal(found.view(torch.int16), kept.view(torch.int16))
    whole = file.read_bytes()
    assert whole.startswith(b"PK")
    for damaged in (whole[:-30], whole[:90], whole[:80] + b"????" + whole[84:], b"other"):
        file.write_bytes(damaged)
        assert store.recall(b"", "odd", lambda: behind) is behind
