"""Model folders as people have them: variants, shards, git clones with pickles, and other models
under the name of Stable Diffusion.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from unlearn_app.common.errors import ModelError
from unlearn_app.common.seeds import generator
from unlearn_app.models.diffusers.loading import load_pipeline
from unlearn_app.models.diffusers.model_folder import check_folder, hash_weights
from unlearn_app.models.diffusers.weight_files import plain_name, weight_files

UNET = "diffusion_pytorch_model.safetensors"
PROMPTS, SEEDS, HOW = ["a cat"], [3], {"steps": 2, "guidance_scale": 2.0}


@pytest.fixture
def model(tiny_pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


@pytest.fixture(scope="module")
def plain(tiny_pipeline: Path) -> torch.Tensor:
    return load_pipeline(tiny_pipeline, "tiny").sample(PROMPTS, SEEDS, **HOW)


def sampled(folder: Path) -> torch.Tensor:
    return load_pipeline(folder, "tiny").sample(PROMPTS, SEEDS, **HOW)


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as raised:
        load_pipeline(folder, "tiny")
    return str(raised.value)


def changed(folder: Path, name: str, **values: object) -> None:
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["unet/model.safetensors"], ["model.safetensors"]),
        (["unet/model.fp16.safetensors", "unet/model.safetensors"], ["model.safetensors"]),
        (
            ["unet/model.bf16.safetensors", "unet/model.fp16.safetensors"],
            ["model.fp16.safetensors"],
        ),
        (["unet/model.non_ema.safetensors", "unet/model.bin"], ["model.non_ema.safetensors"]),
        (
            ["unet/model-00002-of-00002.safetensors", "unet/model-00001-of-00002.safetensors"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (  # a shard of full precision is missing
            ["unet/model-00002-of-00002.safetensors", "unet/model.fp16.safetensors"],
            ["model.fp16.safetensors"],
        ),
        (["model.safetensors", "unet/model.fp16-00001-of-00001.safetensors"], None),
    ],
)
def test_one_set_of_weights_is_chosen(names: list[str], chosen: list[str] | None) -> None:
    chosen = chosen or ["model.fp16-00001-of-00001.safetensors"]
    assert [Path(name).name for name in weight_files("unet", names)] == chosen


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("unet/model.fp16.safetensors", "model.safetensors"),
        ("vae/model.fp16-00001-of-00002.safetensors", "model-00001-of-00002.safetensors"),
        ("vae/model-00001-of-00002.fp16.safetensors", "model-00001-of-00002.safetensors"),
    ],
)
def test_a_name_loses_its_variant(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def saved_again(folder: Path, **how: object) -> None:
    """The model of `folder` as diffusers saves it with other arguments."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    shutil.rmtree(folder)
    pipe.save_pretrained(folder, **how)


def in_old_names(folder: Path) -> None:
    """Shards of a variant as early versions of diffusers named them."""
    saved_again(folder, variant="fp16", max_shard_size="100KB")
    for file in sorted((folder / "unet").glob("*.fp16-*.safetensors")):
        name = file.name.replace(".fp16", "").replace(".safetensors", ".fp16.safetensors")
        file.rename(file.with_name(name))


@pytest.mark.parametrize(
    "save",
    [
        lambda folder: saved_again(folder, variant="fp16"),
        lambda folder: saved_again(folder, max_shard_size="100KB"),
        lambda folder: saved_again(folder, variant="bf16", max_shard_size="100KB"),
        in_old_names,
    ],
    ids=["variant", "shards", "shards of a variant", "old names of shards"],
)
def test_every_layout_of_the_same_weights_makes_the_same_pictures(
    model: Path, plain: torch.Tensor, save: Callable[[Path], None]
) -> None:
    save(model)
    assert torch.equal(sampled(model), plain)


