"""The policy by which the server to write to is found, with connections that are scripted."""

from collections.abc import Callable
from typing import Any

import pytest

from hskv.exceptions import (
    AuthenticationError,
    ConnectionError,
    OperationalError,
    PoolTimeoutError,
    RecoverableConnectionError,
)
from hskv.transport.pool import ChannelPool
from hskv.transport.sql_channel import State
from hskv.transport.sql_servers import NoneWritableError, SqlServers


class FakeServer:
    """A server that may be down, read-only, or without a majority; it counts who looks at it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.down = self.read_only = False
        self.ready = True
        self.looks = 0
        self.refuses = False

    def connect(self) -> Any:
        if self.refuses:
            raise AuthenticationError(f"{self.name} said 1045", code=1045, reason="denied")
        if self.down:
            raise ConnectionError(f"{self.name} is down")
        return FakeConnection(self)


class FakeConnection:
    holder: object = None
    expires = float("inf")
    timeout = 1.0

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.address = server.name
        self.last_used = 0.0
        self.look(0.0)

    def look(self, deadline: float) -> State:
        if self.server.down:
            raise ConnectionError(f"{self.server.name} went down")
        if self.server.refuses:
            raise OperationalError(f"{self.server.name} said 1227", code=1227)
        self.server.looks += 1
        self.looked = float("inf")
        self.state = State(self.server.read_only, self.server.ready, False, False, True)
        return self.state

    def close(self) -> None:
        pass

    def gone(self) -> bool:
        return self.server.down


@pytest.fixture
def fakes() -> list[FakeServer]:
    return [FakeServer(name) for name in ("one", "two", "three")]


@pytest.fixture
def servers(fakes: list[FakeServer]) -> SqlServers:
    pools: list[Any] = [
        ChannelPool[Any](fake.connect, size=2, timeout=0.1, peek_after=0.0) for fake in fakes
    ]
    return SqlServers(pools)


def where(servers: SqlServers) -> str:
    channel: Any = servers.acquire()
    servers.release(channel)
    return str(channel.address)


def refused(servers: SqlServers, channel: Any) -> None:
    """Give back a connection whose server refused a write."""
    channel.looked = 0.0
    servers.release(channel)


def test_the_first_that_can_be_written_to_is_taken_and_kept(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    fakes[0].read_only = True
    assert [where(servers), where(servers)] == ["two", "two"]
    fakes[0].read_only = False
    assert where(servers) == "two", "there is no reason to change"


def test_a_promotion_is_followed_once_a_write_was_refused(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    assert where(servers) == "one"
    fakes[0].read_only = True
    channel: Any = servers.acquire()
    assert channel.address == "one", "nothing has told of it yet"
    refused(servers, channel)
    assert where(servers) == "two"


@pytest.mark.parametrize("trouble", ["down", "not ready"])
def test_a_server_that_is_lost_is_left(
    fakes: list[FakeServer], servers: SqlServers, trouble: str
) -> None:
    assert where(servers) == "one"
    fakes[0].down, fakes[0].ready = trouble == "down", False
    refused(servers, servers.acquire()) if trouble == "not ready" else None
    fakes[1].read_only = True
    assert where(servers) == "three"


def test_a_connection_is_asked_again_after_a_second(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    channel = servers.acquire()
    channel.looked = 0.0
    servers.release(channel)
    before, fakes[0].read_only = fakes[0].looks, True
    assert where(servers) == "two"
    assert fakes[0].looks == before + 1


def test_where_none_can_be_written_to_it_says_why_of_each(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    fakes[0].down = fakes[1].read_only = True
    fakes[2].ready = False
    why = "one is down; two is read-only; three has no maj"
    with pytest.raises(NoneWritableError, match=why):
        servers.acquire()
    fakes[0].down = False
    assert where(servers) == "one"
    assert servers.stats()["idle"] == 3


def test_where_none_is_well_nobody_is_read_only(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    fakes[0].down = fakes[1].down = True
    fakes[2].ready, fakes[2].read_only = False, True
    with pytest.raises(RecoverableConnectionError, match="three has no majority") as caught:
        servers.acquire()
    assert not isinstance(caught.value, NoneWritableError)


@pytest.mark.parametrize("when", ["at the login", "at a look"])
def test_one_that_refuses_does_not_end_the_search(
    fakes: list[FakeServer], servers: SqlServers, when: str
) -> None:
    if when == "at a look":
        channel = servers.acquire()
        assert channel.holder is servers.pools[0]
        refused(servers, channel)
    fakes[0].refuses = True
    assert where(servers) == "two"
    fakes[1].read_only = True
    servers.pools[1].purge()
    assert where(servers) == "three"


def test_where_all_refuse_a_refusal_is_raised_that_names_all(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    for fake in fakes:
        fake.refuses = True
    with pytest.raises(AuthenticationError, match=r"now: one said 1045; two said .*; three") as one:
        servers.acquire()
    assert (one.value.code, one.value.reason) == (1045, "denied")


def test_where_another_may_be_promoted_a_refusal_is_the_cause_of_what_is_raised(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    fakes[0].down = fakes[1].refuses = fakes[2].read_only = True
    with pytest.raises(RecoverableConnectionError, match="two said 1045; three is re") as caught:
        servers.acquire()
    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert str(caught.value.__cause__) == str(caught.value)


def test_what_may_be_asked_anywhere_is_asked_of_one_that_is_read_only(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    fakes[0].ready = False
    fakes[1].read_only = fakes[2].read_only = True
    channel: Any = servers.acquire_any()
    assert channel.address == "two"
    servers.release(channel)
    assert servers.writer is servers.pools[0], "it is not the one to write to"
    fakes[1].ready = fakes[2].ready = False
    for pool in servers.pools:
        pool.purge()
    with pytest.raises(ConnectionError, match="can be asked now: one has no majority"):
        servers.acquire_any()


def test_a_full_pool_is_no_reason_to_write_elsewhere(servers: SqlServers) -> None:
    lent = [servers.acquire(), servers.acquire()]
    with pytest.raises(PoolTimeoutError):
        servers.acquire()
    for channel in lent:
        servers.release(channel)


def test_a_server_alone_is_not_asked(fakes: list[FakeServer]) -> None:
    fakes[0].read_only = True
    pool: Any = ChannelPool[Any](fakes[0].connect, size=1, timeout=0.1)
    servers = SqlServers([pool])
    assert where(servers) == "one"
    assert servers.acquire().state.read_only


def test_what_was_not_lent_is_not_taken_back(servers: SqlServers, fakes: list[FakeServer]) -> None:
    with pytest.raises(RuntimeError, match="not on loan"):
        servers.release(fakes[0].connect())


@pytest.mark.parametrize("do", [SqlServers.purge, lambda servers: servers.drain(1.0)])
def test_all_pools_are_purged_and_drained(
    servers: SqlServers, do: Callable[[SqlServers], Any]
) -> None:
    where(servers)
    do(servers)
    servers.resume()
    assert servers.stats()["size"] == 0
    servers.close()
    assert servers.closed
    with pytest.raises(ConnectionError, match="closed"):
        servers.acquire()


def test_whatever_else_goes_wrong_in_a_look_is_raised(
    servers: SqlServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = servers.acquire()
    channel.looked = 0.0
    servers.release(channel)

    def interrupt(self: Any, deadline: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeConnection, "look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        servers.acquire()
    assert servers.stats()["size"] == 0
    assert repr(servers) == "<SqlServers, 3>"


def test_a_server_that_breaks_when_it_is_asked_is_passed_over(
    fakes: list[FakeServer], servers: SqlServers
) -> None:
    channel = servers.acquire()
    channel.looked = 0.0
    servers.release(channel)
    fakes[0].down = True
    servers.pools[0]._peek_after = 9e9
    assert where(servers) == "two"


def test_a_broken_connection_goes_back_to_its_own_pool(servers: SqlServers) -> None:
    servers.discard(servers.acquire(), ConnectionError("it broke"))
    assert servers.stats()["size"] == 0
