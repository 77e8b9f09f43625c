import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.exceptions import PoolTimeoutError
from hskv.transport.pool import ChannelPool

from .fake_channels import Borrower, Server, age, consistent, two_of


def test_nothing_is_connected_before_it_is_needed(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    assert fake_server.made == []
    channel: Any = pool.acquire()
    assert fake_server.made == [channel]
    assert repr(pool) == "<ChannelPool, 1 of 2 channels, 0 idle, 0 waiting>"
    pool.release(channel)
    assert repr(pool) == "<ChannelPool, 1 of 2 channels, 1 idle, 0 waiting>"
    consistent(pool, 0)


def test_the_last_one_used_is_reused_first(fake_server: Server, pool: ChannelPool[Any]) -> None:
    first, second = two_of(pool)
    pool.release(first)
    pool.release(second)
    assert pool.acquire() is second
    assert pool.acquire() is first
    assert len(fake_server.made) == 2
    pool.release(first)
    pool.release(second)


def test_no_more_than_size_channels_and_then_a_timeout(fake_server: Server) -> None:
    pool = ChannelPool(fake_server.connect, size=2, timeout=0.05)
    lent = two_of(pool)
    start = monotonic()
    with pytest.raises(PoolTimeoutError, match=r"all 2 channels stayed in use for 0\.05 s"):
        pool.acquire()
    assert 0.05 <= monotonic() - start < 1
    assert len(fake_server.made) == 2
    consistent(pool, 2)
    pool.release(lent[0])
    assert pool.acquire() is lent[0]


def test_waiters_are_served_first_come_first_served(pool: ChannelPool[Any]) -> None:
    lent = two_of(pool)
    order: list[int] = []
    done = [threading.Event() for _ in range(3)]

    def then(number: int) -> Callable[[Any], None]:
        def note(channel: Any) -> None:
            order.append(number)
            done[number].set()

        return note

    borrowers = [Borrower(pool, then(number)) for number in range(3)]
    channel = lent[0]
    for number in range(3):
        pool.release(channel)
        assert done[number].wait(5)
        assert borrowers[number].result() is channel
    assert order == [0, 1, 2]
    pool.release(channel)
    pool.release(lent[1])
    consistent(pool, 0)


def test_who_comes_later_does_not_overtake_a_waiter(pool: ChannelPool[Any]) -> None:
    pool.acquire()
    channel: Any = pool.acquire()
    first = Borrower(pool)
    second = Borrower(pool)
    pool.release(channel)
    assert first.result() is channel
    assert second.outcome is None
    pool.release(channel)
    assert second.result() is channel
    pool.discard(channel)


def test_acquire_stands_in_line_although_a_channel_is_idle(pool: ChannelPool[Any]) -> None:
    one, two = two_of(pool)
    borrower = Borrower(pool)
    # As when a release is between its two lines: the channel is idle, nobody is served yet.
    two.holder = None
    pool._idle.append(two)
    late = Borrower(pool, queue=1)
    assert borrower.result() is two
    pool.release(one)
    assert late.result() is one
    pool.release(one)
    pool.release(two)


def test_a_discarded_channel_makes_place_for_a_waiter(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    lent = two_of(pool)
    borrower = Borrower(pool)
    pool.discard(lent[0])
    assert lent[0].closed
    assert borrower.result() is fake_server.made[2]
    consistent(pool, 2)


def test_a_failed_connect_frees_its_place(fake_server: Server, pool: ChannelPool[Any]) -> None:
    fake_server.down = True
    for _ in range(5):
        with pytest.raises(HskvConnectionError, match="refused") as raised:
            pool.acquire()
        # A traceback tells of the network alone, and not of the empty pool.
        assert raised.value.__context__ is None
        consistent(pool, 0)
    fake_server.down = False
    pool.release(pool.acquire())


def test_a_failed_connect_passes_its_place_to_a_waiter(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    lent = two_of(pool)
    borrowers = [Borrower(pool), Borrower(pool)]
    fake_server.down = True
    pool.discard(lent[0])
    for borrower in borrowers:
        assert isinstance(borrower.result(), HskvConnectionError)
    consistent(pool, 1)
    pool.release(lent[1])


@pytest.mark.parametrize("give_back", ["release", "discard"])
def test_a_double_or_wrong_return_is_a_runtime_error(
    fake_server: Server, pool: ChannelPool[Any], give_back: str
) -> None:
    other = ChannelPool(fake_server.connect, size=1, timeout=1)
    channel: Any = pool.acquire()
    for stranger in (other, pool):
        if stranger is pool:
            pool.release(channel)
        with pytest.raises(RuntimeError, match="not on loan from <ChannelPool"):
            getattr(stranger, give_back)(channel)
    assert not channel.closed
    consistent(pool, 0)
    consistent(other, 0)


def test_a_channel_past_its_lifetime_ends_when_it_comes_back(pool: ChannelPool[Any]) -> None:
    channel: Any = pool.acquire()
    channel.expires = 0.0
    pool.release(channel)
    assert channel.closed
    consistent(pool, 0)


def test_a_channel_past_its_lifetime_is_not_lent_again(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    channel: Any = pool.acquire()
    pool.release(channel)
    channel.expires = 0.0
    age(2, channel)
    assert pool.acquire() is fake_server.made[1]
    assert channel.closed
    consistent(pool, 1)


def test_a_channel_idle_for_too_long_is_not_lent_again(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    first, second = two_of(pool)
    pool.release(first)
    pool.release(second)
    age(19, first)
    age(20, second)
    assert pool.acquire() is first
    assert second.closed
    consistent(pool, 1)


def test_an_idle_channel_is_peeked_at_only_after_a_second(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    channel: Any = pool.acquire()
    channel.server_went = True
    pool.release(channel)
    age(0.5, channel)
    assert pool.acquire() is channel
    fake_server.made[0].server_went = False
    pool.release(channel)
    age(1.5, channel)
    assert pool.acquire() is channel


def test_with_no_time_to_peek_after_every_channel_is_peeked_at(fake_server: Server) -> None:
    pool = ChannelPool(fake_server.connect, size=2, timeout=1.0, peek_after=0.0)
    channel: Any = pool.acquire()
    pool.release(channel)
    assert pool.acquire() is channel
    pool.release(channel)
    fake_server.made[0].server_went = True
    assert pool.acquire() is fake_server.made[1]
    assert fake_server.made[0].closed
    consistent(pool, 1)


def test_a_purge_closes_idle_channels_at_once_and_those_in_use_when_they_come_back(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    idle, lent = two_of(pool)
    pool.release(idle)
    pool.purge()
    assert idle.closed
    assert not lent.closed
    pool.release(lent)
    assert lent.closed
    consistent(pool, 0)
    assert pool.acquire() is fake_server.made[2]


def test_when_the_server_went_all_idle_channels_are_dropped(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    first, second = two_of(pool)
    pool.release(first)
    pool.release(second)
    second.server_went = True
    age(2, second)
    assert pool.acquire() is fake_server.made[2]
    assert first.closed
    assert second.closed
    consistent(pool, 1)


def test_a_waiter_given_a_dead_channel_connects_anew(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    lent = two_of(pool)
    borrower = Borrower(pool)
    lent[0].server_went = True
    lent[0].holder = None
    age(2, lent[0])
    pool._idle.append(lent[0])
    pool._serve()
    assert borrower.result() is fake_server.made[2]
    consistent(pool, 2)
