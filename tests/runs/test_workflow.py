"""A whole run on a small random Stable Diffusion 1.x folder: what it yields, writes, keeps and
leaves alone.
"""

import itertools
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_runs import TINY

from unlearn_app.common.errors import (
    Cancelled,
    ConfigError,
    Diverged,
    ModelError,
    OutOfMemory,
    OutputError,
)
from unlearn_app.common.images import to_pil
from unlearn_app.evaluation.comparison import column_state
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.adapter_files import read_adapter
from unlearn_app.models.generate import generate
from unlearn_app.runs import workflow
from unlearn_app.runs.folder import Run, RunWriter
from unlearn_app.runs.workflow import run
from unlearn_app.settings.events import (
    AttackCheckpoint,
    Done,
    Images,
    Preview,
    Sampling,
    Scores,
    Stage,
    Step,
    Verdict,
)
from unlearn_app.settings.run_config import make_config


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    return load_model(str(tiny_pipeline))


def config_for(folder: Path, **changes):
    return make_config("a red dragon", model=str(folder), **(TINY | changes))


def test_run_yields_the_stages_in_order_and_writes_the_folder(model, tiny_pipeline, tmp_path):
    events = list(run(config_for(tiny_pipeline), tmp_path / "out", model=model))
    stages = [event.name for event in events if isinstance(event, Stage)]
    assert stages == [
        "load",
        "load",  # there is no judge
        "compare",
        "retain",
        "unlearn",
        "compare",
        "attack",
        "write",
    ]
    fractions = [event.fraction for event in events if isinstance(event, Stage)]
    assert fractions == sorted(fractions)
    assert [e.column for e in events if isinstance(e, Images)] == [
        "original",
        "unlearned",
        "relearned",
    ]
    assert [e.step for e in events if isinstance(e, Step) and e.stage == "unlearn"] == [1, 2, 3]
    assert any(isinstance(e, Preview) for e in events)
    assert any(isinstance(e, Scores) for e in events)
    assert isinstance(events[-2], Verdict)
    assert isinstance(events[-1], Done)

    record = json.loads((tmp_path / "out" / "run.json").read_text())
    parts = ("load", "originals", "unlearn", "attack", "controls", "compare", "total")
    assert set(record["timing"]) == {f"{part}_s" for part in parts}
    assert set(record["scores"]) == {"original", "unlearned", "relearned"}
    unjudged = {"accuracy": None, "alignment": None, "n": 2, "accuracies": {}, "found": {}}
    assert record["scores"]["unlearned"]["forget"] == unjudged
    assert record["verdict"]["label"] == "inconclusive"
    assert "judge" in record["environment"]["judge_note"]
    assert len(record["pictures"]) == 12
    assert len((tmp_path / "out" / "steps.jsonl").read_text().splitlines()) == 5
    for name in record["files"]:
        assert (tmp_path / "out" / name).stat().st_size > 0
    with Image.open(tmp_path / "out" / "comparison.png") as strip:
        assert strip.width >= 760
    assert not list(tmp_path.glob(".*partial"))


def test_the_original_column_comes_before_anything_is_trained(model, tiny_pipeline, tmp_path):
    events = run(config_for(tiny_pipeline), tmp_path / "out", model=model)
    before = list(itertools.takewhile(lambda event: not isinstance(event, Step), events))
    assert [event.column for event in before if isinstance(event, Images)] == ["original"]
    events.close()


