"""The page's one public endpoint: a run from Python or any other client, through the same engine."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from ..config import make_config
from ..engine import Engine
from ..errors import UnlearnError
from ..runs import Run
from .view import View

POLL = 0.5


def endpoint(engine: Engine, core: Any, model: str) -> Callable[..., Iterator[dict]]:
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
        """Forget a concept, attack the forgetting and judge both: progress while it works, run.json at the end."""
        try:
            asked = {"anchor": anchor, "objective": objective, "seed": seed, "prompts": prompts, "model": model}
            asked["resist.on"] = resist
            config = make_config(concept, preset=preset, **(asked | ({"rule": rule} if rule else {})))
            core.preview_concept(config)
            job = engine.submit(config, request.session_hash or "")
        except UnlearnError as error:
            raise gr.Error(str(error), print_exception=False) from error
        view = View(config)
        try:
            while not job.over:
                for event in job.take(POLL):
                    view.apply(event)
                text = view.stage.text if view.stage else "waiting"
                yield {"status": "running", "stage": text, "fraction": view.fraction, "ahead": engine.position(job)}
            if job.error:
                raise gr.Error(job.error, print_exception=False)
            folder = engine.runs.get(job.id, job.session)
            yield Run.open(folder).record if folder else {"status": "stopped"}
        finally:
            job.cancel.set()

    return unlearn
