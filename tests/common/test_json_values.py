"""Values as JSON, and that nothing but finite numbers is ever written."""

import json
import math

import pytest

from unlearn_app.common.json_values import json_text
from unlearn_app.common.paths import ROOT

PLAIN = {
    "common/json_values.py",  # this one
    "common/bundled_hashes.py",  # texts
    "models/diffusers/adapter_files.py",  # a header of texts and whole numbers
    "pocket/training/judge.py",  # texts
    "web/boundary.py",  # a request as it was read
}
"""The files that may call `json.dumps`."""


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_written_as_null(number: float) -> None:
    assert json.loads(json_text({"a": [1.5, (number,)]})) == {"a": [1.5, [None]]}


def test_all_that_is_measured_is_written_by_it() -> None:
    package = ROOT / "unlearn_app"
    calling = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "json.dump" in path.read_text(encoding="utf-8")
        if path.parent.name != "soak"  # it sends nonsense, and writes no record
    }
    assert calling <= PLAIN