def test_same_seed_same_run_and_other_seed_another(model, tiny_pipeline, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        list(run(config_for(tiny_pipeline, seed=seed), tmp_path / name, model=model))
    hashes = {
        name: json.loads((tmp_path / name / "run.json").read_text())["files"] for name in "abc"
    }
    assert {k: v for k, v in hashes["a"].items() if k.endswith((".png", ".safetensors"))} == {
        k: v for k, v in hashes["b"].items() if k.endswith((".png", ".safetensors"))
    }
    assert hashes["a"]["unlearn.safetensors"] != hashes["c"]["unlearn.safetensors"]


def test_columns_differ_only_by_weights_and_base_is_untouched(model, tiny_pipeline, tmp_path):
    before = {k: v.clone() for k, v in model.network.state_dict().items() if ".lora_" not in k}
    list(run(config_for(tiny_pipeline), tmp_path / "out", model=model))
    after = {k: v for k, v in model.network.state_dict().items() if ".lora_" not in k}
    plain = {k.replace(".base_layer", ""): v for k, v in before.items()}
    assert all(torch.equal(plain[k.replace(".base_layer", "")], v) for k, v in after.items())
    stored = Run.open(tmp_path / "out")
    by_column = {
        c: [(p.prompt, p.seed) for p in stored.pictures if p.column == c] for c in stored.scores
    }
    assert by_column["original"] == by_column["unlearned"] == by_column["relearned"]
    asked = zip(*by_column["original"], strict=True)
    scale = stored.config.compare.guidance_scale
    original = generate(model, *asked, sampling_steps=2, guidance_scale=scale)
    assert [p.tobytes() for p in original] == [
        Image.open(p.file).tobytes() for p in stored.pictures if p.column == "original"
    ]


def test_every_picture_says_when_and_how_it_was_made(model, tiny_pipeline, tmp_path):
    config = config_for(tiny_pipeline, **{"attack.steps": 12})
    list(run(config, tmp_path / "out", model=model))
    stored = Run.open(tmp_path / "out")
    taken = {(p.column, p.stage, p.step) for p in stored.pictures}
    assert taken == {
        ("original", "unlearn", 0),
        ("unlearned", "unlearn", config.unlearn.steps),
        ("relearned", "attack", 12),
    }
    assert {(p.stage, p.step) for p in stored.curve[1][2]} == {("attack", 10)}
    assert {p.stage for p in stored.previews} == {"unlearn"}
    assert len({p.file for p in stored.previews}) == len(stored.previews) > 0
    compare = config.compare
    sampling = Sampling(compare.sampling_steps, compare.guidance_scale, "PNDMScheduler")
    assert {p.sampler for p in stored.pictures} == {sampling}


def test_without_an_attack_there_is_no_relearned_adapter(model, tiny_pipeline, tmp_path):
    config = config_for(tiny_pipeline, **{"attack.steps": 0})
    list(run(config, tmp_path / "out", model=model))
    assert "relearn.safetensors" not in Run.open(tmp_path / "out").record["files"]


def test_the_attack_leaves_marks_and_its_last_one_is_the_third_column(
    model, tiny_pipeline, tmp_path
):
    config = config_for(tiny_pipeline, **{"attack.steps": 12})
    marks = [
        e for e in run(config, tmp_path / "out", model=model) if isinstance(e, AttackCheckpoint)
    ]
    assert [mark.step for mark in marks] == [10, 12]
    stored = Run.open(tmp_path / "out")
    assert [step for step, _, _ in stored.curve] == [0, 10, 12]
    assert stored.record["relearning"] == {
        "area": None,
        "steps_to_recovery": None,
    }  # no judge, no accuracy
    columns = {c: [p for p in stored.pictures if p.column == c] for c in ("unlearned", "relearned")}
    assert [p.file for p in stored.curve[0][2]] == [p.file for p in columns["unlearned"]]
    assert [p.file for p in stored.curve[2][2]] == [p.file for p in columns["relearned"]]
    assert [(p.prompt, p.seed) for p in stored.curve[1][2]] == [
        (p.prompt, p.seed) for p in columns["unlearned"]
    ]
    model.load_adapter("unlearn", read_adapter(tmp_path / "out" / "unlearn.safetensors"))
    prefixed = load_file(tmp_path / "out" / "relearn.safetensors")
    model.load_adapter(
        "relearn", {name.removeprefix("unet."): tensor for name, tensor in prefixed.items()}
    )
    with column_state(model, "relearned"):
        again = model.sample(
            [p.prompt for p in columns["relearned"]],
            [p.seed for p in columns["relearned"]],
            steps=2,
            guidance_scale=config_for(tiny_pipeline).compare.guidance_scale,
        )
    for picture, kept in zip(to_pil(model.decode(again)), columns["relearned"], strict=True):
        assert np.abs(np.asarray(picture, int) - np.asarray(Image.open(kept.file), int)).max() <= 1


def test_an_attack_that_diverges_says_which_rate_is_too_high(model, tiny_pipeline, tmp_path):
    way = {
        "attack.weights": "full",
        "attack.optimizer": "sgd",
        "attack.lr": 100.0,
        "attack.steps": 12,
    }
    with pytest.raises(ConfigError, match=r"diverged.*lower attack\.lr than 100") as caught:
        list(run(config_for(tiny_pipeline, **way), tmp_path / "out", model=model))
    assert caught.value.field == "attack.lr"


def test_an_attack_whose_last_step_explodes_keeps_what_was_before_it(
    model, tiny_pipeline, tmp_path
):
    way = {"attack.weights": "full", "attack.lr": 100.0, "attack.steps": 1}
    events = []
    with pytest.raises(Diverged):
        for event in run(config_for(tiny_pipeline, **way), tmp_path / "out", model=model):
            events.append(event)
    stored = Run.open(tmp_path / "out")
    assert stored.status == "diverged"
    assert "attack.lr" in stored.verdict.reasons[0]
    assert set(stored.scores) == {"original", "unlearned"}
    read_adapter(tmp_path / "out" / "unlearn.safetensors")
    assert events[-1] == Done(tmp_path / "out", stopped=True)
    assert model._active == ()
    assert model._trained is None


def test_an_attack_without_memory_says_what_to_lower_and_keeps_what_was_before_it(
    model, tiny_pipeline, tmp_path, monkeypatch
):
    def too_large(*asked, **more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(workflow, "checkpoints", too_large)
        with pytest.raises(OutOfMemory, match=r"The attack needs .*20.00 GiB.*attack\.batch_size"):
            list(run(config_for(tiny_pipeline), tmp_path / "out", model=model))
    assert set(Run.open(tmp_path / "out").scores) == {"original", "unlearned"}
    list(run(config_for(tiny_pipeline), tmp_path / "again", model=model))
    assert Run.open(tmp_path / "again").status == "complete"


def test_a_full_disk_keeps_the_adapter(model, tiny_pipeline, tmp_path, monkeypatch):
    add_images = RunWriter.add_images

    def full(self, images):
        if images.column == "original":  # written before anything is trained
            add_images(self, images)
            return
        with (self.partial / "steps.jsonl").open("a") as stream:
            stream.write('{"stage": "unl')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearn_app.runs.folder.RunWriter.add_images", full)
    with pytest.raises(OutputError, match="No space left"):
        list(run(config_for(tiny_pipeline), tmp_path / "out", model=model))
    stored = Run.open(tmp_path / "out")
    assert stored.status == "stopped"
    assert "No space left" in stored.verdict.reasons[0]
    assert len(stored.steps) == 3
    assert stored.pictures == []
    read_adapter(tmp_path / "out" / "unlearn.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_disk_without_room_is_refused_before_anything_is_trained(
    model, tiny_pipeline, tmp_path, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda path: (10**9, 10**9, 1000))
    with pytest.raises(OutputError, match=r"needs about .* MB and its disk has 0\.0 MB free"):
        list(run(config_for(tiny_pipeline), tmp_path / "out", model=model))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_taken_meanwhile_loses_no_run(model, tiny_pipeline, tmp_path):
    events = run(config_for(tiny_pipeline), tmp_path / "out", model=model)
    first = next(events)
    assert isinstance(first, Stage)
    (tmp_path / "out").mkdir()
    assert list(events)[-1] == Done(tmp_path / "out-2")
    assert Run.open(tmp_path / "out-2").status == "complete"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_attack_on_all_weights_leaves_pictures_and_no_trace_in_the_model(
    model, tiny_pipeline, tmp_path, optimizer
):
    before = {
        k.replace(".base_layer", ""): v.clone()
        for k, v in model.network.state_dict().items()
        if ".lora_" not in k
    }
    changes = {
        "attack.weights": "full",
        "attack.optimizer": optimizer,
        "attack.lr": 0.01,
        "attack.steps": 3,
    }
    list(run(config_for(tiny_pipeline, **changes), tmp_path / "out", model=model))
    after = {
        k.replace(".base_layer", ""): v
        for k, v in model.network.state_dict().items()
        if ".lora_" not in k
    }
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], v) for k, v in after.items())
    assert not any(p.requires_grad for p in model.network.parameters())
    stored = Run.open(tmp_path / "out")
    assert "relearn.safetensors" not in stored.record["files"]
    pictures = {(p.column, p.group, p.index): Image.open(p.file).tobytes() for p in stored.pictures}
    assert pictures["relearned", "forget", 0] != pictures["unlearned", "forget", 0]


