"""Settings on the page: what is filled in, and what a visitor's own number is."""

from operator import attrgetter

import gradio as gr
import pytest

from unlearn_app.settings.run_config import make_config, setting_names
from unlearn_app.web.options import BASIC, BY_KIND, Options, elem_id_of, kind_choice, plain

THING, STYLE = (list(attrgetter(*BY_KIND)(make_config(name))) for name in ("cat", "van gogh"))
SKIPPED = gr.skip()


@pytest.fixture(scope="module")
def options() -> Options:
    with gr.Blocks():
        return Options(kind_choice())


def followed(options: Options, concept: object, filled: object, *values: object) -> list:
    return options.follow_kind(concept, filled, "fast", "esd", *values)


def test_fields_take_what_another_kind_needs(options: Options) -> None:
    assert followed(options, "van gogh", THING, *THING) == [STYLE, *STYLE]


def test_a_visitors_own_number_stays_and_is_not_taken_for_a_filled_in_one(options: Options) -> None:
    own, *others = STYLE
    filled, steps, *_ = followed(options, "van gogh", THING, own, *others)
    assert (filled[0], steps) == (THING[0], SKIPPED)
    filled, steps, *_ = followed(options, "cat", filled, own, *others)
    assert steps == SKIPPED


@pytest.mark.parametrize("concept", [None, "", "zebra", "v" * 10_000, 5])
def test_half_a_word_or_nonsense_changes_nothing(options: Options, concept: object) -> None:
    assert followed(options, concept, THING, *THING) == [SKIPPED] * (1 + len(BY_KIND))


@pytest.mark.parametrize("filled", [None, "x", [], {}])
def test_nonsense_of_a_program_changes_nothing(options: Options, filled: object) -> None:
    assert followed(options, "van gogh", filled, *THING) == [SKIPPED] * (1 + len(BY_KIND))


@pytest.mark.parametrize("concept", [None, "cat\u200b", "zebra", "x" * 400, "van gogh"])
@pytest.mark.parametrize("preset", ["fast", "full"])
def test_a_preset_fills_in_whatever_stands_in_the_box(options, concept, preset: str) -> None:
    filled, *values = options.defaults(concept, preset, "esd")
    wanted = make_config("van gogh" if concept == "van gogh" else "cat", preset=preset)
    steps = dict(zip(options.suggested, values, strict=True))["unlearn.steps"]
    assert filled[BY_KIND.index("unlearn.steps")] == steps == wanted.unlearn.steps


def test_every_setting_has_a_name_and_an_id_of_its_own(options: Options) -> None:
    labels = [component.label for component in options.components.values()]
    assert len(set(labels)) == len(labels)
    assert {c.elem_id: n for n, c in options.components.items()} == {
        elem_id_of(name): name for name in options.components
    }
    assert set(BASIC) <= set(options.components)


def test_no_setting_is_left_out(options: Options) -> None:
    asked = {
        "concept_kind",
        "objective",
        "rule",
        "preset",
        "anchor",
        "seed",
        "prompts",
        *setting_names(),
    }
    assert set(options.components) == asked


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "unlearn.steps is 0; 1 to 5000 is accepted.",
            "“Forgetting steps” is 0; 1 to 5000 is accepted.",
        ),
        ("esd.eta is 99; 0.0 to 10.0 is accepted.", "“Eta (esd)” is 99; 0.0 to 10.0 is accepted."),
        ("The anchor 'cat' is the concept itself.", "The anchor 'cat' is the concept itself."),
    ],
)
def test_messages_name_fields_as_they_are_labelled(message: str, said: str) -> None:
    assert plain(message) == said
