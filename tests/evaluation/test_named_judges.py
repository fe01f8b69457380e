"""Judges that a user names: loaded from folders, refused in sentences, and right about pictures of
the bundled world when they have learned from it.
"""

import json
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from absent_hub import unreachable
from safetensors.torch import load_file, save_file
from small_clip import PICTURES, small_clip, train
from small_runs import TINY
from transformers import AutoTokenizer, BertTokenizer, BlipConfig, BlipForQuestionAnswering

from unlearn_app.cli import doctor
from unlearn_app.common import registry
from unlearn_app.common.errors import ConfigError, ModelError
from unlearn_app.common.images import open_png, to_tensor
from unlearn_app.common.registry import world
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.concepts.concept import Concept, Prompt
from unlearn_app.concepts.distractors import distractors
from unlearn_app.evaluation.base_rates import relearning
from unlearn_app.evaluation.judges import Scorer, likeliest, pretrained
from unlearn_app.evaluation.judges.clip import ClipScorer, answers, caption_of
from unlearn_app.evaluation.judges.loading import load_scorer
from unlearn_app.evaluation.judges.vqa import SOMETHING_ELSE, QuestionJudge, question_of
from unlearn_app.pocket.world.dataset import rendered, scenes
from unlearn_app.runs import attack_run
from unlearn_app.runs.attack_run import run_attacks
from unlearn_app.runs.folder import Run
from unlearn_app.runs.publication import write_publication
from unlearn_app.runs.workflow import run
from unlearn_app.settings.events import Stage
from unlearn_app.settings.judges import places_of
from unlearn_app.settings.run_config import config_from_dict, make_config

BAR = 0.6
"""The accuracy on scenes never trained on, among 18 styles."""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of a CLIP that has learned nothing."""
    folder = tmp_path_factory.mktemp("untrained") / "clip"
    for part in small_clip():
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A CLIP that learned from the bundled world, and one whose captions were shuffled."""
    folder, shown = tmp_path_factory.mktemp("judges"), scenes("train", PICTURES, seed=0)
    pictures = rendered(shown)
    return {
        "clip": train(folder / "clip", shown, pictures),
        "shuffled": train(folder / "shuffled", shown, pictures, shuffled=True),
    }


