"""Fixtures for your own tests: a real MariaDB, and an empty store on it.

Installing hskv makes pytest find them. The server is started once for a whole run, and only
when a test asks for it.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hskv import KeyValueStore
    from hskv.mariadb import PrivateServer


@pytest.fixture(scope="session")
def hskv_server() -> Iterator["PrivateServer"]:
    """A `hskv.mariadb.PrivateServer` for the whole run.

    Where MariaDB is not installed, tests that want it are skipped; with `CI` set, they fail.
    """
    from hskv.mariadb import PrivateServer
    from hskv.mariadb.programs import ServerStartError, find_programs

    try:
        find_programs()
    except ServerStartError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with PrivateServer() as server:
        yield server


@pytest.fixture
def hskv_store(hskv_server: "PrivateServer") -> Iterator["KeyValueStore[str, Any]"]:
    """A `hskv.KeyValueStore` on an empty table of `hskv_server`, closed after the test."""
    from hskv import KeyValueStore

    with KeyValueStore(hskv_server.url) as store:
        # Leases too, which clear would leave.
        store.modify(">=", [""], "D", limit=2**32 - 1)
        yield store