def test_cancel_stops_within_a_step_and_keeps_what_is_there(model, tiny_pipeline, tmp_path):
    cancel = threading.Event()
    events = []
    for event in run(config_for(tiny_pipeline), tmp_path / "out", cancel=cancel, model=model):
        events.append(event)
        if isinstance(event, Step) and event.step == 2:
            cancel.set()
    assert events[-1].stopped
    assert max(e.step for e in events if isinstance(e, Step)) == 2
    stored = Run.open(tmp_path / "out")
    assert stored.status == "stopped"
    assert stored.verdict.label == "inconclusive"
    assert load_file(tmp_path / "out" / "unlearn.safetensors")
    assert not (tmp_path / "out" / "relearn.safetensors").exists()


def test_stop_before_the_first_step_leaves_nothing(model, tiny_pipeline, tmp_path):
    list(run(config_for(tiny_pipeline), tmp_path / "first", model=model))
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled, match="nothing is kept"):
        list(run(config_for(tiny_pipeline), tmp_path / "second", cancel=cancel, model=model))
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_closing_a_run_midway_leaves_nothing_behind(model, tiny_pipeline, tmp_path):
    events = run(config_for(tiny_pipeline), tmp_path / "out", model=model)
    for event in events:
        if isinstance(event, Step):
            break
    events.close()
    assert list(tmp_path.iterdir()) == []
    assert model._active == ()
    assert model._trained is None


