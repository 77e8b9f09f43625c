"""A server of these tests' own, and regions on it.

Regions never close their connections, and DDL of other tests would wait for them.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from .regions import region_of


@pytest.fixture(scope="module")
def hskv_server() -> Iterator[PrivateServer]:
    with PrivateServer() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def url(hskv_server: PrivateServer) -> Iterator[str]:
    """In the environment too, since dogpile's suites have their arguments at import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSKV_URL", hskv_server.url)
        yield hskv_server.url


@pytest.fixture
def hskv_store(hskv_server: PrivateServer) -> Iterator[KeyValueStore[str, Any]]:
    with KeyValueStore[str, Any](hskv_server.url) as store:
        store.modify(">=", [""], "D", limit=2**32 - 1)
        yield store


@pytest.fixture
def region(hskv_store: KeyValueStore[str, Any], url: str) -> Any:
    return region_of(url=url)
