"""Time left: learnt from measured parts of runs, and never rising without a reason."""

import itertools

import pytest

from unlearn_app.service.pace import SHOWING, USUAL, WRITE, Pace, Schedule, part_of
from unlearn_app.settings.cost import run_cost, run_costs, share_done
from unlearn_app.settings.events import SHARES, Done, Event, Stage, Step
from unlearn_app.settings.run_config import RunConfig, make_config

CONFIG = make_config("cat")
STEPS = {"unlearn": CONFIG.unlearn.steps, "attack": CONFIG.attack.steps}
SHARES_DONE = {
    part: [share_done(CONFIG, part, step) for step in range(steps + 1)]
    for part, steps in STEPS.items()
}
PARTS = ("originals", "retain", "unlearn", "compare", "attack", "write")


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def begin(part: str) -> Stage:
    return Stage("load", part, SHARES[part])


def run(pace: Pace, slower: float, clock: Clock) -> list[tuple[float, float, float]]:
    """A run whose parts take `slower` times the usual; returns the time left that is said, the true
    one, and the share that is done, at many moments.
    """
    costs, seen = run_costs(CONFIG), []
    took = {p: slower * costs.get(p, 0) * USUAL.get(p, 0.0) or 1.0 for p in PARTS}
    total = sum(took.values())
    start = clock.now
    schedule = Schedule(CONFIG, pace, clock)
    for part in PARTS:
        schedule.apply(begin(part))
        begun, steps = clock.now, list(enumerate(SHARES_DONE.get(part, ())))[1:]
        for moment in range(1, 21):
            while steps and steps[0][1] <= moment / 20:
                step, share = steps.pop(0)
                clock.now = begun + share * took[part]
                schedule.apply(Step(part, step, STEPS[part]))
            clock.now = begun + moment / 20 * took[part]
            said = schedule.left()
            seen.append((said.seconds, total - (clock.now - start), said.fraction))
    schedule.apply(Done(None))
    return seen


@pytest.mark.parametrize("slower", [0.5, 1.0, 3.0])
def test_from_the_first_third_on_the_time_left_is_about_right(slower: float) -> None:
    pace, clock = Pace(), Clock()
    run(pace, slower, clock)
    seen = run(pace, slower, clock)
    total = seen[0][1]
    for said, true, _ in seen:
        if true < 2 / 3 * total and true > 3:
            assert abs(said - true) <= 0.15 * true + 1.5


@pytest.mark.parametrize("slower", [0.5, 1.0, 1.2])
def test_the_time_left_never_rises_and_the_bar_never_falls(slower: float) -> None:
    seen = run(Pace(), slower, Clock())
    assert all(later[0] <= one[0] for one, later in itertools.pairwise(seen))
    assert all(later[2] >= one[2] for one, later in itertools.pairwise(seen))


