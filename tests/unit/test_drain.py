"""Draining a pool, and several; counts. No network."""

from time import monotonic
from typing import Any

import pytest

from hskv.exceptions import PoolTimeoutError
from hskv.transport.pool import ChannelPool
from hskv.transport.servers import Servers

from .fake_channels import Borrower, Server, consistent, waiting


def pool_of(fake: Server, timeout: float = 5.0) -> ChannelPool[Any]:
    return ChannelPool(fake.connect, size=2, timeout=timeout)


def test_a_drained_pool_has_no_channel_and_opens_none_until_resume() -> None:
    fake = Server()
    pool = pool_of(fake)
    idle: Any = pool.acquire()
    pool.release(idle)
    assert pool.drain(1.0)
    assert idle.closed
    consistent(pool, 0)
    borrower = Borrower(pool)
    waiting(pool, 1)
    pool.resume()
    channel: Any = borrower.result()
    assert channel is not idle
    pool.release(channel)
    consistent(pool, 0)


def test_a_channel_in_use_is_waited_for_and_closed_when_it_comes_back() -> None:
    pool = pool_of(Server())
    lent: Any = pool.acquire()
    started = monotonic()
    assert not pool.drain(0.05)
    assert monotonic() - started >= 0.05
    assert not lent.closed
    pool.release(lent)
    assert lent.closed
    assert pool.drain(0.0)


def test_a_channel_that_comes_back_while_draining_begins_is_closed() -> None:
    pool = pool_of(Server())
    lent: Any = pool.acquire()
    pool.drain(0.0)
    # As where the release had looked at the lifetime just before.
    lent.expires = float("inf")
    pool.release(lent)
    assert lent.closed
    consistent(pool, 0)


def test_a_drained_pool_refuses_or_lets_wait_as_asked() -> None:
    pool = pool_of(Server(), timeout=0.02)
    pool.drain(0.0)
    with pytest.raises(PoolTimeoutError, match="stayed drained"):
        pool.acquire()
    pool.drain(0.0, refuse=True)
    with pytest.raises(PoolTimeoutError, match="is drained"):
        pool.acquire()
    pool.resume()
    pool.release(pool.acquire())
    assert pool.stats() == {"size": 1, "idle": 1, "waiting": 0, "connects": 1, "timeouts": 1}


def test_a_channel_that_connects_while_the_pool_is_drained_ends_after_use() -> None:
    pools: list[ChannelPool[Any]] = []
    fake = Server()

    def connect() -> Any:
        pools[0].drain(0.0)
        return fake.connect()

    pools.append(ChannelPool(connect, size=1, timeout=1))
    channel: Any = pools[0].acquire()
    pools[0].release(channel)
    assert channel.closed


def test_all_servers_are_drained_and_counted() -> None:
    fakes = [Server(), Server()]
    servers = Servers([pool_of(fake) for fake in fakes])
    channels: list[Any] = [servers.acquire(), servers.acquire()]
    servers.release(channels[0])
    assert not servers.drain(0.01)
    servers.release(channels[1])
    assert servers.drain(0.0)
    assert all(channel.closed for channel in channels)
    servers.resume()
    servers.release(servers.acquire())
    counts = servers.stats()
    assert counts.pop("aside") == 0
    assert counts == {"size": 1, "idle": 1, "waiting": 0, "connects": 3, "timeouts": 0}
