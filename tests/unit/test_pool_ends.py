import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.exceptions import PoolTimeoutError
from hskv.transport import pool as pool_module
from hskv.transport.pool import ChannelPool

from .fake_channels import Borrower, FakeChannel, Server, consistent, two_of


def test_a_closed_pool_closes_what_is_idle_and_later_what_is_lent(pool: ChannelPool[Any]) -> None:
    idle, lent = two_of(pool)
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


def test_close_sends_waiters_away(pool: ChannelPool[Any]) -> None:
    lent = two_of(pool)
    borrowers = [Borrower(pool) for _ in range(3)]
    pool.close()
    for borrower in borrowers:
        assert isinstance(borrower.result(), HskvConnectionError)
    consistent(pool, 2)
    for channel in lent:
        pool.release(channel)


def test_a_pool_closed_while_one_connects_ends_that_channel_after_use() -> None:
    pools: list[ChannelPool[Any]] = []

    def connect() -> Any:
        pools[0].close()
        return FakeChannel()

    pools.append(ChannelPool(connect, size=1, timeout=1))
    channel: Any = pools[0].acquire()
    pools[0].release(channel)
    assert channel.closed
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
    pool: ChannelPool[Any], monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    lent = two_of(pool)

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
    fake_server: Server, pool: ChannelPool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(waiter: object, seconds: float) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool_module._Waiter, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.acquire()
    consistent(pool, 0)
    assert [pool.acquire(), pool.acquire()] == fake_server.made


