"""Counters: their bounds, their ends, and many processes on one."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hskv
from hskv import KEEP, KeyValueStore
from hskv.mariadb import PrivateServer

from .test_exchange import PROCESSES, Crowd, Fate, Relay

Store = KeyValueStore[str, Any]

MOST, LEAST = 2**63 - 1, -(2**63)
WINDOW = 10**9


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    with Crowd() as crowd:
        yield crowd


@pytest.fixture
def relay(hskv_server: PrivateServer) -> Iterator[Relay]:
    relay = Relay(hskv_server, "counters.sock")
    yield relay
    relay.close()


@pytest.fixture
def unchanged(run_sql: Callable[..., Any]) -> Callable[[], None]:
    """Checks that the rows are those of the first call, versions and expiry included."""
    rows: list[Any] = []

    def check() -> None:
        rows.append(run_sql("SELECT * FROM kv ORDER BY k"))
        assert rows[-1] == rows[0]

    return check


class TestBounds:
    def test_a_counter_reaches_its_ceiling_and_goes_no_further(
        self, hskv_store: Store, unchanged: Callable[[], None]
    ) -> None:
        assert [hskv_store.incr("n", 4, ceiling=10) for _ in range(2)] == [4, 8]
        unchanged()
        assert hskv_store.incr("n", 3, ceiling=10) is None
        unchanged()
        assert hskv_store.incr("n", 2, ceiling=10) == 10
        assert hskv_store.incr("n", ceiling=10) is None
        assert hskv_store["n"] == 10

    def test_a_counter_reaches_its_floor_and_goes_no_further(
        self, hskv_store: Store, unchanged: Callable[[], None]
    ) -> None:
        assert hskv_store.decr("n", 4, floor=-5) == -4
        unchanged()
        assert hskv_store.decr("n", 2, floor=-5) is None
        unchanged()
        assert hskv_store.decr("n", 1, floor=-5) == -5
        assert hskv_store.decr("n", floor=-5) is None
        assert hskv_store["n"] == -5

    def test_a_missing_key_is_not_made_beyond_a_bound(self, hskv_store: Store) -> None:
        assert hskv_store.incr("n", 6, ceiling=5) is None
        assert hskv_store.incr("n", 1, initial=5, ceiling=5) is None
        assert hskv_store.decr("n", 1, initial=5, floor=5) is None
        assert not hskv_store
        assert hskv_store.incr("n", 1, initial=4, ceiling=5) == 5

    def test_a_counter_beyond_its_bound_may_come_back(self, hskv_store: Store) -> None:
        hskv_store["n"] = 100
        assert hskv_store.incr("n", -10, ceiling=50) == 90
        assert hskv_store.incr("n", 1, ceiling=50) is None
        hskv_store["n"] = -100
        assert hskv_store.decr("n", -10, floor=-50) == -90
        assert hskv_store.decr("n", 1, floor=-50) is None

    @pytest.mark.parametrize(
        ("number", "amount", "ceiling"),
        [(LEAST, 5, LEAST), (LEAST, MOST, LEAST), (0, MOST, -1), (-5, 1, LEAST)],
    )
    def test_a_ceiling_far_below_refuses(
        self,
        hskv_store: Store,
        unchanged: Callable[[], None],
        number: int,
        amount: int,
        ceiling: int,
    ) -> None:
        hskv_store["n"] = number
        unchanged()
        assert hskv_store.incr("n", amount, ceiling=ceiling) is None
        # -(number + 1) mirrors the 64 bits.
        hskv_store["n"] = -(number + 1)
        assert hskv_store.decr("n", amount, floor=-(ceiling + 1)) is None
        assert hskv_store["n"] == -(number + 1)

    def test_a_bound_beyond_64_bits_holds_nothing_back(self, hskv_store: Store) -> None:
        hskv_store["n"] = MOST - 1
        assert hskv_store.incr("n", ceiling=2**70) == MOST
        with pytest.raises(OverflowError):
            hskv_store.incr("n", ceiling=2**70)
        hskv_store["n"] = LEAST + 1
        assert hskv_store.decr("n", floor=-(2**70)) == LEAST
        with pytest.raises(OverflowError):
            hskv_store.decr("n", floor=-(2**70))
        assert hskv_store.incr("other", ceiling=-(2**70)) is None

    @pytest.mark.parametrize("bound", ["1", 1.0, True])
    def test_a_bound_is_an_int(self, hskv_store: Store, bound: Any) -> None:
        with pytest.raises(TypeError, match="ceiling"):
            hskv_store.incr("n", ceiling=bound)
        with pytest.raises(TypeError, match="floor"):
            hskv_store.decr("n", floor=bound)


class TestEdges:
    @pytest.mark.parametrize(
        ("number", "amount", "reached"),
        [
            (MOST - 1, 1, MOST),
            (MOST, 1, None),
            (MOST, MOST, None),
            (1, MOST, None),
            (0, MOST, MOST),
            (-1, MOST, MOST - 1),
            (LEAST, MOST, -1),
            (LEAST + 1, -1, LEAST),
            (LEAST, -1, None),
            (-1, LEAST, None),
            (0, LEAST, LEAST),
            (MOST, LEAST, -1),
            (MOST, 0, MOST),
            (LEAST, 0, LEAST),
        ],
    )
    def test_64_bits_are_counted_in_full_and_never_wrap(
        self, hskv_store: Store, number: int, amount: int, reached: int | None
    ) -> None:
        hskv_store["n"] = number
        counts: tuple[Callable[[], object], ...] = (
            lambda: hskv_store.incr("n", amount),
            lambda: hskv_store.incr("new", amount, initial=number),
        )
        for count in counts:
            if reached is None:
                with pytest.raises(OverflowError):
                    count()
            else:
                assert count() == reached
        if reached is None:
            assert hskv_store.to_dict() == {"n": number}
        else:
            assert hskv_store.to_dict() == {"n": reached, "new": reached}

    def test_a_version_leaves_room_to_be_counted_up(
        self, hskv_store: Store, run_sql: Callable[..., Any]
    ) -> None:
        for turn in range(200):
            hskv_store[f"n{turn}"] = turn
        assert run_sql("SELECT COUNT(*) FROM kv WHERE version NOT BETWEEN 0 AND 1 << 62") == ((0,),)


class TestOtherValues:
    @pytest.mark.parametrize("value", ["5", b"5", "", 5.0, True, None, 2**63, [5], {"n": 5}])
    def test_another_value_is_a_type_error_and_stays_as_it_is(
        self, hskv_store: Store, unchanged: Callable[[], None], value: object
    ) -> None:
        hskv_store.set("n", value, ttl=60)
        unchanged()
        counts: tuple[Callable[[], object], ...] = (
            lambda: hskv_store.incr("n"),
            lambda: hskv_store.incr("n", ceiling=10),
            lambda: hskv_store.incr("n", ceiling=-10),
            lambda: hskv_store.decr("n", floor=-10, ttl=5),
            lambda: hskv_store.incr("n", MOST, initial=MOST - 1, ceiling=5),
        )
        for count in counts:
            with pytest.raises(TypeError, match="integer"):
                count()
            unchanged()

    def test_a_text_that_has_expired_is_counted_anew(self, timed_store: Store, clock: Any) -> None:
        timed_store.set("n", "text", ttl=10)
        clock.now += 10
        assert timed_store.incr("n") == 1

    def test_what_others_cannot_read_cannot_be_counted(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        with KeyValueStore(hskv_server.url, serializer="pickle") as other:
            other["n"] = {1}
            with pytest.raises(TypeError):
                hskv_store.incr("n")
            assert other["n"] == {1}

    @pytest.mark.parametrize("number", [True, 1.0, "1", None])
    def test_amount_and_initial_are_ints(self, hskv_store: Store, number: Any) -> None:
        for count in (hskv_store.incr, hskv_store.decr):
            with pytest.raises(TypeError, match="amount"):
                count("n", number)
            with pytest.raises(TypeError, match="initial"):
                count("n", initial=number)
        assert not hskv_store


class TestExpiry:
    def test_the_ttl_is_for_a_key_that_is_made(self, timed_store: Store, clock: Any) -> None:
        assert timed_store.incr("n", ttl=10) == 1
        clock.now += 4
        assert timed_store.incr("n", ttl=100) == 2
        assert timed_store.decr("n", ttl=None) == 1
        assert timed_store.incr("n") == 2
        assert timed_store.ttl("n") == 6
        clock.now += 6
        assert timed_store.incr("n", 5, initial=100, ttl=20) == 105
        assert timed_store.ttl("n") == 20

    def test_a_refusal_moves_no_end(self, timed_store: Store, clock: Any) -> None:
        timed_store.incr("n", ttl=10)
        clock.now += 4
        assert timed_store.incr("n", 5, ceiling=5, ttl=100) is None
        assert timed_store.ttl("n") == 6

    def test_an_expired_counter_is_not_made_again_beyond_a_bound(
        self, timed_store: Store, clock: Any
    ) -> None:
        timed_store.incr("n", 3, ttl=10)
        clock.now += 10
        assert timed_store.incr("n", 6, ceiling=5, ttl=10) is None
        assert "n" not in timed_store
        assert timed_store.incr("n", 5, ceiling=5, ttl=10) == 5

    def test_the_default_of_the_store_is_for_new_counters_too(
        self, hskv_server: PrivateServer, clock: Any
    ) -> None:
        with KeyValueStore(hskv_server.url, prefix="count:", default_ttl=30, clock=clock) as store:
            store.incr("n")
            clock.now += 10
            store.incr("n")
            store.incr("m", ttl=None)
            assert (store.ttl("n"), store.ttl("m")) == (20, None)
            store.clear()

    def test_a_counter_has_no_expiry_to_keep(self, hskv_store: Store) -> None:
        keep: Any = KEEP
        with pytest.raises(ValueError, match="keep"):
            hskv_store.incr("n", ttl=keep)
        assert not hskv_store


class TestLostReplies:
    @pytest.mark.parametrize("there", [True, False])
    def test_an_increment_whose_reply_is_lost_is_not_repeated(
        self, relay: Relay, hskv_store: Store, there: bool
    ) -> None:
        if there:
            hskv_store["n"] = 10
        # Of a missing key the first request finds nothing.
        relay.treat = lambda request: Fate.LOSE if there or len(relay.asked()) == 2 else Fate.PASS
        with hskv.connect(relay.url) as store:
            with pytest.raises(hskv.OutcomeUnknownError) as caught:
                store.incr("n")
            assert len(relay.asked()) == (1 if there else 2)
            assert hskv_store["n"] == (11 if there else 1)
            if not there:
                assert hskv_store.get_versioned("n") == (1, caught.value.version)
            relay.treat = lambda request: Fate.PASS
            assert store.incr("n") == (12 if there else 2)


def step(number: int, url: str, times: int) -> tuple[list[int], int, int]:
    """Count up and down within 0 and 1000: the values reached, their sum, the refusals."""
    chance = random.Random(number)
    reached, total, refused = [], 0, 0
    with hskv.connect(url) as store:
        for _ in range(times):
            amount = chance.choice((1, 10, 97))
            if chance.random() < 0.5:
                value, moved = store.incr("bounded", amount, ceiling=1_000), amount
            else:
                value, moved = store.decr("bounded", amount, floor=0), -amount
            if value is None:
                refused += 1
            else:
                reached.append(value)
                total += moved
    return reached, total, refused


def count_in_windows(number: int, url: str, seconds: float, ttl: float) -> list[int]:
    """Increment a key that expires: each value says who began its window, and how far it is."""
    seen: list[int] = []
    end = time.monotonic() + seconds
    with hskv.connect(url) as store:
        while time.monotonic() < end:
            mine = 1 + number + PROCESSES * len(seen)
            seen.append(store.incr("window", initial=mine * WINDOW, ttl=ttl))
    return seen


def check_bounded(crowd: Crowd, store: Store, url: str, times: int) -> None:
    """A counter that 8 processes move never leaves its bounds, and nothing is lost."""
    store["bounded"] = 30
    parts = crowd(step, url, times)
    assert store["bounded"] == 30 + sum(total for _, total, _ in parts)
    assert all(0 <= value <= 1_000 for reached, _, _ in parts for value in reached)
    assert sum(len(reached) + refused for reached, _, refused in parts) == PROCESSES * times
    assert sum(refused for _, _, refused in parts) > 0


def check_windows(crowd: Crowd, url: str, seconds: float, ttl: float) -> None:
    """In each window of a key that expires no value comes twice and none is missing."""
    windows: dict[int, list[int]] = {}
    for seen in crowd(count_in_windows, url, seconds, ttl):
        assert seen
        for value in seen:
            windows.setdefault(value // WINDOW, []).append(value % WINDOW)
    for values in windows.values():
        assert sorted(values) == list(range(1, len(values) + 1))
    assert len(windows) > 3
    assert max(map(len, windows.values())) > 1


@pytest.mark.timeout(120)
class TestRaces:
    def test_8_processes_never_leave_the_bounds_and_lose_nothing(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        check_bounded(crowd, hskv_store, hskv_server.url, 400)

    @pytest.mark.parametrize("ttl", [0.03, 0.05])
    def test_8_processes_count_each_window_of_a_key_without_a_gap(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer, ttl: float
    ) -> None:
        check_windows(crowd, hskv_server.url, 1.0, ttl)
