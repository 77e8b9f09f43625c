"""The examples in docstrings, run on the real server."""

import doctest
from types import ModuleType
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.store import store as store_module


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("example", examples(store_module), ids=lambda example: example.name)
def test_an_example_gives_what_it_shows(
    hskv_store: KeyValueStore[str, Any], example: doctest.DocTest
) -> None:
    example.globs.update(hskv=hskv, store=hskv_store)
    results = doctest.DocTestRunner(verbose=False).run(example)
    assert results.attempted > 0
    assert results.failed == 0
