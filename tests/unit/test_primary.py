"""Which listener is read from where what was written must be seen. No network."""

import time
from typing import Any

import pytest

import hskv
from hskv import Client
from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.exceptions import PoolTimeoutError
from hskv.store.executors import PrimaryReader
from hskv.store.verbs import Find
from hskv.transport.pool import ChannelPool
from hskv.transport.primary import NotByHandlerSocketError, PrimaryServer
from hskv.transport.servers import Servers

from .fake_channels import Server


class Writers:
    """SQL's servers, of which a test says which is written to."""

    def __init__(self, *pools: Any) -> None:
        self.pools = pools
        self.writer = pools[0]


class Health:
    """Knows what a test has it know."""

    def __init__(self) -> None:
        self.known: tuple[int, ...] = (0,)
        self.closed = False

    def primaries(self, now: float) -> tuple[int, ...]:
        if not self.known:
            raise HskvConnectionError("no server may be read from")
        return self.known

    def close(self) -> None:
        self.closed = True


class House:
    """Two servers; the third has no listener."""

    def __init__(self) -> None:
        self.fakes = [Server(), Server()]
        self.pools: list[ChannelPool[Any]] = [
            ChannelPool(fake.connect, size=1, timeout=0.02) for fake in self.fakes
        ]
        self.servers = Servers(self.pools)
        self.health, self.writers = Health(), Writers("first", "second", "third")
        parts: Any = (self.health, self.writers, {"first": 0, "second": 1})
        self.primary = PrimaryServer(self.servers, *parts)

    def read(self) -> int:
        """One good request; the place of the server that got it."""
        channel: Any = self.primary.acquire()
        place = self.pools.index(channel.holder)
        self.primary.release(channel)
        return place


@pytest.fixture
def house() -> House:
    return House()


def test_it_is_the_one_that_is_written_to(house: House) -> None:
    assert house.read() == 0
    house.writers.writer, house.health.known = "second", (1,)
    assert house.read() == 1


def test_in_galera_it_is_the_node_that_this_process_writes_to(house: House) -> None:
    house.health.known = (0, 1)
    house.writers.writer = "second"
    assert {house.read() for _ in range(10)} == {1}


@pytest.mark.parametrize(("writer", "known"), [("second", (0,)), ("first", ()), ("third", (0,))])
def test_where_it_is_not_known_no_listener_is_asked(
    house: House, writer: str, known: tuple[int, ...]
) -> None:
    house.writers.writer, house.health.known = writer, known
    with pytest.raises(NotByHandlerSocketError):
        house.primary.acquire()
    assert house.fakes[0].made == house.fakes[1].made == []


def test_a_listener_that_fails_is_tried_again_after_a_pause(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fakes[0].down = True
    for _ in range(2):
        with pytest.raises(NotByHandlerSocketError):
            house.primary.acquire()
    assert house.pools[0].stats()["connects"] == 1
    house.fakes[0].down = False
    later = time.monotonic() + 60
    monkeypatch.setattr("hskv.transport.servers.monotonic", lambda: later)
    assert [house.read(), house.read()] == [0, 0]
    assert house.servers.stats()["aside"] == 0


def test_a_full_pool_is_no_failure_of_its_server(house: House) -> None:
    house.primary.acquire()
    with pytest.raises(PoolTimeoutError):
        house.primary.acquire()
    assert house.servers.stats()["aside"] == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PoolTimeoutError("full"), NotByHandlerSocketError),
        (hskv.AuthenticationError("refused"), hskv.AuthenticationError),
    ],
)
def test_one_that_is_tried_again_is_so_once_more_where_that_told_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    house.fakes[0].down = True
    with pytest.raises(NotByHandlerSocketError):
        house.primary.acquire()
    house.fakes[0].down = False
    later = time.monotonic() + 60
    monkeypatch.setattr("hskv.transport.servers.monotonic", lambda: later)

    def fail() -> Any:
        raise error

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(house.pools[0], "acquire", fail)
            with pytest.raises(told):
                house.primary.acquire()
        with pytest.raises(NotByHandlerSocketError, match="aside"):
            house.primary.acquire()
        later += 1
    assert house.read() == 0
    assert house.servers.stats()["aside"] == 0


def test_closing_it_closes_the_servers(house: House) -> None:
    house.read()
    house.primary.close()
    assert house.primary.closed
    assert house.primary.stats()["size"] == 0


class Executor:
    """Answers with its name, or knows no listener."""

    def __init__(self, name: bytes, *, knows: bool = True) -> None:
        self.name = name
        self.knows = knows

    def find_value(self, key: Any, now: int) -> Any:
        if not self.knows:
            raise NotByHandlerSocketError("not known")
        return [(self.name,)]

    find_kind = find_items = find_value

    def execute(self, verbs: Any) -> Any:
        return [self.find_value(b"", 0)]

    def replace(self, *row: Any) -> bool:
        return True

    def count(self, *verb: Any) -> int:
        return 1


@pytest.mark.parametrize("knows", [True, False])
def test_what_no_listener_is_known_for_is_read_by_sql(knows: bool) -> None:
    reader = PrimaryReader(Executor(b"quick", knows=knows), Executor(b"sure"))
    rows = [(b"quick" if knows else b"sure",)]
    assert reader.find_value(b"k", 0) == rows
    assert reader.find_kind(b"k", 0) == rows
    assert reader.find_items([b"k"], 0) == rows
    assert reader.execute([Find((b"k",), ("value",), ())]) == [rows]


def test_a_client_of_several_servers_has_one_and_no_other_client() -> None:
    url = "hskv://h/db?replica=i&writes=sql&sql=mysql://u@i,h/"
    with Client(url) as client:
        primary = client.of_primary()
        assert primary is not None
        with pytest.raises(NotByHandlerSocketError):
            primary.verify(primary.open("kv", ["v"]))
        assert primary.of_primary() is None
    with Client("hskv://h/db") as alone:
        assert alone.of_primary() is None
