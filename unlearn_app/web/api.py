"""The page's public API: runs and attacks on them for other programs, through the same engine."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from ..common.errors import ConfigError, UnlearnError, check_known
from ..common.json_values import to_json
from ..concepts.catalog import preview_concept
from ..evaluation.finding import Finding
from ..runs.findings import judge_again, read_findings, record_of
from ..runs.folder import Run
from ..service.engine import Engine, RunGone
from ..service.jobs import AttackRequest, Job
from ..settings.attacks import kinds_of
from ..settings.events import Event, Stage, Step
from ..settings.run_config import BY_WORDS, make_config, setting_names
from .boundary import visitor_address
from .following import follow, key_of, own_call, refused, visitor_of
from .view_state import AttackProgress, ViewState

NO_RUN = (
    "This client has no run to attack; call unlearn first and, if its answer has a `run`, give that"
    " to attack."
)


def unlearn_endpoint(engine: Engine, model: str) -> Callable[..., Iterator[dict]]:
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
        settings: dict | None = None,
        concept_kind: str = BY_WORDS,
    ) -> Iterator[dict]:
        """Make the picture model forget a concept, attack the forgetting and judge both: progress
        while it works, the record run.json at the end, with a verdict and its reasons. `run` in
        it, where it is there, is what attack needs to find the run again.

        Args:
            concept: What to forget, a thing or a style, such as "cat" or "van gogh style".
            anchor: What prompts that ask for it shall show instead; empty chooses a relative.
            objective: The method that forgets, such as "esd", "uce" or "concept_ablation".
            rule: How the gradients of forgetting and keeping are combined; empty is the usual one.
            seed: The number that makes every random choice; the same one gives the same run.
            preset: How long it works: "fast" takes a minute or two, "full" many minutes.
            prompts: Own prompts, one on a line, in place of the usual ones.
            resist: Whether it also learns to resist being taught the concept again.
            settings: Any others by name, such as {"unlearn.steps": 40}.
            concept_kind: "object", "style" or, by the words of the concept, "auto".
        """
        changes = {"objective": objective, "seed": seed, "prompts": prompts, "resist.on": resist}
        changes["concept_kind"] = concept_kind
        if rule:
            changes["rule"] = rule
        try:
            changes |= _checked_settings(settings)
            config = make_config(concept, preset=preset, anchor=anchor, model=model, **changes)
            preview_concept(config)
            job = engine.submit(config, visitor_of(engine, request), visitor_address(request))
        except UnlearnError as error:
            raise refused(str(error)) from error

        yield from _progress(engine, job, ViewState(config))
        folder = engine.runs.get(job.id, job.visitor)
        named = {"run": call} if (call := own_call(request)) else {}
        yield Run.open(folder).record | named if folder else {"status": "stopped"}

    return unlearn


def _checked_settings(settings: Any) -> dict[str, Any]:
    """Settings by dotted name, without the model and others that have an argument of their own.

    Raises:
        ConfigError: this is no object, or has an unknown name.
    """
    if not isinstance(settings, dict | None):
        raise ConfigError(
            f"The settings are {settings!r:.80}; an object such as {{'unlearn.steps': 40}} is"
            " accepted.",
            "settings",
        )
    for name in settings or ():
        check_known("setting", name, setting_names())
    return settings or {}


def attack_endpoint(engine: Engine) -> Callable[..., Iterator[dict]]:
    """The function behind the endpoint `/attack`."""

    def attack(request: gr.Request, kind: str = "quick", run: str = "") -> Iterator[dict]:
        """Try to get back what this client's last run forgot: progress, then every finding and the
        new verdict.

        Args:
            kind: An attack by name, "quick" for those that take about a minute, or "all".
            run: The `run` in the answer of unlearn; empty where that has none.
        """
        visitor = visitor_of(engine, request, key_of(run) if run else "")
        try:
            kinds, done = kinds_of(kind), engine.runs.of(visitor)
            if not done:
                raise RunGone if run else UnlearnError(NO_RUN)
            asked = AttackRequest(done[-1].folder, done[-1].config, kinds)
            job = engine.submit(asked, visitor, visitor_address(request))
        except UnlearnError as error:
            raise refused(str(error)) from error

        yield from _progress(engine, job, AttackProgress(kinds))
        folder = engine.runs.get(job.id, visitor)
        if folder is None:
            raise refused(str(RunGone()))
        found = read_findings(folder)
        verdict = to_json(judge_again(Run.open(folder), found))
        yield {"findings": [record_of(finding) for finding in found], "verdict": verdict}

    return attack


def _share(job: Job, state: ViewState | AttackProgress) -> float:
    """How much of the job is done, in [0, 1]."""
    if isinstance(state, AttackProgress):
        return state.fraction
    return job.schedule.left().fraction if job.schedule else 0.0


def _progress(engine: Engine, job: Job, state: ViewState | AttackProgress) -> Iterator[dict]:
    """Report the progress of the job until it ends; stop it when the program disconnects."""

    def update(events: list[Event]) -> dict:
        for event in events:
            if isinstance(event, Stage | Step | Finding):  # no pictures: nobody fetches them
                state.apply(event)
        return {
            "status": "running",
            "stage": state.stage.text if state.stage else "waiting",
            "fraction": _share(job, state),
            "ahead": engine.position(job),
        }

    try:
        yield from follow(job, update([]), update)
    finally:
        if not job.over:
            engine.stop(job.visitor)
    if job.error:
        raise refused(job.error)
