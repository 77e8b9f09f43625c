"""Hostile types and values for the raw API, for leases, and for whatever is constructed.

Raw calls may change any row of the table they name, which is what they are for: so the witness is
in another table, and what is asked for is an answer or a promised exception, and right answers
afterwards.
"""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hskv
from hskv import Client, KeyValueStore, Lease, Manager, Pipeline, RateLimiter, Table
from hskv.manager import ManagerPipeline
from hskv.mariadb import PrivateServer
from hskv.sockets import Connection, ReadSocket, WriteSocket
from hskv.transport.retry import Effect

from . import test_hostile_input as store_tests
from .test_hostile_input import HOSTILE, PROMISED

EXAMPLES = pytest.mark.parametrize(
    "examples", [20, pytest.param(1000, marks=[pytest.mark.stress, pytest.mark.timeout(300)])]
)
MISSING = object()

# What a call needs to get as far as the server, by the names of parameters.
SENSIBLE: dict[str, Any] = {
    "db": "hskv",
    "database": "hskv",
    "table": "kv",
    "columns": ["k", "n"],
    "fields": ["k", "n"],
    "field_values": [("k", "made"), ("n", 1)],
    "filter_columns": ["n"],
    "operation": "=",
    "modify_operation": "U",
    "key": ["a"],
    "value": "a",
    "values": ["a", 1],
    "update_values": ["a", 1],
    "modify_columns": ["a", 1],
    "step": ["1", "1"],
    "limit": 1,
    "offset": 0,
    "index_name": "PRIMARY",
    "index_id": 0,
    "effect": Effect.READ,
    "body": b"\t=\t1\ta\n",
}

Target = Callable[[Client], Any]
SOURCES: dict[type, Target] = {
    Client: lambda client: client,
    Pipeline: lambda client: client.pipeline(),
    Manager: Manager.over,
    ManagerPipeline: lambda client: Manager.over(client).pipeline(),
    ReadSocket: lambda client: Manager.over(client).read_socket,
    WriteSocket: lambda client: Manager.over(client).write_socket,
}
NOT_HERE: dict[type, dict[str, str]] = {
    Client: {
        "call": "takes the bytes of a request as they are",
        "call_many": "takes the bytes of a request as they are",
        "close": "ends what is shared",
        "drain": "ends what is shared, and has tests of its own",
        "resume": "takes no argument",
        "purge": "takes no argument",
        "stats": "takes no argument",
        "pipeline": "takes no argument",
        "from_settings": "takes what `load_settings` made, which the fuzzer is for",
    },
    Pipeline: {},
    Manager: {
        "close": "ends what is shared",
        "purge": "takes no argument",
        "pipeline": "takes no argument",
        "over": "takes a client",
    },
    ManagerPipeline: {},
    ReadSocket: {
        "close": "ends what is shared",
        "after_fork": "takes no argument",
        "over": "takes a client",
        "purge": "takes no argument",
        "purge_indexes": "takes no argument",
    },
    Lease: {"after_fork": "takes no argument"},
    RateLimiter: {"headers": "takes what `hit` gave"},
    KeyValueStore: {
        "modify": "changes any row: tried as Manager.update and Client.modify",
        "close": "ends what is shared",
    },
    Connection: dict.fromkeys(
        ["connect", "disconnect", "is_ready", "readline", "send", "set_debug_mode"],
        "sends bytes as they are, and has tests of its own",
    ),
}
NOT_HERE[WriteSocket] = NOT_HERE[ReadSocket]


