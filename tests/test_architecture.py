"""The page on architecture holds: its tree is the package, its tables are the parts there are."""

import ast
import re

from unlearn_app.common import registry
from unlearn_app.common.paths import ROOT

TEXT = (ROOT / "assets" / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows(*kinds: str) -> list[str]:
    return re.findall(rf"^\| (?:{'|'.join(kinds)}) \|.*$", TEXT, re.MULTILINE)


def test_the_tree_has_a_line_for_every_folder() -> None:
    tree = re.search(r"```\nunlearn_app/\n(.*?)```", TEXT, re.DOTALL)[1]
    lines = re.findall(r"^( +)(\w+)/ +(\S.*)$", tree, re.MULTILINE)
    assert len(lines) == len(tree.strip("\n").splitlines()), (
        "a folder and what it is for on each line"
    )
    found, above = set(), {}
    for indent, name, _ in lines:
        above[len(indent)] = above.get(len(indent) - 2, "") + f"{name}/"
        found.add(above[len(indent)])
    package = ROOT / "unlearn_app"
    folders = {
        f"{path.parent.relative_to(package).as_posix()}/" for path in package.rglob("*/__init__.py")
    }
    assert found == folders


def test_the_rows_of_layers_are_those_that_are_held() -> None:
    from test_layers import LAYERS

    stated = [
        tuple(line.split(" · "))
        for line in re.findall(r"```\n(cli.*?)\n```", TEXT, re.DOTALL)[0].splitlines()
    ]
    assert stated == list(reversed(LAYERS))


def test_the_registered_parts_are_listed() -> None:
    expected = [
        f"| {kind.replace('_', ' ')} | `{name}` | {registry.describe(kind, name)} |"
        for kind in registry.PACKAGES
        for name in registry.names(kind)
    ]
    assert sorted(rows(*(kind.replace("_", " ") for kind in registry.PACKAGES))) == sorted(expected)


def test_the_losses_that_are_no_objective_of_their_own_are_listed() -> None:
    files = sorted((ROOT / "unlearn_app" / "methods" / "objectives").glob("*.py"))
    others = [path for path in files if path.stem not in ("__init__", *registry.names("objective"))]
    texts = [ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in others]
    said = [" ".join(text.split("\n\n")[0].split()) for text in texts]
    assert rows("loss") == [
        f"| loss | `{path.stem}` | {text} |" for path, text in zip(others, said, strict=True)
    ]