def test_a_rise_has_a_reason() -> None:
    clock = Clock()
    schedule = Schedule(CONFIG, Pace(), clock)
    schedule.apply(begin("unlearn"))
    before = schedule.left()
    assert not before.slower
    clock.now += 600
    schedule.apply(Step("unlearn", STEPS["unlearn"] // 4, STEPS["unlearn"]))
    after = schedule.left()
    assert after.seconds > before.seconds
    assert after.slower
    clock.now += 1.0
    assert schedule.left().fraction > after.fraction


def test_every_part_moves_the_bar() -> None:
    seen = run(Pace(), 1.0, Clock())
    ends = [seen[20 * n + 19][2] for n in range(len(PARTS))]
    assert all(later > one for one, later in itertools.pairwise([0.0, *ends]))


def test_what_one_run_took_is_what_the_next_is_expected_to_take() -> None:
    pace = Pace()
    before = pace.total(CONFIG)
    run(pace, 3.0, Clock())
    assert pace.total(CONFIG) == pytest.approx(3 * before, rel=0.1)


def without_writing(pace: Pace) -> dict[str, float]:
    return {part: seconds for part, seconds in pace.seconds(CONFIG).items() if part != WRITE}


def course(config: RunConfig, *events: tuple[float, Event]) -> Pace:
    """What a run teaches whose events come so many seconds after one another."""
    pace, clock = Pace(), Clock()
    schedule = Schedule(config, pace, clock)
    for seconds, event in events:
        clock.now += seconds
        schedule.apply(event)
    return pace


@pytest.mark.parametrize("end", [Done(None, stopped=True), None], ids=["stopped", "failed"])
def test_a_run_that_is_not_complete_teaches_nothing(end: Done | None) -> None:
    """Its parts look over: what follows a stop is "write", which begins at once."""
    events = [(0, begin("unlearn")), (500, Step("unlearn", 2, STEPS["unlearn"]))]
    events += [(1, begin("write")), *([(1, end)] if end else [])]
    assert course(CONFIG, *events).seconds(CONFIG) == Pace().seconds(CONFIG)


def test_a_training_that_ends_early_teaches_the_seconds_of_what_it_did() -> None:
    """Half of its steps are more than half of the work, since their targets come first; and an
    attack that never came is no measurement.
    """
    half = Step("unlearn", STEPS["unlearn"] // 2, STEPS["unlearn"])
    ended = Stage("unlearn", "Stopped", SHARES["compare"])
    events = [(0, begin("unlearn")), (30, half), (0, ended), (4, begin("write")), (1, Done(None))]
    found = course(CONFIG, *events).seconds(CONFIG)
    share = share_done(CONFIG, "unlearn", STEPS["unlearn"] // 2)
    assert share != pytest.approx(0.5, abs=0.05)
    assert found["unlearn"] == pytest.approx(30 / share)
    assert found["compare"] == pytest.approx(4)
    slower = (
        30 / share / Pace().seconds(CONFIG)["unlearn"] + 4 / Pace().seconds(CONFIG)["compare"]
    ) / 2
    assert found["attack"] == pytest.approx(slower * Pace().seconds(CONFIG)["attack"])


def test_the_step_of_an_edit_is_not_the_training_that_follows_it() -> None:
    """Both count their steps as unlearning; the edit's only step is not the end of it."""
    config = make_config("cat", objective="uce", **{"resist.on": True})
    usual, clock = Pace().seconds(config)["unlearn"], Clock()
    schedule = Schedule(config, Pace(), clock)
    schedule.apply(begin("unlearn"))
    before = schedule.left().seconds
    clock.now += 0.5
    schedule.apply(Step("unlearn", 1, 1))
    assert schedule.left().seconds == pytest.approx(before - 0.5)
    steps = config.unlearn.steps
    events = [(0.5, Step("unlearn", 1, 1)), (9.5, Stage("retain", "", SHARES["unlearn"]))]
    events += [(0, Stage("unlearn", "", SHARES["unlearn"]))]
    events += [(2 * usual - 10, Step("unlearn", steps, steps)), (0, begin("compare"))]
    taught = course(config, (0, begin("unlearn")), *events, (3, begin("write")), (1, Done(None)))
    assert taught.seconds(config)["unlearn"] == pytest.approx(2 * usual)


def test_a_part_that_does_nothing_teaches_nothing() -> None:
    """An attack of no steps begins, and is over at once."""
    config = make_config("cat", **{"attack.steps": 0})
    taught = course(config, (0, begin("attack")), (0.01, begin("write")), (1, Done(None)))
    assert without_writing(taught) == without_writing(Pace())


def test_costs_of_the_parts_add_up() -> None:
    for changes in ({}, {"resist.on": True}, {"objective": "uce"}, {"attack.controls": True}):
        config = make_config("cat", **changes)
        assert sum(run_costs(config).values()) == run_cost(config)
        assert set(run_costs(config)) <= set(SHARES)


def test_a_stage_belongs_to_the_part_that_began_last() -> None:
    assert [part_of(begin(name)) for name in SHARES] == list(SHARES)
    assert part_of(Stage("attack", "", 0.5)) == "attack"


OTHER = make_config("cat", model="some/model")


def test_nothing_is_known_of_another_model_until_it_has_run() -> None:
    """What the bundled model takes says nothing of it, and the other way round."""
    pace = Pace()
    run(pace, 3.0, Clock())
    assert pace.total(OTHER) is None
    pace.learn("some/model", "unlearn", 100, 1000.0)
    assert pace.total(CONFIG) == pytest.approx(3 * Pace().total(CONFIG), rel=0.1)
    assert pace.seconds(OTHER)["unlearn"] == pytest.approx(10 * run_costs(OTHER)["unlearn"])
    passes = {part: cost for part, cost in run_costs(OTHER).items() if part in USUAL}
    ratio = 10 / USUAL["unlearn"]
    expected = sum(ratio * USUAL[part] * cost for part, cost in passes.items())
    assert pace.total(OTHER) == pytest.approx(expected, rel=0.01)


def test_the_first_run_of_another_model_tells_the_time_left_from_its_own_steps() -> None:
    """An hour of loading is no measure of it, and the bar moves meanwhile."""
    clock, pace = Clock(), Pace()
    schedule = Schedule(OTHER, pace, clock)
    clock.now += 3600
    schedule.apply(begin("originals"))
    clock.now += 60
    schedule.apply(begin("unlearn"))
    before = schedule.left()
    assert before.seconds is None
    steps = OTHER.unlearn.steps
    for step in range(1, steps + 1):
        clock.now += 3.0
        schedule.apply(Step("unlearn", step, steps))
    after = schedule.left()
    usual = Pace().seconds(OTHER)
    behind = list(SHARES)[list(SHARES).index("unlearn") + 1 :]
    ratio = 3.0 * steps / usual["unlearn"]
    assert after.seconds == pytest.approx(ratio * sum(usual[part] for part in behind), rel=0.01)
    assert before.fraction < after.fraction < 1


def test_pictures_that_were_kept_say_nothing_of_the_machine() -> None:
    """A second run of a concept finds its first pictures in the store, in no time."""
    pace = Pace()
    clock = Clock()
    schedule = Schedule(CONFIG, pace, clock)
    before = schedule.left().seconds
    schedule.apply(begin("originals"))
    clock.now += 0.05
    schedule.apply(begin("retain"))
    clock.now += 0.05
    schedule.apply(begin("unlearn"))
    usual = Pace().seconds(CONFIG)
    found = usual["originals"] + usual["retain"] + usual["load"]
    assert schedule.left().seconds == pytest.approx(before - found)
    clock.now += usual["unlearn"]
    schedule.apply(Step("unlearn", STEPS["unlearn"], STEPS["unlearn"]))
    schedule.apply(begin("write"))
    schedule.apply(Done(None))
    assert without_writing(pace) == pytest.approx(without_writing(Pace()))


def test_what_comes_after_the_last_part_counts_as_writing() -> None:
    """Writing takes no forward passes, so other parts say nothing of it."""
    taught = course(CONFIG, (0, begin("write")), (4, Done(None)))
    assert taught.seconds(CONFIG)[WRITE] == pytest.approx(4 + SHOWING)
    assert without_writing(taught) == without_writing(Pace())


def test_the_pace_of_a_part_takes_over_as_it_goes_on() -> None:
    """An attack that is three times as slow as what came before: the more of it is done, the nearer
    is what is said, and after most of it the machine's own pace of this part decides.
    """
    expected, clock = Pace().seconds(CONFIG), Clock()
    schedule = Schedule(CONFIG, Pace(), clock)
    schedule.apply(begin("unlearn"))
    clock.now = expected["unlearn"]
    schedule.apply(Step("unlearn", STEPS["unlearn"], STEPS["unlearn"]))
    schedule.apply(begin("attack"))
    off = []
    for step in (5, 15, 30, 45):
        share = share_done(CONFIG, "attack", step)
        clock.now = expected["unlearn"] + 3 * expected["attack"] * share
        schedule.apply(Step("attack", step, STEPS["attack"]))
        true = 3 * expected["attack"] * (1 - share) + expected[WRITE]
        off.append(abs(schedule.left().seconds / true - 1))
    assert off == sorted(off, reverse=True)
    assert off[0] > 0.3
    assert off[-1] < 0.15


def test_time_passes_between_two_steps() -> None:
    """What is left falls by the seconds that pass, and never to nothing before the part is over."""
    clock, config = Clock(), make_config("cat", **{"attack.steps": 0})
    schedule = Schedule(config, Pace(), clock)
    schedule.apply(begin("unlearn"))
    clock.now = 5.0
    schedule.apply(Step("unlearn", 20, STEPS["unlearn"]))
    before = schedule.left().seconds
    clock.now += 2.0
    assert schedule.left().seconds == pytest.approx(before - 2.0)
    clock.now += 1000.0
    expected = Pace().seconds(config)
    assert schedule.left().seconds > 0.5 * (expected["compare"] + expected[WRITE])