def test_occupied_output_is_refused_before_anything_runs(model, tiny_pipeline, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="exists already"):
        next(run(config_for(tiny_pipeline), tmp_path / "out", model=model))
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_full_disk_is_one_sentence_and_leaves_nothing(model, tiny_pipeline, tmp_path, monkeypatch):
    def full(self, step):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearn_app.runs.folder.RunWriter.add_step", full)
    with pytest.raises(OutputError, match="No space left"):
        list(run(config_for(tiny_pipeline), tmp_path / "out", model=model))
    assert list(tmp_path.iterdir()) == []


def test_saved_adapter_loads_in_plain_diffusers_and_paints_the_unlearned_column(
    model, tiny_pipeline, tmp_path
):
    from diffusers import StableDiffusionPipeline

    list(run(config_for(tiny_pipeline, **{"unlearn.alpha": 32.0}), tmp_path / "out", model=model))
    stored = [p for p in Run.open(tmp_path / "out").pictures if p.column == "unlearned"]
    pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(tmp_path / "out", weight_name="unlearn.safetensors")
    theirs = pipe(
        [p.prompt for p in stored],
        num_inference_steps=2,
        guidance_scale=config_for(tiny_pipeline).compare.guidance_scale,
        generator=[torch.Generator().manual_seed(p.seed) for p in stored],
    ).images
    for mine, other in zip(stored, theirs, strict=True):
        difference = np.asarray(Image.open(mine.file), dtype=int) - np.asarray(other, dtype=int)
        assert abs(difference).max() <= 2


def test_damaged_and_foreign_models_are_refused_in_a_sentence(tiny_pipeline, tmp_path):
    import shutil

    with pytest.raises(ModelError, match="no model folder"):
        load_model(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"model_index\.json"):
        load_model(str(tmp_path / "empty"))
    shutil.copytree(tiny_pipeline, tmp_path / "pickle")
    weights = tmp_path / "pickle" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="pickle"):
        load_model(str(tmp_path / "pickle"))
    shutil.copytree(tiny_pipeline, tmp_path / "short")
    weights = next((tmp_path / "short" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(tmp_path / "short"))
