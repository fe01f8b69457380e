"""What separates a column of pictures from the original's at the same prompts and seeds."""

from collections.abc import Mapping, Sequence

from ..common.images import to_tensor
from ..settings.events import GROUPS, Column, Difference, Group, Images, Picture
from .distances import paired_kid
from .judges import Scorer
from .statistics import mean_interval, paired_change


def differences(
    columns: Mapping[Column, Images], scorer: Scorer | None
) -> dict[Column, dict[Group, Difference]]:
    """Every column beside the original by group; empty where the original or the judge is
    missing.
    """
    if scorer is None or "original" not in columns:
        return {}
    others = [column for column in columns if column != "original"]
    own = {group: _of(columns["original"], group) for group in GROUPS}
    return {
        column: {g: difference(own[g], _of(columns[column], g), scorer) for g in GROUPS if own[g]}
        for column in others
    }


def difference(
    original: Sequence[Picture], others: Sequence[Picture], scorer: Scorer
) -> Difference:
    """Two judged series of the same prompts and seeds.

    Raises:
        ValueError: they are not of the same prompts and seeds, or empty.
    """
    if [(p.prompt, p.seed) for p in original] != [(p.prompt, p.seed) for p in others]:
        raise ValueError("Pictures are compared at the same prompts and seeds; these differ.")
    change, low, high, p = paired_change(
        [bool(x.correct) for x in original], [bool(x.correct) for x in others]
    )
    before, after = (
        to_tensor([picture.image.convert("RGB") for picture in series])
        for series in (original, others)
    )
    distance, near, away = mean_interval(scorer.distance(after, before).tolist())
    several, enough = len(original) > 1, len(original) > 2
    kid, error = (
        paired_kid(scorer.features(after), scorer.features(before)) if enough else (None, None)
    )
    return Difference(
        change=change,
        interval=(low, high),
        p=p,
        distance=distance,
        distance_interval=(max(near, 0.0), away) if several else None,
        apart=scorer.distance(before, before.roll(1, 0)).mean().item() if several else None,
        kid=kid,
        kid_error=error,
    )


def _of(images: Images, group: Group) -> list[Picture]:
    return [picture for picture in images.pictures if picture.group == group]
