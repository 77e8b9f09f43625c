"""get_or_set and memoize: one computation at a time, whoever asks."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import hskv
from hskv import KEEP, KeyValueStore, Table, exceptions
from hskv.mariadb import PrivateServer

from .test_exchange import Crowd

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]

THREADS = 16


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    with Crowd() as crowd:
        yield crowd


@pytest.fixture(autouse=True)
def no_lease_is_left(run_sql: Sql) -> Iterator[None]:
    yield
    assert run_sql("SELECT k FROM kv WHERE k LIKE '\\0C%%'") == ()


class Factory:
    """Counts how often it is called; fails the first so many times."""

    def __init__(self, value: Any = "value", seconds: float = 0.0, failures: int = 0) -> None:
        self.calls = 0
        self._value = value
        self._seconds = seconds
        self._failures = failures

    def __call__(self) -> Any:
        self.calls += 1
        time.sleep(self._seconds)
        if self.calls <= self._failures:
            raise ZeroDivisionError(f"attempt {self.calls}")
        return self._value


class TestGetOrSet:
    def test_a_miss_computes_and_a_hit_does_not(self, hskv_store: Store) -> None:
        factory = Factory([1])
        assert hskv_store.get_or_set("a", factory) == [1]
        assert hskv_store["a"] == [1]
        assert hskv_store.get_or_set("a", factory) == [1]
        assert factory.calls == 1

    @pytest.mark.parametrize("value", [None, 0, "", b"", False, []])
    def test_an_empty_result_is_a_hit_too(self, hskv_store: Store, value: Any) -> None:
        factory = Factory(value)
        assert hskv_store.get_or_set("a", factory) == value
        assert hskv_store.get_or_set("a", factory) == value
        assert "a" in hskv_store
        assert factory.calls == 1

    def test_the_ttl_is_that_of_the_value(self, timed_store: Store, clock: Any) -> None:
        factory = Factory()
        timed_store.get_or_set("a", factory, ttl=10)
        assert timed_store.ttl("a") == 10
        clock.now += 9
        timed_store.get_or_set("a", factory, ttl=100)
        assert timed_store.ttl("a") == 1
        clock.now += 1
        timed_store.get_or_set("a", factory, ttl=20)
        assert timed_store.ttl("a") == 20
        assert factory.calls == 2
        timed_store.get_or_set("b", factory)
        assert timed_store.ttl("b") is None

    def test_the_error_of_the_factory_is_raised_and_the_next_one_computes(
        self, hskv_store: Store
    ) -> None:
        factory = Factory(failures=1)
        started = time.monotonic()
        with pytest.raises(ZeroDivisionError, match="attempt 1"):
            hskv_store.get_or_set("a", factory)
        assert "a" not in hskv_store
        assert hskv_store.get_or_set("a", factory) == "value"
        assert factory.calls == 2
        assert time.monotonic() - started < 5

    def test_a_result_that_cannot_be_stored_is_an_error_and_the_next_one_computes(
        self, hskv_store: Store
    ) -> None:
        with pytest.raises(exceptions.SerializationError):
            hskv_store.get_or_set("a", Factory({1}))
        assert hskv_store.get_or_set("a", Factory(2)) == 2

    @pytest.mark.parametrize("key", ["", "x" * 256, "\x00"])
    def test_a_bad_key_is_refused_before_anything_is_computed(
        self, hskv_store: Store, key: str
    ) -> None:
        factory = Factory()
        with pytest.raises(ValueError, match="key"):
            hskv_store.get_or_set(key, factory)
        assert factory.calls == 0

    @pytest.mark.parametrize("ttl", [0, -1, KEEP])
    def test_a_bad_ttl_is_refused_before_anything_is_computed(
        self, hskv_store: Store, ttl: Any
    ) -> None:
        factory = Factory()
        with pytest.raises(ValueError, match=r"ttl|keep"):
            hskv_store.get_or_set("a", factory, ttl)
        assert factory.calls == 0

    def test_what_cannot_be_read_is_not_computed_anew(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        with KeyValueStore(hskv_server.url, serializer="pickle") as other:
            other["a"] = {1}
        factory = Factory()
        with pytest.raises(exceptions.SerializationError):
            hskv_store.get_or_set("a", factory)
        assert factory.calls == 0

    def test_one_computation_may_ask_for_another(self, hskv_store: Store) -> None:
        def outer() -> int:
            inner: int = hskv_store.get_or_set("inner", lambda: 1)
            return inner + 1

        assert hskv_store.get_or_set("outer", outer) == 2
        assert hskv_store.to_dict() == {"inner": 1, "outer": 2}

    def test_different_keys_and_prefixes_are_computed_at_the_same_time(
        self, hskv_store: Store
    ) -> None:
        meeting = threading.Barrier(3)

        def factory() -> int:
            meeting.wait(10)
            return 1

        places = [(hskv_store, "a"), (hskv_store, "b"), (hskv_store.namespace("n:"), "a")]
        with ThreadPoolExecutor(3) as pool:
            computed = [pool.submit(store.get_or_set, key, factory) for store, key in places]
            assert [one.result() for one in computed] == [1, 1, 1]


class TestAtOnce:
    def test_16_threads_compute_once(self, hskv_store: Store) -> None:
        factory = Factory("shared", seconds=0.3)
        with ThreadPoolExecutor(THREADS) as pool:
            asked = [pool.submit(hskv_store.get_or_set, "a", factory) for _ in range(THREADS)]
            assert [one.result() for one in asked] == ["shared"] * THREADS
        assert factory.calls == 1

    def test_each_failure_is_raised_once_and_the_next_in_turn_computes(
        self, hskv_store: Store
    ) -> None:
        factory = Factory("shared", seconds=0.05, failures=2)
        with ThreadPoolExecutor(THREADS) as pool:
            asked = [pool.submit(hskv_store.get_or_set, "a", factory) for _ in range(THREADS)]
            errors = [error for one in asked if (error := one.exception()) is not None]
        assert factory.calls == 3
        assert sorted(map(str, errors)) == ["attempt 1", "attempt 2"]
        assert hskv_store["a"] == "shared"

    @pytest.mark.timeout(120)
    def test_8_processes_of_16_threads_compute_each_value_once(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        answers = crowd(ask, hskv_server.url, 3)
        for turn in range(3):
            (pid,) = {answer for part in answers for answer in part[turn]}
            assert pid == hskv_store[f"answer{turn}"]
            assert hskv_store[f"computations{turn}"] == 1

    def test_whoever_waits_gets_the_value_soon_after_it_is_there(self, hskv_store: Store) -> None:
        finished: list[float] = []

        def ask(_: int) -> float:
            hskv_store.get_or_set("a", slow)
            return time.monotonic()

        def slow() -> int:
            time.sleep(0.5)
            finished.append(time.monotonic())
            return 1

        with ThreadPoolExecutor(4) as pool:
            ended = list(pool.map(ask, range(4)))
        assert len(finished) == 1
        assert max(ended) - finished[0] < 2


def ask(number: int, url: str, turns: int) -> list[set[int]]:
    """What 16 threads are given for each of some keys that all processes ask for."""
    with hskv.connect(url) as store, ThreadPoolExecutor(THREADS) as pool:

        def compute(turn: int) -> int:
            store.incr(f"computations{turn}")
            time.sleep(0.2)
            return number

        def answers(turn: int) -> set[int]:
            key = f"answer{turn}"
            asked = [pool.submit(store.get_or_set, key, lambda: compute(turn)) for _ in range(16)]
            return {one.result() for one in asked}

        return [answers(turn) for turn in range(turns)]


def name_of(number: int, url: str) -> Any:
    with hskv.connect(url) as store:

        @store.memoize()
        def find(*args: Any, **kwargs: Any) -> None: ...

        key: Callable[..., Any] = find.cache_key  # type: ignore[attr-defined]
        return key({"b", "a", "c"}, {"x": 1, "y": (b"\xff", None)}, 1.5, first="é")


class TestMemoize:
    def test_each_set_of_arguments_is_computed_once(self, hskv_store: Store) -> None:
        calls: list[tuple[int, int]] = []

        @hskv_store.memoize(ttl=60)
        def add(first: int, second: int = 0) -> int:
            """Adds."""
            calls.append((first, second))
            return first + second

        assert [add(1), add(1), add(1, second=2), add(1, second=2), add(2)] == [1, 1, 3, 3, 2]
        assert calls == [(1, 0), (1, 2), (2, 0)]
        assert add.__name__ == "add"
        assert add.__doc__ == "Adds."
        assert all(59 < (hskv_store.ttl(key) or 0) <= 60 for key in hskv_store)

    def test_a_result_of_none_is_kept(self, hskv_store: Store) -> None:
        calls = []

        @hskv_store.memoize()
        def nothing(number: int) -> None:
            calls.append(number)

        nothing(1)
        nothing(1)
        assert calls == [1]

    def test_an_error_is_not_kept(self, hskv_store: Store) -> None:
        factory = Factory(failures=1)
        memoized = hskv_store.memoize(key=lambda: "its own")(factory.__call__)
        with pytest.raises(ZeroDivisionError):
            memoized()
        assert [memoized(), memoized()] == ["value", "value"]
        assert factory.calls == 2

    def test_the_cache_key_is_there_to_be_deleted(self, hskv_store: Store) -> None:
        calls = []

        @hskv_store.memoize()
        def square(number: int) -> int:
            calls.append(number)
            return number * number

        cache_key: Callable[..., str] = square.cache_key  # type: ignore[attr-defined]
        square(3)
        square(4)
        assert list(hskv_store) == sorted(map(cache_key, (3, 4)))
        assert hskv_store[cache_key(3)] == 9
        assert hskv_store.delete(cache_key(3))
        square(3)
        square(4)
        assert calls == [3, 4, 3]

    def test_arguments_that_differ_have_keys_that_differ(self, hskv_store: Store) -> None:
        def function(*args: Any, **kwargs: Any) -> None: ...

        key: Callable[..., str] = hskv_store.memoize()(function).cache_key  # type: ignore[attr-defined]
        keys = [
            key(*args)
            for args in (
                (),
                (None,),
                (1,),
                (1.0,),
                (True,),
                ("1",),
                (b"1",),
                ((1,),),
                ([1],),
                ({1},),
                (frozenset({1}),),
                ({1: 2},),
                ("1,2",),
                ("1", "2"),
                (["1", "2"],),
                ("list('1','2')",),
                ({"a": 1, "b": 2},),
                ({"a:1,'b'": 2},),
            )
        ]
        keys += [key(a=1), key(b=1), key({"a": 1})]
        assert len(set(keys)) == len(keys)
        assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
        assert key(a=1, b=2) == key(b=2, a=1)

    def test_functions_that_differ_have_keys_that_differ(self, hskv_store: Store) -> None:
        def one() -> int:
            return 1

        def two() -> int:
            return 2

        first, second = hskv_store.memoize()(one), hskv_store.memoize()(two)
        assert (first(), second(), first()) == (1, 2, 1)

    def test_the_key_is_the_same_in_every_process(
        self, crowd: Crowd, hskv_server: PrivateServer
    ) -> None:
        assert len(set(crowd(name_of, hskv_server.url))) == 1

    def test_arguments_that_have_no_lasting_name_need_a_key(self, hskv_store: Store) -> None:
        @hskv_store.memoize()
        def function(value: object) -> int:
            return 1

        for value in (object(), lambda: 1, time, KEEP, [object()]):
            with pytest.raises(TypeError, match="key="):
                function(value)
        assert not hskv_store

    def test_a_key_may_be_made_of_the_arguments(self, hskv_store: Store) -> None:
        calls = []

        class Someone:
            def __init__(self, name: str) -> None:
                self.name = name

            @hskv_store.memoize(key=lambda self, day: f"{self.name}/{day}")
            def plan(self, day: str) -> str:
                calls.append(day)
                return f"{self.name} on {day}"

        for _ in range(2):
            assert Someone("a").plan("monday") == "a on monday"
            assert Someone("b").plan("monday") == "b on monday"
        assert calls == ["monday", "monday"]
        assert list(hskv_store) == ["a/monday", "b/monday"]

    def test_a_store_of_bytes_keys_has_bytes_cache_keys(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        with KeyValueStore(hskv_server.url, key_type=bytes) as store:
            memoized = store.memoize()(lambda number: number + 1)
            assert [memoized(1), memoized(1)] == [2, 2]
            (key,) = store
            assert key == memoized.cache_key(1)  # type: ignore[attr-defined]

    def test_a_store_of_int_keys_needs_a_key(self) -> None:
        store = KeyValueStore("hskv://h/d", Table("numbers"), key_type=int)
        with pytest.raises(TypeError, match="key="):
            store.memoize()
