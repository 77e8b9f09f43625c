"""Values exchanged atomically: versions, swap, pop, setdefault, and replies that are lost."""

import enum
import multiprocessing
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import pytest

import hskv
from hskv import DEFAULT, KEEP, KeyValueStore, exceptions
from hskv.mariadb import PrivateServer

Store = KeyValueStore[str, Any]

PROCESSES = 8
_SPAWN = multiprocessing.get_context("spawn")
_barrier: Barrier


def together() -> None:
    """In a process of a `Crowd`: wait until all of them are here."""
    _barrier.wait(30)


def _join(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _begin(work: Callable[..., Any], number: int, arguments: tuple[Any, ...]) -> Any:
    together()
    return work(number, *arguments)


class Crowd:
    """8 processes that begin each piece of work together."""

    def __init__(self) -> None:
        barrier = _SPAWN.Barrier(PROCESSES)
        self._pool = ProcessPoolExecutor(PROCESSES, _SPAWN, _join, (barrier,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The results of `work(number, *arguments)` in each of the processes."""
        futures = [
            self._pool.submit(_begin, work, number, arguments) for number in range(PROCESSES)
        ]
        return [future.result(timeout=170) for future in futures]


class Fate(enum.Enum):
    """What becomes of a request."""

    PASS = "passed on, and its reply too"
    LOSE = "passed on, its reply lost"
    SWALLOW = "never passed on"


class Relay:
    """Stands before the write port, and treats each request by itself as `treat` says."""

    def __init__(self, server: PrivateServer, name: str) -> None:
        self.requests: list[bytes] = []
        self.treat: Callable[[bytes], Fate] = lambda request: Fate.PASS
        self.on_loss: Callable[[], object] = lambda: None
        self._target = str(server.directory / "write.sock")
        path = str(server.directory / name)
        self.url = server.url.replace(quote(self._target, safe="/"), quote(path, safe="/"))
        assert self.url != server.url
        Path(path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def asked(self) -> list[bytes]:
        """The requests on opened indexes that were sent."""
        return [request for request in self.requests if request[:1].isdigit()]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            client,
            socket.socket(socket.AF_UNIX) as server,
            client.makefile("rb") as requests,
            server.makefile("rb") as replies,
        ):
            server.connect(self._target)
            for request in requests:
                self.requests.append(request)
                fate = self.treat(request) if request[:1].isdigit() else Fate.PASS
                if fate is Fate.SWALLOW:
                    return
                server.sendall(request)
                reply = replies.readline()
                if fate is Fate.LOSE:
                    self.on_loss()
                    return
                client.sendall(reply)


def changes(request: bytes) -> bool:
    return request.split(b"\t", 2)[1] == b"=" and b"\tU" in request


def inserts(request: bytes) -> bool:
    return request.split(b"\t", 2)[1] == b"+"


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    with Crowd() as crowd:
        yield crowd


@pytest.fixture
def relay(hskv_server: PrivateServer) -> Iterator[Relay]:
    relay = Relay(hskv_server, "exchange.sock")
    yield relay
    relay.close()


@pytest.fixture
def relayed(relay: Relay, hskv_store: Store) -> Iterator[Store]:
    """A store whose writes go through the relay, with nothing in it."""
    with hskv.connect(relay.url, cull=False) as store:
        yield store


@pytest.fixture
def foreign(hskv_store: Store, hskv_server: PrivateServer) -> Store:
    """A store with one row, "foreign", that it cannot read."""
    with KeyValueStore(hskv_server.url, serializer="pickle") as other:
        other["foreign"] = {1, 2}
    with pytest.raises(exceptions.SerializationError):
        hskv_store["foreign"]
    return hskv_store


RowOf = Callable[[str], Any]


@pytest.fixture
def row_of(run_sql: Callable[..., Any]) -> RowOf:
    """Gives the whole row of a key, as it stands in the table."""
    return lambda key: run_sql("SELECT * FROM kv WHERE k = %s", key)


class TestVersions:
    def test_a_value_comes_with_its_version(self, row_of: RowOf, hskv_store: Store) -> None:
        hskv_store["a"] = [1]
        value, version = hskv_store.get_versioned("a")
        assert value == [1]
        assert row_of("a")[0][4] == version

    def test_a_key_that_is_missing_or_expired_has_none(
        self, timed_store: Store, clock: Any
    ) -> None:
        timed_store.set("a", 1, ttl=10)
        clock.now += 10
        for key in ("a", "b"):
            with pytest.raises(KeyError) as caught:
                timed_store.get_versioned(key)
            assert caught.value.args == (key,)

    @pytest.mark.parametrize(
        "change",
        [
            lambda store: store.set("a", 1),
            lambda store: store.set("a", 1, ttl=KEEP),
            lambda store: store.set_many({"a": 1}),
            lambda store: store.replace("a", 1),
            lambda store: store.swap("a", 1),
            lambda store: store.swap("a", 1, ttl=KEEP),
            lambda store: store.incr("a", 0),
            lambda store: store.decr("a", 5),
            lambda store: (store.pop("a"), store.add("a", 1)),
            lambda store: (store.delete("a"), store.setdefault("a", 1)),
        ],
    )
    def test_whoever_writes_in_between_wins(
        self, row_of: RowOf, hskv_store: Store, change: Callable[[Store], object]
    ) -> None:
        hskv_store["a"] = 1
        _, version = hskv_store.get_versioned("a")
        change(hskv_store)
        written = row_of("a")
        assert hskv_store.compare_and_set("a", "mine", version) is False
        assert row_of("a") == written

    def test_reading_and_touching_leave_the_version(self, hskv_store: Store) -> None:
        hskv_store["a"] = 1
        _, version = hskv_store.get_versioned("a")
        hskv_store.touch("a", 60)
        assert hskv_store.incr("a", ceiling=1) is None
        assert hskv_store.get_versioned("a") == (1, version)
        assert hskv_store.compare_and_set("a", 2, version) is True
        assert hskv_store["a"] == 2

    def test_a_key_that_is_gone_is_not_made_again(self, timed_store: Store, clock: Any) -> None:
        timed_store.set("expired", 1, ttl=10)
        timed_store["deleted"] = 1
        versions = {key: timed_store.get_versioned(key)[1] for key in ("expired", "deleted")}
        clock.now += 10
        del timed_store["deleted"]
        for key, version in versions.items():
            assert timed_store.compare_and_set(key, 2, version) is False
            assert key not in timed_store
        assert timed_store.compare_and_set("never", 2, 0) is False
        assert not timed_store

    @pytest.mark.parametrize(
        ("ttl", "left"),
        [({}, 60.0), ({"ttl": KEEP}, 60.0), ({"ttl": 5}, 5.0), ({"ttl": None}, None)],
    )
    def test_the_expiry_is_kept_unless_another_is_given(
        self, timed_store: Store, clock: Any, ttl: dict[str, Any], left: float | None
    ) -> None:
        timed_store.set("a", 1, ttl=100)
        _, version = timed_store.get_versioned("a")
        clock.now += 40
        assert timed_store.compare_and_set("a", 2, version, **ttl)
        assert timed_store.ttl("a") == left

    def test_default_is_the_ttl_of_the_store(self, hskv_server: PrivateServer, clock: Any) -> None:
        with KeyValueStore(
            hskv_server.url, prefix="default:", default_ttl=30, clock=clock
        ) as store:
            store.set("a", 1, ttl=100)
            _, version = store.get_versioned("a")
            assert store.compare_and_set("a", 2, version, ttl=DEFAULT)
            assert store.ttl("a") == 30
            store.clear()

    @pytest.mark.parametrize(
        ("version", "error"), [("1", TypeError), (True, TypeError), (2**63, OverflowError)]
    )
    def test_what_is_no_version_is_refused(
        self, hskv_store: Store, version: Any, error: type[Exception]
    ) -> None:
        hskv_store["a"] = 1
        with pytest.raises(error, match="version"):
            hskv_store.compare_and_set("a", 2, version)
        assert hskv_store["a"] == 1


class TestSwap:
    def test_the_old_value_comes_out_and_the_new_one_stays(self, hskv_store: Store) -> None:
        for value in (1, "text", b"bytes", None, {"a": [1]}, 2**70):
            hskv_store["a"] = value
            assert hskv_store.swap("a", "new") == value
            assert hskv_store["a"] == "new"

    def test_a_missing_key_gives_the_default(self, hskv_store: Store) -> None:
        assert hskv_store.swap("a", 1, default=None) is None
        assert hskv_store.swap("b", 2, default="none") == "none"
        assert hskv_store.to_dict() == {"a": 1, "b": 2}

    def test_without_a_default_it_is_a_key_error_and_the_value_is_stored(
        self, hskv_store: Store
    ) -> None:
        with pytest.raises(KeyError) as caught:
            hskv_store.swap("a", 1)
        assert caught.value.args == ("a",)
        assert hskv_store["a"] == 1

    @pytest.mark.parametrize(
        ("ttl", "left"), [(KEEP, 60.0), (5, 5.0), (None, None), (DEFAULT, None)]
    )
    def test_the_expiry_is_the_new_ones_or_kept(
        self, timed_store: Store, clock: Any, ttl: Any, left: float | None
    ) -> None:
        timed_store.set("a", 1, ttl=100)
        clock.now += 40
        assert timed_store.swap("a", 2, ttl) == 1
        assert timed_store.ttl("a") == left

    @pytest.mark.parametrize("ttl", [KEEP, 5])
    def test_an_expired_value_never_comes_out(
        self, timed_store: Store, clock: Any, ttl: Any
    ) -> None:
        timed_store.set("a", "old", ttl=10)
        clock.now += 10
        assert timed_store.swap("a", "new", ttl, default="none") == "none"
        assert timed_store["a"] == "new"
        assert timed_store.ttl("a") == (None if ttl is KEEP else 5)

    @pytest.mark.parametrize("ttl", [DEFAULT, KEEP])
    def test_what_cannot_be_read_is_left(self, row_of: RowOf, foreign: Store, ttl: Any) -> None:
        before = row_of("foreign")
        with pytest.raises(exceptions.SerializationError, match="kind 5"):
            foreign.swap("foreign", 1, ttl, default=None)
        assert row_of("foreign") == before

    def test_a_value_that_cannot_be_stored_leaves_the_old_one(self, hskv_store: Store) -> None:
        hskv_store["a"] = 1
        with pytest.raises(exceptions.SerializationError):
            hskv_store.swap("a", {1})
        assert hskv_store["a"] == 1


class TestTaking:
    def test_pop_gives_a_value_once(self, hskv_store: Store) -> None:
        for value in (0, None, "", b"x", [1]):
            hskv_store["a"] = value
            assert hskv_store.pop("a") == value
            assert hskv_store.pop("a", "gone") == "gone"

    def test_an_expired_value_is_not_taken(self, timed_store: Store, clock: Any) -> None:
        timed_store.set("a", 1, ttl=10)
        timed_store.set("b", 2, ttl=20)
        clock.now += 10
        with pytest.raises(KeyError):
            timed_store.pop("a")
        assert timed_store.popitem() == ("b", 2)
        timed_store.set("c", 3, ttl=10)
        clock.now += 10
        with pytest.raises(KeyError):
            timed_store.popitem()

    def test_what_cannot_be_read_is_neither_popped_nor_defaulted(
        self, row_of: RowOf, foreign: Store
    ) -> None:
        before = row_of("foreign")
        for take in (foreign.pop, foreign.setdefault):
            with pytest.raises(exceptions.SerializationError, match="kind 5"):
                take("foreign", None)
        with pytest.raises(KeyError):
            foreign.popitem()
        assert row_of("foreign") == before

    def test_popitem_takes_in_key_order_and_from_its_own_prefix(self, hskv_store: Store) -> None:
        hskv_store.set_many({"a": 0, "q:é": 3, "q:b": 2, "q:a": 1, "r": 4})
        queue = hskv_store.namespace("q:")
        assert [queue.popitem() for _ in range(3)] == [("a", 1), ("b", 2), ("é", 3)]
        with pytest.raises(KeyError):
            queue.popitem()
        assert hskv_store.to_dict() == {"a": 0, "r": 4}

    def test_setdefault_stores_where_the_old_value_has_expired(
        self, timed_store: Store, clock: Any
    ) -> None:
        assert timed_store.setdefault("a", 1, ttl=10) == 1
        clock.now += 5
        assert timed_store.setdefault("a", 2, ttl=10) == 1
        assert timed_store.ttl("a") == 5
        clock.now += 5
        assert timed_store.setdefault("a", 2, ttl=10) == 2
        assert timed_store.ttl("a") == 10
        assert timed_store.setdefault("none") is None
        assert timed_store["none"] is None


class TestKeep:
    def test_a_live_key_expires_when_it_would_have(self, timed_store: Store, clock: Any) -> None:
        timed_store.set("a", 1, ttl=100)
        clock.now += 40
        timed_store.set("a", 2, ttl=KEEP)
        assert timed_store["a"] == 2
        assert timed_store.ttl("a") == 60
        assert timed_store.replace("a", 3, ttl=KEEP)
        assert timed_store.ttl("a") == 60
        clock.now += 60
        assert not timed_store.replace("a", 4, ttl=KEEP)
        assert "a" not in timed_store

    def test_a_new_key_gets_the_default_of_the_store(
        self, hskv_server: PrivateServer, clock: Any
    ) -> None:
        with KeyValueStore(hskv_server.url, prefix="keep:", default_ttl=30, clock=clock) as store:
            store.set("missing", 1, ttl=KEEP)
            store.set("expired", 1, ttl=1)
            clock.now += 1
            store.set("expired", 2, ttl=KEEP)
            store.swap("swapped", 1, ttl=KEEP, default=None)
            assert {key: store.ttl(key) for key in store} == {
                "missing": 29,
                "expired": 30,
                "swapped": 30,
            }
            store.clear()

    def test_what_makes_only_new_keys_has_nothing_to_keep(self, hskv_store: Store) -> None:
        keep: Any = KEEP
        for call in (hskv_store.add, hskv_store.setdefault):
            with pytest.raises(ValueError, match="keep"):
                call("a", 1, keep)
        with pytest.raises(ValueError, match="keep"):
            hskv_store.set_many({"a": 1}, keep)
        assert not hskv_store


class TestLostReplies:
    def test_a_write_that_was_done_is_found_out(
        self, relay: Relay, relayed: Store, hskv_store: Store
    ) -> None:
        hskv_store["old"] = 1
        relay.treat = lambda request: Fate.LOSE if changes(request) else Fate.PASS
        relayed.set("old", 2, resolve=True)
        assert hskv_store["old"] == 2
        relayed.set("old", 3, ttl=KEEP, resolve=True)
        assert hskv_store["old"] == 3
        relay.treat = lambda request: Fate.LOSE if inserts(request) else Fate.PASS
        relayed.set("new", 4, resolve=True)
        assert hskv_store["new"] == 4

    def test_a_write_that_was_not_done_stays_unknown(
        self, row_of: RowOf, relay: Relay, relayed: Store, hskv_store: Store
    ) -> None:
        hskv_store["old"] = 1
        before = row_of("old")
        relay.treat = lambda request: Fate.SWALLOW
        for key in ("old", "new"):
            with pytest.raises(hskv.OutcomeUnknownError) as caught:
                relayed.set(key, 2, resolve=True)
            assert b"%d" % (caught.value.version or 0) in relay.requests[-1]
        assert row_of("old") == before
        assert "new" not in hskv_store

    def test_without_resolve_the_error_says_which_version_to_look_for(
        self, relay: Relay, relayed: Store, hskv_store: Store
    ) -> None:
        hskv_store["a"] = 1
        relay.treat = lambda request: Fate.LOSE
        for write in (relayed.set, relayed.replace, relayed.swap):
            with pytest.raises(hskv.OutcomeUnknownError) as caught:
                write("a", 2)
            assert hskv_store.get_versioned("a") == (2, caught.value.version)

    def test_a_write_that_another_has_undone_stays_unknown(
        self, relay: Relay, relayed: Store, hskv_store: Store
    ) -> None:
        hskv_store["a"] = 1
        relay.treat = lambda request: Fate.LOSE
        relay.on_loss = lambda: hskv_store.set("a", "theirs")
        with pytest.raises(hskv.OutcomeUnknownError):
            relayed.set("a", "mine", resolve=True)
        assert hskv_store["a"] == "theirs"

    def test_when_the_row_cannot_be_looked_at_the_error_says_so(
        self, relay: Relay, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        relay.treat = lambda request: Fate.LOSE
        nowhere = quote(str(hskv_server.directory / "read.sock"), safe="/")
        url = relay.url.replace(nowhere, nowhere + "x")
        store = hskv.connect(url, timeout=0.5)
        with store, pytest.raises(hskv.OutcomeUnknownError) as caught:
            store.set("a", 1, resolve=True)
        assert any("looked at" in note for note in caught.value.__notes__)

    @pytest.mark.parametrize("call", ["pop", "swap", "compare_and_set", "add", "incr"])
    def test_a_write_is_sent_once_only(
        self, relay: Relay, relayed: Store, hskv_store: Store, call: str
    ) -> None:
        hskv_store["a"] = 1
        version = hskv_store.get_versioned("a")[1]
        arguments: dict[str, tuple[Any, ...]] = {
            "pop": ("a",),
            "swap": ("a", 2),
            "compare_and_set": ("a", 2, version),
            "add": ("b", 2),
            "incr": ("a",),
        }
        relay.treat = lambda request: Fate.LOSE
        with pytest.raises(hskv.OutcomeUnknownError):
            getattr(relayed, call)(*arguments[call])
        assert len(relay.asked()) == 1
        done = {"pop": {}, "add": {"a": 1, "b": 2}}.get(call, {"a": 2})
        assert hskv_store.to_dict() == done


def race_to_change(number: int, url: str, rounds: int) -> list[int]:
    won = []
    with hskv.connect(url) as store:
        for turn in range(rounds):
            together()
            _, version = store.get_versioned("raced")
            together()
            if store.compare_and_set("raced", [turn, number], version):
                won.append(turn)
    return won


def race_to_add(number: int, url: str, rounds: int) -> list[int]:
    with hskv.connect(url) as store:
        return [turn for turn in range(rounds) if store.add(f"turn{turn}", number)]


def take_all(number: int, url: str) -> list[tuple[str, int]]:
    taken = []
    with hskv.connect(url) as store, suppress(KeyError):
        while True:
            taken.append(store.popitem())
    return taken


def pass_on(number: int, url: str, turns: int) -> list[str]:
    """Swap tokens into one key, and take it away now and then; whatever came out."""
    got: list[str | None] = []
    with hskv.connect(url) as store:
        for turn in range(turns):
            got.append(store.swap("chain", f"{number}:{turn}", default=None))
            if turn % 7 == number:
                got.append(store.pop("chain", None))
    return [token for token in got if token is not None]


def check_queue(crowd: Crowd, store: Store, url: str, rows: int) -> None:
    """Each of so many rows is taken by one of 8 processes."""
    items = {f"{number:06}": number for number in range(rows)}
    store.set_many(items)
    taken = crowd(take_all, url)
    assert sorted(item for part in taken for item in part) == sorted(items.items())
    assert not store
    # Not one process alone, with the others coming late.
    assert sum(bool(part) for part in taken) > 1


def check_chain(crowd: Crowd, store: Store, url: str, turns: int) -> None:
    """What 8 processes swap into a key comes out exactly once."""
    got = Counter(token for part in crowd(pass_on, url, turns) for token in part)
    got.update([store["chain"]] if "chain" in store else [])
    assert got == Counter(
        f"{number}:{turn}" for number in range(PROCESSES) for turn in range(turns)
    )


@pytest.mark.timeout(120)
class TestRaces:
    def test_exactly_one_of_8_processes_changes_a_version(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        hskv_store["raced"] = None
        won = crowd(race_to_change, hskv_server.url, 300)
        assert sorted(turn for turns in won for turn in turns) == list(range(300))
        last, winner = hskv_store["raced"]
        assert last == 299
        assert 299 in won[winner]
        assert sum(bool(turns) for turns in won) > 1

    def test_exactly_one_of_8_processes_adds_a_key_or_takes_over_an_expired_one(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        with KeyValueStore(hskv_server.url, clock=lambda: time.time() - 30) as past:
            past.set_many({f"turn{turn}": "expired" for turn in range(0, 300, 2)}, ttl=1)
        won = crowd(race_to_add, hskv_server.url, 300)
        winners = {f"turn{turn}": number for number in range(8) for turn in won[number]}
        assert sum(map(len, won)) == 300
        assert hskv_store.to_dict() == dict(sorted(winners.items()))

    def test_8_processes_take_each_item_of_a_queue_once(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        check_queue(crowd, hskv_store, hskv_server.url, 2_000)

    def test_what_8_processes_swap_in_comes_out_exactly_once(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        check_chain(crowd, hskv_store, hskv_server.url, 200)
