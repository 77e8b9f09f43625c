"""Several servers: balance, setting aside, probe, return. No network."""

from collections import Counter
from typing import Any
from unittest.mock import Mock

import pytest

from hskv.exceptions import AuthenticationError, IndexedConnectionError, PoolTimeoutError
from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.transport import servers as servers_module
from hskv.transport.pool import ChannelPool
from hskv.transport.servers import Servers

from .fake_channels import Server


class Cluster:
    """Fake servers behind a `Servers`, and a clock for the pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(servers_module, "monotonic", lambda: self.now)
        monkeypatch.setattr("hskv.transport.servers.random.uniform", lambda low, high: 1.0)
        self.fakes = [Server() for _ in range(count)]
        self.pools = [ChannelPool(fake.connect, size=4, timeout=0.02) for fake in self.fakes]
        self.servers = Servers(self.pools)

    def ask(self) -> int:
        """One good request; the number of the server that got it."""
        channel: Any = self.servers.acquire()
        number = self.pools.index(channel.holder)
        self.servers.release(channel)
        return number

    def asked(self, times: int) -> Counter[int]:
        return Counter(self.ask() for _ in range(times))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_healthy_servers_are_asked_in_turn(cluster: Cluster) -> None:
    assert cluster.asked(30) == {0: 10, 1: 10, 2: 10}


def test_a_server_that_cannot_be_reached_costs_no_request(cluster: Cluster) -> None:
    cluster.fakes[1].down = True
    assert set(cluster.asked(30)) == {0, 2}
    assert repr(cluster.servers) == "<Servers, 3, 1 set aside>"


def test_a_server_that_refuses_the_login_costs_no_request(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Any:
        raise AuthenticationError("the secret is wrong")

    monkeypatch.setattr(cluster.pools[1], "_connect", refuse)
    assert set(cluster.asked(30)) == {0, 2}
    for pool in cluster.pools:
        pool.purge()
        monkeypatch.setattr(pool, "_connect", refuse)
    with pytest.raises(AuthenticationError):
        cluster.ask()


def test_it_is_tried_by_one_request_when_its_pause_is_over(cluster: Cluster) -> None:
    cluster.fakes[1].down = True
    cluster.asked(6)
    cluster.fakes[1].down = False
    cluster.now += 0.4
    assert 1 not in cluster.asked(12)
    cluster.now += 0.2
    probe: Any = cluster.servers.acquire()
    assert probe.holder is cluster.pools[1]
    assert 1 not in cluster.asked(12), "the others pass it by until the probe is back"
    cluster.servers.release(probe)
    assert cluster.asked(30) == {0: 10, 1: 10, 2: 10}


def test_a_probe_that_told_nothing_is_followed_by_another(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.fakes[1].down = True
    cluster.asked(6)
    cluster.fakes[1].down = False
    cluster.now += 0.6

    def interrupt() -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cluster.pools[1], "acquire", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cluster.servers.acquire()
    assert 1 not in cluster.asked(12)
    cluster.now += 0.6
    probe: Any = cluster.servers.acquire()
    assert probe.holder is cluster.pools[1]
    cluster.servers.discard(probe, KeyboardInterrupt())
    cluster.now += 0.6
    assert cluster.ask() == 1
    assert cluster.asked(30) == {0: 10, 1: 10, 2: 10}


def test_one_that_is_set_aside_and_has_no_channel_left_costs_no_request(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = [cluster.pools[1].acquire() for _ in range(4)]
    cluster.servers.discard(lent.pop(), IndexedConnectionError("it broke"))
    lent.append(cluster.pools[1].acquire())
    probe = Mock(wraps=cluster.pools[1].acquire)
    monkeypatch.setattr(cluster.pools[1], "acquire", probe)
    for number in range(3):
        cluster.now += 0.6
        assert set(cluster.asked(12)) == {0, 2}
        assert probe.call_count == number + 1, "only one of them waits for a channel"
    cluster.now += 0.6
    for channel in lent:
        cluster.servers.release(channel)
    assert cluster.asked(30) == {0: 10, 1: 10, 2: 10}


def test_where_all_are_set_aside_and_have_no_channel_left_that_is_said(cluster: Cluster) -> None:
    lent = [cluster.servers.acquire() for _ in range(12)]
    for pool in cluster.pools:
        broken = next(channel for channel in lent if channel.holder is pool)
        cluster.servers.discard(broken, IndexedConnectionError("it broke"))
        pool.acquire()
    with pytest.raises(PoolTimeoutError):
        cluster.servers.acquire()


def test_its_pause_doubles_each_time_up_to_30_seconds(cluster: Cluster) -> None:
    cluster.fakes[1].down = True
    pauses = []
    for _ in range(9):
        cluster.asked(6)
        member = cluster.servers._members[1]
        pauses.append(member.retry_time - cluster.now)
        cluster.now = member.retry_time + 0.001
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30])


def test_many_channels_that_break_at_once_are_one_failure(cluster: Cluster) -> None:
    channels = [cluster.servers.acquire() for _ in range(9)]
    for channel in channels:
        error = IndexedConnectionError("gone") if channel.holder is cluster.pools[1] else None
        cluster.servers.discard(channel, error)
    assert cluster.servers._members[1].retry_time == cluster.now + 0.5


def test_a_broken_connection_sets_its_server_aside(cluster: Cluster) -> None:
    cluster.asked(3)
    channel: Any = cluster.servers.acquire()
    broken = cluster.pools.index(channel.holder)
    cluster.servers.discard(channel, IndexedConnectionError("gone"))
    assert broken not in cluster.asked(12)
    assert channel.closed


def test_an_error_that_is_no_fault_of_the_server_leaves_it(cluster: Cluster) -> None:
    channel = cluster.servers.acquire()
    cluster.servers.discard(channel, KeyboardInterrupt())
    cluster.servers.discard(cluster.servers.acquire())
    assert set(cluster.asked(12)) == {0, 1, 2}


def test_where_all_are_set_aside_the_first_to_return_is_tried(cluster: Cluster) -> None:
    for fake in cluster.fakes:
        fake.down = True
    with pytest.raises(HskvConnectionError, match="refused"):
        cluster.servers.acquire()
    cluster.fakes[2].down = False
    assert cluster.ask() == 2


def test_a_full_pool_is_no_failure_of_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, count=1)
    lent = [cluster.servers.acquire() for _ in range(4)]
    with pytest.raises(PoolTimeoutError):
        cluster.servers.acquire()
    for channel in lent:
        cluster.servers.release(channel)
    assert "0 set aside" in repr(cluster.servers)


def test_a_channel_of_nobody_is_refused(cluster: Cluster) -> None:
    channel = cluster.servers.acquire()
    cluster.servers.release(channel)
    with pytest.raises(RuntimeError, match="not on loan"):
        cluster.servers.release(channel)


def test_close_closes_all(cluster: Cluster) -> None:
    cluster.asked(3)
    cluster.servers.close()
    assert cluster.servers.closed
    assert all(pool.closed for pool in cluster.pools)
    with pytest.raises(HskvConnectionError, match="closed"):
        cluster.servers.acquire()
