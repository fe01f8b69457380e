"""The engine: one job at a time, a bounded queue, Stop, leaving, sentences for errors, and bounded storage."""

import errno
import stat
import threading
import time

import fake_workflow as fake
import pytest

from unlearn_app.config import RunConfig, make_config, make_plan
from unlearn_app.engine import Engine, EngineBusy, Job
from unlearn_app.errors import ModelError
from unlearn_app.events import Done, Images, Step
from unlearn_app.jobs import Ask
from unlearn_app.ledger import Ledger
from unlearn_app.runs import Run

QUICK = {"compare.forget": 2, "compare.near": 1, "compare.far": 1, "unlearn.steps": 20, "attack.steps": 20}


def quick(concept: str = "cat") -> RunConfig:
    """A run of four pictures and forty steps."""
    return make_config(concept, **QUICK)


def finish(job: Job, seconds: float = 20.0) -> list:
    """All events of a job; fails when it does not end."""
    events, deadline = [], time.monotonic() + seconds
    while not job.over:
        assert time.monotonic() < deadline, "the job did not end"
        events += job.take(0.1)
    return events


@pytest.fixture
def engines():
    """Makes started engines and shuts them down."""
    made: list[Engine] = []

    def make(runner=None, **options) -> Engine:
        made.append(Engine(runner or fake.FakeRunner(), **({"patience": 0.0} | options)).start())
        return made[-1]

    yield make
    for engine in made:
        engine.shutdown()
        assert not engine.root.exists()


def test_a_job_yields_its_events_and_leaves_its_folder(engines) -> None:
    engine = engines()
    job = engine.submit(quick(), "anna")
    events = finish(job)
    assert isinstance(events[-1], Done) and not job.error
    assert sum(isinstance(event, Step) for event in events) == 40
    assert Run.open(engine.runs.get(job.id, "anna")).config == quick()
    assert stat.S_IMODE(engine.root.stat().st_mode) == 0o700


def test_jobs_never_overlap_and_keep_their_order(engines) -> None:
    runner = fake.FakeRunner(seconds=0.1)
    engine = engines(runner)
    jobs = [engine.submit(quick(name), name) for name in ("cat", "dog", "rabbit", "bear")]
    for job in jobs:
        finish(job)
    assert not runner.overlapped
    assert runner.log == [(what, job.config.concept) for job in jobs for what in ("begin", "end")]


def test_a_job_started_right_after_stop_waits_for_the_stopped_one(engines) -> None:
    runner = fake.FakeRunner(seconds=5)
    engine = engines(runner)
    first = engine.submit(quick(), "anna")
    first.take(5)
    engine.stop("anna")
    runner.seconds = 0
    second = engine.submit(quick("dog"), "anna")
    finish(second)
    finish(first)
    assert not runner.overlapped


def test_position_counts_the_jobs_before_and_falls(engines) -> None:
    engine = engines(fake.FakeRunner(seconds=30))
    jobs = [engine.submit(quick(), name) for name in ("anna", "ben", "cem")]
    jobs[0].take(5)
    assert [engine.position(job) for job in jobs] == [0, 1, 2]
    engine.stop("ben")
    assert [engine.position(job) for job in jobs] == [0, 0, 1]
    assert jobs[1].over and not jobs[1].error
    engine.stop("anna")
    jobs[2].take(5)
    assert engine.position(jobs[2]) == 0


def test_stop_keeps_what_is_there(engines) -> None:
    engine = engines(fake.FakeRunner(seconds=60))
    job = engine.submit(quick(), "anna")
    seen = []
    while not any(isinstance(event, Step) for event in seen):
        seen += job.take(0.1)
    assert engine.stop("anna")
    seen += finish(job)
    assert seen[-1] == Done(job.folder, stopped=True)
    assert any(isinstance(event, Images) for event in seen)
    run = Run.open(engine.runs.get(job.id, "anna"))
    assert run.status == "stopped" and 0 < len(run.steps) < 40


def test_stop_without_a_job_does_nothing(engines) -> None:
    assert not engines().stop("nobody")