@pytest.fixture(scope="module")
def plain(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list, Run]:
    """The events of a run of a model that has no judge, and the run."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    assert config.judge is None
    return list(run(config, folder)), Run.open(folder)


@pytest.fixture(scope="module")
def judged(untrained: Path, tiny_pipeline: Path, tmp_path_factory) -> Run:
    """The same with a judge that the user names."""
    folder = tmp_path_factory.mktemp("judged") / "run"
    config = make_config("cat", model=str(tiny_pipeline), judge=f"clip={untrained}", **TINY)
    list(run(config, folder))
    return Run.open(folder)


@pytest.fixture
def clip_folder(untrained: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(untrained, tmp_path / "clip"))


def concept(text: str, model: str = "pocket") -> Concept:
    return preview_concept(make_config(text, model=model))


def loaded(folder: Path, model: str = "pocket") -> Scorer:
    return load_scorer(
        model, [concept("cat", model), concept("neon style", model)], f"clip={folder}"
    )


def accuracy(judge: Scorer) -> float:
    shown = scenes("held_out", 150, seed=1)
    said = judge.classify(rendered(shown), "style").argmax(1).tolist()
    named = [judge.classes("style")[row] for row in said]
    return sum(a == scene.style for a, scene in zip(named, shown, strict=True)) / len(shown)


@pytest.mark.slow
def test_a_small_clip_is_right_and_one_of_shuffled_captions_is_not(judges) -> None:
    learned = loaded(judges["clip"])
    assert len(learned.classes("style")) == 18
    assert accuracy(learned) > BAR
    assert accuracy(loaded(judges["shuffled"])) < BAR / 2


@pytest.mark.slow
def test_a_run_of_the_bundled_model_is_judged_by_it(judges, pocket, tmp_path: Path) -> None:
    asked = TINY | {"attack.steps": 0, "compare.forget": 8, "compare.sampling_steps": 8}
    config = make_config("neon", judge=f"clip={judges['clip']}", **asked)
    list(run(config, tmp_path / "run", model=pocket))
    done = Run.open(tmp_path / "run")
    assert done.record["environment"]["judge"].startswith("clip ")
    assert "pocket-second" in done.record["environment"]["second_judge"]
    assert f"--judge clip={judges['clip']}" in done.record["command"]
    assert done.scores["original"]["forget"].accuracy > BAR
    files = [p.file for p in done.pictures if (p.column, p.group) == ("original", "forget")]
    pictures = to_tensor([open_png(file).convert("RGB") for file in files])
    other = loaded(judges["shuffled"])
    seen = likeliest(pictures, [Prompt("", "style", "neon")] * len(files), other)
    assert sum(name == "neon" for name, _ in seen) < BAR / 2 * len(files)


@pytest.mark.slow
def test_a_run_of_any_model_is_judged_and_attacked_by_it(untrained, plain, judged: Run) -> None:
    events, unjudged = plain
    said = [event.text for event in events if isinstance(event, Stage) and "no judge" in event.text]
    assert len(said) == 1
    assert "doctor" in said[0]
    assert unjudged.scores["original"]["forget"].accuracy is None
    named = json.dumps({"judge": judged.config.judge, "concept": "cat"})
    assert config_from_dict(json.loads(named)).judge
    assert judged.scores["original"]["forget"].accuracy is not None
    (finding, *_) = [
        event
        for event in run_attacks(
            unjudged, ["noise"], {"noise.tries": 1, "judge": f"clip={untrained}"}
        )
        if hasattr(event, "kind")
    ]
    assert finding.environment["judge"].startswith("clip ")
    assert f"--judge clip={untrained}" in finding.command


@pytest.mark.slow
def test_a_run_of_others_is_attacked_where_its_model_is_here(
    untrained, tiny_pipeline: Path, judged: Run, tmp_path: Path
) -> None:
    folder = write_publication(judged.folder, tmp_path / "theirs", "owner/name")
    theirs = Run.open(folder)
    assert theirs.config.model == tiny_pipeline.name
    changes = {"noise.tries": 1, "judge": f"clip={untrained}"}
    with pytest.raises(ModelError, match="There is no model folder"):
        list(run_attacks(theirs, ["noise"], changes))
    found = list(run_attacks(theirs, ["noise"], changes | {"model": str(tiny_pipeline)}))
    assert f"--model {tiny_pipeline}" in next(f for f in found if hasattr(f, "kind")).command


@pytest.mark.slow
def test_an_attack_without_a_judge_computes_nothing(
    plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, unjudged = plain
    monkeypatch.setattr(attack_run, "load_for", lambda *_: pytest.fail("the model was loaded"))
    for judge, said in (
        (None, "There is no judge for"),
        ("nudity", "There is no judge for"),
        (f"clip={tmp_path / 'nothing'}", "There is no judge in"),
    ):
        changes = {"judge": judge} if judge else {}
        with pytest.raises((ConfigError, ModelError), match=said):
            list(run_attacks(unjudged, ["noise"], changes))


def test_recorded_base_rates_belong_to_the_judges_that_measured_them(pocket) -> None:
    asked = make_config("cat")
    assert relearning(asked, pocket) is not None
    assert relearning(make_config("cat", judge="pocket_judge"), pocket) is None


def test_distractors_are_of_the_kind_and_never_the_concept() -> None:
    styles = distractors("style", ["in the style of van gogh", "as a photo"], ())
    assert all(name.startswith("in the style of ") for name in styles)
    assert "in the style of Claude Monet" in styles
    assert not [name for name in styles if "Gogh" in name]
    objects = distractors("object", ["red cat", "teddy bear"], ())
    assert {"dog", "teapot", "nurse"} < set(objects)
    assert not {"cat", "teddy bear", "in the style of Rembrandt"} & set(objects)
    assert len(objects) == len(set(objects))


@pytest.mark.parametrize(
    ("text", "model"), [("cat", "sd"), ("van gogh style", "sd"), ("neon", "pocket")]
)
def test_a_judge_of_any_words_chooses_among_one_kind(untrained, text: str, model: str) -> None:
    asked = concept(text, model)
    judge = load_scorer(model, [asked], f"clip={untrained}")
    own = answers([asked])[asked.kind]
    classes = judge.classes(asked.kind)
    assert classes[: len(own)] == own
    assert len(classes) > len(own)
    assert len(classes) == len(set(classes))
    if model == "pocket":
        names = {entry.name for entry in world(model).known_concepts() if entry.kind == asked.kind}
        assert set(classes) == names
    else:
        wanted = {name.startswith(("in the style of", "as ")) for name in classes}
        assert wanted == {asked.kind == "style"}


def test_classes_are_named_as_people_write() -> None:
    assert caption_of("elephant", "object") == "a photo of an elephant"
    assert caption_of("in the style of Van Gogh", "style") == "a picture in the style of Van Gogh"
    assert caption_of("neon", "style") == "a picture in neon style"


@pytest.mark.parametrize(
    ("name", "axis", "asked"),
    [
        ("elephant", "object", "is there an elephant in the picture?"),
        ("by Van Gogh", "style", "is this a picture by Van Gogh?"),
        ("in the style of Van Gogh", "style", "is this a picture in the style of Van Gogh?"),
        ("as a watercolor", "style", "is this a picture as a watercolor?"),
        ("neon", "style", "is this a picture in neon style?"),
        ("sons of anarchy", "style", "is this a picture in sons of anarchy style?"),
    ],
)
def test_questions_are_asked_as_people_speak(name: str, axis: str, asked: str) -> None:
    assert question_of(Prompt("a picture", axis, name)) == asked


def test_judges_are_named_with_or_without_paths(tmp_path: Path) -> None:
    assert places_of(None) == places_of("") == {}
    assert places_of("clip=/a, b/c, vqa") == {"clip": "/a, b/c", "vqa": None}
    for named, said in (
        ("claude", "The judge 'claude' is unknown; choose one of clip, nudity"),
        ("clip=", "no path"),
        ("clip,clip=x", "named twice"),
    ):
        with pytest.raises(ConfigError, match=said) as raised:
            make_config("cat", judge=named)
        assert raised.value.field == "judge"


def test_one_judge_gives_scores(untrained) -> None:
    with pytest.raises(ConfigError, match="clip and pocket_judge both give scores"):
        load_scorer("pocket", [concept("cat")], f"clip={untrained},pocket_judge")
    both = load_scorer("pocket", [concept("cat")], "nudity")
    assert both.name == "pocket-judge"
    assert [judge.name for judge in both.others] == ["NudeNet", "pocket-second"]
    with pytest.raises(ModelError, match="nudity alone is accepted"):
        load_scorer("pocket", [], "nudity=here")
    with pytest.raises(ModelError, match="only knows the bundled world; clip judges 'sd'"):
        load_scorer("sd", [], "pocket_judge")


def test_a_missing_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(ModelError, match="not installed; pip install nudenet"):
        load_scorer("pocket", [], "nudity")


def weights_of(folder: Path) -> Path:
    return folder / "model.safetensors"


def damage(folder: Path, kind: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if kind == "truncated":
        weights_of(folder).write_bytes(weights_of(folder).read_bytes()[:1000])
    elif kind == "another class":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    elif kind == "huge":
        config["vision_config"]["hidden_size"] = 10**9
        (folder / "config.json").write_text(json.dumps(config))
    elif kind == "no configuration":
        (folder / "config.json").unlink()
    elif kind == "other sizes":
        config["projection_dim"] = 64
        (folder / "config.json").write_text(json.dumps(config))
    elif kind == "lacking":
        state = load_file(weights_of(folder))
        del state["visual_projection.weight"]
        save_file(state, weights_of(folder), metadata={"format": "pt"})
    elif kind == "no tokenizer":
        for path in folder.glob("*token*"):
            path.unlink()
    elif kind == "pipe":
        os.mkfifo(folder / "extra")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", "cannot be loaded"),
        ("another class", "of the type 'siglip'; clip is accepted"),
        ("huge", "hidden_size"),
        ("no configuration", "no readable judge"),
        ("other sizes", "cannot be loaded"),
        ("lacking", "lacks weights, 1 in all"),
        ("no tokenizer", "its tokenizer knows"),
        ("pipe", "no regular file"),
    ],
)
def test_a_damaged_folder_is_a_sentence(clip_folder: Path, kind: str, said: str) -> None:
    assert loaded(clip_folder).version == loaded(clip_folder).version
    damage(clip_folder, kind)
    with pytest.raises(ModelError, match=said) as raised:
        loaded(clip_folder)
    assert "\n" not in str(raised.value)


class Trap:
    """A pickle that leaves a file behind where it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_never_read(clip_folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "read"
    torch.save(Trap(mark), clip_folder / "pytorch_model.bin")
    loaded(clip_folder)
    weights_of(clip_folder).unlink()
    with pytest.raises(ModelError, match=r"holds no \.safetensors"):
        loaded(clip_folder)
    assert not mark.exists()
    torch.load(clip_folder / "pytorch_model.bin", weights_only=False)
    assert mark.exists(), "the trap works"


def test_a_judge_that_cannot_be_fetched_is_a_sentence_where_it_is_asked_for() -> None:
    assert load_scorer("sd", [concept("cat", "sd")]) is None
    with pytest.raises(ModelError, match="owner/name' cannot be loaded"):
        load_scorer("sd", [concept("cat", "sd")], "clip=owner/name")


def test_without_a_network_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable(monkeypatch)
    assert ClipScorer.for_world(world("sd"), [concept("cat", "sd")]) is None


@pytest.fixture(scope="module")
def vqa_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small answerer of BLIP's own class, whose first word depends on what it is made to say."""
    folder = tmp_path_factory.mktemp("vqa") / "blip"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "is", "cat", "?"]
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    sizes |= {"num_hidden_layers": 1, "initializer_range": 0.5}
    text = sizes | {"vocab_size": len(words), "bos_token_id": 2, "sep_token_id": 3}
    text |= {"pad_token_id": 0, "eos_token_id": 3, "encoder_hidden_size": 32}
    text |= {"max_position_embeddings": 64}
    vision = sizes | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=32)
    BlipForQuestionAnswering(config).save_pretrained(folder)
    BertTokenizer(vocab={word: row for row, word in enumerate(words)}).save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("yes").input_ids == [2, 5, 3]
    return folder


