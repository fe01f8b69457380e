"""What can be asked for by name: models, their judges and the concepts they know."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .backend import Backend
from .concept import Concept, KnownConcept, Prompt, restricted_retain, with_own
from .config import RunConfig
from .prompts import free_concept
from .scorers import Scorer

ASSETS = Path(__file__).resolve().parent.parent / "assets"
POCKET = ASSETS / "pocket"


def load_backend(model: str = "pocket") -> Backend:
    """The bundled model, a folder in Stable Diffusion 1.x format, or a Hugging Face id.

    Raises:
        ModelError: it is missing, damaged or of a kind we refuse.
    """
    from .diffusers_backend import load_pipeline

    return load_pipeline(POCKET / "pipeline" if model == "pocket" else model, model)


def load_scorer(model: str, concepts: Sequence[Concept]) -> Scorer | None:
    """The judge that goes with a model: the bundled one for "pocket", OpenCLIP for others, None when it is missing.

    The bundled one comes with a second to check it. OpenCLIP chooses among all that the prompts of `concepts` ask for
    and their anchors, and comes with NudeNet where that is installed.
    """
    if model == "pocket":
        from .scorers.pocket_judge import PocketJudge
        from .scorers.second_judge import SecondJudge

        judge = PocketJudge.load(POCKET / "judge")
        judge.second = SecondJudge.load(POCKET / "second")
        return judge
    from .scorers.clip import ClipScorer
    from .scorers.nudity import NudityDetector

    judge = ClipScorer.load(_answers(concepts))
    if judge is not None:
        judge.detector = NudityDetector.load()
    return judge


def tuning_prompts(config: RunConfig) -> tuple[Prompt, ...]:
    """Prompts for the concept of `config` beside those that it is taught and tested by.

    For other models than the bundled one these are the adversary's.
    """
    if config.model != "pocket":
        return preview_concept(config).relearn
    from .pocket import concepts

    return concepts.tuning_prompts(config.concept)


def _answers(concepts: Sequence[Concept]) -> dict[str, list[str]]:
    """By axis what the prompts of `concepts` ask for, and the anchors: a picture of one must not count as the rest."""
    pairs = [(p.axis, p.expects) for c in concepts for split in (c.forget, c.near, c.far) for p in split.test]
    pairs += [(c.forget.test[0].axis, c.instead) for c in concepts if c.instead]
    axes: dict[str, list[str]] = {}
    for axis, answer in dict.fromkeys(pairs):
        axes.setdefault(axis, []).append(answer)
    return axes


def known_concepts(model: str = "pocket") -> list[KnownConcept]:
    """What the bundled model knows; empty for other models, which take any words."""
    if model != "pocket":
        return []
    from .pocket import concepts

    return concepts.known_concepts()


def nearest_known(text: str) -> list[str]:
    """Names in the bundled vocabulary closest to `text`."""
    from .pocket import concepts

    return concepts.nearest_known(text)


def fresh_lesson(model: str, count: int, seed: int, name: str = "") -> tuple[str, Tensor, list[str]] | None:
    """A concept that `model` has never seen, `count` pictures (N, 3, H, W) in [-1, 1] of it, and their captions.

    `name` chooses the concept, else the seed does. None where nothing is known of what the model has seen.
    """
    if model != "pocket":
        return None
    from .pocket import lesson

    return lesson.fresh_lesson(count, seed, name)


def never_seen(
    model: str, count: int, seed: int, besides: Concept, alike: bool = False
) -> tuple[str, Tensor, list[str]] | None:
    """As `fresh_lesson`, of what `model` learns most easily of the kind of `besides` among what it has never seen.

    `besides` itself is left out. Pictures that are `alike` share their caption.
    """
    if model != "pocket":
        return None
    from .pocket import lesson

    easiest = next(name for name in lesson.EASIEST[besides.kind] if name != besides.name)
    return lesson.fresh_lesson(count, seed, easiest, alike)


def preview_concept(config: RunConfig) -> Concept:
    """The prompts a run with `config` will use; nothing is loaded.

    Raises:
        ConfigError: the bundled model does not know the concept or the anchor, or the own prompts are no good.
    """
    if config.model != "pocket":
        concept = free_concept(config.concept, config.anchor)
    else:
        from .pocket import concepts

        concept = concepts.pocket_concept(config.concept, config.anchor)
    if config.prompts:
        concept = with_own(concept, config.prompts)
    return restricted_retain(concept, config.unlearn.retain)
