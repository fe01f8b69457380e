"""Generated pictures against renderings: the measures are exact on renderings and move the right
way off them.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn_app.common.paths import POCKET
from unlearn_app.evaluation.judges.pocket_judge import PocketJudge
from unlearn_app.evaluation.judges.second_judge import SecondJudge
from unlearn_app.pocket.measures import (
    all_renderings,
    diversity,
    generation_scores,
    gradient_magnitude,
    held_out_scenes,
    likeness,
    psnr,
    sharpness,
)
from unlearn_app.pocket.world.dataset import is_held_out, rendered, scenes
from unlearn_app.pocket.world.rendering import PLACEMENTS, Placement, Scene

pytestmark = pytest.mark.slow

SCENE = Scene("robot", "mosaic", "city")


@pytest.fixture(scope="module")
def drawn() -> Tensor:
    return all_renderings(SCENE)


def test_psnr_is_that_of_a_known_error() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    assert psnr(flat, flat + 0.1).item() == pytest.approx(26.0206, abs=1e-3)  # 10 log10(2² / 0.1²)


def test_what_lies_outside_of_a_picture_s_range_is_cut_off() -> None:
    assert psnr(torch.full((1, 3, 8, 8), 5.0), torch.ones(1, 3, 8, 8)).item() > 90


@pytest.mark.parametrize("place", [0, 17, 71])
def test_a_rendering_is_closest_to_itself(drawn: Tensor, place: int) -> None:
    found = likeness(drawn[place], SCENE)
    assert found.placement == PLACEMENTS[place]
    assert found.psnr > 90


def test_noise_costs_what_it_should(drawn: Tensor) -> None:
    noisy = drawn[5].clamp(-0.7, 0.7)
    noisy = noisy + 0.1 * torch.randn(noisy.shape)
    assert psnr(noisy[None], drawn[5:6].clamp(-0.7, 0.7)).item() == pytest.approx(26.0, abs=0.3)


def test_sharpness_is_one_of_renderings_below_of_blur_and_above_of_speckle(drawn: Tensor) -> None:
    versions = {
        "as drawn": drawn,
        "blurred": F.avg_pool2d(drawn, 3, 1, 1, count_include_pad=False),
        "speckled": drawn + 0.3 * torch.randn(drawn.shape),
    }
    found = {
        name: sharpness([likeness(p, SCENE) for p in pictures])
        for name, pictures in versions.items()
    }
    assert found["as drawn"] == pytest.approx(1, abs=1e-3)
    assert found["blurred"] < 0.8
    assert found["speckled"] > 1.2


def test_gradients_count_both_directions() -> None:
    stripes = torch.zeros(1, 1, 4, 4)
    stripes[..., ::2] = 1
    assert gradient_magnitude(stripes).item() == pytest.approx(1)
    assert gradient_magnitude(stripes.transpose(2, 3)).item() == pytest.approx(1)


def test_every_placement_once_is_as_diverse_as_the_world(drawn: Tensor) -> None:
    shares = diversity([likeness(picture, SCENE) for picture in drawn])
    assert shares == pytest.approx(
        dict.fromkeys(("mirrored", "right", "down", "horizon", "drift"), 1.0)
    )


def test_a_value_that_never_appears_is_no_diversity(drawn: Tensor) -> None:
    kept = [picture for picture, place in zip(drawn, PLACEMENTS, strict=True) if place.right != 1]
    shares = diversity([likeness(picture, SCENE) for picture in kept])
    assert shares["right"] == 0
    assert shares["mirrored"] == pytest.approx(1)


def test_held_out_scenes_are_held_out_and_differ() -> None:
    found = held_out_scenes(40)
    assert len(set(found)) == 40
    assert all(is_held_out(scene.object, scene.style, scene.setting) for scene in found)


def test_renderings_have_the_best_quality_and_others_scenes_a_bad_one() -> None:
    judge, second = PocketJudge.load(POCKET / "judge"), SecondJudge.load(POCKET / "second")
    shown = scenes("held_out", 24, 0)
    pictures = rendered(shown)
    best, worst = (
        generation_scores(judge, second, pictures, shown),
        generation_scores(judge, second, pictures.roll(1, 0), shown),
    )
    assert best["judge"]["object"] == 1
    assert best["psnr"]["worst_tenth"] > 90
    assert worst["judge"]["object"] < 0.3
    assert worst["psnr"]["median"] < 15


def test_mirrored_pictures_are_found_as_such() -> None:
    scene = Scene("car", "photo", "field", Placement(mirrored=True, right=1))
    assert likeness(rendered([scene])[0], scene).placement == scene.placement
