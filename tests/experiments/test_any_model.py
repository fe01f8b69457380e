"""The papers' tables on a model that the user brings: read, measured on a tiny random pipeline, and
said of the right model and judge.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from unlearn_app.cli.main import OF_ANY_MODEL, _brought
from unlearn_app.common.errors import ConfigError
from unlearn_app.concepts.catalog import known_concepts, preview_concept
from unlearn_app.concepts.targets import read_captions, read_targets, told
from unlearn_app.evaluation.distances import frechet
from unlearn_app.experiments import cells
from unlearn_app.experiments.cells import Extent, read_cells
from unlearn_app.experiments.lab.measure import Lab
from unlearn_app.experiments.paper1.measure import Paper1
from unlearn_app.experiments.paper2.measure import Paper2
from unlearn_app.experiments.paper3.measure import Paper3
from unlearn_app.settings.run_config import make_config

TARGETS = {
    "cat": {"kind": "object", "near": ["dog", "fox"], "far": ["car", "house"]},
    "dragon": {"kind": "object", "near": ["lizard", "snake"], "far": ["car", "house"]},
}
CAPTIONS = [f"a photo of {thing}" for thing in ("a tree", "a road", "a boat", "a hill")]


class ByColour:
    """A judge of any picture and word, by projections that are drawn once."""

    name, version, others = "by colour", "1", ()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)

    def __call__(self, images: torch.Tensor, prompts) -> torch.Tensor:
        words = torch.stack(
            [torch.randn(12, generator=torch.Generator().manual_seed(len(p))) for p in prompts]
        )
        return (normalize(self.features(images), dim=1) * normalize(words, dim=1)).sum(1)

    def classes(self, axis: str) -> list[str]:
        return ["cat", "a cat", "dog", "car", "dragon", "other"]

    def classify(self, images: torch.Tensor, axis: str) -> torch.Tensor:
        mixed = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
        return (self.features(images) @ mixed).softmax(1)

    def distance(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return (images - others).abs().flatten(1).mean(1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(TARGETS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model


def test_concepts_of_the_model_have_the_relatives_of_the_file(file: Path) -> None:
    targets = read_targets(file, "any/model")
    config = make_config("cat", model="any/model")
    before = preview_concept(config)
    with told(targets):
        concept = preview_concept(config)
        assert preview_concept(make_config("cat")) == preview_concept(make_config("cat"))
        names = [entry.name for entry in known_concepts("any/model")]
    assert preview_concept(config) == before
    assert known_concepts("any/model") == []
    assert {*names} == {"cat", "dragon", "dog", "fox", "lizard", "snake", "car", "house"}
    for split, own in ((concept.near, {"dog", "fox"}), (concept.far, {"car", "house"})):
        train, test = ({p.expects for p in half} for half in (split.train, split.test))
        assert train | test == own
        assert not train & test, "what is tested is not trained on"
        assert all(p.expects in p.text for p in (*split.train, *split.test))
    assert concept.forget == before.forget
    assert concept.relearn == before.relearn


def test_other_models_keep_their_concepts(file: Path) -> None:
    config = make_config("cat")
    before = preview_concept(config)
    with told(read_targets(file, "any/model")):
        assert preview_concept(config) == before


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "names no target"),
        ({"cat": 5}, "has no kind"),
        ({"cat": {"kind": "animal"}}, "has no kind"),
        ({"cat": {"kind": "object", "near": ["dog"], "far": ["a", "b"]}}, "list of 2 or more"),
        ({"cat": {"kind": "object", "near": "dogs", "far": ["a", "b"]}}, "list of 2 or more"),
        ({"cat": {"kind": "object", "near": ["a", "c"], "far": ["a", "b"]}}, "stands twice"),
        ({" ": {"kind": "object", "near": ["a", "c"], "far": ["d", "b"]}}, "target is empty"),
    ],
)
def test_targets_that_say_too_little_are_refused(tmp_path: Path, values, sentence: str) -> None:
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=sentence):
        read_targets(path, "any/model")


def test_a_target_that_is_read_as_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    entry = {"kind": "style", "near": ["a", "c"], "far": ["d", "b"]}
    path.write_text(json.dumps({"cat": entry}), encoding="utf-8")
    refused = pytest.raises(ConfigError, match="of kind style in the file")
    with told(read_targets(path, "any/model")), refused:
        preview_concept(make_config("cat", model="any/model"))


def test_captions_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("a tree\n\n a  road \na tree\na boat\n", encoding="utf-8")
    assert read_captions(path) == ("a tree", "a road", "a boat")
    path.write_text("a tree\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds 1 captions; 3 or more"):
        read_captions(path)
    with pytest.raises(ConfigError, match="cannot be read as captions"):
        read_captions(tmp_path / "none.txt")


def test_what_belongs_together_is_asked_for_together(file: Path) -> None:
    with pytest.raises(ConfigError, match="--model is accepted with --targets FILE only"):
        _brought("paper1", "any/model", None, None, None, False)
    with pytest.raises(ConfigError, match="not accepted with speed; bench paper1, paper2"):
        _brought("speed", "any/model", None, file, None, False)
    with pytest.raises(ConfigError, match="without --ray"):
        _brought("lab", "any/model", None, file, None, True)
    with pytest.raises(ConfigError, match="--captions is accepted with paper1 only"):
        _brought("lab", "any/model", None, file, file, False)
    assert _brought("lab", "pocket", None, None, None, False) == {"bundled": "pocket"}
    for name in ("lab", "paper1", "paper2", "paper3"):
        own = _brought(name, "pocket-flow", None, None, None, False)
        assert own == {"bundled": "pocket-flow"}
    with pytest.raises(ConfigError, match="take the bundled models"):
        _brought("judge", "pocket-flow", None, None, None, False)
    own = _brought("lab", "any/model", "clip", file, None, False)
    assert own["targets"].model == "any/model"


EXPERIMENTS = {"paper1": Paper1, "paper2": Paper2, "paper3": Paper3, "lab": Lab}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_smoke_of_each_table_names_model_judge_and_targets(
    model, file: Path, tmp_path: Path, name: str
) -> None:
    assert {*EXPERIMENTS} == {*OF_ANY_MODEL}
    captions = tuple(CAPTIONS) if name == "paper1" else ()
    targets = read_targets(file, model.name)
    extent = Extent(tmp_path / "out", 1, True, targets=targets, captions=captions)
    experiment = EXPERIMENTS[name](extent, model, ByColour())
    *lines, report = cells.bench(experiment)
    assert lines
    title, _, rest = report.partition("\n")
    assert "PocketCanvas" not in title
    assert f"on the model pipeline (weights {model.base_hash[:12]}), judged by by colour 1" in rest
    assert "targets.json" in rest
    stored = read_cells(experiment.folder)
    assert experiment.folder.name == f"{name}-pipeline-smoke"
    assert len(stored) == len(lines)
    assert all(config["brought"]["targets"] == "targets.json" for config, _ in stored.values())
    if captions:
        assert "## Captions of the user" in report
        measured = [values for config, values in stored.values() if "target" in config]
        assert all(0 <= values["captions"]["frechet"] < 10 for values in measured)
    again = EXPERIMENTS[name](extent, model, ByColour())
    with told(targets):
        assert all(not again.lacks(cell, cells.stored(again, cell)[0]) for cell in again.cells())
        other = ByColour()
        other.version = "2"
        judged_anew = EXPERIMENTS[name](extent, model, other)
        assert all(cells.stored(judged_anew, cell)[0] == {} for cell in judged_anew.cells())


def test_a_frechet_distance_of_normal_clouds_is_the_known_one() -> None:
    """|mu - nu|^2 + sum (s_i - t_i)^2 for independent coordinates with deviations s and t."""
    source = torch.Generator().manual_seed(0)
    cloud = torch.randn(4000, 3, generator=source, dtype=torch.float64)
    cloud = cloud - cloud.mean(0)
    values, vectors = torch.linalg.eigh(cloud.T.cov())
    white = cloud @ vectors / values.sqrt()
    s, t = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 1.0, 0.5]).double()
    shift = torch.tensor([1.0, 0.0, -2.0]).double()
    found = frechet(white * s, white * t + shift)
    assert found == pytest.approx(5.0 + 4.0 + 1.0, rel=1e-9)
    assert frechet(white, white) == pytest.approx(0.0, abs=1e-9)
    turned = torch.linalg.qr(torch.randn(3, 3, generator=source, dtype=torch.float64))[0]
    assert frechet(white * s @ turned, (white * t + shift) @ turned) == pytest.approx(10, rel=1e-9)


def test_a_frechet_distance_needs_two_pictures_a_side() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures"):
        frechet(torch.ones(1, 3), torch.ones(4, 3))
