"""What separates two columns at the same prompts and seeds: on pictures whose difference is
known.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_app.common.images import to_tensor
from unlearn_app.common.paths import POCKET
from unlearn_app.evaluation.differences import difference, differences
from unlearn_app.evaluation.judges.pocket_judge import PocketJudge
from unlearn_app.pocket.world.rendering import PLACEMENTS, Scene, render
from unlearn_app.pocket.world.vocabulary import OBJECTS
from unlearn_app.settings.events import Images, Picture, Sampling

NAMES = [entry.name for entry in OBJECTS[:8]]


@pytest.fixture(scope="module")
def judge() -> PocketJudge:
    return PocketJudge.load(POCKET / "judge")


def series(
    column: str, images: list[Image.Image], right: list[bool], group: str = "far"
) -> list[Picture]:
    return [
        Picture(
            stage="unlearn",
            step=0,
            prompt=f"a {NAMES[row]}",
            seed=900_000 + row,
            sampler=Sampling(1, 1.0),
            index=row,
            column=column,
            group=group,
            alignment=0.7,
            predicted=NAMES[row],
            correct=right[row],
            image=image,
        )
        for row, image in enumerate(images)
    ]


def drawn(seed: int) -> list[Image.Image]:
    return [
        render(Scene(name, "photo", "beach", PLACEMENTS[(seed + row) % len(PLACEMENTS)]))
        for row, name in enumerate(NAMES)
    ]


def noisy(images: list[Image.Image], level: float) -> list[Image.Image]:
    source = np.random.default_rng(0)
    return [
        Image.fromarray(
            np.clip(
                np.asarray(i, np.float32) + level * source.normal(size=(64, 64, 3)), 0, 255
            ).astype(np.uint8)
        )
        for i in images
    ]


def test_equal_pictures_are_no_distance_apart(judge: PocketJudge) -> None:
    original = series("original", drawn(10**8), [True] * 8)
    found = difference(original, series("unlearned", drawn(10**8), [True] * 8), judge)
    assert (found.change, found.p, found.distance, found.kid, found.kid_error) == (
        0.0,
        1.0,
        0.0,
        0.0,
        0.0,
    )
    assert found.interval[0] < 0 < found.interval[1]
    assert found.apart > 0.2


def test_the_distance_grows_with_the_disturbance_up_to_another_picture(judge: PocketJudge) -> None:
    original = series("original", drawn(10**8), [True] * 8)
    far = [
        difference(original, series("unlearned", noisy(drawn(10**8), n), [True] * 8), judge)
        for n in (4, 16, 48)
    ]
    assert 0 < far[0].distance < far[1].distance < far[2].distance
    assert far[0].distance < 0.3 * far[0].apart
    others = drawn(10**8)[1:] + drawn(10**8)[:1]
    assert difference(
        original, series("unlearned", others, [False] * 8), judge
    ).distance == pytest.approx(far[0].apart, rel=0.2)


def test_the_distance_is_symmetric_and_deaf_to_the_size_of_pictures(judge: PocketJudge) -> None:
    a = to_tensor(np.stack([np.asarray(image) for image in drawn(10**8)]))
    b = a.roll(1, 0)
    assert torch.allclose(judge.distance(a, b), judge.distance(b, a))
    assert judge.distance(a, b).shape == (8,)
    assert judge.distance(a, b).max() <= 1


def test_pairs_of_other_seeds_are_refused(judge: PocketJudge) -> None:
    original = series("original", drawn(10**8), [True] * 8)
    with pytest.raises(ValueError, match="same prompts and seeds"):
        difference(original, original[1:] + original[:1], judge)


def test_every_column_stands_beside_the_original_and_without_a_judge_nothing_does(
    judge: PocketJudge,
) -> None:
    shown = drawn(10**8)
    columns = {
        column: Images(column, tuple(series(column, shown, [column != "unlearned"] * 8, "forget")))
        for column in ("original", "unlearned", "relearned")
    }
    found = differences(columns, judge)
    assert {column: list(groups) for column, groups in found.items()} == {
        "unlearned": ["forget"],
        "relearned": ["forget"],
    }
    assert found["unlearned"]["forget"].change == -1.0
    assert found["relearned"]["forget"].change == 0.0
    assert found["unlearned"]["forget"].p == pytest.approx(2 / 2**8)
    assert (
        differences(columns, None) == {} == differences({"unlearned": columns["unlearned"]}, judge)
    )
