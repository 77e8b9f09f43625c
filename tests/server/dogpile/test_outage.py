"""Regions whose server is away."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from dogpile.cache.api import NO_VALUE

import hskv
from hskv.mariadb import PrivateServer

from ...conftest import sql_on
from ..sql_stores import by_sql, path_of
from .regions import NOWHERE, region_of

CALLS: dict[str, tuple[Callable[[Any], object], object]] = {
    "get": (lambda region: region.get("a"), NO_VALUE),
    "get_multi": (lambda region: region.get_multi(["a", "b"]), [NO_VALUE, NO_VALUE]),
    "set": (lambda region: region.set("a", 1), None),
    "set_multi": (lambda region: region.set_multi({"a": 1, "b": 2}), None),
    "delete": (lambda region: region.delete("a"), None),
    "delete_multi": (lambda region: region.delete_multi(["a", "b"]), None),
    "get_or_create": (lambda region: region.get_or_create("a", lambda: 5), 5),
    "key_is_locked": (lambda region: region.key_is_locked("a"), False),
}


@pytest.mark.parametrize("call", CALLS)
def test_it_is_an_error(call: str) -> None:
    region = region_of(url=NOWHERE, timeout=0.1, distributed_lock=True)
    with pytest.raises(hskv.HandlerSocketError, match="/nonexistent/"):
        CALLS[call][0](region)


@pytest.mark.parametrize("call", CALLS)
def test_or_a_miss_that_is_logged_and_counted(call: str, caplog: pytest.LogCaptureFixture) -> None:
    region = region_of(url=NOWHERE, timeout=0.1, ignore_errors="yes", distributed_lock=True)
    asked, gives = CALLS[call]
    assert asked(region) == gives
    assert region.actual_backend.errors >= 1
    assert "goes on without the table" in caplog.text


def test_only_the_first_call_waits_and_it_works_again_when_the_server_is_back() -> None:
    with PrivateServer() as server:
        region = region_of(url=server.url, timeout=1, ignore_errors=True, distributed_lock=True)
        region.set("a", 1)
        server.kill()
        assert region.get("a") is NO_VALUE
        began = time.monotonic()
        made = [region.get_or_create(f"new {number}", lambda: 5) for number in range(20)]
        seconds = time.monotonic() - began
        assert made == [5] * 20
        # At most one more look, where the machine is slow: three calls each would take a minute.
        assert seconds < 10
        server.start()
        deadline = time.monotonic() + 20
        while (value := region.get("a")) is NO_VALUE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert value == 1
        region.actual_backend.close()


def test_only_the_first_write_waits_for_a_server_that_is_read_only_and_no_read(
    unwritten_server: PrivateServer,
) -> None:
    url = by_sql(path_of(unwritten_server), "&timeout=1.5").replace("root@", "plain@")
    region = region_of(url=url, ignore_errors=True, distributed_lock=True)
    region.set("a", 1)
    sql_on(unwritten_server, "SET GLOBAL read_only = 1")
    try:
        region.set("a", 2)
        began = time.monotonic()
        for number in range(5):
            region.set("a", number)
            assert region.get("a") == 1
            assert region.get_multi(["a"]) == [1]
            assert not region.key_is_locked("a")
            assert region.get_or_create(f"new {number}", lambda: 5) == 5
        assert time.monotonic() - began < 0.5
    finally:
        sql_on(unwritten_server, "SET GLOBAL read_only = 0")
    deadline = time.monotonic() + 5
    while region.get("a") == 1:
        assert time.monotonic() < deadline
        region.set("a", 2)
        time.sleep(0.05)
    region.actual_backend.close()


def test_a_server_that_is_restarted_is_waited_for() -> None:
    with PrivateServer() as server:
        region = region_of(url=server.url)
        region.set("a", 1)
        server.stop()
        server.start()
        assert region.get("a") == 1
        region.actual_backend.close()


def test_what_is_set_before_a_crash_is_there_after_it() -> None:
    with PrivateServer() as server:
        region = region_of(url=server.url)
        region.set_multi({str(number): number for number in range(100)})
        server.kill()
        server.start()
        assert region.get_multi([str(number) for number in range(100)]) == list(range(100))
        region.actual_backend.close()
