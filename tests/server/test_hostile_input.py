"""Hostile types and values for every public method, and names that try to reach other rows."""

import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hskv import Client, HandlerSocketError, KeyValueStore, Lease, RateLimiter
from hskv.client import Pipeline

Store = KeyValueStore[str, Any]
SQL = Callable[..., tuple[tuple[Any, ...], ...]]

# One store serves all examples of a test, which clean up where it matters.
SHARED = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# What a bad call may raise; anything else would be an accident.
PROMISED = (HandlerSocketError, TypeError, ValueError, KeyError, OverflowError, RuntimeError)


class Awkward:
    """Equal to everything, true and false, and of no use."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        return False


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.binary(max_size=300),
    st.text(max_size=300),
    st.text(st.characters(categories=["Cs", "Cc"]), max_size=10),
    st.sampled_from(
        ["\0", "a\tb\n", "\ud800", b"\xff" * 256, "k" * 256, -1, 0, 2**63, -(2**63) - 1, math.nan]
    ),
    st.lists(st.one_of(st.text(max_size=5), st.integers(), st.binary(max_size=5)), max_size=3),
    st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.text(max_size=5)), max_size=3),
    st.builds(Awkward),
    st.builds(object),
    st.just(timedelta(days=-1)),
    st.just(bytearray(b"k")),
    st.just(memoryview(b"k")),
    st.sampled_from([str, len, {1, 2}, (), 1j, ..., iter(())]),
)

MAKERS = {"limiter", "lease", "namespace", "reserved"}
# Raw changes of any row are what `modify` is for; `headers` takes no input of users; the others
# wait for ever, or close what is shared, or make something that has a test of its own.
NOT_HERE = {*MAKERS, "modify", "headers", "close", "drain", "resume", "purge"}


def methods(kind: type) -> list[str]:
    names = [name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")]
    dunders = ("__getitem__", "__setitem__", "__delitem__", "__contains__")
    return [name for name in (*names, *dunders) if name not in NOT_HERE and hasattr(kind, name)]


def call(target: Any, name: str, arguments: list[Any], named: dict[str, Any]) -> None:
    """Call it, and go through what it gives, if it is gone through."""
    try:
        result = getattr(target, name)(*arguments, **named)
        if inspect.isgenerator(result):
            next(result, None)
    except PROMISED:
        pass


def parameters(kind: type, name: str) -> tuple[int, list[str]]:
    """How many arguments it takes by position, and the names of those by keyword."""
    known = list(inspect.signature(getattr(kind, name)).parameters.values())[1:]
    by_name = [one.name for one in known if one.kind is inspect.Parameter.KEYWORD_ONLY]
    return len([one for one in known if one.kind is one.POSITIONAL_OR_KEYWORD]), by_name


@pytest.fixture
def prefixed(hskv_store: Store) -> Store:
    hskv_store.set_many({"witness": "untouched", "zz": 1})
    return hskv_store.namespace("hostile:")


def unharmed(store: Store) -> None:
    """Other rows are as they were, and the next answers are right."""
    assert store.get("witness") == "untouched"
    assert store.get_many(["zz", "witness"]) == {"zz": 1, "witness": "untouched"}


@pytest.mark.parametrize("name", methods(KeyValueStore))
def test_no_call_of_a_store_does_harm(prefixed: Store, hskv_store: Store, name: str) -> None:
    positions, keywords = parameters(KeyValueStore, name)

    @SHARED
    @given(st.lists(HOSTILE, min_size=0, max_size=positions), st.data())
    def attempt(arguments: list[Any], data: st.DataObject) -> None:
        chosen = data.draw(st.sets(st.sampled_from(keywords))) if keywords else set[str]()
        call(prefixed, name, arguments, {each: data.draw(HOSTILE) for each in chosen})
        unharmed(hskv_store)

    attempt()


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_what_a_store_makes_is_refused_or_works(
    prefixed: Store, hskv_store: Store, name: str
) -> None:
    positions, keywords = parameters(KeyValueStore, name)

    @SHARED
    @given(st.lists(HOSTILE, min_size=1, max_size=positions), st.data())
    def attempt(arguments: list[Any], data: st.DataObject) -> None:
        chosen = data.draw(st.sets(st.sampled_from(keywords))) if keywords else set[str]()
        named = {each: data.draw(HOSTILE) for each in chosen}
        try:
            made = getattr(prefixed, name)(*arguments, **named)
        except PROMISED:
            return
        if isinstance(made, RateLimiter):
            call(made, "hit", [data.draw(HOSTILE)], {})
        elif isinstance(made, Lease):
            call(made, "acquire", [False], {})
            call(made, "release", [], {})
        unharmed(hskv_store)

    attempt()


@pytest.mark.parametrize("name", methods(RateLimiter))
def test_no_call_of_a_limiter_does_harm(prefixed: Store, hskv_store: Store, name: str) -> None:
    limiter = prefixed.limiter("own", 1000, 3600, "sliding-window")
    other = prefixed.limiter("other", 5, 3600)
    other.hit("ann")
    positions, _ = parameters(RateLimiter, name)

    @SHARED
    @given(st.lists(HOSTILE, max_size=min(positions, 2)))
    def attempt(arguments: list[Any]) -> None:
        call(limiter, name, arguments, {})
        assert other.peek("ann").remaining == 4
        unharmed(hskv_store)

    attempt()


@pytest.mark.parametrize("name", ["open", "find", "insert", "modify_returning", "verify"])
def test_no_call_of_a_client_upsets_its_connections(
    hskv_store: Store, client: Client, name: str
) -> None:
    hskv_store.set_many({"witness": "untouched", "zz": 1})
    index = client.open("kv", ["k", "v"])
    positions, keywords = parameters(Client, name)

    @SHARED
    @given(st.lists(HOSTILE, max_size=positions), st.data())
    def attempt(arguments: list[Any], data: st.DataObject) -> None:
        chosen = data.draw(st.sets(st.sampled_from(keywords))) if keywords else set[str]()
        named = {each: data.draw(HOSTILE) for each in chosen}
        given_index = [] if name == "open" else [index]
        call(client, name, [*given_index, *arguments], named)
        assert client.find(index, "=", ["witness"]) == [(b"witness", b"untouched")]

    attempt()


@pytest.mark.parametrize("name", ["find", "insert", "modify"])
def test_no_call_of_a_pipeline_upsets_its_connection(
    hskv_store: Store, client: Client, name: str
) -> None:
    hskv_store["witness"] = "untouched"
    index = client.open("kv", ["k", "v"])
    positions, _ = parameters(Pipeline, name)

    @SHARED
    @given(st.lists(HOSTILE, max_size=positions - 1))
    def attempt(arguments: list[Any]) -> None:
        pipeline = client.pipeline()
        # A delete by a hostile key is right to delete; the others cannot.
        call(pipeline, name, [index, *arguments], {})
        call(pipeline, "execute", [False], {})
        assert client.find(index, "=", ["witness"]) == [(b"witness", b"untouched")]

    attempt()


KEY_TEXT = st.one_of(
    st.text(min_size=1, max_size=40),
    st.text("a\t\n\0\x01@%_'\"\\;é", min_size=1, max_size=10),
)


@SHARED
@given(KEY_TEXT, st.binary(max_size=200))
def test_a_key_reaches_its_own_row_alone(
    hskv_store: Store, run_sql: SQL, key: str, value: bytes
) -> None:
    run_sql("DELETE FROM kv")
    hskv_store["witness"] = b"untouched"
    inner = hskv_store.namespace("in:")
    try:
        inner[key] = value
    except ValueError:
        with pytest.raises(ValueError, match=r"reserved|Unicode|long|bytes"):
            inner.row_key(key)
        return
    rows: dict[bytes, bytes] = dict(run_sql("SELECT k, v FROM kv"))
    assert rows == {b"witness": b"untouched", b"in:" + key.encode(): value}
    assert list(inner) == [key]
    del inner[key]
    assert hskv_store.to_dict() == {"witness": b"untouched"}


@SHARED
@given(st.one_of(KEY_TEXT, st.binary(max_size=300)), st.one_of(KEY_TEXT, st.binary(max_size=300)))
def test_identities_and_leases_meet_no_other(
    hskv_store: Store, run_sql: SQL, one: Any, two: Any
) -> None:
    def plain(name: Any) -> bytes:
        return name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")

    run_sql("DELETE FROM kv")
    hskv_store["witness"] = 1
    limiter = hskv_store.limiter("l", 5, 3600)
    limiter.hit(one)
    assert limiter.peek(two).remaining == (4 if plain(one) == plain(two) else 5)
    try:
        leases = hskv_store.lease(one), hskv_store.lease(two)
    except ValueError:
        # Lone surrogates are no name.
        assert max(str(one) + str(two)) > "\ud7ff"
        return
    assert leases[0].acquire(wait=False)
    assert leases[1].acquire(wait=False) == (plain(one) != plain(two))
    assert hskv_store.to_dict() == {"witness": 1}
    hskv_store.clear()
    assert leases[0].held
    assert limiter.peek(one).remaining == 4


@SHARED
@given(st.lists(st.text(max_size=20), min_size=1, max_size=3), st.text(max_size=20))
def test_a_name_reaches_no_other_table_or_column(
    hskv_store: Store, client: Client, columns: list[str], table: str
) -> None:
    hskv_store["witness"] = 1
    for target, wanted in ((table, ["k"]), ("kv", columns)):
        try:
            rows = client.find(client.open(target, wanted), "=", ["witness"])
        except (HandlerSocketError, ValueError):
            continue
        # The server compares names without regard to case.
        assert {name.lower() for name in wanted} <= {"k", "v", "n", "kind", "version", "expires"}
        assert len(rows[0]) == len(wanted)
    assert hskv_store["witness"] == 1
