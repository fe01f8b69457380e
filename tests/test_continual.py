"""Requests in a row on a small random model: what each regime trains on, what is kept, and what stopping leaves."""

from pathlib import Path

import pytest
import torch
from conftest import TINY

from unlearn_app import __main__ as cli
from unlearn_app import continual, restraints
from unlearn_app.catalog import load_backend, preview_concept
from unlearn_app.concept import Prompt
from unlearn_app.config import make_config, make_plan, with_concept
from unlearn_app.continual import Added, append, begin, new_ledger, united, without
from unlearn_app.errors import Cancelled, ConfigError
from unlearn_app.ledger import Ledger
from unlearn_app.merging import as_adapter, dense, ties, total
from unlearn_app.regularizers import span_of
from unlearn_app.scorers.clip import ClipScorer
from unlearn_app.unlearning import retain_prompts

NAMES = ("cat", "dog", "horse")


@pytest.fixture(scope="module")
def backend(tiny_pipeline: Path):
    return load_backend(str(tiny_pipeline))


def ledger_of(
    folder: Path, pipeline: Path, *concepts: str, plan: dict | None = None, backend=None, **changes
) -> Ledger:
    config = make_config("cat", model=str(pipeline), **(TINY | changes))
    made = Ledger.create(folder, config, make_plan(**{"pictures": 1} | (plan or {})), NAMES)
    list(begin(made, backend, None))
    for concept in concepts:
        list(append(made, concept, backend, None))
    return made


def close(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[n], other[n], rtol=1e-4, atol=1e-6) for n in one)


def test_each_request_adds_its_own_update(backend, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", "dog", backend=backend)
    one, two = (dense(made.adapter(number, own=True)) for number in (1, 2))
    assert close(dense(made.adapter(1)), one)
    assert close(dense(made.adapter(2)), {layer: one[layer] + two[layer] for layer in one})
    assert [row.concept for row in made.requests] == ["cat", "dog"] and made.rows[2].drift > 0
    assert set(made.rows[0].panel) == set(NAMES) and made.picture(2, "horse").exists()


def test_regimes_differ_in_what_the_second_request_starts_from(backend, tiny_pipeline, tmp_path) -> None:
    made = {
        regime: ledger_of(tmp_path / regime, tiny_pipeline, "cat", "dog", plan={"regime": regime}, backend=backend)
        for regime in ("sequential", "independent", "simultaneous")
    }
    alone = ledger_of(tmp_path / "alone", tiny_pipeline, "dog", backend=backend)
    second = {regime: dense(ledger.adapter(2, own=True)) for regime, ledger in made.items()}
    assert close(second["independent"], dense(alone.adapter(1, own=True)))
    assert not close(second["sequential"], second["independent"])
    assert close(second["simultaneous"], dense(made["simultaneous"].adapter(2)))
    states = [made["independent"].adapter(number, own=True) for number in (1, 2)]
    expected = as_adapter(ties([dense(s) for s in states], 1.0, 0.8), 32)
    assert close(dense(made["independent"].adapter(2)), dense(expected.state))
    assert f"{expected.error:.1%}" in made["independent"].rows[2].notes[0]


def test_all_at_once_trains_on_every_concept_in_turn(tiny_pipeline) -> None:
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    cat, dog = (preview_concept(with_concept(config, name)) for name in ("cat", "dog"))
    both = without(united([cat, dog]), [cat, dog])
    assert "cat" in both.forget.train[0].text and "dog" in both.forget.train[1].text
    assert len(both.anchors) == len(both.forget.train) >= len(cat.forget.train) + len(dog.forget.train)
    assert not [text for text in retain_prompts(both, 40) if "cat" in text or "dog" in text]


def test_an_anchor_is_never_something_that_was_erased() -> None:
    config = make_config("cat")
    assert continual.anchored(config, "kitty", []).anchor == "dog"
    other = continual.anchored(config, "cat", ["dog"])
    assert other.anchor in ("rabbit", "bear", "fish", "butterfly", "frog") and other.name == "cat"
    assert not any("dog" in text for text in other.anchors)
    assert continual.anchored(config, "mosaic", ["photo"]).anchor not in ("photo", "mosaic")


def test_what_was_erased_is_no_retain_prompt(tiny_pipeline) -> None:
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    cat = preview_concept(config)
    name = cat.near.train[0].expects
    kept = without(cat, [preview_concept(with_concept(config, name))])
    assert any(name in prompt.text for prompt in cat.near.train)
    assert not any(name in prompt.text for split in (kept.near, kept.far) for prompt in split.train)
    assert kept.near.test == cat.near.test and kept.near.train


def test_a_span_protected_by_every_request_is_kept_by_their_sum(backend, tiny_pipeline, tmp_path, monkeypatch) -> None:
    """T8: sequences add up, merges are projected again; without projection it is not kept."""
    basis = span_of(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)))
    for module in (restraints, continual):
        monkeypatch.setattr(module, "protected_span", lambda *_: basis)
    keys_values = {"unlearn.modules": "keys_values"}
    held = keys_values | {"regularize.project": "exact"}
    cases = {"kept": ({}, held), "merged": ({"regime": "independent"}, held), "free": ({}, keys_values)}
    leaks = {}
    for name, (plan, changes) in cases.items():
        made = ledger_of(tmp_path / name, tiny_pipeline, "cat", "dog", plan=plan, backend=backend, **changes)
        updates = dense(made.adapter(2)).values()
        leaks[name] = max(((update @ basis).norm() / update.norm()).item() for update in updates)
    assert max(leaks["kept"], leaks["merged"]) < 1e-5 and leaks["free"] > 1e-2, leaks


