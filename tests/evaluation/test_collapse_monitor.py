"""A run that destroys the model is stopped, and one that does not is left alone."""

import pytest
from small_runs import TINY

from unlearn_app.evaluation.collapse_monitor import CollapseMonitor
from unlearn_app.runs.folder import Run
from unlearn_app.runs.workflow import run
from unlearn_app.settings.events import Done, Preview, Stage, Step
from unlearn_app.settings.run_config import make_config

SOON = TINY | {"unlearn.steps": 8, "compare.sampling_steps": 8, "compare.near": 6, "compare.far": 6}
DESTROYING = {
    "unlearn.lr": 0.1,
    "unlearn.retain_weight": 1e-3,
    "rule": "weighted_sum",
    "objective": "gradient_ascent",
}


def test_an_edit_that_destroys_the_model_is_not_hardened(pocket, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(CollapseMonitor, "collapsed", lambda monitor, step: True)
    config = make_config("cat", objective="uce", **(TINY | {"resist.on": True, "resist.steps": 1}))
    events = list(run(config, tmp_path / "run", model=pocket))
    stages = [event.name for event in events if isinstance(event, Stage)]
    assert "retain" not in stages
    assert "attack" not in stages
    assert stages[-1] == "write"
    assert {e.total for e in events if isinstance(e, Step)} == {1}
    assert set(Run.open(tmp_path / "run").scores) == {
        "original",
        "unlearned",
    }


@pytest.mark.parametrize("changes", [DESTROYING, {}], ids=["destroying", "mild"])
def test_training_ends_where_the_model_is_being_destroyed(pocket, tmp_path, changes) -> None:
    config = make_config("cat", **(SOON | changes))
    events = list(run(config, tmp_path / "run", model=pocket))
    stored, trained = (
        Run.open(tmp_path / "run"),
        [e for e in events if isinstance(e, Step) and e.stage == "unlearn"],
    )
    said = [
        e.text for e in events if isinstance(e, Stage) and "loses what it should keep" in e.text
    ]
    attacked = any(isinstance(e, Step) and e.stage == "attack" for e in events)
    if not changes:
        assert not said
        assert len(trained) == 8
        assert attacked
        assert set(stored.scores) >= {"relearned"}
        return
    assert len(said) == 1
    assert f"at step {trained[-1].step}:" in said[0]
    assert len(trained) < 8
    assert not attacked
    assert set(stored.scores) == {"original", "unlearned"}
    assert stored.verdict.label == "damaged"
    assert stored.status == "complete"
    assert isinstance(events[-1], Done)
    assert sum(isinstance(e, Preview) for e in events) == 2
    assert (stored.folder / "comparison.png").is_file()
    assert (stored.folder / "unlearn.safetensors").is_file()
