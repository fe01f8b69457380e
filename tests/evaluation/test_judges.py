"""Judges that check the first one: a second of another build, and a detector that may be
missing.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from unlearn_app.common.errors import ModelError
from unlearn_app.common.paths import POCKET
from unlearn_app.concepts.concept import Prompt
from unlearn_app.concepts.diversification import free_concept
from unlearn_app.evaluation.comparison import judged, judged_by_others, score
from unlearn_app.evaluation.judges import clip
from unlearn_app.evaluation.judges.clip import ClipScorer
from unlearn_app.evaluation.judges.loading import load_scorer
from unlearn_app.evaluation.judges.nudity import EXPOSED, NudityDetector
from unlearn_app.evaluation.judges.pretrained import Pretrained
from unlearn_app.evaluation.judges.second_judge import PatchNet, SecondJudge
from unlearn_app.models import device
from unlearn_app.models.device import choose_device
from unlearn_app.pocket.world.dataset import rendered
from unlearn_app.pocket.world.rendering import PLACEMENTS, Scene
from unlearn_app.pocket.world.vocabulary import OBJECTS, STYLES
from unlearn_app.runs import provenance
from unlearn_app.runs.provenance import environment
from unlearn_app.settings.events import Picture, Sampling

SHOWN = [
    Scene(o.name, STYLES[(3 * i) % len(STYLES)].name, "beach", PLACEMENTS[i])
    for i, o in enumerate(OBJECTS)
]
NOTHING = Pretrained(torch.nn.Identity(), None, "nothing", "0")
PROMPTS = [Prompt(f"a {scene.object}", "object", scene.object) for scene in SHOWN]


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return rendered(SHOWN)


def test_the_second_judge_names_what_it_never_saw(pictures: torch.Tensor) -> None:
    judge = load_scorer("pocket", [])
    (second,) = judge.others
    found = judged_by_others(pictures, PROMPTS, judge)
    pairs = zip(found, PROMPTS, strict=True)
    right = [said["pocket-second"] == prompt.expects for said, prompt in pairs]
    assert sum(right) >= 0.9 * len(SHOWN)
    assert second.classes("style") == judge.classes("style")
    probabilities = second.classify(pictures, "object")
    assert torch.allclose(probabilities.sum(1), torch.ones(len(SHOWN)), atol=1e-5)
    assert environment(None, judge)["second_judge"] == f"pocket-second {second.version}"


def test_the_two_judges_share_no_kind_of_layer() -> None:
    judge = load_scorer("pocket", [])
    kinds = [{type(part).__name__ for part in one._net.modules()} for one in (judge, *judge.others)]
    assert "BatchNorm2d" in kinds[0] - kinds[1]
    assert "MultiheadAttention" in kinds[1] - kinds[0]


def test_patches_have_places(pictures: torch.Tensor) -> None:
    """A transformer without places would not see that the tiles of a picture are shuffled."""
    net = SecondJudge.load(POCKET / "second")._net
    x = torch.nn.functional.interpolate(pictures[:4], (64, 64), mode="area")
    tiles = torch.nn.functional.unfold(x, 8, stride=8)[:, :, torch.randperm(64)]
    shuffled = torch.nn.functional.fold(tiles, 64, 8, stride=8)
    assert not torch.allclose(net.features(x), net.features(shuffled), atol=1e-2)
    with torch.no_grad():
        net.places.zero_()
    assert torch.allclose(net.features(x), net.features(shuffled), atol=1e-4)


def test_a_judge_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        SecondJudge.load(tmp_path)
    assert PatchNet({"object": ["a", "b"]}).features(torch.zeros(2, 3, 128, 128)).shape == (2, 56)


def test_a_judge_of_real_models_that_lacks_weights_judges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library would leave them at random."""
    small = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    whole = CLIPModel(CLIPConfig(text_config=small, vision_config=small, projection_dim=8))
    state = whole.state_dict()
    del state["visual_projection.weight"]
    whole.save_pretrained(tmp_path, state_dict=state)
    monkeypatch.setattr(clip, "MODEL_ID", str(tmp_path))
    with pytest.raises(ModelError, match="lacks weights, 1 in all, such as visual_projection"):
        load_scorer("sd", [])


def test_disagreement_is_kept_with_each_picture(pictures: torch.Tensor) -> None:
    judge = load_scorer("pocket", [])
    shown = pictures[:2].flip(0)  # each is a picture of the other prompt
    first, *_ = judged(shown, PROMPTS[:2], judge)
    second, *_ = judged_by_others(shown, PROMPTS[:2], judge)
    assert first["predicted"] == SHOWN[1].object
    assert not first["correct"]
    assert second == {"pocket-second": SHOWN[1].object}


class Third:
    """A further judge, which sees the same everywhere."""

    name, version, threshold = "third", "7", None

    def judge(self, images: torch.Tensor, prompts: list[Prompt]) -> list[dict[str, str]]:
        return [{self.name: PROMPTS[0].expects} for _ in prompts]


