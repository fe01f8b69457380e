"""Seeds: no two uses share one, and those of judged pictures stay what they always were."""

import itertools

import pytest

from unlearn_app.common.seeds import (
    KEPT_NOISE,
    ROWS,
    RUNS,
    STREAMS,
    judged_seed,
    preview_seed,
    stream_seed,
)

EDGES = (0, 1, 600, RUNS - 1)


def test_streams_runs_and_rows_share_no_seed() -> None:
    places = list(itertools.product(STREAMS, EDGES, (0, 1, 999, ROWS - 1)))
    assert len({stream_seed(*place) for place in places}) == len(places)


def test_former_seeds_were_shared() -> None:
    """Retain pictures of seed 600 began at 900_000, as the judged pictures of seed 0 do."""
    assert judged_seed(0, 0) == 1000 * 600 + 300_000
    assert stream_seed("retain pictures", 600) != judged_seed(0, 0)


def test_training_never_reaches_judged_pictures() -> None:
    largest = judged_seed(RUNS - 1, 1500, 50)
    assert largest < KEPT_NOISE < KEPT_NOISE + largest < stream_seed(STREAMS[0], 0)


def test_previews_are_not_judged_pictures() -> None:
    assert preview_seed(200) < judged_seed(0, 0)


def test_seeds_of_judged_pictures_are_those_of_recorded_runs() -> None:
    assert judged_seed(3, 2) == 903_002


def test_torch_takes_the_largest_seed() -> None:
    assert stream_seed(STREAMS[-1], RUNS - 1, ROWS - 1) < 2**63


@pytest.mark.parametrize(("seed", "row"), [(-1, 0), (RUNS, 0), (0, ROWS), (0, -1)])
def test_what_would_reach_another_stream_is_refused(seed: int, row: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        stream_seed("adapter", seed, row)
