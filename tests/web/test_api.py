"""What programs may ask of the endpoints beyond what the page offers."""

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from unlearn_app.common.errors import UnlearnError
from unlearn_app.settings.run_config import RunConfig
from unlearn_app.web.api import unlearn_endpoint


class Asked(UnlearnError):
    """Raised in place of queueing, with the settings that were asked for."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__("asked")
        self.config = config


def ask(settings: Any) -> None:
    """Call the endpoint of runs as a program does."""

    def submit(config: RunConfig, *_: Any) -> None:
        raise Asked(config)

    engine = SimpleNamespace(submit=submit, visitor=lambda session, key: session)
    request = SimpleNamespace(session_hash="program", headers={})
    next(unlearn_endpoint(engine, "pocket")(request, "cat", settings=settings))


def test_any_setting_is_taken_by_its_name() -> None:
    with pytest.raises(gr.Error) as caught:
        ask({"unlearn.steps": 7, "compare.forget": "2"})
    config = caught.value.__cause__.config
    assert (config.unlearn.steps, config.compare.forget) == (7, 2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": "/etc"}, "'model' is unknown"),
        ({"unlearn.steps": None}, "unlearn.steps is None"),
        (["unlearn.steps"], "an object such as"),
        (7, "an object such as"),
    ],
)
def test_other_settings_are_refused_in_a_sentence(settings: Any, sentence: str) -> None:
    with pytest.raises(gr.Error, match=sentence):
        ask(settings)
