"""The sheets by which somebody names the pictures show every object once in each style."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from unlearn_app.common.errors import OutputError
from unlearn_app.pocket import naming
from unlearn_app.pocket.naming import GAP, KEY, LABEL, SIDE, write_sheets
from unlearn_app.pocket.world.dataset import rendered
from unlearn_app.pocket.world.vocabulary import OBJECTS


def test_every_object_stands_once_in_each_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "generate_scenes", lambda _, wanted, **how: rendered(wanted))
    sheets = write_sheets(None, tmp_path / "new")
    answers = (tmp_path / "new" / KEY).read_text().splitlines()
    for start in (0, 24, 48):
        shown = Counter(line.partition(". ")[2] for line in answers[start : start + 24])
        assert shown == Counter(entry.name for entry in OBJECTS)
    assert [int(line.partition(".")[0]) for line in answers] == list(range(1, 73))
    assert len(sheets) == 6
    last = Image.open(sheets[-1])
    corner = (GAP + 3 * (SIDE + GAP), GAP + 2 * (SIDE + GAP + LABEL) + LABEL)
    twelfth = last.crop((*corner, corner[0] + SIDE, corner[1] + SIDE))
    assert len(twelfth.getcolors(SIDE**2)) > 50, "the last place is empty"


def test_a_taken_name_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(OutputError, match="new"):
        write_sheets(None, tmp_path / "new")
