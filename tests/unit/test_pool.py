import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.exceptions import PoolTimeoutError
from hskv.transport import pool as pool_module
from hskv.transport.pool import ChannelPool


class FakeChannel:
    def __init__(self) -> None:
        self.holder: object = None
        self.last_used = monotonic()
        self.expires = float("inf")
        self.closed = False
        self.server_went = False

    def close(self) -> None:
        self.closed = True

    def gone(self) -> bool:
        return self.server_went


class Server:
    """Makes fake channels; refuses while `down`."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.down = False

    def connect(self) -> Any:
        if self.down:
            raise HskvConnectionError("refused")
        self.made.append(FakeChannel())
        return self.made[-1]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def pool(server: Server) -> Iterator[ChannelPool]:
    made = ChannelPool(server.connect, size=2, timeout=5.0)
    yield made
    made.close()
    consistent(made, 0)


def consistent(pool: ChannelPool, on_loan: int) -> None:
    """The counters agree with each other and with the channels."""
    idle = list(pool._idle)
    assert pool._size == len(pool._channels) == len(idle) + on_loan
    assert len(set(map(id, idle))) == len(idle)
    assert not pool._waiters
    for channel in idle:
        assert channel.holder is None
        assert not channel.closed


def waiting(pool: ChannelPool, count: int) -> None:
    deadline = monotonic() + 5
    while len(pool._waiters) < count:
        assert monotonic() < deadline
        threading.Event().wait(0.001)


class Borrower(threading.Thread):
    """Acquires in a thread of its own; what came of it is in `outcome`."""

    def __init__(self, pool: ChannelPool, then: Callable[[Any], None] = lambda _: None) -> None:
        super().__init__(daemon=True)
        self.outcome: Any = None
        self._pool, self._then = pool, then
        before = len(pool._waiters)
        self.start()
        waiting(pool, before + 1)

    def run(self) -> None:
        try:
            self.outcome = self._pool.acquire()
        except BaseException as error:  # noqa: BLE001 any of them is the outcome
            self.outcome = error
        self._then(self.outcome)

    def result(self) -> Any:
        self.join(5)
        assert not self.is_alive()
        return self.outcome


def age(seconds: float, *channels: Any) -> None:
    for channel in channels:
        channel.last_used -= seconds


def test_nothing_is_connected_before_it_is_needed(server: Server, pool: ChannelPool) -> None:
    assert server.made == []
    channel = pool.acquire()
    assert server.made == [channel]
    assert repr(pool) == "<ChannelPool, 1 of 2 channels, 0 idle, 0 waiting>"
    pool.release(channel)
    assert repr(pool) == "<ChannelPool, 1 of 2 channels, 1 idle, 0 waiting>"
    consistent(pool, 0)


def test_the_last_one_used_is_reused_first(server: Server, pool: ChannelPool) -> None:
    first, second = pool.acquire(), pool.acquire()
    pool.release(first)
    pool.release(second)
    assert pool.acquire() is second
    assert pool.acquire() is first
    assert len(server.made) == 2
    pool.release(first)
    pool.release(second)


def test_no_more_than_size_channels_and_then_a_timeout(server: Server) -> None:
    pool = ChannelPool(server.connect, size=2, timeout=0.05)
    lent = [pool.acquire(), pool.acquire()]
    start = monotonic()
    with pytest.raises(PoolTimeoutError, match="all 2 channels stayed in use for 0.05 s"):
        pool.acquire()
    assert 0.05 <= monotonic() - start < 1
    assert len(server.made) == 2
    consistent(pool, 2)
    pool.release(lent[0])
    assert pool.acquire() is lent[0]


def test_waiters_are_served_first_come_first_served(pool: ChannelPool) -> None:
    lent = [pool.acquire(), pool.acquire()]
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


def test_who_comes_later_does_not_overtake_a_waiter(pool: ChannelPool) -> None:
    pool.acquire()
    channel = pool.acquire()
    first = Borrower(pool)
    second = Borrower(pool)
    pool.release(channel)
    assert first.result() is channel
    assert second.outcome is None
    pool.release(channel)
    assert second.result() is channel
    pool.discard(channel)


def test_acquire_stands_in_line_although_a_channel_is_idle(pool: ChannelPool) -> None:
    one, two = pool.acquire(), pool.acquire()
    borrower = Borrower(pool)
    # As when a release is between its two lines: the channel is idle, nobody is served yet.
    two.holder = None
    pool._idle.append(two)
    late = Borrower(pool)
    assert borrower.result() is two
    pool.release(one)
    assert late.result() is one
    pool.release(one)
    pool.release(two)


def test_a_discarded_channel_makes_place_for_a_waiter(server: Server, pool: ChannelPool) -> None:
    lent = [pool.acquire(), pool.acquire()]
    borrower = Borrower(pool)
    pool.discard(lent[0])
    assert lent[0].closed
    assert borrower.result() is server.made[2]
    consistent(pool, 2)


def test_a_failed_connect_frees_its_place(server: Server, pool: ChannelPool) -> None:
    server.down = True
    for _ in range(5):
        with pytest.raises(HskvConnectionError, match="refused"):
            pool.acquire()
        consistent(pool, 0)
    server.down = False
    pool.release(pool.acquire())


def test_a_failed_connect_passes_its_place_to_a_waiter(server: Server, pool: ChannelPool) -> None:
    lent = [pool.acquire(), pool.acquire()]
    borrowers = [Borrower(pool), Borrower(pool)]
    server.down = True
    pool.discard(lent[0])
    for borrower in borrowers:
        assert isinstance(borrower.result(), HskvConnectionError)
    consistent(pool, 1)
    pool.release(lent[1])


@pytest.mark.parametrize("give_back", ["release", "discard"])
def test_a_double_or_wrong_return_is_a_runtime_error(
    server: Server, pool: ChannelPool, give_back: str
) -> None:
    other = ChannelPool(server.connect, size=1, timeout=1)
    channel = pool.acquire()
    for stranger in (other, pool):
        if stranger is pool:
            pool.release(channel)
        with pytest.raises(RuntimeError, match="not on loan from <ChannelPool"):
            getattr(stranger, give_back)(channel)
    assert not channel.closed
    consistent(pool, 0)
    consistent(other, 0)


def test_a_channel_past_its_lifetime_ends_when_it_comes_back(pool: ChannelPool) -> None:
    channel = pool.acquire()
    channel.expires = 0.0
    pool.release(channel)
    assert channel.closed
    consistent(pool, 0)


def test_a_channel_past_its_lifetime_is_not_lent_again(server: Server, pool: ChannelPool) -> None:
    channel = pool.acquire()
    pool.release(channel)
    channel.expires = 0.0
    age(2, channel)
    assert pool.acquire() is server.made[1]
    assert channel.closed
    consistent(pool, 1)


def test_a_channel_idle_for_too_long_is_not_lent_again(server: Server, pool: ChannelPool) -> None:
    first, second = pool.acquire(), pool.acquire()
    pool.release(first)
    pool.release(second)
    age(19, first)
    age(20, second)
    assert pool.acquire() is server.made[2]
    assert (first.closed, second.closed) == (True, True) or pool.acquire() is first
    assert second.closed


def test_an_idle_channel_is_peeked_at_only_after_a_second(pool: ChannelPool) -> None:
    channel = pool.acquire()
    channel.server_went = True
    pool.release(channel)
    age(0.5, channel)
    assert pool.acquire() is channel
    channel.server_went = False
    pool.release(channel)
    age(1.5, channel)
    assert pool.acquire() is channel


def test_when_the_server_went_all_idle_channels_are_dropped(
    server: Server, pool: ChannelPool
) -> None:
    first, second = pool.acquire(), pool.acquire()
    pool.release(first)
    pool.release(second)
    second.server_went = True
    age(2, second)
    assert pool.acquire() is server.made[2]
    assert first.closed
    assert second.closed
    consistent(pool, 1)


def test_a_waiter_given_a_dead_channel_connects_anew(server: Server, pool: ChannelPool) -> None:
    lent = [pool.acquire(), pool.acquire()]
    borrower = Borrower(pool)
    lent[0].server_went = True
    lent[0].holder = None
    age(2, lent[0])
    pool._idle.append(lent[0])
    pool._serve()
    assert borrower.result() is server.made[2]
    consistent(pool, 2)


def test_a_closed_pool_closes_what_is_idle_and_later_what_is_lent(pool: ChannelPool) -> None:
    idle, lent = pool.acquire(), pool.acquire()
    pool.release(idle)
    pool.close()
    assert idle.closed
    assert not lent.closed
    assert repr(pool) == "<ChannelPool, closed, 0 idle, 0 waiting>"
    pool.release(lent)
    assert lent.closed
    with pytest.raises(HskvConnectionError, match="closed"):
        pool.acquire()
    pool.close()
    consistent(pool, 0)


def test_close_sends_waiters_away(pool: ChannelPool) -> None:
    lent = [pool.acquire(), pool.acquire()]
    borrowers = [Borrower(pool) for _ in range(3)]
    pool.close()
    for borrower in borrowers:
        assert isinstance(borrower.result(), HskvConnectionError)
    consistent(pool, 2)
    for channel in lent:
        pool.release(channel)


def test_a_pool_closed_while_one_connects_ends_that_channel_after_use() -> None:
    pools: list[ChannelPool] = []

    def connect() -> Any:
        pools[0].close()
        return FakeChannel()

    pools.append(ChannelPool(connect, size=1, timeout=1))
    channel = pools[0].acquire()
    pools[0].release(channel)
    assert channel.closed  # type: ignore[truthy-bool]
    consistent(pools[0], 0)


def test_a_pool_closed_during_a_release_keeps_no_idle_channel() -> None:
    class Closing(FakeChannel):
        """Closes its pool as soon as it was found not to have expired."""

        closing = False

        @property
        def expires(self) -> float:
            if self.closing:
                self.closing = False
                pool.close()
            return float("inf")

        @expires.setter
        def expires(self, value: float) -> None:
            pass

    made: Any = Closing
    pool = ChannelPool(made, size=1, timeout=1)
    channel: Any = pool.acquire()
    channel.closing = True
    pool.release(channel)
    assert channel.closed
    consistent(pool, 0)


@pytest.mark.parametrize("served", [False, True])
def test_an_interrupted_waiter_leaves_no_hole(
    pool: ChannelPool, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    lent = [pool.acquire(), pool.acquire()]

    def interrupted(waiter: object, seconds: float) -> bool:
        if served:
            pool.release(lent[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool_module._Waiter, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.acquire()
    consistent(pool, 1 if served else 2)
    if not served:
        pool.release(lent[0])
    assert pool.acquire() is lent[0]


def test_an_interrupted_waiter_gives_back_its_right_to_connect(
    server: Server, pool: ChannelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(waiter: object, seconds: float) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool_module._Waiter, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.acquire()
    consistent(pool, 0)
    assert [pool.acquire(), pool.acquire()] == server.made


def test_who_is_served_at_the_last_moment_does_not_time_out(
    pool: ChannelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = [pool.acquire(), pool.acquire()]

    def too_late(waiter: object, seconds: float) -> bool:
        pool.release(lent[1])
        return False

    monkeypatch.setattr(pool_module._Waiter, "wait", too_late)
    assert pool.acquire() is lent[1]


def test_removing_a_channel_twice_counts_once(pool: ChannelPool) -> None:
    channel = pool.acquire()
    pool.discard(channel)
    pool._remove(channel)
    consistent(pool, 0)


def test_a_forked_child_has_an_empty_pool_and_the_parent_keeps_its_own(
    server: Server, pool: ChannelPool
) -> None:
    idle, lent = pool.acquire(), pool.acquire()
    pool.release(idle)
    with pool._lock:  # as if another thread held it while this one forks
        child = os.fork()
        if child == 0:
            result = 1
            with contextlib.suppress(BaseException):
                consistent(pool, 0)
                assert idle.closed
                assert lent.closed
                assert pool.acquire() is server.made[2]
                result = 0
            os._exit(result)
    assert os.waitpid(child, 0)[1] == 0
    assert not idle.closed
    assert not lent.closed
    consistent(pool, 1)
    assert pool.acquire() is idle
    pool.release(idle)
    pool.release(lent)


def test_sixteen_threads_leave_the_counters_consistent(server: Server) -> None:
    pool = ChannelPool(server.connect, size=5, timeout=30.0)
    in_use: set[int] = set()
    faults: list[object] = []

    def borrow(seed: int) -> None:
        for turn in range(500):
            channel: Any = pool.acquire()
            if id(channel) in in_use or channel.closed:
                faults.append(channel)
            in_use.add(id(channel))
            in_use.discard(id(channel))
            if (turn + seed) % 50 == 0:
                pool.discard(channel)
            else:
                pool.release(channel)

    threads = [threading.Thread(target=borrow, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert faults == []
    assert pool._size <= 5
    consistent(pool, 0)
    assert sum(not channel.closed for channel in server.made) == len(pool._idle)