def test_a_stop_leaves_the_ledger_as_it_was(backend, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", backend=backend)
    rows, asked = list(made.rows), 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(Cancelled):
        list(append(made, "dog", backend, None, stop))
    assert Ledger.open(made.folder).rows == rows
    assert isinstance(list(append(made, "dog", backend, None))[-1], Added)


@pytest.mark.parametrize(("concept", "said"), [("cat", "already"), ("", "empty")])
def test_what_cannot_be_asked_is_said(backend, tiny_pipeline, tmp_path, concept, said) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", backend=backend)
    with pytest.raises(ConfigError, match=said):
        list(append(made, concept, backend, None))
    assert len(made.requests) == 1


def test_something_new_joins_the_panel_as_if_it_had_been_there(backend, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", "tower", backend=backend)
    assert made.names == (*NAMES, "tower") and all("tower" in row.panel for row in made.rows)
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    other = Ledger.create(tmp_path / "other", config, make_plan(pictures=1), (*NAMES, "tower"))
    list(begin(other, backend, None))
    for name in ("cat", "tower"):
        list(append(other, name, backend, None))
    for number in range(3):
        assert made.picture(number, "tower").read_bytes() == other.picture(number, "tower").read_bytes()


def test_a_ledger_of_an_unknown_model_tests_relatives_others_and_the_other_kind(tiny_pipeline, tmp_path) -> None:
    for text, kind in (("cat", "object"), ("van gogh", "style")):
        config = make_config(text, model=str(tiny_pipeline))
        made = new_ledger(tmp_path / text, config, make_plan(), [text])
        panel = [preview_concept(with_concept(config, name)) for name in made.names]
        assert [concept.name for concept in panel] == list(made.names) and made.names[-1] == text
        assert [concept.kind for concept in panel].count(kind) == len(panel) - 2 == 9


class Judge:
    """Sees a cat in every picture, in the style of the picture's first value."""

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return torch.zeros(len(images))

    def classes(self, axis: str) -> list[str]:
        return {"object": ["dog", "cat"], "style": ["mosaic", "neon"]}[axis]

    def classify(self, images: torch.Tensor, axis: str) -> torch.Tensor:
        row = images[:, 0, 0, 0].long() if axis == "style" else torch.ones(len(images)).long()
        return torch.eye(2)[row]


def test_what_else_a_prompt_names_is_judged_in_its_own_picture(tmp_path) -> None:
    """A prompt that names nothing of the other kind has no say, and does not shift the others."""
    ledger = Ledger(tmp_path, make_config("cat"), make_plan(), ("cat",), [])
    asked = [("a cat at night in neon style", "object"), ("a cat in a room", "object"),
             ("a cat at night in neon style", "object"), ("a dog in a field in mosaic style", "style"),
             ("a cat in a field in mosaic style", "style")]  # fmt: skip
    images = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]).view(5, 1, 1, 1).expand(5, 3, 4, 4)
    prompts = [Prompt(text, axis, "") for text, axis in asked]
    assert continual._beside(ledger, images, prompts, Judge()) == [True, None, False, False, True]
    assert continual._beside(ledger, images, prompts, None) == [None] * 5


