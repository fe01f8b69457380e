"""The page's public endpoints: a run, and attacks on it, from Python or any other client through
the same engine.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from ..common.errors import UnlearnError
from ..common.json_values import to_json
from ..runs.findings import judge_again, read_findings, record_of
from ..runs.folder import Run
from ..service.engine import Engine, RunGone
from ..service.jobs import Job, Probe
from ..settings.attacks import kinds_of
from ..settings.run_config import make_config
from .proofs import Hunt
from .view import View

POLL = 0.5
Watch = View | Hunt


def unlearn_endpoint(engine: Engine, core: Any, model: str) -> Callable[..., Iterator[dict]]:
    """The function behind the endpoint `/unlearn`."""

    def unlearn(
        request: gr.Request,
        concept: str,
        anchor: str = "",
        objective: str = "esd",
        rule: str = "",
        seed: int = 0,
        preset: str = "fast",
        prompts: str = "",
        resist: bool = False,
    ) -> Iterator[dict]:
        """Forget a concept, attack the forgetting and judge both: progress while it works, run.json
        at the end.
        """
        try:
            asked = {
                "anchor": anchor,
                "objective": objective,
                "seed": seed,
                "prompts": prompts,
                "model": model,
            }
            asked["resist.on"] = resist
            config = make_config(
                concept, preset=preset, **(asked | ({"rule": rule} if rule else {}))
            )
            core.preview_concept(config)
            job = engine.submit(config, request.session_hash or "")
        except UnlearnError as error:
            raise gr.Error(str(error), print_exception=False) from error
        yield from _followed(engine, job, View(config))
        folder = engine.runs.get(job.id, job.session)
        yield Run.open(folder).record if folder else {"status": "stopped"}

    return unlearn


def attack_endpoint(engine: Engine) -> Callable[..., Iterator[dict]]:
    """The function behind the endpoint `/attack`."""

    def attack(request: gr.Request, kind: str = "quick") -> Iterator[dict]:
        """Try to get back what this client's last run forgot: progress, then every finding and the
        new verdict.
        """
        session = request.session_hash or ""
        try:
            kinds, done = kinds_of(kind), engine.runs.of(session)
            if not done:
                raise RunGone
            job = engine.submit(Probe(done[-1].folder, done[-1].config, kinds), session)
        except UnlearnError as error:
            raise gr.Error(str(error), print_exception=False) from error
        yield from _followed(engine, job, Hunt(kinds))
        folder = engine.runs.get(job.id, session)
        if folder is None:
            raise gr.Error(str(RunGone()), print_exception=False)
        found = read_findings(folder)
        verdict = to_json(judge_again(Run.open(folder), found))
        yield {"findings": [record_of(finding) for finding in found], "verdict": verdict}

    return attack


def _followed(engine: Engine, job: Job, watch: Watch) -> Iterator[dict]:
    """How far a job has come, until it ends; it also ends when nobody follows any more."""
    try:
        while not job.over:
            for event in job.take(POLL):
                watch.apply(event)
            text = watch.stage.text if watch.stage else "waiting"
            yield {
                "status": "running",
                "stage": text,
                "fraction": watch.fraction,
                "ahead": engine.position(job),
            }
        if job.error:
            raise gr.Error(job.error, print_exception=False)
    finally:
        job.cancel.set()
