"""What a lease promises, on the real server: by turns, in time, with clocks and replies astray."""

import gc
import math
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore, Lease
from hskv.exceptions import ConnectionError as LostConnectionError
from hskv.exceptions import (
    HandlerSocketError,
    LeaseLostError,
    LeaseTimeoutError,
    OutcomeUnknownError,
)
from hskv.mariadb import PrivateServer

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]

# What a busy machine may add to any wait.
SLOW_SECONDS = 10.0


class World:
    """Time that passes only when a test moves it or a waiting lease sleeps.

    All leases of the process share it; the clock of each store may be set apart. It moves by
    sums of powers of two, which a float holds exactly.
    """

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000.0
        self.moved_by_hand = 0.0
        self._store = store
        monkeypatch.setattr("hskv.store.lease.monotonic", lambda: self.now)
        monkeypatch.setattr("hskv.store.lease.sleep", self.pass_by)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds

    def lease(self, name: str, ttl: float = 8, *, ahead: float = 0, **options: Any) -> Lease:
        """A lease whose clock is so many seconds ahead."""
        clock = lambda: self.now + self.moved_by_hand + ahead  # noqa: E731
        return KeyValueStore(self._store.client, clock=clock).lease(name, ttl, **options)


@pytest.fixture
def world(hskv_store: Store, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(hskv_store, monkeypatch)


@pytest.fixture
def end_of(run_sql: Sql) -> Callable[[str], int | None]:
    """When the lease of a name ends, as it stands in the table; None without a row."""

    def look(name: str) -> int | None:
        rows = run_sql("SELECT expires FROM kv WHERE k = %s", b"\x00L\x00" + name.encode())
        return int(rows[0][0]) if rows else None

    return look


@pytest.fixture
def steal(run_sql: Sql) -> Callable[[str], None]:
    """Gives a lease to somebody else, whatever its end."""

    def take(name: str) -> None:
        run_sql("UPDATE kv SET version = 1 WHERE k = %s", b"\x00L\x00" + name.encode())

    return take


@pytest.fixture(scope="module")
def own_server() -> Iterator[PrivateServer]:
    """A server that a test may restart."""
    with PrivateServer() as server:
        yield server


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SLOW_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def quick(server: PrivateServer) -> Store:
    """A store that does not try for long when its server is away."""
    return hskv.connect(server.url, timeout=0.4, connect_timeout=0.2)


def holds(lease: Lease) -> bool:
    # A type checker takes an attribute for what it was at the last look.
    return lease.held


def known(lease: Lease) -> tuple[Any, ...]:
    return lease.token, lease.fence, lease.held


def renewals() -> int:
    return sum(thread.name == "hskv-lease-renewal" for thread in threading.enumerate())


class TestTurns:
    def test_it_is_one_holders_until_it_is_released(self, hskv_store: Store) -> None:
        first, second = hskv_store.lease("a"), hskv_store.lease("a")
        assert first.acquire()
        assert holds(first)
        assert not second.acquire(wait=False)
        assert not holds(second)
        first.release()
        assert not holds(first)
        assert second.acquire(wait=False)

    def test_a_released_lease_leaves_no_row(
        self, hskv_store: Store, end_of: Callable[[str], int | None]
    ) -> None:
        lease = hskv_store.lease("a")
        lease.acquire()
        assert end_of("a") is not None
        lease.release()
        assert end_of("a") is None

    def test_locked_tells_whether_anybody_holds_it(self, hskv_store: Store) -> None:
        lease, looker = hskv_store.lease("a"), hskv_store.lease("a")
        assert not looker.locked()
        lease.acquire()
        assert looker.locked()
        assert lease.locked()
        lease.release()
        assert not looker.locked()

    @pytest.mark.parametrize("fence", [False, True])
    def test_what_it_knows_of_itself_goes_with_the_release(
        self, hskv_store: Store, fence: bool
    ) -> None:
        lease = hskv_store.lease("a", fence=fence)
        assert known(lease) == (None, None, False)
        assert "not held" in repr(lease)
        lease.acquire()
        assert lease.token
        assert lease.fence == (1 if fence else None)
        assert repr(lease).endswith(", held>")
        lease.release()
        assert known(lease) == (None, None, False)

    def test_a_second_release_is_refused(self, hskv_store: Store) -> None:
        lease, other = hskv_store.lease("a"), hskv_store.lease("a")
        lease.acquire()
        lease.release()
        other.acquire()
        with pytest.raises(RuntimeError, match="not held"):
            lease.release()
        with pytest.raises(RuntimeError, match="not held"):
            lease.extend()
        assert not hskv_store.lease("a").acquire(wait=False)

    def test_another_thread_may_release_it(self, hskv_store: Store) -> None:
        lease = hskv_store.lease("a")
        lease.acquire()
        thread = threading.Thread(target=lease.release)
        thread.start()
        thread.join()
        assert not holds(lease)
        assert hskv_store.lease("a").acquire(wait=False)

    def test_its_own_object_waits_like_any_other(self, world: World) -> None:
        lease = world.lease("a", max_skew=0)
        lease.acquire()
        token = lease.token
        assert not lease.acquire(wait=False)
        assert not lease.acquire(wait=4)
        assert (holds(lease), lease.token) == (True, token)
        assert lease.acquire(wait=8)
        assert lease.token != token
        lease.release()
        with pytest.raises(RuntimeError):
            lease.release()

    @pytest.mark.parametrize(("wait", "waited"), [(False, 0), (0, 0), (0.5, 0.5), (3, 3)])
    def test_it_waits_no_longer_than_it_may(self, world: World, wait: float, waited: float) -> None:
        world.lease("a").acquire()
        began = world.now
        assert not world.lease("a").acquire(wait)
        assert world.now - began == pytest.approx(waited)

    def test_it_gives_up_in_time_by_the_real_clock(self, hskv_store: Store) -> None:
        hskv_store.lease("a").acquire()
        began = time.monotonic()
        assert not hskv_store.lease("a", poll=60).acquire(wait=0.3)
        assert 0.3 <= time.monotonic() - began < 0.3 + SLOW_SECONDS

    @pytest.mark.parametrize("wait", [True, math.inf, 20])
    def test_it_waits_for_the_end(self, world: World, wait: float) -> None:
        world.lease("a", 8).acquire()
        began = world.now
        assert world.lease("a", max_skew=1, poll=100).acquire(wait)
        # It knows the end, so that it need not come late.
        assert 9 <= world.now - began < 9.01

    def test_a_waiter_gets_it_soon_after_a_release(self, hskv_store: Store) -> None:
        lease, other = hskv_store.lease("a"), hskv_store.lease("a", poll=0.01)
        lease.acquire()
        waiting = threading.Thread(target=other.acquire)
        waiting.start()
        lease.release()
        waiting.join(SLOW_SECONDS)
        assert holds(other)


class TestWith:
    def test_it_is_held_inside(self, hskv_store: Store) -> None:
        with hskv_store.lease("a") as lease:
            assert holds(lease)
            assert not hskv_store.lease("a").acquire(wait=False)
        assert not holds(lease)
        assert not lease.locked()

    @pytest.mark.parametrize(("wait", "waited"), [(False, 0.0), (0.2, 0.2)])
    def test_it_waits_no_longer_than_the_lease_was_made_to(
        self, hskv_store: Store, wait: float, waited: float
    ) -> None:
        holder, other = hskv_store.lease("a"), hskv_store.lease("a", wait=wait)
        with holder:
            began = time.monotonic()
            with pytest.raises(LeaseTimeoutError, match=f"{wait!r} is how long"), other:
                pytest.fail("two of them hold it")
            assert waited <= time.monotonic() - began < waited + SLOW_SECONDS
            assert isinstance(LeaseTimeoutError(""), TimeoutError)
            assert other.acquire() is False
            assert holder.held
            assert not other.held
        with other:
            assert other.held

    def test_it_raises_where_another_took_over(self, world: World) -> None:
        other = world.lease("a")
        with pytest.raises(LeaseLostError):
            be_overtaken(world, other)
        assert holds(other)

    def test_it_raises_nothing_where_it_ended_but_nobody_took_it(self, world: World) -> None:
        with world.lease("a") as lease:
            world.pass_by(100)
        assert not lease.locked()

    def test_an_error_inside_lets_it_go(self, hskv_store: Store) -> None:
        with pytest.raises(ZeroDivisionError), hskv_store.lease("a"):
            raise ZeroDivisionError
        assert not hskv_store.lease("a").locked()

    def test_an_error_inside_comes_before_the_loss_which_is_logged(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            be_overtaken(world, world.lease("a"), ZeroDivisionError())
        assert "could not be released" in caplog.text
        assert "LeaseLostError" in caplog.text


def be_overtaken(world: World, other: Lease, error: Exception | None = None) -> None:
    """Stay inside a lease until another has it; then fail, or do not."""
    with world.lease("a"):
        world.pass_by(9)
        assert other.acquire(wait=False)
        if error:
            raise error


class TestTakeover:
    def test_the_end_in_the_row_follows_the_injected_clock(
        self, world: World, end_of: Callable[[str], int | None]
    ) -> None:
        world.lease("a", 8).acquire()
        assert end_of("a") == (world.now + 8) * 1000
        world.lease("b", 0.125, ahead=-100).acquire()
        assert end_of("b") == (world.now - 100 + 0.125) * 1000

    def test_a_part_of_a_millisecond_is_rounded_up(
        self, world: World, end_of: Callable[[str], int | None]
    ) -> None:
        world.lease("a", 1e-9).acquire()
        assert end_of("a") == world.now * 1000 + 1

    @pytest.mark.parametrize("fence", [False, True])
    @pytest.mark.parametrize("max_skew", [0, 0.5, 3])
    def test_it_comes_after_the_end_and_the_skew_and_not_before(
        self, world: World, fence: bool, max_skew: float
    ) -> None:
        lease = world.lease("a", 8, fence=fence)
        other = world.lease("a", fence=fence, max_skew=max_skew)
        lease.acquire()
        world.pass_by(8 + max_skew - 2**-9)
        assert not other.acquire(wait=False)
        world.pass_by(2**-9)
        assert other.acquire(wait=False)
        assert holds(other)
        assert not holds(lease)

    def test_the_holder_trusts_it_until_its_end(self, world: World) -> None:
        lease = world.lease("a", 8)
        lease.acquire()
        world.pass_by(8 - 2**-10)
        assert holds(lease)
        world.pass_by(2**-10)
        assert not holds(lease)
        assert not lease.locked()

    def test_the_time_that_acquire_itself_takes_is_not_trusted(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = world.lease("a", 8)
        execute = lease._executor.execute

        def slowly(verbs: Any) -> Any:
            world.pass_by(5)
            return execute(verbs)

        monkeypatch.setattr(lease._executor, "execute", slowly)
        lease.acquire()
        assert holds(lease)
        world.pass_by(3)
        assert not holds(lease)

    @pytest.mark.parametrize("fence", [False, True])
    def test_whoever_was_overtaken_is_told_so_and_does_no_harm(
        self, world: World, fence: bool
    ) -> None:
        lease, other = world.lease("a", fence=fence), world.lease("a", fence=fence)
        lease.acquire()
        world.pass_by(9)
        other.acquire(wait=False)
        with pytest.raises(LeaseLostError):
            lease.extend()
        assert not holds(lease)
        with pytest.raises(LeaseLostError):
            lease.release()
        assert holds(other)
        assert not world.lease("a", fence=fence).acquire(wait=False)
        other.release()

    def test_whoever_was_overtaken_is_told_so_even_when_it_is_free_again(
        self, world: World
    ) -> None:
        lease, other = world.lease("a"), world.lease("a")
        lease.acquire()
        world.pass_by(9)
        other.acquire(wait=False)
        other.release()
        with pytest.raises(LeaseLostError):
            lease.release()


class TestExtend:
    @pytest.mark.parametrize(("ttl", "seconds"), [(None, 8), (4.125, 4.125), (32.5, 32.5)])
    def test_it_ends_so_many_seconds_from_now(
        self,
        world: World,
        end_of: Callable[[str], int | None],
        ttl: float | None,
        seconds: float,
    ) -> None:
        lease = world.lease("a", 8)
        lease.acquire()
        token = lease.token
        world.pass_by(4)
        lease.extend(ttl)
        assert end_of("a") == (world.now + seconds) * 1000
        assert lease.token == token
        world.pass_by(seconds - 2**-9)
        assert holds(lease)
        world.pass_by(2**-9)
        assert not holds(lease)

    def test_it_never_ends_it_sooner(
        self, world: World, end_of: Callable[[str], int | None]
    ) -> None:
        lease = world.lease("a", 8)
        lease.acquire()
        end = end_of("a")
        lease.extend(2)
        assert end_of("a") == end
        world.pass_by(7)
        assert lease.held
        lease.release()

    @pytest.mark.parametrize("fence", [False, True])
    def test_it_works_after_the_end_where_nobody_took_it(self, world: World, fence: bool) -> None:
        lease = world.lease("a", fence=fence)
        lease.acquire()
        world.pass_by(1000)
        assert not holds(lease)
        lease.extend()
        assert holds(lease)
        assert lease.fence == (1 if fence else None)
        assert not world.lease("a", fence=fence).acquire(wait=False)
        lease.release()

    def test_the_next_acquire_has_the_ttl_of_the_lease_again(
        self, world: World, end_of: Callable[[str], int | None]
    ) -> None:
        lease = world.lease("a", 8)
        lease.acquire()
        lease.extend(100)
        lease.release()
        lease.acquire()
        assert end_of("a") == (world.now + 8) * 1000

    def test_what_was_taken_while_it_should_be_held_is_held_no_more(
        self, hskv_store: Store, steal: Callable[[str], None]
    ) -> None:
        # As where a clock is wrong by more than max_skew, or somebody deleted the row.
        lease = hskv_store.lease("a", ttl=60)
        lease.acquire()
        steal("a")
        with pytest.raises(LeaseLostError):
            lease.extend()
        assert not holds(lease)


class TestSkew:
    @pytest.mark.parametrize("fence", [False, True])
    @pytest.mark.parametrize("ahead", [1, -1])
    def test_clocks_within_max_skew_never_make_two_holders(
        self, world: World, ahead: float, fence: bool
    ) -> None:
        one = world.lease("a", 8, max_skew=1, fence=fence)
        two = world.lease("a", 8, max_skew=1, fence=fence, ahead=ahead)
        assert overlap(world, one, two) == 0
        assert overlap(world, two, one) == 0

    def test_whoever_comes_and_goes_within_max_skew_is_alone(self, world: World) -> None:
        chance = random.Random(1)
        leases = [
            world.lease("a", 0.5, max_skew=1, ahead=ahead) for ahead in (-0.5, -0.25, 0, 0.25, 0.5)
        ]
        turns = 0
        for _ in range(1_500):
            lease = chance.choice(leases)
            if lease.token is None:
                turns += lease.acquire(wait=False)
            elif chance.random() < 0.3:
                with suppress(LeaseLostError):
                    lease.release()
            assert sum(holds(lease) for lease in leases) <= 1
            world.pass_by(chance.choice((0.015625, 0.125, 0.5)))
        assert turns > 50

    @pytest.mark.parametrize(
        ("ahead", "max_skew", "overlapping"), [(1, 0, 1), (3, 1, 2), (3, 0, 3), (0.5, 0, 0.5)]
    )
    def test_a_clock_beyond_max_skew_makes_two_holders_for_no_longer_than_it_is_beyond(
        self, world: World, ahead: float, max_skew: float, overlapping: float
    ) -> None:
        slow = world.lease("a", 8, max_skew=max_skew)
        fast = world.lease("a", 8, max_skew=max_skew, ahead=ahead)
        assert overlap(world, slow, fast) == overlapping
        # The other way round it is only later.
        assert overlap(world, fast, slow) == 0

    def test_a_slow_clock_waits_longer(self, world: World) -> None:
        lease, slow = world.lease("a", 8), world.lease("a", ahead=-1, max_skew=1)
        lease.acquire()
        began = world.now
        slow.acquire()
        assert world.now - began == pytest.approx(10, abs=0.01)


def overlap(world: World, first: Lease, second: Lease) -> float:
    """The seconds for which both hold a lease that the second takes as soon as it can."""
    step = 2**-6
    assert first.acquire(wait=False)
    while not second.acquire(wait=False):
        world.pass_by(step)
    assert holds(second)
    both = 0.0
    while holds(first):
        both += step
        world.pass_by(step)
    second.release()
    with pytest.raises(LeaseLostError):
        first.release()
    return both


class TestClock:
    def test_one_that_goes_backwards_ends_nothing_early(self, world: World) -> None:
        lease, other = world.lease("a", 8), world.lease("a", max_skew=1)
        lease.acquire()
        world.moved_by_hand = -1000
        world.pass_by(4)
        assert holds(lease)
        assert not other.acquire(wait=False)
        world.pass_by(4)
        # What is trusted goes by the monotonic clock.
        assert not holds(lease)
        assert not other.acquire(wait=False)
        world.pass_by(1001)
        assert other.acquire(wait=False)

    def test_a_waiter_whose_clock_goes_backwards_still_sees_a_release(self, world: World) -> None:
        lease, other = world.lease("a"), world.lease("a", poll=0.125)
        lease.acquire()
        world.moved_by_hand = -1000
        assert not other.acquire(wait=5)
        lease.release()
        assert other.acquire(wait=False)

    def test_one_that_goes_backwards_does_not_bring_the_end_forward(
        self, world: World, end_of: Callable[[str], int | None]
    ) -> None:
        lease = world.lease("a", 8)
        lease.acquire()
        end = end_of("a")
        world.moved_by_hand = -1000
        lease.extend()
        assert end_of("a") == end
        assert lease.held
        world.moved_by_hand = 0
        world.pass_by(7)
        assert not world.lease("a", max_skew=0).acquire(wait=False)
        lease.release()

    def test_one_that_goes_forwards_does_not_make_the_holder_doubt(self, world: World) -> None:
        lease = world.lease("a", 8)
        lease.acquire()
        world.moved_by_hand = 1000
        assert holds(lease)
        world.pass_by(8)
        assert not holds(lease)


class TestRenewal:
    def test_it_is_kept_past_several_ttls(
        self, hskv_store: Store, end_of: Callable[[str], int | None]
    ) -> None:
        lease = hskv_store.lease("a", ttl=0.4, renew=True)
        lease.acquire()
        token, first = lease.token, end_of("a") or 0
        eventually(lambda: (end_of("a") or 0) > first + 4 * 400)
        assert lease.token == token
        lease.release()
        assert not lease.locked()

    def test_nobody_else_gets_it_meanwhile(self, hskv_store: Store) -> None:
        lease = hskv_store.lease("a", ttl=1, renew=True)
        lease.acquire()
        # Without a renewal it would be had after two seconds.
        assert not hskv_store.lease("a", max_skew=1).acquire(wait=2.5)
        lease.release()

    def test_it_ends_with_the_release(self, hskv_store: Store) -> None:
        before = renewals()
        lease = hskv_store.lease("a", ttl=60, renew=True)
        lease.acquire()
        assert renewals() == before + 1
        lease.release()
        eventually(lambda: renewals() == before)

    def test_it_begins_anew_with_each_acquire(
        self, hskv_store: Store, end_of: Callable[[str], int | None]
    ) -> None:
        before = renewals()
        lease = hskv_store.lease("a", ttl=0.3, renew=True)
        for _ in range(3):
            lease.acquire()
            first = end_of("a") or 0
            eventually(lambda first=first: (end_of("a") or 0) > first)  # type: ignore[misc]
            lease.release()
        eventually(lambda: renewals() == before)

    def test_it_ends_with_the_loss_which_is_logged(
        self,
        hskv_store: Store,
        steal: Callable[[str], None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        before = renewals()
        lease = hskv_store.lease("a", ttl=1, renew=True)
        lease.acquire()
        steal("a")
        eventually(lambda: renewals() == before)
        assert "another took it over" in caplog.text
        with pytest.raises(LeaseLostError):
            lease.release()

    def test_it_ends_with_the_object(
        self, hskv_store: Store, end_of: Callable[[str], int | None]
    ) -> None:
        before = renewals()
        lease = hskv_store.lease("a", ttl=0.3, renew=True)
        lease.acquire()
        first = end_of("a") or 0
        eventually(lambda: (end_of("a") or 0) > first)
        del lease
        gc.collect()
        eventually(lambda: renewals() == before)
        assert hskv_store.lease("a", max_skew=0, poll=0.01).acquire(SLOW_SECONDS)

    def test_it_goes_on_after_the_server_was_away(
        self, own_server: PrivateServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with quick(own_server) as store:
            lease = store.lease("renewed", ttl=1, renew=True)
            lease.acquire()
            own_server.kill()
            eventually(lambda: "could not be renewed" in caplog.text)
            own_server.start()
            eventually(lambda: holds(lease))
            assert not store.lease("renewed").acquire(wait=False)
            lease.release()


class TestFence:
    def test_it_grows_with_each_holder_however_the_last_one_ended(self, world: World) -> None:
        released, ended = world.lease("a", fence=True), world.lease("a", fence=True)
        released.acquire()
        released.release()
        ended.acquire(wait=False)
        assert ended.fence == 2
        world.pass_by(9)
        released.acquire(wait=False)
        assert released.fence == 3
        with pytest.raises(LeaseLostError):
            ended.release()
        assert not world.lease("a", fence=True).acquire(wait=False)
        released.release()
        with world.lease("a", fence=True) as last:
            assert last.fence == 4

    def test_it_stays_with_its_holder(self, world: World) -> None:
        lease = world.lease("a", fence=True)
        lease.acquire()
        assert not world.lease("a", fence=True).acquire(wait=False)
        lease.extend()
        assert lease.fence == 1

    def test_each_name_has_its_own(self, hskv_store: Store) -> None:
        for name in ("a", "b"):
            with hskv_store.lease(name, fence=True) as lease:
                assert lease.fence == 1

    def test_neither_purge_nor_cull_makes_it_begin_anew(
        self, timed_store: Store, clock: Any
    ) -> None:
        for number in range(1, 4):
            with timed_store.lease("purged", fence=True) as lease:
                assert lease.fence == number
            timed_store.set("a", 1, ttl=5)
            clock.now += 3_600
            assert timed_store.purge_expired() == 1
            for value in range(110):
                timed_store["b"] = value
            timed_store.clear()

    def test_a_renewed_one_keeps_it(self, hskv_store: Store) -> None:
        lease = hskv_store.lease("a", ttl=0.3, fence=True, renew=True)
        lease.acquire()
        time.sleep(0.5)
        assert lease.fence == 1
        lease.release()


class Fate(Enum):
    """What becomes of a packet; then its connection ends, but for SILENCE."""

    NO_REPLY = "it is done, its reply lost"
    SILENCE = "it is done, and nothing comes any more"
    NO_REQUEST = "it never arrives"


class Breaker:
    """A TCP proxy before the write port, which harms packets on opened indexes when told to."""

    def __init__(self, server: PrivateServer) -> None:
        match = re.search(r",(\d+)/", server.url)
        assert match
        self._target = ("127.0.0.1", int(match[1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = server.url.replace(match[0], f",{self._listener.getsockname()[1]}/")
        self.left = 0
        self._refuses = False
        threading.Thread(target=self._accept, daemon=True).start()

    def harm(self, fate: Fate, *, times: int = 1, after: int = 0, refuse: bool = False) -> None:
        """Do this to the next packets, after so many replies; `refuse` connections from then on."""
        self._fate, self._after, self._refuse_then = fate, after, refuse
        self.left = times

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            client,
            socket.create_connection(self._target) as server,
            server.makefile("rb") as replies,
        ):
            while not self._refuses and (packet := client.recv(1 << 16)):
                lines = packet.splitlines()
                # Before them it may log in and open the index.
                before = sum(not line[:1].isdigit() for line in lines)
                harmed = self.left > 0 and before < len(lines)
                if harmed and self._begin_harm() is Fate.NO_REQUEST:
                    return
                server.sendall(packet)
                answers = [replies.readline() for _ in lines]
                if harmed:
                    client.sendall(b"".join(answers[: before + self._after]))
                    if self._fate is Fate.SILENCE:
                        client.recv(1)
                    return
                client.sendall(b"".join(answers))

    def _begin_harm(self) -> Fate:
        self.left -= 1
        self._refuses = self._refuse_then
        return self._fate


@pytest.fixture
def breaker(tcp_server: PrivateServer) -> Iterator[Breaker]:
    breaker = Breaker(tcp_server)
    yield breaker
    breaker.close()


@pytest.fixture
def direct(tcp_server: PrivateServer, clock: Any) -> Iterator[Store]:
    """A store past the breaker, on an empty table."""
    with hskv.connect(tcp_server.url, clock=clock) as store:
        store.modify(">=", [""], "D", limit=2**32 - 1)
        yield store


@pytest.fixture
def broken(breaker: Breaker, direct: Store, clock: Any) -> Iterator[Store]:
    """A store by way of the breaker, connected already."""
    with hskv.connect(breaker.url, timeout=0.4, clock=clock) as store:
        with store.lease("first", fence=True):
            pass
        with store.lease("first"):
            pass
        yield store


LOSSES = [
    (Fate.NO_REPLY, 0),
    (Fate.NO_REPLY, 1),
    (Fate.SILENCE, 0),
    (Fate.NO_REQUEST, 0),
]


@pytest.mark.parametrize("fence", [False, True])
class TestLostReplies:
    @pytest.mark.parametrize(("fate", "after"), LOSSES)
    def test_an_acquire_without_a_reply_is_given_back(
        self,
        broken: Store,
        direct: Store,
        breaker: Breaker,
        fence: bool,
        fate: Fate,
        after: int,
    ) -> None:
        lease = broken.lease("a", fence=fence)
        breaker.harm(fate, after=after)
        with pytest.raises(OutcomeUnknownError):
            lease.acquire(wait=False)
        assert breaker.left == 0
        assert known(lease) == (None, None, False)
        other = direct.lease("a", fence=fence)
        assert not other.locked()
        assert other.acquire(wait=False)

    def test_one_that_took_over_is_given_back_too(
        self, broken: Store, direct: Store, breaker: Breaker, clock: Any, fence: bool
    ) -> None:
        direct.lease("a", 8, fence=fence).acquire()
        clock.now += 9
        breaker.harm(Fate.NO_REPLY)
        with pytest.raises(OutcomeUnknownError):
            broken.lease("a", fence=fence).acquire(wait=False)
        assert direct.lease("a", fence=fence).acquire(wait=False)

    def test_one_of_another_is_not_given_back(
        self, broken: Store, direct: Store, breaker: Breaker, fence: bool
    ) -> None:
        holder = direct.lease("a", fence=fence)
        holder.acquire()
        breaker.harm(Fate.NO_REPLY)
        with pytest.raises(OutcomeUnknownError):
            broken.lease("a", fence=fence).acquire(wait=False)
        assert holder.locked()
        holder.release()

    def test_where_it_cannot_be_given_back_it_is_free_after_its_ttl(
        self, broken: Store, direct: Store, breaker: Breaker, clock: Any, fence: bool
    ) -> None:
        lease, other = broken.lease("a", 8, fence=fence), direct.lease("a", fence=fence)
        breaker.harm(Fate.NO_REPLY, refuse=True)
        with pytest.raises(OutcomeUnknownError):
            lease.acquire(wait=False)
        assert not holds(lease)
        assert not other.acquire(wait=False)
        clock.now += 9
        assert other.acquire(wait=False)

    @pytest.mark.parametrize("fate", Fate)
    def test_a_release_is_repeated(
        self, broken: Store, direct: Store, breaker: Breaker, fence: bool, fate: Fate
    ) -> None:
        lease = broken.lease("a", fence=fence)
        lease.acquire()
        breaker.harm(fate)
        lease.release()
        assert breaker.left == 0
        assert not holds(lease)
        assert direct.lease("a", fence=fence).acquire(wait=False)

    def test_a_release_without_any_reply_is_an_error(
        self, broken: Store, direct: Store, breaker: Breaker, fence: bool
    ) -> None:
        lease = broken.lease("a", fence=fence)
        lease.acquire()
        breaker.harm(Fate.NO_REPLY, times=2)
        with pytest.raises(OutcomeUnknownError):
            lease.release()
        assert not holds(lease)
        assert direct.lease("a", fence=fence).acquire(wait=False)

    @pytest.mark.parametrize(
        ("fate", "late"), [*((fate, False) for fate in Fate), (Fate.NO_REPLY, True)]
    )
    def test_an_extend_is_repeated(
        self,
        broken: Store,
        direct: Store,
        breaker: Breaker,
        clock: Any,
        fence: bool,
        fate: Fate,
        late: bool,
    ) -> None:
        lease = broken.lease("a", 0.05 if late else 60, fence=fence)
        lease.acquire()
        if late:
            eventually(lambda: not holds(lease))
        breaker.harm(fate)
        lease.extend(100)
        assert breaker.left == 0
        assert holds(lease)
        clock.now += 99
        assert direct.lease("a").locked()
        lease.release()

    def test_an_extend_without_any_reply_promises_nothing_new(
        self, broken: Store, breaker: Breaker, fence: bool
    ) -> None:
        lease = broken.lease("a", 0.5, fence=fence)
        lease.acquire()
        breaker.harm(Fate.NO_REPLY, times=2)
        with pytest.raises(OutcomeUnknownError):
            lease.extend(60)
        eventually(lambda: not holds(lease))
        lease.extend(60)
        assert holds(lease)
        lease.release()


def test_a_repeated_extend_of_what_another_has_is_a_loss(
    broken: Store, direct: Store, breaker: Breaker
) -> None:
    lease, other = broken.lease("a"), direct.lease("a")
    lease.acquire()
    # As where somebody cleared the table, or a crashed server came back without the row.
    direct.modify(">=", [""], "D", limit=2**32 - 1)
    assert other.acquire(wait=False)
    breaker.harm(Fate.NO_REPLY)
    with pytest.raises(LeaseLostError):
        lease.extend()
    assert not lease.held


class TestRestart:
    @pytest.mark.parametrize("fence", [False, True])
    def test_a_lease_outlives_the_server(self, own_server: PrivateServer, fence: bool) -> None:
        with quick(own_server) as store:
            name = f"restarted {fence}"
            lease, other = store.lease(name, 60, fence=fence), store.lease(name, fence=fence)
            lease.acquire()
            own_server.kill()
            for action in (lease.extend, other.acquire):
                with pytest.raises(LostConnectionError):
                    action()
            own_server.start()
            assert holds(lease)
            assert not other.acquire(wait=False)
            lease.extend()
            lease.release()
            assert other.acquire(wait=False)
            assert other.fence == (2 if fence else None)


NAMES: list[str | bytes] = [
    *("", "a", "a:b", "\t\n", "é", "\U0001f512", "a b", "%", "\x01", "a\x00", "a\x00b"),
    *("\x00", "\x00a", "\x00\x00", "x" * 200, "x" * 255, "x" * 256, "y" * 300, "z" * 100_000),
    *(b"\xff\xfe", b"\x80" * 255, bytes(range(256))),
]


class TestNames:
    def test_each_is_a_lease_of_its_own(self, hskv_store: Store) -> None:
        leases = [hskv_store.lease(name, 300, fence=True) for name in NAMES]
        assert [lease.acquire(wait=False) for lease in leases] == [True] * len(NAMES)
        assert {lease.fence for lease in leases} == {1}
        for name in NAMES:
            assert not hskv_store.lease(name, fence=True).acquire(wait=False)
        for lease in leases:
            lease.release()

    @pytest.mark.parametrize("name", ["é", "a\x00", "x" * 300])
    def test_text_is_its_utf8(self, hskv_store: Store, name: str) -> None:
        with hskv_store.lease(name):
            assert not hskv_store.lease(name.encode()).acquire(wait=False)

    @pytest.mark.parametrize("name", ["a", "x" * 255, "x" * 256, "y" * 300])
    def test_none_meets_a_key_of_the_mapping(self, hskv_store: Store, name: str) -> None:
        key = name[:255]
        hskv_store[key] = "value"
        with hskv_store.lease(name) as lease:
            assert hskv_store[key] == "value"
            assert list(hskv_store) == [key]
            hskv_store.clear()
            assert lease.locked()
        hskv_store[key] = "again"
        assert hskv_store.lease(name).acquire(wait=False)
        assert hskv_store[key] == "again"

    def test_namespaces_do_not_share_them(self, hskv_store: Store) -> None:
        prefixes = ["", "a", "aa", "a:", "L", "C", "R", "x" * 200, "x" * 250]
        names = ["", "a", "aa", ":", "a\x00a", "\x00a", "x" * 5, "x" * 55, "x" * 255, "x" * 305]
        stores = [hskv_store.namespace(prefix) for prefix in prefixes]
        leases = [store.lease(name) for store in stores for name in names]
        assert [lease.acquire(wait=False) for lease in leases] == [True] * len(leases)
        keys = {lease._row_key for lease in leases}
        assert len(keys) == len(leases)

    def test_a_namespace_of_the_same_prefix_shares_them(self, hskv_store: Store) -> None:
        one, same = hskv_store.namespace("a:").namespace("b:"), hskv_store.namespace("a:b:")
        with one.lease("job"):
            assert not same.lease("job").acquire(wait=False)

    def test_what_get_or_set_locks_is_another(self, hskv_store: Store) -> None:
        with hskv_store.lease("a"):
            assert hskv_store.get_or_set("a", lambda: 1) == 1
            assert hskv_store.computing("a", 5, 0.1).acquire(wait=False)


@pytest.fixture
def nowhere() -> Store:
    """A store whose server does not exist: whatever it sent would be another error."""
    return KeyValueStore("hskv://127.0.0.1:1,2/none?connect_timeout=0.1", timeout=0.1)


class TestBadInput:
    @pytest.mark.parametrize("ttl", [0, -1, 0.0, math.nan, math.inf, -math.inf, None, 1e10])
    def test_a_ttl_that_is_no_time(self, nowhere: Store, ttl: Any) -> None:
        with pytest.raises(ValueError, match="ttl"):
            nowhere.lease("a", ttl=ttl)

    @pytest.mark.parametrize("ttl", ["1", True, b"1", [1], 1j])
    def test_a_ttl_of_another_type(self, nowhere: Store, ttl: Any) -> None:
        with pytest.raises(TypeError, match="ttl"):
            nowhere.lease("a", ttl=ttl)

    @pytest.mark.parametrize("name", ["max_skew", "poll"])
    @pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf])
    def test_seconds_that_are_none(self, nowhere: Store, name: str, value: float) -> None:
        options: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match="not negative"):
            nowhere.lease("a", **options)

    def test_a_poll_of_zero(self, nowhere: Store) -> None:
        with pytest.raises(ValueError, match="above zero"):
            nowhere.lease("a", poll=0)

    @pytest.mark.parametrize("name", ["max_skew", "poll"])
    @pytest.mark.parametrize("value", ["1", None, timedelta(seconds=1)])
    def test_seconds_of_another_type(self, nowhere: Store, name: str, value: Any) -> None:
        options: dict[str, Any] = {name: value}
        with pytest.raises(TypeError):
            nowhere.lease("a", **options)

    @pytest.mark.parametrize("name", ["\ud800", "a\udfff"])
    def test_a_name_that_is_no_unicode(self, nowhere: Store, name: str) -> None:
        with pytest.raises(ValueError, match="Unicode"):
            nowhere.lease(name)

    @pytest.mark.parametrize("wait", ["soon", [1], math.nan, -1])
    def test_a_wait_that_is_no_time(self, nowhere: Store, wait: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            nowhere.lease("a").acquire(wait)
        with pytest.raises((TypeError, ValueError)):
            nowhere.lease("a", wait=wait)

    @pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, "1", True])
    def test_a_bad_ttl_of_an_extend_changes_nothing(
        self, hskv_store: Store, end_of: Callable[[str], int | None], ttl: Any
    ) -> None:
        lease = hskv_store.lease("a")
        lease.acquire()
        end = end_of("a")
        with pytest.raises((TypeError, ValueError), match="ttl"):
            lease.extend(ttl)
        assert end_of("a") == end
        assert holds(lease)

    def test_a_timedelta_is_a_ttl(self, nowhere: Store) -> None:
        ttl: Any = timedelta(minutes=1)
        assert nowhere.lease("a", ttl).ttl == 60

    def test_what_is_sent_to_nowhere_is_an_error(self, nowhere: Store) -> None:
        with pytest.raises(HandlerSocketError):
            nowhere.lease("a").acquire(wait=False)