def test_a_folder_with_two_precisions_is_read_in_full_precision(
    model: Path, plain: torch.Tensor
) -> None:
    before = hash_weights(model)
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (model / part).glob("*.safetensors")
        halves = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(halves, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    assert torch.equal(sampled(model), plain)
    assert hash_weights(model) == before


def test_the_hash_is_of_the_weights_that_are_read(model: Path) -> None:
    (file,) = (model / "unet").glob("*.safetensors")
    shutil.copy(file, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    state = load_file(file)
    before = hash_weights(model)
    save_file({n: t.half() for n, t in state.items()}, file, metadata={"format": "pt"})
    assert hash_weights(model) != before


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """The files that Python opens within the block; a hook cannot be removed, only ignored."""
    opened: list[str] = []
    listening = True

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and listening:
            opened.append(str(arguments[0]))

    sys.addaudithook(heard)
    try:
        yield opened
    finally:
        listening = False


POISON = b"cos\nsystem\n(S'touch opened'\ntR."


def test_pickles_beside_safetensors_are_never_opened(
    model: Path, plain: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a clone of a repository: pickles in every place, an index that names one, and an
    adapter that transformers would load on its own.
    """
    pickles = [
        "v1-5-pruned.ckpt",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/pytorch_model.bin",
        "text_encoder/adapter_model.bin",
        "safety_checker/pytorch_model.bin",
        ".git/lfs/objects/x.bin",
    ]
    for name in pickles:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(POISON)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "x", "r": 2, "target_modules": ["q"]}
    (model / "text_encoder" / "adapter_config.json").write_text(json.dumps(adapter))
    places = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model.bin"}, "metadata": {}}
    (model / "unet" / f"{UNET}.index.json").write_text(json.dumps(places))
    changed(model, "model_index.json", safety_checker=["stable_diffusion", "Nope"])

    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a pickle was loaded"))
    with opened_files() as opened:
        assert torch.equal(sampled(model), plain)
    assert any(path.endswith("model_index.json") for path in opened)
    assert not [path for path in opened if path.endswith((".bin", ".ckpt", "adapter_config.json"))]


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_part_with_nothing_but_a_pickle_is_named(model: Path, part: str) -> None:
    (file,) = (model / part).glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    said = refused(model)
    assert f"The model's {part} has its weights only in '{part}/{file.stem}.bin', a pickle" in said


def test_a_missing_shard_is_named(model: Path) -> None:
    saved_again(model, max_shard_size="100KB")
    first, *_ = sorted((model / "unet").glob("*.safetensors"))
    first.unlink()
    assert "The model's unet has" in refused(model)


def test_a_clone_without_its_large_files_is_told_so(model: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (model / "unet" / UNET).write_text(pointer)
    assert "git lfs pull" in refused(model)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"in_channels": 9}, "an inpainting model"),
        ({"in_channels": 8}, "an instruct-pix2pix model"),
        ({"in_channels": 5}, "a depth-to-image model"),
        ({"time_cond_proj_dim": 8}, "an LCM"),
        ({"num_class_embeds": 10}, "class labels"),
        ({"class_embed_type": "projection"}, "class labels"),
        ({"out_channels": 8}, "predicts 8 channels"),
    ],
)
def test_other_models_are_refused_by_name_whatever_the_index_says(
    model: Path, config: dict[str, object], name: str
) -> None:
    """Their weights fit their configuration: nothing else is wrong with them."""
    network = UNet2DConditionModel.from_pretrained(model / "unet")
    own = {key: value for key, value in network.config.items() if key[0] != "_"} | config
    if config.get("class_embed_type"):
        own["projection_class_embeddings_input_dim"] = 8
    UNet2DConditionModel(**own).save_pretrained(model / "unet")
    assert name in refused(model)


@pytest.mark.parametrize(
    "kind",
    [
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "LatentConsistencyModelPipeline",
        "Nope",
        None,
    ],
)
def test_other_pipelines_are_refused_by_name(model: Path, kind: str | None) -> None:
    changed(model, "model_index.json", _class_name=kind)
    assert f"holds a {kind}" in refused(model)


def test_a_refiner_is_refused_by_name(model: Path) -> None:
    changed(model, "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline")
    assert "is an SDXL refiner" in refused(model)


def test_a_part_of_a_foreign_library_is_never_imported(model: Path) -> None:
    changed(model, "model_index.json", tokenizer=["os", "system"])
    assert "['os', 'system'] as its tokenizer" in refused(model)


def test_pictures_need_not_be_square(model: Path) -> None:
    changed(model, "unet/config.json", sample_size=[8, 12])
    loaded = load_pipeline(model, "tiny")
    assert loaded.latent_shape == (4, 8, 12)
    latents = loaded.sample(["a cat", "a dog"], [1, 2], **HOW)
    assert loaded.decode(latents).shape == (2, 3, 64, 96)
    pipe = loaded.pipe
    expected = pipe(
        prompt_embeds=loaded.encode_text(["a cat", "a dog"]).states,
        negative_prompt_embeds=loaded.encode_text(["", ""]).states,
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=[generator(1), generator(2)],
        output_type="latent",
    ).images
    torch.testing.assert_close(latents, expected, rtol=2e-3, atol=2e-3)


def test_a_shift_of_the_autoencoder_is_undone_before_it_decodes(
    model: Path, plain: torch.Tensor
) -> None:
    changed(model, "vae/config.json", scaling_factor=1.5305, shift_factor=0.0609)
    loaded = load_pipeline(model, "tiny")
    vae = AutoencoderKL.from_pretrained(model / "vae")
    with torch.no_grad():
        expected = vae.decode(plain / 1.5305 + 0.0609).sample
        torch.testing.assert_close(loaded.decode(plain), expected.clamp(-1, 1))
        raw = vae.encode(expected.clamp(-1, 1)).latent_dist.mode()
    found = loaded.encode_pictures(expected.clamp(-1, 1))
    torch.testing.assert_close(found, (raw - 0.0609) * 1.5305)


def test_only_files_of_the_model_are_read(model: Path) -> None:
    (model / "notes.json").write_text("[")
    (model / "feature_extractor").mkdir()
    (model / "feature_extractor" / "preprocessor_config.json").write_text("{")
    read = check_folder(model, ["StableDiffusionPipeline"])
    assert "notes.json" not in read
    assert not [name for name in read if name.startswith("feature_extractor")]