def public(kind: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")]


def tried(kind: type) -> set[str]:
    if kind in (KeyValueStore, RateLimiter):
        return {*store_tests.methods(kind), *store_tests.MAKERS}
    return set(public(kind)) - set(NOT_HERE[kind])


@pytest.mark.parametrize("kind", [*SOURCES, Lease, RateLimiter, KeyValueStore, Connection])
def test_every_public_method_is_called_with_what_makes_no_sense(kind: type) -> None:
    assert set(NOT_HERE[kind]) <= set(public(kind))
    assert set(public(kind)) - tried(kind) - set(NOT_HERE[kind]) == set()


def shared(examples: int) -> settings:
    health = [HealthCheck.function_scoped_fixture]
    return settings(deadline=None, max_examples=examples, suppress_health_check=health)


@pytest.fixture(scope="module")
def witness(run_sql: store_tests.SQL) -> None:
    run_sql("DROP TABLE IF EXISTS witness")
    run_sql(Table("witness").create_sql())
    run_sql("INSERT INTO witness (k, v) VALUES ('w', 'untouched')")


def arguments_of(
    function: Callable[..., Any], data: st.DataObject, index: Any
) -> tuple[list[Any], dict[str, Any]]:
    """Some that make sense and some that do not, by position and by name."""
    positional, named = [], {}
    for parameter in inspect.signature(function).parameters.values():
        sensible = index if parameter.name == "index" else SENSIBLE.get(parameter.name, MISSING)
        choices = [HOSTILE] if sensible is MISSING else [st.just(sensible)] * 2 + [HOSTILE]
        if parameter.default is not parameter.empty:
            choices += [st.just(MISSING)] * 2
        value = data.draw(st.one_of(choices), label=parameter.name)
        if parameter.kind is parameter.KEYWORD_ONLY:
            if value is not MISSING:
                named[parameter.name] = value
        elif value is MISSING:
            break
        else:
            positional.append(value)
    return positional, named


def cases() -> list[Any]:
    return [
        pytest.param(kind, name, id=f"{kind.__name__}.{name}")
        for kind in SOURCES
        for name in sorted(tried(kind))
    ]


@EXAMPLES
@pytest.mark.parametrize(("kind", "name"), cases())
def test_no_raw_call_upsets_its_connections(
    hskv_store: KeyValueStore[str, Any],
    client: Client,
    witness: None,
    kind: type,
    name: str,
    examples: int,
) -> None:
    other = client.open("witness", ["k", "v"])
    kept = client.open("kv", ["k", "n"])

    @shared(examples)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        target = SOURCES[kind](client)
        if isinstance(target, (ReadSocket, WriteSocket)):
            target.get_index_id("hskv", "kv", ["k", "n"])
        positional, named = arguments_of(getattr(target, name), data, kept)
        with suppress(*PROMISED):
            getattr(target, name)(*positional, **named)
            if isinstance(target, (Pipeline, ManagerPipeline)):
                target.execute(False)
        assert client.find(other, "=", ["w"]) == [(b"w", b"untouched")]
        assert client.modify(other, "=", ["none"], "D") == 0

    attempt()


@EXAMPLES
@pytest.mark.parametrize("name", sorted(tried(Lease)))
def test_no_call_of_a_lease_upsets_it(
    hskv_store: KeyValueStore[str, Any], name: str, examples: int
) -> None:
    lease, other = hskv_store.lease("own", ttl=60), hskv_store.lease("other", ttl=60)
    assert other.acquire()

    @shared(examples)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        assert lease.held or lease.acquire(wait=False)
        positional, named = arguments_of(getattr(lease, name), data, None)
        if name == "acquire":
            # Else it would wait for itself, for as long as it was told.
            lease.release()
        with suppress(*PROMISED):
            getattr(lease, name)(*positional, **named)
        assert other.held
        assert hskv_store.lease("other").acquire(wait=False) is False

    attempt()


MAKERS: dict[str, Callable[..., Any]] = {
    "KeyValueStore": KeyValueStore,
    "connect": hskv.connect,
    "Client": Client,
    "Manager": Manager,
    "ReadSocket": ReadSocket,
    "WriteSocket": WriteSocket,
    "Table": Table,
}


@EXAMPLES
@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_made_is_refused_without_a_word_to_any_server(
    hskv_server: PrivateServer, name: str, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = MAKERS[name]
    sensible = {"source": hskv_server.url, "url": hskv_server.url, "table": Table("kv")}

    def refuse(*_: object) -> None:
        raise AssertionError("a constructor connects")

    monkeypatch.setattr("socket.socket.connect", refuse)

    @shared(examples)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        named = {}
        for parameter in inspect.signature(maker).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            choices = [HOSTILE, st.just(MISSING), st.just(MISSING)]
            if parameter.name in sensible:
                choices += [st.just(sensible[parameter.name])] * 4
            value = data.draw(st.one_of(choices), label=parameter.name)
            if value is not MISSING:
                named[parameter.name] = value
        with suppress(*PROMISED):
            made = maker(**named)
            repr(made)
            if isinstance(made, Table):
                made.create_sql()
            else:
                made.close()

    attempt()