def test_leaving_ends_the_job_and_deletes_its_runs(engines) -> None:
    engine = engines(fake.FakeRunner(seconds=0.1))
    kept = engine.submit(quick(), "anna")
    finish(kept)
    engine._runner.seconds = 60
    running, waiting = engine.submit(quick(), "anna"), engine.submit(quick(), "ben")
    running.take(5)
    engine.leave("anna")
    finish(running)
    assert not kept.folder.exists() and not running.folder.exists()
    assert engine.runs.of("anna") == []
    waiting.take(5)
    assert engine.position(waiting) == 0 and not waiting.over


def test_a_full_queue_and_a_second_run_are_refused_with_a_sentence(engines) -> None:
    engine = engines(fake.FakeRunner(seconds=30), waiting=1)
    engine.submit(quick(), "anna").take(5)
    with pytest.raises(EngineBusy, match="still going"):
        engine.submit(quick(), "anna")
    engine.submit(quick(), "ben")
    with pytest.raises(EngineBusy, match="1 runs are waiting"):
        engine.submit(quick(), "cem")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModelError("The model folder 'x' is missing."), "The model folder 'x' is missing."),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full; free some space and try again."),
        (PermissionError(errno.EACCES, "Permission denied"), "could not be read or written (Permission denied)"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("secret detail"), "Something went wrong on our side"),
    ],
)
def test_errors_are_sentences_and_the_engine_goes_on(engines, error: Exception, sentence: str) -> None:
    runner = fake.FakeRunner(error=error)
    engine = engines(runner)
    job = engine.submit(quick(), "anna")
    finish(job)
    assert sentence in job.error and "secret" not in job.error
    assert engine.runs.get(job.id, "anna") is None
    runner.error = None
    after = engine.submit(quick(), "anna")
    assert isinstance(finish(after)[-1], Done) and not after.error


def test_a_model_that_does_not_load_is_said(engines) -> None:
    class Broken(fake.FakeRunner):
        def warm(self) -> None:
            raise ModelError("The model folder 'x' is missing.")

    engine = engines(Broken())
    assert engine.ready.wait(5)
    assert engine.trouble == "The model folder 'x' is missing."


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


def test_shutdown_ends_jobs_and_refuses_new_ones() -> None:
    engine = Engine(fake.FakeRunner(seconds=60)).start()
    running, waiting = engine.submit(quick(), "anna"), engine.submit(quick(), "ben")
    running.take(5)
    engine.shutdown()
    assert running.cancel.is_set() and waiting.over and not engine.root.exists()
    with pytest.raises(EngineBusy, match="not running"):
        engine.submit(quick(), "cem")


def test_one_thread_runs_everything(engines) -> None:
    class Noting(fake.FakeRunner):
        threads: set[int] = set()

        def warm(self) -> None:
            self.threads.add(threading.get_ident())

        def __call__(self, *arguments):
            for event in super().__call__(*arguments):
                self.threads.add(threading.get_ident())
                yield event

    runner = Noting()
    engine = engines(runner)
    for name in ("anna", "ben"):
        finish(engine.submit(quick(), name))
    assert len(runner.threads) == 1 and threading.get_ident() not in runner.threads


def test_a_ledger_grows_by_request_and_goes_with_its_visitor(engines) -> None:
    runner = fake.FakeRunner(seconds=0.05)
    engine = engines(runner)
    for concept in ("cat", "rabbit"):
        job = engine.submit(Ask(make_config(concept), make_plan()), "anna")
        finish(job)
        assert not job.error and not engine.busy("anna")
    folder = engine.ledger("anna")
    assert [row.concept for row in Ledger.open(folder).requests] == ["cat", "rabbit"]
    assert engine.runs.of("anna") == [] and engine.ledger("ben") != folder
    runner.gate.clear()
    running = engine.submit(quick(), "ben")
    waiting = engine.submit(Ask(make_config("car"), make_plan()), "anna")
    engine.leave("anna")
    assert waiting.over and not folder.exists()
    runner.gate.set()
    finish(running)


def test_a_visitor_who_leaves_during_a_request_leaves_no_ledger(engines) -> None:
    runner = fake.FakeRunner(seconds=30)
    engine = engines(runner)
    job = engine.submit(Ask(make_config("cat"), make_plan()), "anna")
    while not (engine.ledger("anna") / "ledger.json").exists():
        time.sleep(0.02)
    engine.leave("anna")
    finish(job)
    assert not engine.ledger("anna").exists()
