"""`pocket-flow`: a few steps of its training learn, resume bit for bit, and make a folder of plain
diffusers.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_runs import TINY

from unlearn_app.common.errors import ConfigError
from unlearn_app.common.paths import POCKET
from unlearn_app.common.seeds import generator
from unlearn_app.models.diffusers.loading import load_flow, save_pipeline
from unlearn_app.models.diffusers.model_folder import hash_weights
from unlearn_app.models.diffusers.stable_diffusion_3 import StableDiffusion3
from unlearn_app.models.parameterization import Flow, VPrediction
from unlearn_app.pocket import card
from unlearn_app.pocket.measures import sample_scenes
from unlearn_app.pocket.texts import load_tower, shared_texts
from unlearn_app.pocket.training import flow, recipe
from unlearn_app.pocket.training.checkpoints import load
from unlearn_app.pocket.training.denoiser import Fall, Phase, batch_loss, learning_rate
from unlearn_app.pocket.world.dataset import scenes
from unlearn_app.runs.folder import Run
from unlearn_app.runs.workflow import run
from unlearn_app.settings.events import Done
from unlearn_app.settings.run_config import make_config
from unlearn_app.worlds import pocket_flow

LIMIT = 8 * 2**20
PROMPT = "a cat on the beach"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which the smoke recipe was trained without a break."""
    folder = tmp_path_factory.mktemp("flow")
    list(recipe.render(folder, 1, recipe.SMOKE))
    stages = [p.stage for p in recipe.train_flow(folder, "cpu", recipe.SMOKE, folder / "assets")]
    assert list(dict.fromkeys(stages)) == [*recipe.FLOW_PARTS, "assemble"]
    return folder


@pytest.fixture(scope="module")
def texts() -> dict[str, Any]:
    return flow.text_parts(*load_tower(POCKET / "pipeline"), 0)


@pytest.fixture(scope="module")
def pipeline(work: Path) -> Path:
    return work / "assets" / "pocket-flow" / "pipeline"


def losses(texts: dict[str, Any], latents: torch.Tensor, shown: list, trained: bool) -> list[float]:
    """The loss before every step and after the last, of a training on few pictures."""
    torch.manual_seed(0)
    transformer = flow.new_transformer()
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=2e-3)
    learner = flow.flow_learner(transformer, transformer, texts, CPU)
    found = []
    for _ in range(12):
        how = {"phases": [Phase(1, 8)], "seed": 0, "autocast": False, "step": 0}
        loss = batch_loss(learner, latents, shown, **how)
        found.append(loss.item())
        optimizer.zero_grad()
        (loss if trained else -loss).backward()
        optimizer.step()
    return found


@pytest.mark.slow
def test_a_few_steps_learn_the_velocity_of_the_batch(texts: dict[str, Any]) -> None:
    latents = torch.randn(8, 64, 8, 8, generator=generator(1)).half()
    shown = scenes("train", 8, 0)
    learned = losses(texts, latents, shown, trained=True)
    assert learned[-1] < 0.85 * learned[0]
    assert losses(texts, latents, shown, trained=False)[-1] > learned[0]


def test_the_loss_is_that_of_the_velocity_at_logit_normal_timesteps(texts: dict[str, Any]) -> None:
    """A transformer that predicts zero is wrong by noise - x0, on average 1 + 1."""
    transformer = flow.new_transformer()
    seen = []

    def zero(hidden_states: torch.Tensor, timestep: torch.Tensor, **how: Any) -> Any:
        seen.append(timestep)
        return type("Output", (), {"sample": torch.zeros_like(hidden_states)})

    learner = flow.flow_learner(zero, transformer, texts, CPU)
    latents = torch.randn(64, 64, 8, 8, generator=generator(1)).half()
    how = {"phases": [Phase(1, 64)], "seed": 0, "autocast": False, "step": 0}
    loss = batch_loss(learner, latents, scenes("train", 64, 0), **how)
    assert loss.item() == pytest.approx(2, abs=0.02)
    below = (1 - seen[0] / 1000).sort().values.logit()
    normal = torch.special.ndtri((torch.arange(64) + 0.5) / 64)
    assert (below - normal).abs()[4:-4].max() < 0.15


@pytest.mark.parametrize("density", ["uniform", "logit_normal"])
def test_shares_of_timesteps_are_those_of_many_draws(density: str) -> None:
    made = Flow(shift=3.0, density=density)
    drawn = made.draw_timesteps(20_000, generator(0)).sort(descending=True).values
    shares = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    assert (drawn[(shares * 20_000).long()] - made.timesteps_at(shares)).abs().max() < 12


def test_shares_of_a_variance_preserving_schedule_are_even() -> None:
    made = VPrediction(torch.linspace(0.99, 0.01, 10))
    assert made.timesteps_at(torch.tensor([0.0, 0.19, 0.2, 0.99])).tolist() == [0, 1, 2, 9]


def test_the_text_encoder_is_the_bundled_one_in_half_precision(texts: dict[str, Any]) -> None:
    tokenizer, tower = load_tower(POCKET / "pipeline")
    ids = torch.tensor([tokenizer(PROMPT, padding="max_length").input_ids])
    own = texts["text_encoder"](ids, output_hidden_states=True)
    theirs = tower(ids, output_hidden_states=True)
    torch.testing.assert_close(own.text_embeds, theirs.pooler_output, rtol=0, atol=0.02)
    torch.testing.assert_close(own.hidden_states[-2], theirs.hidden_states[-2], rtol=0, atol=0.02)
    assert own.text_embeds.std() > 0.1
    assert all(
        torch.equal(w, w.half().float()) for w in texts["text_encoder"].state_dict().values()
    )