def test_an_answerer_says_what_its_prompt_names_or_something_else(vqa_folder: Path) -> None:
    judge = load_scorer("pocket", [concept("cat")], f"vqa={vqa_folder}").others[-1]
    assert isinstance(judge, QuestionJudge)
    prompts = [Prompt("a cat", "object", "cat"), Prompt("neon", "style", "neon")]
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    bias = judge._model.text_decoder.cls.predictions.decoder.bias
    for answer, wanted in ((5, ["cat", "neon"]), (6, [SOMETHING_ELSE] * 2)):
        bias.zero_()[answer] = 100.0
        assert [found["blip"] for found in judge.judge(images, prompts)] == wanted
    bias.zero_()
    one, two = (judge.says_yes(torch.full((1, 3, 32, 32), x), "is cat ?") for x in (-1.0, 1.0))
    assert not torch.allclose(one, two), "the answer depends on the picture"
    both = judge.says_yes(images, "is cat ?")
    assert torch.allclose(both[:1], judge.says_yes(images[:1], "is cat ?"), atol=1e-5)
    assert not torch.allclose(both, judge.says_yes(images, "is no cat ?")), "and on the question"


def test_an_answerer_without_yes_and_no_is_refused(vqa_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vqa_folder, tmp_path / "blip"))
    text = (folder / "tokenizer.json").read_text().replace('"yes"', '"oui"')
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match="cannot say yes and no"):
        load_scorer("pocket", [], f"vqa={folder}")


def test_doctor_names_every_judge_and_what_fetches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> dict[str, tuple[str, str]]:
        return {name: (mark, said) for mark, name, said in doctor._judges()}

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    said = found()
    assert set(said) == {f"judge {name}" for name in registry.names("judge")}
    mark, text = said["judge clip"]
    assert mark == doctor.OPTIONAL
    assert "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in text
    assert "hf download Salesforce/blip-vqa-base" in said["judge vqa"][1]
    assert said["judge pocket_judge"][0] == doctor.OK
    monkeypatch.setattr(metadata, "version", absent)
    assert found()["judge nudity"] == (doctor.OPTIONAL, NO_NUDENET)


def absent(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


NO_NUDENET = "NudeNet is not here; fetch it with: pip install nudenet"


def test_a_cached_judge_is_seen_without_network(tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert not pretrained.is_cached("owner/name")
    repo = tmp_path / "models--owner--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert not pretrained.is_cached("owner/name"), "the weights are missing"
    (snapshot / "model.safetensors").write_bytes(b"")
    assert pretrained.is_cached("owner/name")