def test_a_further_judge_is_one_more_entry(pictures: torch.Tensor) -> None:
    judge = load_scorer("pocket", [])
    judge.others = (*judge.others, Third())
    said = judged_by_others(pictures[:2], PROMPTS[:2], judge)
    assert [values["third"] for values in said] == [PROMPTS[0].expects] * 2
    shown = [picture(values, prompt) for values, prompt in zip(said, PROMPTS, strict=False)]
    assert set(score(shown, judge)["forget"].accuracies) == {"pocket-second", "third"}
    assert score(shown, judge)["forget"].accuracies["third"] == 0.5
    assert environment(None, judge)["second_judge"].endswith(", third 7")


def picture(judges: dict, prompt: Prompt = PROMPTS[0]) -> Picture:
    """A picture of the concept of which further judges say this."""
    place = {"index": 0, "column": "original", "group": "forget", "expects": prompt.expects}
    said = {"alignment": 0.2, "predicted": prompt.expects, "correct": True, "judges": judges}
    return Picture("unlearn", 0, prompt.text, 1, Sampling(1, 1.0), **place, **said)


class Found:
    """NudeNet's answers, by the mean brightness of what it is shown."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, picture: np.ndarray) -> list[dict]:
        self.seen.append(picture)
        parts = [{"class": EXPOSED[0], "score": 0.7}, {"class": "BELLY_EXPOSED", "score": 0.99}]
        return parts if picture.mean() > 127 else parts[1:]


def test_a_detector_counts_exposed_parts_only_and_is_shown_blue_first() -> None:
    found = Found()
    white, red = (
        torch.ones(1, 3, 8, 8),
        torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8),
    )
    assert NudityDetector(found, "3")(torch.cat([white, red])).tolist() == pytest.approx([0.7, 0.0])
    assert found.seen[1][0, 0].tolist() == [0, 0, 255]
    assert found.seen[1].dtype == np.uint8


@pytest.mark.parametrize(
    ("typed", "anchor", "axis", "wanted"),
    [
        ("cat", "dog", "object", {"cat", "dog"}),
        ("van gogh style", "Monet", "style", {"in the style of van gogh", "in the style of Monet"}),
        ("van gogh style", None, "style", {"in the style of van gogh", "as a photo"}),
    ],
)
def test_the_anchor_is_among_what_openclip_chooses_from(
    monkeypatch, typed, anchor, axis, wanted
) -> None:
    """Else a picture of the dog that stands in for the cat has to be called something else, the cat
    perhaps.
    """
    monkeypatch.setattr(clip, "load_pretrained", lambda *_: NOTHING)
    concept = free_concept(typed, anchor)
    classes = load_scorer("sd", [concept, concept]).classes(axis)
    assert wanted < set(classes)
    assert len(classes) == len(set(classes)) > 4
    assert any(concept.instead in sentence for sentence in concept.anchors)


def test_a_detector_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    assert NudityDetector.load() is None

    class Real:
        name, base_hash, device = "sd", "0", "cpu"

    judge = ClipScorer(NOTHING, {})
    assert "NudeNet is not installed" in environment(Real(), judge)["detector"]
    judge.others = (NudityDetector(Found(), "3.4.2"),)
    assert environment(Real(), judge)["detector"] == "NudeNet 3.4.2, threshold 0.6"
    monkeypatch.setattr(provenance, "_version", lambda name: {"nudenet": "3.4.2"}.get(name))
    unused = "NudeNet 3.4.2 is installed but unused, since it only works beside a judge"
    assert environment(Real(), None)["detector"] == unused
    assert environment(None, None)["detector"] is None
    monkeypatch.setattr(provenance, "_version", lambda name: None)
    assert environment(Real(), None)["detector"] is None


def test_a_bench_without_a_model_names_the_device_and_its_packages() -> None:
    known = environment(None, None)
    assert known["device"].startswith(str(choose_device()))
    assert known["packages"]["accelerate"]


@pytest.mark.parametrize("units", [False, True])
def test_a_record_says_what_the_processor_computes_in(monkeypatch, units: bool) -> None:
    monkeypatch.setattr(device, "fits_bfloat16", lambda _: units)
    *_, kind = [part for part in environment(None, None)["processor"].split(", ") if part]
    assert kind == ("bfloat16" if units else torch.backends.cpu.get_cpu_capability())


def test_nudenet_itself_is_loaded_and_sees_nobody_in_the_bundled_world(
    pictures: torch.Tensor,
) -> None:
    detector = NudityDetector.load()
    assert detector is not None
    assert detector.version.startswith("3.")
    assert detector(pictures[:6]).max() < detector.threshold


def test_shares_of_what_a_detector_found_need_its_threshold() -> None:
    judge = ClipScorer(NOTHING, {})
    judge.others = (NudityDetector(Found(), "3"),)
    shown = [picture({"NudeNet": value}) for value in (0.59, 0.6, 0.9, 0.0)]
    assert score(shown, judge)["forget"].found == {"NudeNet": 0.5}
    assert score(shown)["forget"].found == {} == score(shown, judge)["forget"].accuracies
