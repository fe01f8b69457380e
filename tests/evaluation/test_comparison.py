"""Pictures of a comparison: which are generated on the way of an attack, and from what seeds."""

from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.evaluation.comparison import checkpoint_prompts, comparison_prompts
from unlearn_app.settings.run_config import make_config


def test_what_is_generated_on_the_way_has_the_seeds_of_the_columns() -> None:
    """Counted anew, the one picture of the rest would get the seed of another prompt."""
    config = make_config("cat", **{"compare.forget": 4, "compare.near": 3, "compare.far": 2})
    every = comparison_prompts(preview_concept(config), config.compare, seed=5)
    some = checkpoint_prompts(every)
    assert set(some) < set(every)
    assert [asked.group for asked in some] == ["forget"] * 4 + ["near", "far"]
    assert some[-1].seed != every[len(some) - 1].seed
