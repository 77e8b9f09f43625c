"""The examples in docs/, run on the real server."""

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore

DOCS = Path(__file__).parents[2] / "docs"
BESIDE = (DOCS / "redis-and-pymemcache.md").read_text()


def examples() -> list[Any]:
    return [
        pytest.param(section, id=f"{page.stem}: {section.splitlines()[0]}")
        for page in sorted(DOCS.glob("*.md"))
        for section in re.split(r"^#+ ", page.read_text(), flags=re.MULTILINE)[1:]
        if "```pycon" in section
    ]


@pytest.mark.parametrize("section", examples())
def test_the_examples_of_a_section_give_what_they_show(
    hskv_store: KeyValueStore[str, Any], section: str
) -> None:
    names = {"hskv": hskv, "store": hskv_store}
    blocks = "\n".join(re.findall(r"```pycon\n(.*?)```", section, flags=re.DOTALL))
    example = doctest.DocTestParser().get_doctest(blocks, names, "docs", None, 0)
    results = doctest.DocTestRunner(verbose=False).run(example)
    assert results.attempted > 0
    assert results.failed == 0


def test_every_method_of_a_store_is_on_the_page() -> None:
    methods = [name for name, _ in inspect.getmembers(KeyValueStore) if not name.startswith("_")]
    own = {"client", "table", "key_type", "keys", "update", "close", "computing"}
    missing = [name for name in methods if name not in own and f"{name}" not in BESIDE]
    assert missing == []


def test_no_method_on_the_page_is_missing() -> None:
    calls = re.findall(r"^\| `(?:\w+\.)?(\w+)\(", BESIDE, flags=re.MULTILINE)
    assert len(calls) > 20
    for call in set(calls) - {"len"}:
        assert hasattr(KeyValueStore, call) or hasattr(hskv.Client, call), call