def test_who_is_served_at_the_last_moment_does_not_time_out(
    fake_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ChannelPool(fake_server.connect, size=2, timeout=0.0)
    lent = two_of(pool)

    def too_late(waiter: object, seconds: float) -> bool:
        pool.release(lent[1])
        return False

    monkeypatch.setattr(pool_module._Waiter, "wait", too_late)
    assert pool.acquire() is lent[1]


def test_who_waits_long_looks_for_places_that_are_free_without_a_sign(
    fake_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_LOOK_SECONDS", 0.01)
    pool = ChannelPool(fake_server.connect, size=1, timeout=5.0)
    lent = pool.acquire()
    borrower = Borrower(pool)
    time.sleep(0.05)
    assert borrower.is_alive()
    # As an interrupt may leave it: nobody has it, and nobody was told.
    fake_server.made.clear()
    del lent
    borrower.join(5)
    assert fake_server.made == [borrower.outcome]


@pytest.mark.parametrize("another_comes_back", [False, True])
def test_a_call_from_within_a_release_is_answered_in_time(
    pool: ChannelPool[Any], another_comes_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a signal handler, whose thread has the pool's lock."""
    one, other = two_of(pool)
    borrower = Borrower(pool)
    give, outcomes = pool_module._Waiter.give, []

    def interrupted(waiter: Any, channel: Any) -> None:
        monkeypatch.setattr(pool_module._Waiter, "give", give)
        if another_comes_back:
            threading.Thread(target=pool.release, args=(other,), daemon=True).start()
        try:
            outcomes.append(pool.acquire())
        except PoolTimeoutError:
            outcomes.append(None)
        give(waiter, channel)

    monkeypatch.setattr(pool_module._Waiter, "give", interrupted)
    monkeypatch.setattr(pool, "_timeout", 5.0 if another_comes_back else 0.1)
    began = time.monotonic()
    pool.release(one)
    assert time.monotonic() - began < 2
    assert outcomes == [other if another_comes_back else None]
    assert borrower.result() is one
    consistent(pool, 2)


def test_a_channel_that_comes_while_all_are_told_to_end_is_told_too(
    pool: ChannelPool[Any],
) -> None:
    class Interrupting(FakeChannel):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "expires" and value == 0.0 and len(lent) == 1:
                lent.append(pool.acquire())

    lent: list[Any] = []
    pool._connect = Interrupting
    lent.append(pool.acquire())
    pool.purge()
    assert [channel.expires for channel in lent] == [0.0, 0.0]
    for channel in lent:
        pool.release(channel)
    consistent(pool, 0)


def test_what_an_orphan_was_given_is_not_put_back(pool: ChannelPool[Any]) -> None:
    waiter: pool_module._Waiter[Any] = pool_module._Waiter()
    waiter.give(pool.acquire())
    waiter.orphan()
    pool._give_up(waiter)
    assert not pool._idle


def test_removing_a_channel_twice_counts_once(pool: ChannelPool[Any]) -> None:
    channel: Any = pool.acquire()
    pool.discard(channel)
    pool._remove(channel)
    consistent(pool, 0)


def test_a_forked_child_has_an_empty_pool_and_the_parent_keeps_its_own(
    fake_server: Server, pool: ChannelPool[Any]
) -> None:
    idle, lent = two_of(pool)
    pool.release(idle)
    with pool._lock:  # as if another thread held it while this one forks
        child = os.fork()
        if child == 0:
            result = 1
            with contextlib.suppress(BaseException):
                consistent(pool, 0)
                assert pool.acquire() is fake_server.made[2]
                result = 0
            os._exit(result)
    assert os.waitpid(child, 0)[1] == 0
    assert not idle.closed
    assert not lent.closed
    consistent(pool, 1)
    assert pool.acquire() is idle
    pool.release(idle)
    pool.release(lent)


def test_a_waiter_of_a_child_queues_up_anew(fake_server: Server) -> None:
    pool = ChannelPool(fake_server.connect, size=1, timeout=5.0)
    lent: Any = pool.acquire()
    borrower = Borrower(pool)
    pool.after_fork()
    assert borrower.result() is fake_server.made[1]
    consistent(pool, 1)
    pool.discard(lent)
    consistent(pool, 1)


def test_what_a_waiter_was_given_before_a_fork_is_not_used(fake_server: Server) -> None:
    pool = ChannelPool(fake_server.connect, size=1, timeout=5.0)
    waiter: pool_module._Waiter[Any] = pool_module._Waiter()
    waiter.give(pool.acquire())
    waiter.orphan()
    assert waiter.orphaned
    assert waiter.wait(0.0)


@pytest.mark.parametrize("down", [False, True])
def test_a_channel_connected_across_a_fork_is_closed(fake_server: Server, down: bool) -> None:
    made: list[Any] = []

    def connect() -> Any:
        if not made:
            made.append(fake_server.connect())
            pool.after_fork()
            if down:
                raise HskvConnectionError("the socket was closed in the child")
            return made[0]
        return fake_server.connect()

    pool = ChannelPool(connect, size=1, timeout=5.0)
    if down:
        with pytest.raises(HskvConnectionError):
            pool.acquire()
        consistent(pool, 0)
    else:
        assert pool.acquire() is fake_server.made[1]
        assert made[0].closed
        consistent(pool, 1)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_threads")
def test_sixteen_threads_leave_the_counters_consistent(fake_server: Server) -> None:
    pool = ChannelPool(fake_server.connect, size=5, timeout=30.0)
    in_use: set[int] = set()
    faults: list[object] = []

    def borrow(seed: int) -> None:
        for turn in range(500):
            channel: Any = pool.acquire()
            if id(channel) in in_use or channel.closed:
                faults.append(channel)
            in_use.add(id(channel))
            if turn % 10 == 0:
                time.sleep(0)  # lets the others run into a pool with nothing idle
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
    assert not any(thread.is_alive() for thread in threads)
    assert len(pool._taken) <= 5
    consistent(pool, 0)
    assert sum(not channel.closed for channel in fake_server.made) == len(pool._idle)


def test_a_channel_idle_too_long_is_closed_while_others_are_in_use(fake_server: Server) -> None:
    pool = ChannelPool(fake_server.connect, size=3, timeout=1, max_idle=20.0)
    oldest, older, used = (pool.acquire() for _ in range(3))
    for channel in (oldest, older):
        pool.release(channel)
    oldest.last_used -= 20.0
    pool.release(used)
    assert oldest.closed
    assert not older.closed
    consistent(pool, 0)
    assert pool.acquire() is used


def test_a_channel_taken_while_the_oldest_is_looked_at_stays(fake_server: Server) -> None:
    pool = ChannelPool(fake_server.connect, size=2, timeout=1, max_idle=20.0)
    channel: Any = pool.acquire()
    pool.release(channel)
    # Another thread took the old one; the first is fresh now.
    pool._shed(time.monotonic())
    assert not channel.closed
    assert pool.acquire() is channel


def test_all_channels_taken_in_between_leave_nothing_to_close(fake_server: Server) -> None:
    class Emptied(deque[Any]):
        def __getitem__(self, place: Any) -> Any:
            raise IndexError(place)

    pool = ChannelPool(fake_server.connect, size=1, timeout=1)
    channel = pool.acquire()
    pool._idle = Emptied()
    pool.release(channel)
    assert not channel.closed
