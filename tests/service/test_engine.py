"""The engine: one job at a time, a bounded queue, Stop, leaving, sentences for errors, and bounded
storage.
"""

import errno
import functools
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from recordings import SMALL, Recordings, Replay, small

from unlearn_app.common.errors import ConfigError, ModelError, OutOfMemory
from unlearn_app.continual.ledger import Ledger
from unlearn_app.evaluation.finding import Finding
from unlearn_app.models import catalog
from unlearn_app.runs import attack_run, workflow
from unlearn_app.runs.findings import read_findings
from unlearn_app.runs.folder import Run
from unlearn_app.service.engine import (
    UNHEARD,
    UNHEARD_SAID,
    Engine,
    EngineBusy,
    InProcess,
    Job,
    RunGone,
)
from unlearn_app.service.jobs import AttackRequest, LedgerRequest
from unlearn_app.service.visitors import GRACE
from unlearn_app.settings.events import Done, Images, Stage, Step, Verdict
from unlearn_app.settings.run_config import RunConfig, make_config, make_plan

STEPS = 1 + SMALL["attack.steps"]
"""Of a method that takes one step, and of the attack."""


def quick(concept: str = "cat") -> RunConfig:
    """The config of a recorded run."""
    return small(make_config(concept))


def finish(job: Job, seconds: float = 60.0) -> list:
    """All events of a job; fails when it does not end."""
    deadline = time.monotonic() + seconds
    while not job.over:
        assert time.monotonic() < deadline, "the job did not end"
        job.take(0.1, 10**6)
    return job.take(0.0)


@pytest.fixture(scope="module")
def replay(recordings: Recordings):
    """Makes runners that replay recordings."""
    recordings.run(quick("frog"))
    for stop_after in (None, Step):
        recordings.run(quick(), stop_after)
    return functools.partial(Replay, recordings)


@pytest.fixture
def engines(replay):
    """Makes started engines and shuts them down."""
    made: list[Engine] = []

    def make(runner=None, **options) -> Engine:
        made.append(Engine(runner or replay(), **({"patience": 0.0} | options)).start())
        return made[-1]

    yield make
    for engine in made:
        engine.shutdown()
        assert not engine.root.exists()


def test_a_job_yields_its_events_and_leaves_its_folder(engines) -> None:
    engine = engines()
    job = engine.submit(quick(), "anna")
    events = finish(job)
    assert isinstance(events[-1], Done)
    assert not job.error
    assert sum(isinstance(event, Step) for event in events) == STEPS
    assert Run.open(engine.runs.get(job.id, "anna")).config == quick()
    assert stat.S_IMODE(engine.root.stat().st_mode) == 0o700


def test_jobs_never_overlap_and_keep_their_order(replay, engines) -> None:
    runner = replay(seconds=0.1)
    engine = engines(runner)
    jobs = [
        engine.submit(quick(name), f"visitor {n}") for n, name in enumerate(("cat", "frog") * 2)
    ]
    for job in jobs:
        finish(job)
    assert not runner.overlapped
    assert runner.log == [(what, job.config.concept) for job in jobs for what in ("begin", "end")]


def test_a_job_started_right_after_stop_waits_for_the_stopped_one(replay, engines) -> None:
    runner = replay(seconds=5)
    engine = engines(runner)
    first = engine.submit(quick(), "anna")
    first.take(5)
    engine.stop("anna")
    runner.seconds = 0
    second = engine.submit(quick("frog"), "anna")
    finish(second)
    finish(first)
    assert not runner.overlapped


def test_position_counts_the_jobs_before_and_falls(replay, engines) -> None:
    engine = engines(replay(seconds=30))
    jobs = [engine.submit(quick(), name) for name in ("anna", "ben", "cem")]
    jobs[0].take(5)
    assert [engine.position(job) for job in jobs] == [0, 1, 2]
    engine.stop("ben")
    assert [engine.position(job) for job in jobs] == [0, 0, 1]
    assert jobs[1].over
    assert not jobs[1].error
    engine.stop("anna")
    jobs[2].take(5)
    assert engine.position(jobs[2]) == 0


