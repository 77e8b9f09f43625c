"""Clusters for the tests of a module, and the time that a test of one may take."""

from collections.abc import Iterator

import pytest

from hskv.mariadb import PrivateGalera, PrivateReplication

LIMIT_SECONDS = 180


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "cluster":
            item.add_marker(pytest.mark.timeout(LIMIT_SECONDS))


@pytest.fixture(scope="module")
def replication() -> Iterator[PrivateReplication]:
    with PrivateReplication() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def galera() -> Iterator[PrivateGalera]:
    with PrivateGalera() as cluster:
        yield cluster
