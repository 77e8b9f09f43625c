"""The examples in docstrings, run on the real server."""

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymysql
import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(hskv.__path__, "hskv."):
        if found.name != "hskv.__main__":  # it runs the command
            yield importlib.import_module(found.name)


def examples() -> dict[str, doctest.DocTest]:
    finder = doctest.DocTestFinder()
    found = [test for module in modules() for test in finder.find(module) if test.examples]
    return {test.name: test for test in found}


EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_gives_what_it_shows(
    hskv_store: KeyValueStore[str, Any], hskv_server: PrivateServer, example: doctest.DocTest
) -> None:
    with closing(pymysql.connect(**hskv_server.sql)) as connection:
        example.globs.update(
            hskv=hskv, store=hskv_store, url=hskv_server.url, pymysql_connection=connection
        )
        results = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(example)
    assert results.attempted > 0
    assert results.failed == 0


def test_every_public_class_and_function_has_an_example() -> None:
    public = {name: getattr(hskv, name) for name in hskv.__all__}
    things = {
        name: thing
        for name, thing in public.items()
        if inspect.isroutine(thing)
        or (inspect.isclass(thing) and not issubclass(thing, BaseException))
    }
    assert len(things) > 8
    shown = " ".join(EXAMPLES)
    missing = [name for name, thing in things.items() if f"{thing.__module__}.{name}" not in shown]
    assert missing == []


def test_every_method_of_a_store_has_an_example() -> None:
    methods = {name for name, _ in inspect.getmembers(KeyValueStore) if not name.startswith("_")}
    shown = {name.rpartition(".")[2] for name in EXAMPLES}
    # Of attributes, and of what dict gives to all mappings.
    assert methods - shown - {"client", "table", "key_type", "keys"} == set()
