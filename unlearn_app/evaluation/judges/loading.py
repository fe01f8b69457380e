"""The judge that goes with a model."""

from collections.abc import Sequence

from ...common.paths import POCKET
from ...concepts.concept import Concept
from . import Scorer


def load_scorer(model: str, concepts: Sequence[Concept]) -> Scorer | None:
    """The judge that goes with a model: the bundled one for "pocket", OpenCLIP for others, None
    when it is missing.

    The bundled one comes with a second to check it. OpenCLIP chooses among all that the prompts of
    `concepts` ask for and their anchors, and comes with NudeNet where that is installed.
    """
    if model == "pocket":
        from .pocket_judge import PocketJudge
        from .second_judge import SecondJudge

        judge = PocketJudge.load(POCKET / "judge")
        judge.others = (SecondJudge.load(POCKET / "second"),)
        return judge
    from .clip import ClipScorer
    from .nudity import NudityDetector

    judge = ClipScorer.load(_answers(concepts))
    detector = NudityDetector.load() if judge else None
    if detector:
        judge.others = (detector,)
    return judge


def _answers(concepts: Sequence[Concept]) -> dict[str, list[str]]:
    """By axis what the prompts of `concepts` ask for, and the anchors: a picture of one must not
    count as the rest.
    """
    pairs = [
        (p.axis, p.expects)
        for c in concepts
        for split in (c.forget, c.near, c.far)
        for p in split.test
    ]
    pairs += [(c.forget.test[0].axis, c.instead) for c in concepts if c.instead]
    axes: dict[str, list[str]] = {}
    for axis, answer in dict.fromkeys(pairs):
        axes.setdefault(axis, []).append(answer)
    return axes
