"""The bundled judge: right on renderings it never saw, indifferent to wording, and robust to words
it does not know.
"""

import shutil
from pathlib import Path

import pytest
import torch

from unlearn_app.common.errors import ModelError
from unlearn_app.common.paths import POCKET
from unlearn_app.evaluation.judges.pocket_judge import WEIGHTS_FILE, PocketJudge, split_words
from unlearn_app.pocket.measures import judge_scores, prompt_of
from unlearn_app.pocket.training import judge as training
from unlearn_app.pocket.training.latents import PatchBasis
from unlearn_app.pocket.world.dataset import rendered, scenes, unjudged_scenes
from unlearn_app.pocket.world.rendering import Scene
from unlearn_app.pocket.world.vocabulary import FRESH_OBJECTS, FRESH_STYLES, OBJECTS, STYLES
from unlearn_app.settings.attacks import SURE

FOLDER = POCKET / "judge"
EVERY_STYLE = (*STYLES, *FRESH_STYLES)
SHOWN = [*scenes("held_out", 96, 0), *unjudged_scenes(32)]
"""Renderings that no judge was trained on."""


@pytest.fixture(scope="module")
def judge() -> PocketJudge:
    return PocketJudge.load(FOLDER)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return rendered(SHOWN)


def test_it_names_what_it_never_saw(judge: PocketJudge, pictures: torch.Tensor) -> None:
    scores = judge_scores(judge, pictures, SHOWN)
    assert scores["object"] >= 0.97
    assert scores["style"] >= 0.98
    assert scores["setting"] >= 0.9
    assert scores["alignment"] > 0.6


def test_it_is_as_sure_as_it_is_right(judge: PocketJudge, pictures: torch.Tensor) -> None:
    """Trained on smoothed labels it gave 0.94 to what it got right every time."""
    scores = judge_scores(judge, pictures, SHOWN)
    assert scores["sure"] == pytest.approx(scores["object"], abs=0.02)


def test_probabilities_and_classes(judge: PocketJudge, pictures: torch.Tensor) -> None:
    for axis, count in (
        ("object", len(OBJECTS) + len(FRESH_OBJECTS)),
        ("style", len(EVERY_STYLE)),
        ("setting", 8),
    ):
        probabilities = judge.classify(pictures[:3], axis)
        assert probabilities.shape == (3, count) == (3, len(judge.classes(axis)))
        assert torch.allclose(probabilities.sum(1), torch.ones(3), atol=1e-5)


def test_alignment_prefers_the_true_caption(judge: PocketJudge, pictures: torch.Tensor) -> None:
    prompts = [prompt_of(scene) for scene in SHOWN]
    true, other = judge(pictures, prompts), judge(pictures, prompts[1:] + prompts[:1])
    assert (true > other).float().mean() > 0.98
    assert true.abs().max() <= 1 + 1e-5


def test_wording_matters_little(judge: PocketJudge, pictures: torch.Tensor) -> None:
    row = next(i for i, scene in enumerate(SHOWN) if scene.object == "cat")
    scene = SHOWN[row]
    texts = [f"a {name} in {scene.style} style" for name in ("cat", "kitty", "KITTEN!")]
    values = judge(pictures[[row] * 3], texts)
    assert values.max() - values.min() < 0.15
    assert torch.equal(
        judge(pictures[:1], ["A Cat, on the BEACH."]), judge(pictures[:1], ["a cat on the beach"])
    )


def test_unknown_words_are_harmless(judge: PocketJudge, pictures: torch.Tensor) -> None:
    row = next(i for i, scene in enumerate(SHOWN) if scene.object == "dog")
    scene = SHOWN[row]
    true = judge(pictures[[row]], [prompt_of(scene)])
    unknown = judge(pictures[[row]], [prompt_of(scene).replace("dog", "zebra")])
    wrong = judge(pictures[[row]], [prompt_of(scene).replace("dog", "pizza")])
    assert true > unknown > wrong
    strange = judge(pictures[:4], ["", "qwrtz", "🐱", "word " * 500])
    assert torch.isfinite(strange).all()
    assert strange.abs().max() <= 1 + 1e-5


def test_a_picture_is_judged_alike_alone_and_in_a_batch(
    judge: PocketJudge, pictures: torch.Tensor
) -> None:
    together = judge.classify(pictures[:6], "object")
    alone = torch.cat([judge.classify(picture[None], "object") for picture in pictures[:6]])
    assert torch.allclose(together, alone, atol=1e-4)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        PocketJudge.load(tmp_path)
    shutil.copytree(FOLDER, tmp_path / "cut")
    weights = tmp_path / "cut" / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        PocketJudge.load(tmp_path / "cut")


def test_it_keeps_a_version_of_its_weights(judge: PocketJudge) -> None:
    assert len(judge.version) == 12
    assert judge.name == "pocket-judge"


def test_words_are_split_without_punctuation() -> None:
    assert split_words("A cat, in the_style of “Van Gogh”!") == [
        "a",
        "cat",
        "in",
        "the",
        "style",
        "of",
        "van",
        "gogh",
    ]


def test_a_caption_is_true_of_every_scene_it_fits() -> None:
    shown = [
        Scene("cat", "photo", "beach"),
        Scene("cat", "ink", "beach"),
        Scene("dog", "photo", "beach"),
    ]
    parts = [("cat", None, "beach"), (None, "ink", "beach"), ("dog", "photo", None)]
    table = training.compatible(shown, parts)
    assert table.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert training.compatible(
        shown[:2], [("cat", "photo", "beach"), ("cat", "ink", None)]
    ).tolist() == [
        [1, 0],
        [0, 1],
    ]


def test_disturbing_keeps_shape_range_and_depends_on_the_seed(pictures: torch.Tensor) -> None:
    basis = PatchBasis(torch.zeros(192), torch.eye(64, 192), torch.ones(64))
    first, again, other = (
        training.disturb(pictures[:6], basis, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert first.shape == (6, 3, 64, 64)
    assert first.abs().max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_outliers_hold_no_object_and_keep_what_else_can_be_told(pictures: torch.Tensor) -> None:
    basis = PatchBasis(torch.zeros(192), torch.eye(64, 192), torch.ones(64))
    shown = SHOWN[:4]
    made, told = training.outliers(pictures[:4], shown, basis, torch.Generator().manual_seed(1))
    assert [parts[0] for parts in told] == [None] * 4
    assert told[0][1:] == (shown[0].style, shown[0].setting)
    assert told[1][1:] == (shown[1].style, shown[1].setting)
    assert told[2][1:] == (None, None)
    coded = basis.encode(pictures[[1]]).flatten(2).sort(2).values
    assert torch.allclose(basis.encode(made[[1]]).flatten(2).sort(2).values, coded, atol=1e-5)
    assert not torch.equal(made[0], made[3])


def test_where_nothing_is_shown_all_names_are_alike() -> None:
    table = training.soft_targets(["a", "b", "c", "d"], ["c", None])
    assert table.tolist() == [[0, 0, 1, 0], [0.25] * 4]


def test_it_is_unsure_of_what_it_never_saw_and_holds_no_object(judge: PocketJudge) -> None:
    """Trained on nothing but objects it refused 5 % of noise and 60 % of plain colours."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn((32, 3, 64, 64), generator=draw).clamp(-1, 1)
    colours = (2 * torch.rand((32, 3, 1, 1), generator=draw) - 1).expand_as(noise)
    for pictures, share in ((noise, 0.95), (colours, 0.75)):
        refused = judge.classify(pictures, "object").max(1).values < SURE
        assert refused.float().mean() >= share
