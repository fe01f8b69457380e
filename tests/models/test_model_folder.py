"""A model folder of nonsense is refused in a sentence before or while it is loaded, and none hangs
or makes pictures of NaN.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file

from unlearn_app.common.errors import UnlearnError
from unlearn_app.common.paths import POCKET
from unlearn_app.models.diffusers.loading import load_pipeline

UNET, VAE, TEXT = "unet/config.json", "vae/config.json", "text_encoder/config.json"
SCHEDULER, TOKENIZER = "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"


@pytest.fixture
def model(tiny_pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


def refused(model: Path) -> str:
    with pytest.raises(UnlearnError) as raised:
        load_pipeline(model, "tiny")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    return str(raised.value)


@pytest.mark.parametrize("text", ["[]", "null", "5", '"x"', "{", "[" * 5000, '{"a": NaN}'])
@pytest.mark.parametrize("name", ["model_index.json", UNET, TEXT, SCHEDULER, TOKENIZER])
def test_a_configuration_is_a_json_object(model: Path, name: str, text: str) -> None:
    (model / name).write_text(text)
    assert Path(name).name in refused(model)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (UNET, {"sample_size": -8}),
        (UNET, {"sample_size": 10**9}),
        (UNET, {"sample_size": None}),
        (UNET, {"in_channels": 9}),
        (UNET, {"layers_per_block": 10**6}),
        (UNET, {"layers_per_block": -1}),
        (UNET, {"block_out_channels": [-32, 64]}),
        (UNET, {"norm_num_groups": 0}),
        (UNET, {"down_block_types": ["Nope", "DownBlock2D"]}),
        (VAE, {"latent_channels": 8}),
        (VAE, {"scaling_factor": 0}),
        (VAE, {"scaling_factor": "x"}),
        (VAE, {"block_out_channels": [8]}),
        (SCHEDULER, {"prediction_type": "nope"}),
        (SCHEDULER, {"prediction_type": 5}),
        (SCHEDULER, {"num_train_timesteps": -5}),
        (SCHEDULER, {"num_train_timesteps": 10**9}),
        (SCHEDULER, {"beta_end": 5}),
        (SCHEDULER, {"trained_betas": []}),
        (TEXT, {"hidden_size": 0}),
        (TEXT, {"num_attention_heads": 3}),
        (TEXT, {"num_hidden_layers": 10**6}),
        (TEXT, {"hidden_act": "nope"}),
        (TOKENIZER, {"model_max_length": 0}),
        (TOKENIZER, {"model_max_length": 10**30}),
        (TOKENIZER, {"pad_token": None}),
        ("model_index.json", {"unet": ["os", "system"]}),
        ("model_index.json", {"tokenizer": 5}),
        ("model_index.json", {"_class_name": ["StableDiffusionPipeline"]}),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline", "text_encoder": 5}),
        ("model_index.json", {"_class_name": "StableDiffusion3Pipeline"}),
        ("model_index.json", {"_class_name": "FluxPipeline"}),
    ],
)
def test_nonsense_in_a_configuration_is_a_sentence(
    model: Path, name: str, values: Mapping[str, object]
) -> None:
    config = json.loads((model / name).read_text())
    (model / name).write_text(json.dumps(config | values))
    refused(model)


def test_a_sampler_that_diffusers_saves_with_an_infinite_bound_loads(model: Path) -> None:
    scheduler = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    scheduler.save_pretrained(model / "scheduler")
    index = json.loads((model / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DPMSolverMultistepScheduler"]
    (model / "model_index.json").write_text(json.dumps(index))
    assert "-Infinity" in (model / "scheduler" / "scheduler_config.json").read_text()
    assert load_pipeline(model, "tiny").scheduler == "DPMSolverMultistepScheduler"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_not_finite_are_refused(model: Path, part: str, number: float) -> None:
    (file,) = (model / part).glob("*.safetensors")
    state = load_file(file)
    name = max(state)
    state[name] = torch.full_like(state[name], number)
    save_file(state, file, metadata={"format": "pt"})
    assert "not finite" in refused(model)


@pytest.mark.parametrize("name", [UNET, "unet/diffusion_pytorch_model.safetensors", "extra"])
def test_a_pipe_in_place_of_a_file_is_a_sentence(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    assert "regular file" in refused(model)


def test_the_whole_folder_still_loads(model: Path) -> None:
    assert load_pipeline(model, "tiny").latent_shape == (4, 8, 8)


HOLD = """
import sys
from pathlib import Path
from unlearn_app.models.diffusers import sources
sources.check_checkpoint = sources.write_configs = lambda *_: None
with sources.opened(sys.argv[1], sys.argv[2:]) as found:
    print(found.folder, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_killed_process_left_of_a_model_goes_when_the_next_is_opened(
    tmp_path: Path, kind: str
) -> None:
    model, top = tmp_path / "model.safetensors", tmp_path / "top"
    top.mkdir()
    if kind == "folder":
        model = POCKET / "pipeline"
    else:
        model.write_bytes(b"")
    index = json.loads((POCKET / "pipeline" / "model_index.json").read_text(encoding="utf-8"))
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(model), index["_class_name"]],
        env=os.environ | {"TMPDIR": str(top)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with held:
        left = Path(held.stdout.readline().strip())
        assert left.is_dir()
        held.kill()
        held.wait()
    assert left.is_dir()
    subprocess.run(
        [sys.executable, "-c", HOLD, str(model), index["_class_name"]],
        env=os.environ | {"TMPDIR": str(top)},
        input="\n",
        stdout=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    assert [*top.iterdir()] == []
