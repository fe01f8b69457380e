"""The recipe of the bundled world, a few steps of every part: it resumes after a kill and its
result loads anywhere.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unlearn_app.common.errors import ConfigError, ModelError, OutputError
from unlearn_app.common.folder_lock import only_writer
from unlearn_app.common.images import to_tensor
from unlearn_app.common.paths import POCKET, ROOT
from unlearn_app.evaluation.judges.pocket_judge import PocketJudge
from unlearn_app.evaluation.judges.second_judge import SecondJudge
from unlearn_app.pocket.measures import sample_scenes
from unlearn_app.pocket.texts import load_tower
from unlearn_app.pocket.training import arms, recipe
from unlearn_app.pocket.training.arms import ARMS_FILE, HELD_OUT_T, Arm, compare_arms
from unlearn_app.pocket.training.checkpoints import load
from unlearn_app.pocket.training.encoder import write_encoder
from unlearn_app.pocket.training.latents import fit_basis
from unlearn_app.pocket.training.parts import new_autoencoder
from unlearn_app.pocket.world.dataset import scene_at
from unlearn_app.pocket.world.rendering import render

pytestmark = pytest.mark.slow

JUDGES = {"judge": PocketJudge, "second": SecondJudge}
MEGABYTES_15 = 15 * 2**20
TRAIN = """
import sys
from pathlib import Path
import torch
from PIL import Image
from safetensors.torch import load_file
from unlearn_app.pocket.training import recipe
torch.set_num_threads(1)
for progress in recipe.train(Path(sys.argv[1]), ["denoiser"], "cpu", recipe.SMOKE):
    print(progress.stage, progress.done, flush=True)
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which the smoke recipe ran without a break."""
    folder = tmp_path_factory.mktemp("pocket")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rendered = list(recipe.render(folder, 1, recipe.SMOKE))
    assert [p.stage for p in rendered] == ["render"] * len(rendered)
    trained = list(recipe.train(folder, None, "cpu", recipe.SMOKE, folder / "assets"))
    torch.set_num_threads(threads)
    assert list(dict.fromkeys(p.stage for p in trained)) == [*recipe.PARTS, "assemble"]
    return folder


def test_every_part_is_recorded(work: Path) -> None:
    record = json.loads((work / "train.json").read_text())
    assert set(record) == {"tower", "autoencoder", "judge", "second", "denoiser"}
    for part in ("autoencoder", "judge", "second", "denoiser"):
        assert record[part]["losses"]
        assert record[part]["steps"] == record[part]["losses"][-1][0]
        assert {"seed", "seconds", "batch", "hardware"} <= set(record[part])
    planned = json.loads((work / "recipe.json").read_text())["denoiser_phases"]
    assert [phase["batch"] for phase in planned] == [
        phase.batch for phase in recipe.SMOKE.denoiser_phases
    ]


def test_one_process_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    with only_writer(tmp_path, "training"):
        for begin in (recipe.render(tmp_path, 1, recipe.SMOKE), recipe.train(tmp_path)):
            with pytest.raises(OutputError, match=f"process {os.getpid()}"):
                next(begin)


def test_nothing_is_trained_on_a_text_tower_that_lacks_weights(tmp_path: Path) -> None:
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(POCKET / "pipeline" / name, tmp_path / name)
    file = tmp_path / "text_encoder" / "model.safetensors"
    state = load_file(file)
    del state[min(state)]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="it lacks weights, 1 in all, such as"):
        load_tower(tmp_path)


def test_a_kill_changes_nothing(work: Path, tmp_path: Path) -> None:
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(work / name, tmp_path / name)
    shutil.copy(work / "latents.pt", tmp_path)
    command = [sys.executable, "-c", TRAIN, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        reached = any(line.startswith("denoiser 4") for line in process.stdout)
        process.kill()
    assert reached
    assert load(tmp_path / "unet.ckpt")["step"] == recipe.SMOKE.save_every
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    resumed = list(recipe.train(tmp_path, ["denoiser"], "cpu", recipe.SMOKE))
    torch.set_num_threads(threads)
    assert resumed[0].detail == "resumed"
    assert resumed[-1].done == sum(phase.steps for phase in recipe.SMOKE.denoiser_phases)
    whole, broken = load(work / "unet.ckpt"), load(tmp_path / "unet.ckpt")
    for kind in ("model", "ema"):
        assert all(torch.equal(whole[kind][name], broken[kind][name]) for name in whole[kind]), (
            f"{kind} differs"
        )
    assert whole["losses"] == broken["losses"]


def test_the_assembled_folder_is_plain_stable_diffusion(work: Path) -> None:
    from diffusers import StableDiffusionPipeline

    folder = work / "assets" / "pocket"
    assert all(path.stat().st_size < MEGABYTES_15 for path in folder.rglob("*"))
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".ckpt", ".pt")]
    index = json.loads((folder / "pipeline" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == [
        None,
        None,
    ]
    pipe = StableDiffusionPipeline.from_pretrained(folder / "pipeline", torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a cat on the beach", num_inference_steps=2, guidance_scale=2.0).images[0]
    assert picture.size == (64, 64)
    assert next(pipe.unet.parameters()).dtype == torch.float32
    trained = load(work / "unet.ckpt")["ema"]["conv_in.weight"]
    assert torch.equal(pipe.unet.conv_in.weight, trained.half().float())
    classes = [judge.load(folder / name).classes("setting") for name, judge in JUDGES.items()]
    assert classes[0] == classes[1]
    assert classes[0]


def test_arms_are_compared_once_at_the_same_seconds(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "HELD_OUT", 4)
    monkeypatch.setattr(arms, "PACED", 2)
    monkeypatch.setattr(arms, "sample_scenes", lambda count: sample_scenes(count)[:4])
    some = {"plain": Arm(batch=4), "wide": Arm(batch=4, widths=(32, 64), blocks=2)}
    list(compare_arms(work, 0.5, some, recipe.SMOKE))
    kept = json.loads((work / ARMS_FILE).read_text())
    assert list(kept) == list(some)
    for arm in kept.values():
        assert arm["steps"] == max(1, round(0.5 / arm["setting"]["pace"]["seconds"]))
        assert arm["pictures"] == 4 * arm["steps"] > 0
        assert [int(t) for t in arm["losses"]] == list(HELD_OUT_T)
        assert arm["loss"] == pytest.approx(statistics.mean(arm["losses"].values()))
        assert 0 <= arm["judge"]["object"] <= 1
    list(compare_arms(work, 0.5, some, recipe.SMOKE))
    assert json.loads((work / ARMS_FILE).read_text()) == kept
    list(compare_arms(work, 0.25, {"plain": some["plain"]}, recipe.SMOKE))
    again = json.loads((work / ARMS_FILE).read_text())
    assert again["wide"] == kept["wide"]
    assert again["plain"]["setting"]["seconds"] == 0.25


def test_a_missing_stage_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pocket render"):
        list(recipe.train(tmp_path, ["judge"], "cpu", recipe.SMOKE))
    with pytest.raises(ConfigError, match="no part 'unet'"):
        list(recipe.train(tmp_path, ["unet"], "cpu", recipe.SMOKE))


def test_the_encoder_is_the_linear_code() -> None:
    pictures = np.stack([np.asarray(render(scene_at("held_out", index, 0))) for index in range(72)])
    basis, model = fit_basis(pictures[:64], 64), new_autoencoder()
    write_encoder(model, basis, pictures[:64])
    x = to_tensor(pictures[64:])
    with torch.no_grad():
        moments = model.encode(x).latent_dist
    code = basis.encode(x)
    assert (moments.mode() - code).square().mean().sqrt() < 0.05 * code.square().mean().sqrt()
    assert moments.std.max() < 0.05


def test_the_snippet_of_the_card_runs_as_written(tmp_path: Path) -> None:
    card = (ROOT / "assets" / "pocket" / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert Image.open(tmp_path / "cat.png").size == (256, 256)


def test_the_text_encoder_is_read_by_every_allowed_version(work: Path) -> None:
    """transformers before 5.6 finds only names with the prefix, and starts at random without a word
    otherwise.
    """
    for folder in (ROOT / "assets" / "pocket", work / "assets" / "pocket"):
        tensors = load_file(folder / "pipeline" / "text_encoder" / "model.safetensors")
        assert all(name.startswith("text_model.") for name in tensors)
        assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_training_goes_on_from_the_bundled_models(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = work / "assets"
    monkeypatch.setattr(recipe, "ASSETS", bundled)
    shutil.copytree(work / "pictures", tmp_path / "pictures")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    steps = recipe.train(tmp_path, ["latents", "denoiser"], "cpu", recipe.SMOKE, from_assets=True)
    first = next(step for step in steps if step.stage == "denoiser")
    torch.set_num_threads(threads)
    assert first.done == 0
    for name in ("text_encoder/model.safetensors", "unet/config.json"):
        assert (tmp_path / name).read_bytes() == (
            bundled / "pocket" / "pipeline" / name
        ).read_bytes()
    assert (tmp_path / recipe.BASIS).read_bytes() == (
        bundled / "pocket" / recipe.BASIS
    ).read_bytes()
