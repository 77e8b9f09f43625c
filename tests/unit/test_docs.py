"""What the documentation names is there."""

import ast
import re
from pathlib import Path

from hskv import exceptions

TESTS = Path(__file__).parents[1]
PROMISES = (TESTS.parent / "docs" / "promises.md").read_text()


def names_in(file: Path) -> set[str]:
    """The names of its tests, and of classes of tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }


def test_every_test_that_a_promise_names_is_there() -> None:
    named = re.findall(r"`([a-z]+/test_\w+\.py)::(\w+)`", PROMISES)
    assert len(named) > 20
    missing = [(file, name) for file, name in named if name not in names_in(TESTS / file)]
    assert missing == []


def test_every_exception_is_explained() -> None:
    page = (TESTS.parent / "docs" / "errors.md").read_text()
    names = {
        name for name, one in vars(exceptions).items() if isinstance(one, type) and name[0] != "_"
    }
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_links_between_pages_lead_somewhere() -> None:
    root = TESTS.parent
    for page in [*root.glob("*.md"), *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