def test_stop_keeps_what_is_there(replay, engines) -> None:
    engine = engines(replay(seconds=60))
    job = engine.submit(quick(), "anna")
    seen = []
    while not any(isinstance(event, Step) for event in seen):
        seen += job.take(0.1, len(seen))
    assert engine.stop("anna")
    seen = finish(job)
    assert seen[-1] == Done(job.folder, stopped=True)
    assert any(isinstance(event, Images) for event in seen)
    run = Run.open(engine.runs.get(job.id, "anna"))
    assert run.status == "stopped"
    assert 0 < len(run.steps) < STEPS


def test_stop_without_a_job_does_nothing(engines) -> None:
    assert not engines().stop("nobody")


def test_leaving_ends_the_job_and_deletes_its_runs(replay, engines) -> None:
    engine = engines(replay(seconds=0.1))
    kept = engine.submit(quick(), "anna")
    finish(kept)
    engine._runner.seconds = 60
    running, waiting = engine.submit(quick(), "anna"), engine.submit(quick(), "ben")
    running.take(5)
    engine.leave("anna")
    finish(running)
    assert not kept.folder.exists()
    assert not running.folder.exists()
    assert engine.runs.of("anna") == []
    waiting.take(5)
    assert engine.position(waiting) == 0
    assert not waiting.over


def test_a_full_queue_and_a_second_run_are_refused_with_a_sentence(replay, engines) -> None:
    engine = engines(replay(seconds=30), waiting=1)
    engine.submit(quick(), "anna").take(5)
    with pytest.raises(EngineBusy, match="still going"):
        engine.submit(quick(), "anna")
    engine.submit(quick(), "ben")
    with pytest.raises(EngineBusy, match="1 runs are waiting"):
        engine.submit(quick(), "cem")


def test_one_address_gets_half_of_the_queue_where_it_is_known(replay, engines) -> None:
    engine = engines(replay(seconds=30), waiting=4)
    running = engine.submit(quick(), "anna", "192.0.2.1")
    running.take(10.0)
    engine.submit(quick(), "ben", "192.0.2.1")
    with pytest.raises(EngineBusy, match="Your network"):
        engine.submit(quick(), "cem", "192.0.2.1")
    engine.submit(quick(), "dan", "192.0.2.2")
    for name in ("eve", "fay"):
        engine.submit(quick(), name)


def big(config: RunConfig) -> RunConfig:
    """Settings that take too long for a page."""
    compare = {"forget": 500, "near": 500, "far": 500, "sampling_steps": 200}
    return replace(config, compare=replace(config.compare, **compare))


@pytest.mark.parametrize(
    ("request_of", "command"),
    [
        (lambda folder: big(quick()), "run"),
        (lambda folder: LedgerRequest(big(quick()), make_plan(pictures=100)), "continual add"),
        (lambda folder: AttackRequest(folder, big(quick()), ("noise",)), "attack"),
    ],
    ids=["run", "ledger", "attack"],
)
def test_what_costs_too_much_is_refused_before_it_waits(
    engines, tmp_path, request_of, command: str
) -> None:
    engine = engines()
    with pytest.raises(ConfigError, match=f"python -m unlearn_app {command}"):
        engine.submit(request_of(tmp_path), "anna")
    assert engine.job_of("anna") is None


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModelError("The model folder 'x' is missing."), "The model folder 'x' is missing."),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "The disk is full; free some space and try again.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "could not be read or written (Permission denied)",
        ),
        (MemoryError(), "needs more memory than there is"),
        (RuntimeError("CUDA out of memory."), "needs more memory than there is"),
        (RuntimeError("secret detail"), "Something went wrong on our side"),
    ],
)
def test_errors_are_sentences_and_the_engine_goes_on(
    replay, engines, error: Exception, sentence: str
) -> None:
    runner = replay(error=error)
    engine = engines(runner)
    job = engine.submit(quick(), "anna")
    finish(job)
    assert sentence in job.error
    assert "secret" not in job.error
    assert engine.runs.get(job.id, "anna") is None
    runner.error = None
    after = engine.submit(quick(), "anna")
    assert isinstance(finish(after)[-1], Done)
    assert not after.error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), SystemExit(1)])