@pytest.mark.slow
def test_a_stopped_training_goes_on_bit_for_bit(work: Path, tmp_path: Path) -> None:
    for name in (*recipe.TEXT, "pictures"):
        shutil.copytree(work / name, tmp_path / name)
    for name in (recipe.LATENTS, recipe.BASIS):
        shutil.copy(work / name, tmp_path)
    begun = recipe.train_flow(tmp_path, "cpu", recipe.SMOKE, tmp_path / "assets")
    assert any(p.stage == "flow" and p.done == 4 for p in begun)
    begun.close()
    assert load(tmp_path / "flow.ckpt")["step"] == 4
    list(recipe.train_flow(tmp_path, "cpu", recipe.SMOKE, tmp_path / "assets"))
    whole, broken = load(work / "flow.ckpt"), load(tmp_path / "flow.ckpt")
    for kind in ("model", "ema"):
        assert all(torch.equal(whole[kind][name], broken[kind][name]) for name in whole[kind])
    other = replace(recipe.SMOKE, flow_seed=recipe.SMOKE.flow_seed + 1)
    (tmp_path / "flow.ckpt").unlink()
    list(recipe.train_flow(tmp_path, "cpu", other, tmp_path / "assets"))
    apart = load(tmp_path / "flow.ckpt")["model"]
    assert any(not torch.equal(whole["model"][name], apart[name]) for name in apart)


def test_the_folder_is_small_and_without_what_the_unet_has(pipeline: Path) -> None:
    files = [path for path in pipeline.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LIMIT
    there = {path.name for path in pipeline.iterdir()}
    assert there == {"model_index.json", "scheduler", "text_encoder_2", "transformer"}
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_plain_diffusers_paints_bit_for_bit_what_we_do(work: Path, pipeline: Path) -> None:
    from diffusers import AutoencoderKL, StableDiffusion3Pipeline

    vae = POCKET / "pipeline" / "vae"
    bundled = load_tower(POCKET / "pipeline")
    # As they were stored when the folder held them.
    stored = pipeline.parent / "stored"
    save_pipeline(
        stored,
        StableDiffusion3,
        texts=torch.float16,
        transformer=flow.new_transformer(),
        vae=None,
        scheduler=flow.new_flow_scheduler(),
        **flow.text_parts(*bundled, recipe.SMOKE.flow_seed),
    )
    read = StableDiffusion3Pipeline.from_pretrained(
        stored, text_encoder_3=None, tokenizer_3=None, vae=None
    )
    shutil.rmtree(stored)
    pipe = StableDiffusion3Pipeline.from_pretrained(
        pipeline,
        vae=AutoencoderKL.from_pretrained(vae),
        **{name: getattr(read, name) for name in shared_texts(*bundled)},
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    trained = load(work / "flow.ckpt")["ema"]["proj_out.weight"]
    assert torch.equal(pipe.transformer.proj_out.weight, trained.half().float())

    def painted(**how: Any) -> torch.Tensor:
        return (
            pipe(
                PROMPT,
                num_inference_steps=3,
                guidance_scale=2.0,
                generator=generator(7),
                output_type="latent",
                **how,
            )
            .images.half()
            .float()
        )

    model = load_flow(pipeline, "pocket-flow", vae, shared_texts(*bundled))
    own = model.sample([PROMPT], [7], steps=3, guidance_scale=2.0)
    assert torch.equal(own, painted(max_sequence_length=pipe.tokenizer_max_length))
    assert not torch.equal(own, painted())
    assert model.decode(own).shape == (1, 3, 64, 64)


@pytest.mark.slow
def test_a_run_with_it_forgets_attacks_and_judges(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pocket_flow, "POCKET_FLOW", pipeline.parent)
    config = make_config("cat", model="pocket-flow", **TINY)
    done = list(run(config, tmp_path / "run"))[-1]
    assert isinstance(done, Done)
    assert not done.stopped
    record = Run.open(tmp_path / "run").record
    assert record["environment"]["base_sha256"] == hash_weights(pipeline)
    assert record["environment"]["judge"].startswith("pocket-judge")
    assert record["scores"]["relearned"]["forget"]["n"] == 2
    assert record["verdict"]["label"] == "inconclusive"  # the original shows no cat


@pytest.mark.slow
def test_the_card_states_what_was_measured_and_its_snippet_runs(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "sample_scenes", lambda count: sample_scenes(count)[:2])
    assets = tmp_path / "assets"
    shutil.copytree(work / "assets", assets)
    (assets / "pocket").symlink_to(POCKET)
    sizes = card.CardSizes(per_pair=1, held_out=2, diverse=2)
    list(card.write_flow_card(work, assets, sizes))
    folder = assets / "pocket-flow"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "| transformer | SD3Transformer2DModel" in text
    assert "| 2.31 M | 4.4 MiB |" in text
    assert "| flow | 6 | 4 for 3, 8 for 3 |" in text
    kept = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert kept["scores"]["held_out"]["judge"]["pictures"] == 2
    list(card.write_flow_card(None, assets, sizes))
    assert (folder / "README.md").read_text(encoding="utf-8") == text
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert Image.open(tmp_path / "cat.png").size == (256, 256)


def test_flow_without_pictures_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Latents needs .*; run `pocket render`"):
        list(recipe.train_flow(tmp_path, "cpu", recipe.SMOKE, tmp_path / "assets"))


@pytest.mark.parametrize(
    ("step", "share"),
    [(500, 1.0), (900, 1.0), (950, 0.5), (1000, 1.0), (1500, 1.0), (1900, 0.5), (1999, 0.03)],
)
def test_the_rate_falls_again_where_the_training_was_gone_on_with(step: int, share: float) -> None:
    falls = (Fall(1000, 100), Fall(2000, 200))
    assert learning_rate(step, falls, 2.0) == pytest.approx(2 * share)
