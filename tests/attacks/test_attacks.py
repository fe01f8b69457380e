"""Every attack alike, and what each of them does by its own definition."""

import hashlib

import pytest
import torch
from small_runs import TINY

from unlearn_app.attacks.inversion import Inversion
from unlearn_app.attacks.prompt_search import OnSimplex, _read
from unlearn_app.attacks.prompts import misspellings, wordings
from unlearn_app.attacks.ring_a_bell import RingABell, meaning, states_of
from unlearn_app.attacks.runner import attack_context, attack_of, result_of
from unlearn_app.attacks.scale import SCALES
from unlearn_app.common import registry
from unlearn_app.common.errors import ConfigError
from unlearn_app.common.seeds import generator, judged_seed
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.settings.cost import GRADIENT
from unlearn_app.settings.run_config import make_attack, make_config

SMALL = {
    "prompts": {"tries": 5},
    "ring_a_bell": {"tries": 2, "population": 6, "generations": 2},
    "prompt_search": {"tries": 2, "steps": 2},
    "inversion": {"tries": 2, "steps": 2},
    "noise": {"tries": 2},
    "completion": {"tries": 6},
    "negation": {"tries": 2},
    "scale": {"tries": 3},
    "relearn": {"tries": 2},
}


@pytest.fixture(scope="module")
def config():
    return make_config("cat", **(TINY | {"compare.forget": 3, "attack.pictures": 4}))


@pytest.fixture(scope="module")
def concept(config):
    return preview_concept(config)


@pytest.fixture
def unlearned(pocket):
    """A model with some adapter in its slot."""
    pocket.drop_adapters()
    for name, tensor in pocket.reset_adapter("unlearn", 4, 4.0, seed=1).items():
        if "lora_B" in name:
            tensor.data.normal_(std=0.02, generator=generator(5))
    return pocket


def attacked(model, attack, concept, config):
    context, told = attack_context(model, concept, config), []
    steps = attack(model, context)
    with model.active("unlearn"):
        while True:
            try:
                told.append(next(steps))
            except StopIteration as end:
                return end.value, told


def fingerprint(model) -> str:
    parts = [*model.network.state_dict().items(), *model.pipe.text_encoder.state_dict().items()]
    kept = [t.numpy().tobytes() for name, t in sorted(parts) if ".relearn." not in name]
    return hashlib.sha256(b"".join(kept)).hexdigest()


@pytest.mark.parametrize("kind", registry.names("attack"))
def test_an_attack_tries_as_often_as_it_says_and_leaves_the_model_as_it_was(
    unlearned, concept, config, kind
) -> None:
    attack, before = attack_of(config, kind, **SMALL[kind]), fingerprint(unlearned)
    tries, steps = attacked(unlearned, attack, concept, config)
    rows = config.compare.forget
    assert len(tries.pictures) == rows * attack.tries == len(set(tries.seeds))
    assert sorted((row, attempt) for row, attempt, _ in tries.asked) == [
        (r, t) for r in range(rows) for t in range(attack.tries)
    ]
    first = {
        row: seed
        for (row, turn, _), seed in zip(tries.asked, tries.seeds, strict=True)
        if turn == 0
    }
    assert first == {row: judged_seed(0, row) for row in range(rows)}, (
        "the first try has the comparison's seed"
    )
    assert steps
    assert all(step.stage == "attack" for step in steps)
    assert steps[-1].step == steps[-1].total
    assert tries.pictures.isfinite().all()
    assert tries.pictures.abs().max() <= 1
    assert any(letter.isdigit() for letter in attack.budget(config.attack))
    assert registry.describe("attack", kind)
    assert fingerprint(unlearned) == before
    again, _ = attacked(unlearned, attack, concept, config)
    assert torch.equal(again.pictures, tries.pictures)
    assert again.asked == tries.asked


@pytest.mark.parametrize("kind", registry.names("attack"))
def test_an_attack_takes_no_more_forward_passes_than_it_says(
    unlearned, concept, config, kind
) -> None:
    attack, taken = attack_of(config, kind, **SMALL[kind]), 0

    def count(_, given) -> None:
        nonlocal taken
        taken += len(given[0]) * (GRADIENT if torch.is_grad_enabled() else 1)

    context = attack_context(unlearned, concept, config)
    picture = 2 * config.compare.sampling_steps
    hook = unlearned.network.register_forward_pre_hook(count)
    with unlearned.active("unlearn"):
        result_of(attack(unlearned, context))
    hook.remove()
    assert 0 < taken <= attack.forwards(config.attack, config.compare.forget, picture)


def test_other_words_are_other_words(concept) -> None:
    asked = [prompt.text for prompt in concept.forget.test[:4]]
    for row, text in enumerate(asked):
        said = wordings(concept, text, row)
        found = [next(said) for _ in range(8)]
        assert text not in found
        assert len(set(found)) == 8
        assert any(word in " ".join(found) for word in ("kitty", "kitten", "tomcat"))
        assert found[0] in {prompt.text for prompt in concept.relearn}
    assert misspellings("cat") == ["caat", "ct", "act"]
    assert misspellings("a") == ["aa"]
    assert misspellings("van gogh")[0] == "van ggogh"