def test_an_error_after_the_work_ends_the_job_and_not_the_engine(
    engines, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    engine = engines()

    def broken() -> None:
        raise error

    with monkeypatch.context() as changed:
        changed.setattr(engine.runs, "trim", broken)
        job = engine.submit(quick(), "anna")
        finish(job)
    assert job.error
    assert engine.job_of("anna") is None
    after = engine.submit(quick(), "anna")
    assert isinstance(finish(after)[-1], Done)
    assert not after.error


def test_an_error_about_one_who_left_spares_the_others(engines) -> None:
    clock = Clock()
    engine = engines(clock=clock)
    jobs = [engine.submit(quick(), look(engine, f"tab {n}", f"{n}" * 64)) for n in range(2)]
    for number, job in enumerate(jobs):
        finish(job)
        engine.visitors.disconnected(f"tab {number}")

    def broken(name: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    engine.on_delete = broken
    clock.now += GRACE
    engine.sweep()
    assert not any(job.folder.exists() for job in jobs)


def test_a_model_that_does_not_load_is_said(recordings, engines) -> None:
    class Broken(Replay):
        def warm(self) -> None:
            raise ModelError("The model folder 'x' is missing.")

    engine = engines(Broken(recordings))
    assert engine.ready.wait(5)
    assert engine.load_error == "The model folder 'x' is missing."


def test_the_model_loads_when_somebody_arrives(engines) -> None:
    engine = engines(patience=60)
    assert not engine.ready.wait(0.1)
    engine.arrive()
    assert engine.ready.wait(5)


def test_runs_belong_to_their_visitor(engines) -> None:
    engine = engines()
    job = engine.submit(quick(), "anna")
    finish(job)
    assert engine.runs.get(job.id, "ben") is None
    assert [kept.id for kept in engine.runs.of("anna")] == [job.id]


@pytest.mark.parametrize("cap", [{"keep_runs": 2}, {"keep_bytes": 1}])
def test_the_least_recently_used_runs_go_first(engines, cap: dict) -> None:
    engine = engines(**cap)
    jobs = []
    for _ in range(3):
        jobs.append(engine.submit(quick(), "anna"))
        finish(jobs[-1])
        engine.runs.get(jobs[0].id, "anna")
    kept = [job.folder.exists() for job in jobs]
    assert kept == ([True, False, True] if "keep_runs" in cap else [False, False, True])


def test_shutdown_ends_jobs_and_refuses_new_ones(replay) -> None:
    engine = Engine(replay(seconds=60)).start()
    running, waiting = engine.submit(quick(), "anna"), engine.submit(quick(), "ben")
    running.take(5)
    engine.shutdown()
    assert running.cancel.is_set()
    assert waiting.over
    assert not engine.root.exists()
    with pytest.raises(EngineBusy, match="not running"):
        engine.submit(quick(), "cem")


def test_one_thread_runs_everything(recordings, engines) -> None:
    class Noting(Replay):
        threads: set[int] = set()

        def warm(self) -> None:
            self.threads.add(threading.get_ident())

        def __call__(self, *arguments):
            for event in super().__call__(*arguments):
                self.threads.add(threading.get_ident())
                yield event

    runner = Noting(recordings)
    engine = engines(runner)
    for name in ("anna", "ben"):
        finish(engine.submit(quick(), name))
    assert len(runner.threads) == 1
    assert threading.get_ident() not in runner.threads


def test_a_ledger_grows_by_request_and_goes_with_its_visitor(replay, engines) -> None:
    runner = replay(seconds=0.05)
    engine = engines(runner)
    for concept in ("cat", "rabbit"):
        job = engine.submit(LedgerRequest(make_config(concept), make_plan()), "anna")
        finish(job)
        assert not job.error
        assert engine.job_of("anna") is None
    folder = engine.ledger("anna")
    assert [row.concept for row in Ledger.open(folder).requests] == ["cat", "rabbit"]
    assert engine.runs.of("anna") == []
    assert engine.ledger("ben") != folder
    runner.gate.clear()
    running = engine.submit(quick(), "ben")
    waiting = engine.submit(LedgerRequest(make_config("car"), make_plan()), "anna")
    engine.leave("anna")
    assert waiting.over
    assert not folder.exists()
    runner.gate.set()
    finish(running)


def test_a_visitor_who_leaves_during_a_request_leaves_no_ledger(replay, engines) -> None:
    runner = replay(seconds=30)
    engine = engines(runner)
    job = engine.submit(LedgerRequest(make_config("cat"), make_plan()), "anna")
    while not (engine.ledger("anna") / "ledger.json").exists():
        time.sleep(0.02)
    engine.leave("anna")
    finish(job)
    assert not engine.ledger("anna").exists()


class Clock:
    """A clock that stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


KEY = "0a" * 32


def look(engine: Engine, session: str, key: str = KEY) -> str:
    """A page opens and says whose it is."""
    engine.visitors.connected(session)
    return engine.visitor(session, key)


def test_a_run_goes_on_without_its_page_until_the_grace_is_over(replay, engines) -> None:
    clock = Clock()
    engine = engines(replay(seconds=60), clock=clock)
    visitor = look(engine, "tab")
    job = engine.submit(quick(), visitor)
    job.take(5)
    engine.visitors.disconnected("tab")
    clock.now += GRACE - 1
    engine.sweep()
    assert not job.cancel.is_set()
    assert engine.job_of(visitor) is job
    clock.now += 1
    engine.sweep()
    finish(job)
    assert job.cancel.is_set()
    assert not job.folder.exists()


def test_runs_and_ledger_go_with_the_last_of_two_tabs(engines) -> None:
    clock = Clock()
    engine = engines(clock=clock)
    visitor = look(engine, "tab 1")
    look(engine, "tab 2")
    run = engine.submit(quick(), visitor)
    finish(run)
    engine.ledger(visitor).mkdir(parents=True)
    engine.visitors.disconnected("tab 1")
    clock.now += 2 * GRACE
    engine.sweep()
    assert run.folder.is_dir()
    assert engine.ledger(visitor).is_dir()
    engine.visitors.disconnected("tab 2")
    clock.now += GRACE
    engine.sweep()
    assert not run.folder.exists()
    assert not engine.home(visitor).exists()


def test_a_waiting_job_whose_client_never_connected_is_dropped(replay, engines) -> None:
    clock = Clock()
    engine = engines(replay(seconds=60), clock=clock)
    visitor = look(engine, "tab")
    engine.submit(quick(), visitor).take(5)
    invented = engine.submit(quick(), "invented")
    other = look(engine, "other", "0b" * 32)
    waiting = engine.submit(quick(), other)
    engine.visitors.disconnected("other")
    clock.now += UNHEARD - 1
    engine.sweep()
    assert not invented.over
    clock.now += 1
    engine.sweep()
    assert invented.error == UNHEARD_SAID
    assert not waiting.over
    assert engine.job_of(visitor)


@pytest.mark.parametrize("reads", [True, False], ids=["a program", "nobody"])
def test_a_running_job_goes_on_only_if_its_client_ever_connected(
    replay, engines, reads: bool
) -> None:
    clock = Clock()
    engine = engines(replay(seconds=60), clock=clock)
    job = engine.submit(quick(), engine.visitor("program"))
    job.take(5)
    if reads:
        engine.visitors.connected("program")
    clock.now += UNHEARD
    engine.sweep()
    assert job.cancel.is_set() is not reads
    if not reads:
        finish(job)
        assert job.error == UNHEARD_SAID


def test_a_visitor_takes_the_place_of_one_who_never_was_here(replay, engines) -> None:
    engine = engines(replay(seconds=60), waiting=2)
    engine.submit(quick(), "invented").take(5)
    invented = [engine.submit(quick(), f"invented {n}") for n in range(2)]
    with pytest.raises(EngineBusy, match="2 runs are waiting"):
        engine.submit(quick(), "invented too")
    job = engine.submit(quick(), look(engine, "tab"))
    assert [one.over for one in invented] == [False, True]
    assert engine.position(job) == 2


def test_a_run_stopped_before_any_result_is_not_kept(recordings, engines) -> None:
    class Stopped(Replay):
        def __call__(self, asked, out, cancel):
            yield Stage("load", "Loading the model", 0.0)
            out.mkdir()
            yield Done(out, stopped=True)

    engine = engines(Stopped(recordings))
    job = engine.submit(quick(), "anna")
    finish(job)
    assert not engine.runs.of("anna")
    assert not job.folder.exists()


def test_whatever_is_deleted_is_told(engines) -> None:
    engine, told = engines(own_runs=1), []
    engine.on_delete = told.append
    runs = []
    for _ in range(2):
        runs.append(engine.submit(quick(), "anna"))
        finish(runs[-1])
    assert told == [runs[0].id]
    engine.leave("anna")
    assert told[1:] == [engine.home("anna").name, runs[1].id]


def test_copies_count_as_the_run_they_are_of(engines) -> None:
    engine = engines(own_bytes=10**9)
    engine.copied = lambda name: 10**9
    runs = [engine.submit(quick(), "anna")]
    finish(runs[0])
    runs.append(engine.submit(quick(), "anna"))
    finish(runs[1])
    assert [kept.id for kept in engine.runs.of("anna")] == [runs[1].id]


def test_what_failed_is_told_once_it_is_off_the_screen(replay, engines) -> None:
    runner = replay(error=ModelError("It is missing."))
    engine, told = engines(runner), []
    engine.on_delete = told.append
    failed = engine.submit(quick(), "anna")
    finish(failed)
    assert not told
    finish(engine.submit(quick(), "anna"))
    assert told == [failed.id]


def attack(job: Job, *kinds: str) -> AttackRequest:
    """Attacks on what a job has left."""
    return AttackRequest(job.folder, job.config, kinds or ("prompts", "inversion"))


def take_until(job: Job, kind: type) -> list:
    """Events of a job up to the first of a kind."""
    events, deadline = [], time.monotonic() + 20
    while not any(isinstance(event, kind) for event in events):
        assert not job.over
        assert time.monotonic() < deadline
        events += job.take(0.1, len(events))
    return events


def test_attacks_leave_their_findings_with_the_one_run(engines) -> None:
    engine = engines()
    run = engine.submit(quick("frog"), "anna")
    assert next(event for event in finish(run) if isinstance(event, Verdict)).label == "removed"
    job = engine.submit(attack(run), "anna")
    events = finish(job)
    assert not job.error
    assert isinstance(events[-1], Verdict)
    assert events[-1].label == "concealed"
    assert [event.kind for event in events if isinstance(event, Finding)] == [
        "prompts",
        "inversion",
    ]
    assert [kept.id for kept in engine.runs.of("anna")] == [run.id]
    assert {found.kind for found in read_findings(engine.runs.get(run.id, "anna"))} == {
        "prompts",
        "inversion",
    }


def test_stopped_attacks_keep_the_run_and_what_is_complete(replay, engines) -> None:
    runner = replay(seconds=0.1)
    engine = engines(runner)
    run = engine.submit(quick(), "anna")
    finish(run)
    runner.seconds = 0.5
    job = engine.submit(attack(run, "prompts", *["noise"] * 200), "anna")
    take_until(job, Finding)
    assert engine.stop("anna")
    finish(job)
    found = read_findings(engine.runs.get(run.id, "anna"))
    assert 1 <= len(found) < 20
    assert found[-1].kind == "prompts"
    assert not [path for path in run.folder.rglob("*") if "partial" in path.name]


def test_nobody_attacks_or_deletes_the_run_of_another(engines) -> None:
    engine = engines()
    run = engine.submit(quick(), "anna")
    finish(run)
    elsewhere = AttackRequest(engine.root / "other" / run.id, run.config, ("prompts",))
    for asked, session in ((attack(run), "ben"), (elsewhere, "anna")):
        with pytest.raises(RunGone, match="no longer kept"):
            engine.submit(asked, session)
    with pytest.raises(RunGone):
        engine.delete(run.id, "ben")
    assert engine.job_of("ben") is None
    assert Run.open(run.folder)
    assert not (run.folder / "attacks").exists()


@pytest.mark.parametrize("end", ["leave", "shutdown"])
def test_a_run_under_attack_goes_with_its_visitor(replay, engines, end: str) -> None:
    runner = replay(seconds=0.1)
    engine = engines(runner)
    run = engine.submit(quick(), "anna")
    finish(run)
    engine.home("anna").mkdir()
    runner.seconds = 1
    job = engine.submit(attack(run, *["noise"] * 500), "anna")
    take_until(job, Finding)
    engine.leave("anna") if end == "leave" else engine.shutdown()
    finish(job)
    assert job.cancel.is_set()
    assert not run.folder.exists()
    assert not engine.home("anna").exists()


def test_what_an_attack_writes_after_its_visitor_has_left_goes_too(recordings, engines) -> None:
    class Late(Replay):
        def __call__(self, asked, out, cancel):
            if not isinstance(asked, AttackRequest):
                yield from super().__call__(asked, out, cancel)
                return
            yield Stage("attack", "Trying", 0.1)
            deadline = time.monotonic() + 20
            while out.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            (out / "attacks" / "noise").mkdir(parents=True)

    engine = engines(Late(recordings, seconds=0.1))
    run = engine.submit(quick(), "anna")
    finish(run)
    job = engine.submit(attack(run), "anna")
    take_until(job, Stage)
    engine.leave("anna")
    finish(job)
    assert not run.folder.exists()


def test_leaving_takes_the_findings_too(engines) -> None:
    engine = engines()
    run = engine.submit(quick(), "anna")
    finish(run)
    finish(engine.submit(attack(run), "anna"))
    assert (run.folder / "attacks" / "prompts" / "finding.json").is_file()
    engine.leave("anna")
    assert not run.folder.exists()


def test_a_run_dropped_while_its_attack_waits_is_said_to_be_gone(replay, engines) -> None:
    runner = replay(seconds=0)
    engine = engines(runner, keep_runs=1)
    run = engine.submit(quick(), "anna")
    finish(run)
    runner.gate.clear()
    other = engine.submit(quick(), "ben")
    job = engine.submit(attack(run), "anna")
    runner.gate.set()
    finish(other)
    finish(job)
    assert job.error == "That run is no longer kept; run it again."
    assert not run.folder.exists()
    assert engine.runs.of("anna") == []


def test_deleting_takes_the_folder_but_not_from_under_an_attack(replay, engines) -> None:
    runner = replay(seconds=0.1)
    engine = engines(runner)
    run = engine.submit(quick(), "anna")
    finish(run)
    runner.seconds = 30
    job = engine.submit(attack(run), "anna")
    take_until(job, Stage)
    with pytest.raises(EngineBusy, match="still going"):
        engine.delete(run.id, "anna")
    assert run.folder.is_dir()
    engine.stop("anna")
    finish(job)
    engine.delete(run.id, "anna")
    assert not run.folder.exists()
    assert engine.runs.of("anna") == []
    with pytest.raises(RunGone):
        engine.delete(run.id, "anna")


def test_findings_count_towards_the_cap(engines) -> None:
    engine = engines()
    runs = [engine.submit(quick(), name) for name in ("anna", "ben")]
    for run in runs:
        finish(run)
    sizes = [
        sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file()) for run in runs
    ]
    engine.runs._size = sum(sizes) + 1000
    finish(engine.submit(attack(runs[1]), "ben"))
    # Ben holds most now, so it is he who loses.
    assert runs[0].folder.is_dir()
    assert not runs[1].folder.exists()


def test_in_process_attacks_the_run_on_the_resident_backend(
    recordings, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    shutil.copytree(recordings.run(quick()).folder, tmp_path / "run")
    seen, cancel = [], threading.Event()

    def run_attacks(run, kinds, changes=None, *, model, should_stop):
        seen.append((run.folder, kinds, model, should_stop()))
        cancel.set()
        seen.append(should_stop())
        yield Stage("load", "Loading", 0.0)

    monkeypatch.setattr(attack_run, "run_attacks", run_attacks)
    runner, model = InProcess(), object()
    runner._loaded = ("pocket", model)
    asked = AttackRequest(tmp_path / "run", quick(), ("noise",))
    assert list(runner(asked, tmp_path / "run", cancel)) == [Stage("load", "Loading", 0.0)]
    assert seen == [(tmp_path / "run", ("noise",), model, False), True]


def test_after_a_lack_of_memory_the_next_job_loads_the_model_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded, failing = [], True

    def work(*asked: object, **more: object) -> Iterator[Done]:
        if failing:
            raise OutOfMemory("Unlearning needs more memory than there is; lower unlearn.rank.")
        yield Done(tmp_path)

    monkeypatch.setattr(catalog, "load_model", lambda model: loaded.append(model) or object())
    monkeypatch.setattr(workflow, "run", work)
    runner, asked = InProcess(), (make_config("cat"), tmp_path, threading.Event())
    with pytest.raises(OutOfMemory, match=r"lower unlearn\.rank"):
        list(runner(*asked))
    failing = False
    assert list(runner(*asked)) == [Done(tmp_path)]
    assert len(loaded) == 2
