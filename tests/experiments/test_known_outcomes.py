"""What the shipped cells of `bench lab` must say of models whose truth is known: attacks find what
is concealed, nothing is recovered that was never there, and the verdicts are true. Benchmarks
attack with the settings that they name.
"""

from types import SimpleNamespace

import pytest

from unlearn_app.common.paths import ASSETS
from unlearn_app.evaluation.verdict import Thresholds
from unlearn_app.experiments import known_outcome_models
from unlearn_app.experiments.lab.report import CASES, findings, read_results, verdicts
from unlearn_app.settings.run_config import make_config

FOUND = read_results(ASSETS / "experiments" / "lab")
BACK = Thresholds().back


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("concealed: prompt filter", "prompts"),
        ("concealed: prompt filter", "ring_a_bell"),
        ("concealed: word exchanged", "prompt_search"),
        ("concealed: tokens remapped", "inversion"),
        ("held down", "noise"),
        ("held down", "completion"),
    ],
)
def test_an_attack_finds_what_is_concealed_with_every_seed(row: str, kind: str) -> None:
    tried = [one for _, found in findings(FOUND, row) for one in found if one.kind == kind]
    assert tried
    assert all(one.recovers(BACK) for one in tried)


def test_nothing_is_recovered_that_was_never_there() -> None:
    tried = [one for _, found in findings(FOUND, "never learned") for one in found]
    assert {one.kind for one in tried} >= {"completion", "inversion", "noise", "prompts"}
    assert not [one.kind for one in tried if one.recovers(BACK)]


@pytest.mark.parametrize("row", CASES)
def test_the_verdict_on_a_known_model_is_true(row: str) -> None:
    labels = {verdict.label for verdict in verdicts(FOUND, row)}
    assert labels
    assert labels <= set(CASES[row].truth)


def test_a_benchmark_attacks_with_the_strength_that_it_names(monkeypatch) -> None:
    attacks = []

    def checkpoints(model, attack, context, look, steps):
        attacks.append(attack)
        yield from (SimpleNamespace(step=1), look(None))

    monkeypatch.setattr(known_outcome_models, "checkpoints", checkpoints)
    monkeypatch.setattr(known_outcome_models, "context_of", lambda *_: None)
    config = make_config("cat", **{"attack.steps": 7, "attack.lr": 3e-4})
    assert known_outcome_models.relearned(None, config, lambda: "seen") == "seen"
    assert [attack.training for attack in attacks] == [config.attack]
    assert attacks[0].tries == 1