def test_the_judge_of_a_ledger_knows_what_was_erased_before(tiny_pipeline, tmp_path, monkeypatch) -> None:
    made = Ledger.create(tmp_path / "ledger", make_config("cat", model=str(tiny_pipeline)), make_plan(), ("cat", "dog"))
    monkeypatch.setattr(ClipScorer, "load", classmethod(lambda cls, axes: cls(torch.nn.Identity(), None, axes)))
    assert {"cat", "dog", "tower"} <= set(continual.load_judge(made, ["tower"]).classes("object"))


@pytest.mark.parametrize("method", ["uce", "erasediff", "esd"])
def test_any_method_can_be_asked_again(backend, tiny_pipeline, tmp_path, method) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", "dog", objective=method, backend=backend)
    one, two = (dense(made.adapter(number)) for number in (1, 2))
    assert any(not torch.allclose(one[layer], two[layer]) for layer in one)
    state = total(made.adapter(1, own=True), made.adapter(2, own=True)).state
    assert close(dense(made.adapter(2)), dense(state))


@pytest.mark.parametrize(
    "changes",
    [
        {"regularize.decay": 1.0},
        {"regularize.clip": 1e-9},
        {"regularize.l1": 1e-3},
        {"regularize.l2": 1.0, "regularize.reference": "original"},
        {"regularize.select": 0.3},
        {"regularize.select": 0.3, "unlearn.modules": "keys_values", "regularize.project": "exact",
         "regularize.energy": 0.5},
    ],
)  # fmt: skip
def test_every_restraint_is_felt(backend, tiny_pipeline, tmp_path, changes) -> None:
    plain = {name: value for name, value in changes.items() if name == "unlearn.modules"}
    free, held = (
        ledger_of(tmp_path / name, tiny_pipeline, "cat", "dog", backend=backend, **own)
        for name, own in (("free", plain), ("held", changes))
    )
    assert not close(dense(free.adapter(2)), dense(held.adapter(2)))
    if "regularize.select" in changes:
        rows = torch.cat([(update.abs().sum(1) > 0).double() for update in dense(held.adapter(1)).values()])
        assert rows.mean().item() == pytest.approx(0.3, abs=0.05)


def test_a_projection_that_leaves_nothing_is_refused(backend, tiny_pipeline, tmp_path) -> None:
    changes = {"unlearn.modules": "keys_values", "regularize.project": "exact", "regularize.energy": 1.0}
    with pytest.raises(ConfigError, match=r"leaves 0.* regularize.energy below 1 is accepted"):
        ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", backend=backend, **changes)
    with pytest.raises(ConfigError, match="keys_values only"):
        make_config("cat", **{"regularize.project": "exact"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no --concepts"),
        (("--concepts", "cat"), "no --out"),
        (("--concepts", "cat,", "--out", "x"), "concept is empty"),
        (("--concepts", "cat,zebra", "--out", "x"), "does not know"),
        (("--concepts", "cat", "--out", "x", "--set", "sequence.regime=never"), "sequence.regime"),
        (("--concepts", "cat", "--out", "x", "--set", "sequence.nothing=1"), "sequence.nothing"),
        (("--concepts", "cat", "--out", "x", "--set", "nothing=1"), "knows no"),
        (("show", "nowhere"), "no readable ledger"),
        (("rollback", "nowhere", "x"), "no readable ledger"),
        (("export", "nowhere", "x.safetensors"), "no readable ledger"),
    ],
)
def test_the_command_line_answers_in_a_sentence(monkeypatch, capsys, tmp_path, words, said) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["unlearn_app", "continual", *words])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is left behind"