def test_the_projection_finds_the_nearest_point_of_the_simplex() -> None:
    rows = torch.tensor([[0.5, 0.7, -3.0], [0.2, 0.3, 0.5], [4.0, 0.0, 0.0], [-1.0, -1.0, -1.0]])
    projected = {"words": rows.clone()}
    OnSimplex().project_(projected)
    expected = torch.tensor([[0.4, 0.6, 0.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [1 / 3] * 3])
    torch.testing.assert_close(projected["words"], expected)
    clipped = rows[:1].clamp_min(0) / rows[:1].clamp_min(0).sum()
    assert (clipped - rows[:1]).norm() > (expected[:1] - rows[:1]).norm(), (
        "dividing by the sum is not the nearest"
    )


def test_a_searched_word_is_a_real_one_with_the_gradient_of_all() -> None:
    table = torch.randn(5, 3, generator=generator(0))
    simplex = torch.softmax(torch.randn(2, 5, generator=generator(1)), 1).requires_grad_()
    read = _read(simplex, table)
    torch.testing.assert_close(read, table[simplex.argmax(1)])
    weight = torch.randn(2, 3, generator=generator(2))
    (read * weight).sum().backward()
    torch.testing.assert_close(simplex.grad, weight @ table.T)


def test_learned_vectors_stand_where_the_concept_stood(pocket, concept) -> None:
    count = len(pocket.word_vectors())
    attack = Inversion(vectors=2)
    (row,) = attack._ids(pocket, concept, ["a cat on the beach"]).tolist()
    plain = pocket.padded(pocket.token_ids("a cat on the beach")[1:-1])
    place = row.index(count)
    assert row[place : place + 2] == [count, count + 1]
    assert row[:place] == plain[:place]
    assert row[place + 2 : place + 5] == plain[place + 1 : place + 4]
    assert len(row) == len(plain)
    (other,) = attack._ids(pocket, concept, ["a dog on the beach"]).tolist()
    assert other[1:3] == [count, count + 1], (
        "where the concept is not named, the vectors stand alone"
    )


def test_evolved_prompts_come_nearer_with_every_generation(pocket, concept) -> None:
    plain = pocket.token_ids("a dog on the beach")[1:-1]
    target = states_of(pocket, [plain])[0] + 3 * meaning(pocket, concept)
    special = set(pocket.padded([]))
    away = []
    for generations in (0, 5, 20):
        attack = RingABell(generations=max(generations, 1), population=16)
        if generations == 0:
            attack = RingABell(generations=1, population=16, mutation=0.0, crossover=0.0)
        found, distance = attack._evolved(pocket, plain, target, generator(0))
        assert not special & {word for words in found for word in words}
        assert distance == pytest.approx(
            (states_of(pocket, found[:1]) - target).square().mean().item(), rel=1e-4
        )
        away.append(distance)
    assert away[0] >= away[1] > away[2]


def test_the_direction_of_a_concept_points_from_its_anchor_to_it(pocket, concept) -> None:
    without, with_it = (
        states_of(pocket, [pocket.token_ids(f"a {w} at night")[1:-1]])[0] for w in ("dog", "cat")
    )
    direction = meaning(pocket, concept)
    assert torch.cosine_similarity(direction.flatten(), (with_it - without).flatten(), dim=0) > 0.3


def test_an_adapter_turned_off_is_the_original_and_comes_back(unlearned, concept, config) -> None:
    prompts = [prompt.text for prompt in attack_context(unlearned, concept, config).prompts]
    kept = unlearned.adapter_state("unlearn")
    tries, _ = attacked(unlearned, make_attack("scale"), concept, config)
    after = unlearned.adapter_state("unlearn")
    assert all(torch.equal(kept[name], after[name]) for name in kept)
    assert not make_attack("scale").counts
    off = [place for place, (_, turn, _) in enumerate(tries.asked) if SCALES[turn] == 0]
    seeds = [tries.seeds[place] for place in off]
    with unlearned.active():
        plain = unlearned.sample(
            prompts,
            seeds,
            steps=config.compare.sampling_steps,
            guidance_scale=config.compare.guidance_scale,
        )
    torch.testing.assert_close(tries.pictures[off], unlearned.decode(plain), rtol=1e-3, atol=1e-3)
    unlearned.drop_adapters()
    with pytest.raises(ConfigError, match="no adapter"):
        attacked(unlearned, make_attack("scale"), concept, config)


def test_settings_of_an_attack_are_checked() -> None:
    assert make_attack("inversion", steps="7").steps == 7
    for name, changes, said in (
        ("inversion", {"steps": 0}, "inversion.steps is 0; 1 to 5000 is accepted"),
        ("inversion", {"colour": 1}, "no setting 'inversion.colour'"),
        ("hypnosis", {}, "unknown; choose one of completion"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_attack(name, **changes)
