"""Tables that one had already: what they lack, what they would get wrong, what is refused."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import pymysql
import pytest

import hskv
from hskv import KEEP, BatchError, KeyValueStore, Table, exceptions, inspect_table
from hskv.mariadb import PrivateServer

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]

COLUMNS: Final = ("number", "kind", "version", "expires")
ITEMS: Final = {"a": 1, "b": [2], "c": "three"}


@pytest.fixture(scope="module")
def connection(hskv_server: PrivateServer) -> Iterator[Any]:
    with closing(pymysql.connect(autocommit=True, **hskv_server.sql)) as connection:
        yield connection


@pytest.fixture(scope="module")
def run_sql(connection: Any) -> Sql:
    """As the one for the whole run, on one connection."""

    def run(statement: str, *arguments: Any) -> tuple[tuple[Any, ...], ...]:
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return tuple(cursor.fetchall())

    return run


@pytest.fixture
def make(run_sql: Sql) -> Callable[[str], str]:
    """Carries out statements about a table of a new name; the name."""

    def run(statements: str) -> str:
        name = f"mapped_{random.getrandbits(40)}"
        for statement in statements.split(";;"):
            run_sql(statement.replace("THE", name))
        return name

    return run


def lacking(*columns: str) -> Table:
    missing: dict[str, Any] = dict.fromkeys(columns)
    return Table("lacks_" + "_".join(columns), **missing)


TABLES: Final = {
    "all": lacking(),
    "no number": lacking("number"),
    "no kind": lacking("kind"),
    "no version": lacking("version"),
    "no expires": lacking("expires"),
    "neither number nor expires": lacking("number", "expires"),
    "key and value": lacking(*COLUMNS),
}

CALLS: Final[dict[str, tuple[str, Callable[[Store], Any]]]] = {
    "get": ("", lambda store: (store.get("a"), store.get("b"), store.get("x", 0))),
    "getitem": ("", lambda store: [store[key] for key in "abc"]),
    "contains": ("", lambda store: ("a" in store, "x" in store)),
    "len": ("", len),
    "bool": ("", bool),
    "iter": ("", list),
    "items": ("", lambda store: list(store.items())),
    "values": ("", lambda store: list(store.values())),
    "to_dict": ("", lambda store: store.to_dict()),
    "equal": ("", lambda store: store == ITEMS),
    "scan": ("", lambda store: list(store.scan("b", start="b", batch=1))),
    "namespace": ("", lambda store: store.namespace("a").to_dict()),
    "set": ("", lambda store: store.set("a", "new")),
    "set for ever": ("", lambda store: store.set("d", "new", ttl=None)),
    "set and keep": ("", lambda store: store.set("a", "new", ttl=KEEP)),
    "set resolved": ("", lambda store: store.set("a", "new", resolve=True)),
    "set with ttl": ("expires", lambda store: store.set("a", "new", ttl=60)),
    "add": ("", lambda store: (store.add("a", 5), store.add("d", 5))),
    "add with ttl": ("expires", lambda store: store.add("d", 5, ttl=60)),
    "replace": ("", lambda store: (store.replace("a", 5), store.replace("d", 5))),
    "setdefault": ("", lambda store: (store.setdefault("a", 5), store.setdefault("d", [5]))),
    "swap": ("", lambda store: (store.swap("b", 5), store.swap("d", 5, default=None))),
    "swap and keep": ("", lambda store: store.swap("b", 5, KEEP)),
    "pop": ("", lambda store: (store.pop("b"), store.pop("x", None))),
    "popitem": ("", lambda store: store.popitem()),
    "delete": ("", lambda store: (store.delete("a"), store.delete("x"))),
    "delitem": ("", lambda store: store.__delitem__("a")),
    "clear": ("", lambda store: store.clear()),
    "delete_prefix": ("", lambda store: store.delete_prefix("b")),
    "get_many": ("", lambda store: store.get_many(["c", "x", "b"])),
    "set_many": ("", lambda store: store.set_many({"a": 5, "d": [6]})),
    "set_many with ttl": ("expires", lambda store: store.set_many({"a": 5}, ttl=60)),
    "update": ("", lambda store: store.update(a=5, d=None)),
    "delete_many": ("", lambda store: store.delete_many(["a", "x", "c"])),
    "get_versioned": ("version", lambda store: store.get_versioned("b")[0]),
    "compare_and_set": (
        "version",
        lambda store: [
            store.compare_and_set("b", 5, store.get_versioned("b")[1] + wrong) for wrong in (1, 0)
        ],
    ),
    "touch": ("expires", lambda store: (store.touch("a", 60), store.touch("x", 60))),
    "ttl": ("expires", lambda store: store.ttl("a")),
    "purge_expired": ("expires", lambda store: store.purge_expired()),
    "incr": ("number kind", lambda store: (store.incr("a"), store.incr("d", 5, initial=2))),
    "decr": ("number kind", lambda store: (store.decr("a", floor=1), store.decr("a"))),
    "get_or_set, a hit": ("", lambda store: store.get_or_set("b", lambda: 5)),
    "get_or_set": ("number kind version expires", lambda store: store.get_or_set("d", list)),
    "memoize": ("number kind version expires", lambda store: store.memoize()(lambda: 5)()),
    "lease": ("number kind version expires", lambda store: store.lease("d").acquire(wait=False)),
    "find": ("", lambda store: store.find(">=", ["b"], ["k"], limit=5)),
    "modify": ("", lambda store: store.modify("=", ["a"], "D")),
    "manager": ("", lambda store: store.manager.get("hskv", store.table.name, ["k"], "b")),
    "check": ("", lambda store: store.check()),
}


RAW = ("find", "modify", "manager")
NO_DEFAULT = ("columns that it is told to leave", "another index")


def marked(name: str, names: tuple[str, ...], reason: str) -> Any:
    """A parameter, for stores by HandlerSocket alone where it is one of these."""
    marks = [pytest.mark.handlersocket(reason)] if name in names else []
    return pytest.param(name, marks=marks)


@pytest.fixture(scope="module")
def stores(hskv_server: PrivateServer, run_sql: Sql) -> Iterator[dict[str, Store]]:
    """A store on each of the tables."""
    with ExitStack() as opened:
        found = {}
        for lacks, table in TABLES.items():
            run_sql(f"DROP TABLE IF EXISTS {table.name}")
            run_sql(table.create_sql())
            options: dict[str, Any] = {} if table.kind else {"serializer": "json"}
            store = KeyValueStore(hskv_server.url, table, cull=False, **options)
            found[lacks] = opened.enter_context(store)
        yield found


@pytest.fixture
def opened(stores: dict[str, Store], run_sql: Sql) -> Callable[[str], Store]:
    """Gives a store with three items."""

    def fill(lacks: str) -> Store:
        store = stores[lacks]
        run_sql(f"DELETE FROM {store.table.name}")
        store.set_many(ITEMS)
        return store

    return fill


class TestMissingColumns:
    @pytest.mark.parametrize("call", [marked(call, RAW, "it is raw") for call in CALLS])
    @pytest.mark.parametrize("lacks", TABLES)
    def test_they_switch_off_just_what_needs_them(
        self, opened: Callable[[str], Store], lacks: str, call: str
    ) -> None:
        needs, run = CALLS[call]
        store = opened(lacks)
        missing = [column for column in needs.split() if not getattr(store.table, column)]
        if missing:
            with pytest.raises(hskv.UnsupportedError, match="|".join(missing)):
                run(store)
            assert store.to_dict() == ITEMS
            return
        result, left = run(store), store.to_dict()
        whole = opened("all")
        assert run(whole) == result
        assert whole.to_dict() == left

    @pytest.mark.parametrize("lacks", ["no expires", "key and value"])
    def test_a_default_ttl_needs_an_expiry(self, lacks: str) -> None:
        with pytest.raises(hskv.UnsupportedError, match="expires"):
            KeyValueStore("hskv://h/d", TABLES[lacks], serializer="json", default_ttl=5)

    def test_compression_and_other_serializers_need_a_kind(self) -> None:
        for option in ({"compress_min_bytes": 5}, {"also_read": ["pickle"]}):
            with pytest.raises(hskv.UnsupportedError, match="kind"):
                KeyValueStore("hskv://h/d", TABLES["no kind"], serializer="json", **option)

    def test_without_a_kind_the_sort_of_values_must_be_said(self) -> None:
        with pytest.raises(ValueError, match="value_type"):
            KeyValueStore("hskv://h/d", TABLES["no kind"])
        with pytest.raises(ValueError, match="value_type"):
            KeyValueStore("hskv://h/d", TABLES["all"], value_type=bytes)

    def test_an_integer_without_a_number_column_is_json(
        self, opened: Callable[[str], Store], run_sql: Sql
    ) -> None:
        store = opened("no number")
        store["n"] = 7
        assert run_sql("SELECT v, kind FROM lacks_number WHERE k = 'n'") == ((b"7", 3),)
        assert store["n"] == 7


class TestRawValues:
    @pytest.mark.parametrize("kind", ["VARBINARY(40)", "TINYBLOB", "LONGBLOB"])
    def test_bytes_are_stored_as_they_are(
        self,
        make: Callable[[str], str],
        connection: Any,
        hskv_server: PrivateServer,
        run_sql: Sql,
        kind: str,
    ) -> None:
        name = make(f"CREATE TABLE THE (k VARBINARY(9) NOT NULL PRIMARY KEY, v {kind} NOT NULL)")
        run_sql(f"INSERT INTO {name} VALUES ('sql', x'00ff')")
        table = inspect_table(connection, name)
        with KeyValueStore(hskv_server.url, table, value_type=bytes) as store:
            assert store["sql"] == b"\x00\xff"
            store["a"] = b"\x01\t\n\x00\xff "
            store["empty"] = b""
            assert run_sql(f"SELECT v FROM {name} WHERE k = 'a'") == ((b"\x01\t\n\x00\xff ",),)
            assert store.to_dict() == {"a": b"\x01\t\n\x00\xff ", "empty": b"", "sql": b"\x00\xff"}
            for value in ("text", 5, None):
                with pytest.raises(exceptions.SerializationError, match="bytes"):
                    store["a"] = value
            if table.value_bytes < 1000:
                store["a"] = b"x" * table.value_bytes
                with pytest.raises(exceptions.ValueTooLargeError):
                    store["a"] = b"x" * (table.value_bytes + 1)
                assert len(store["a"]) == table.value_bytes

    @pytest.mark.parametrize("kind", ["VARCHAR(40)", "TINYTEXT", "LONGTEXT"])
    @pytest.mark.parametrize("collation", ["utf8mb4_general_ci", "utf8mb4_bin"])
    def test_text_is_stored_as_it_is(
        self,
        make: Callable[[str], str],
        connection: Any,
        hskv_server: PrivateServer,
        run_sql: Sql,
        kind: str,
        collation: str,
    ) -> None:
        name = make(
            "CREATE TABLE THE (k VARBINARY(9) NOT NULL PRIMARY KEY, "
            f"v {kind} CHARACTER SET utf8mb4 COLLATE {collation} NOT NULL)"
        )
        run_sql(f"INSERT INTO {name} VALUES ('sql', 'né \U0001f600')")
        table = inspect_table(connection, name)
        with KeyValueStore(hskv_server.url, table, value_type=str) as store:
            assert store["sql"] == "né \U0001f600"
            store.update(a=" € \U0001f600\t ", empty="")
            assert run_sql(f"SELECT v FROM {name} WHERE k = 'a'") == ((" € \U0001f600\t ",),)
            assert store.pop("a") == " € \U0001f600\t "
            assert store["empty"] == ""
            for value in (b"bytes", 5, None):
                with pytest.raises(exceptions.SerializationError, match="str"):
                    store["a"] = value
            if table.value_bytes < 1000:
                with pytest.raises(exceptions.ValueTooLargeError):
                    store["a"] = "é" * (table.value_bytes // 2 + 1)
            assert "a" not in store


INTEGERS: Final = {
    "TINYINT": (-(2**7), 2**7 - 1),
    "TINYINT UNSIGNED": (0, 2**8 - 1),
    "SMALLINT": (-(2**15), 2**15 - 1),
    "MEDIUMINT UNSIGNED": (0, 2**24 - 1),
    "INT": (-(2**31), 2**31 - 1),
    "INT UNSIGNED ZEROFILL": (0, 2**32 - 1),
    "BIGINT": (-(2**63), 2**63 - 1),
    "BIGINT UNSIGNED": (0, 2**64 - 1),
}


class TestIntegerKeys:
    @pytest.fixture(params=INTEGERS)
    def numbered(
        self,
        request: pytest.FixtureRequest,
        make: Callable[[str], str],
        connection: Any,
        hskv_server: PrivateServer,
    ) -> Iterator[tuple[KeyValueStore[int, Any], int, int]]:
        name = make(f"CREATE TABLE THE (k {request.param} NOT NULL PRIMARY KEY, v BLOB NOT NULL)")
        table = inspect_table(connection, name)
        with KeyValueStore(hskv_server.url, table, key_type=int, value_type=bytes) as store:
            yield (store, *INTEGERS[request.param])

    def test_keys_reach_the_limits_of_their_column(
        self, numbered: tuple[KeyValueStore[int, Any], int, int]
    ) -> None:
        store, least, most = numbered
        items = {key: b"%d" % key for key in (least, max(least, -10), 2, 9, 10, 100, most)}
        store.set_many(items)
        assert list(store) == sorted(items)
        assert {key: store[key] for key in items} == items
        assert store.get_many([most, 3, least]) == {most: items[most], least: items[least]}
        assert [key for key, _ in store.scan(start=9, batch=1)] == [9, 10, 100, most]
        assert [key for key, _ in store.scan(start=least)] == sorted(items)
        assert store.popitem() == (least, items[least])
        assert store.pop(most) == items[most]
        assert most not in store
        store[most] = b"again"
        assert store.swap(most, b"new") == b"again"
        assert store.add(most, b"not") is False
        assert store.delete_many([most, 100, 99]) == 2
        store.clear()
        assert not store

    def test_one_more_is_refused_before_anything_is_sent(
        self, numbered: tuple[KeyValueStore[int, Any], int, int]
    ) -> None:
        store, least, most = numbered
        store.set_many({least: b"least", most: b"most"})
        for key in (least - 1, most + 1, 10**30):
            calls: list[Callable[[], object]] = [
                partial(store.get, key),
                partial(store.__contains__, key),
                partial(store.set, key, b""),
                partial(store.add, key, b""),
                partial(store.pop, key, None),
                partial(store.delete, key),
                partial(store.get_many, [1, key]),
                partial(store.set_many, {1: b"", key: b""}),
                partial(store.delete_many, [least, key]),
                partial(store.scan, start=key),
            ]
            for call in calls:
                with pytest.raises(exceptions.KeyTooLongError, match=str(most)):
                    call()
        assert store.to_dict() == {least: b"least", most: b"most"}

    def test_what_is_no_int_is_refused(
        self, numbered: tuple[KeyValueStore[int, Any], int, int]
    ) -> None:
        store, _, _ = numbered
        for key in ("1", b"1", True, 1.0, None):
            bad: Any = key
            with pytest.raises(TypeError):
                store.get(bad)

    @pytest.mark.parametrize("prefix", [1, 0])
    def test_numbers_have_no_prefix(
        self,
        make: Callable[[str], str],
        connection: Any,
        hskv_server: PrivateServer,
        prefix: int,
    ) -> None:
        name = make("CREATE TABLE THE (k BIGINT NOT NULL PRIMARY KEY, v BLOB NOT NULL)")
        table = inspect_table(connection, name)
        with KeyValueStore(hskv_server.url, table, key_type=int, value_type=bytes) as store:
            store.set_many({5: b"five", 10: b"ten"})
            with pytest.raises(ValueError, match="prefix"):
                store.delete_prefix(prefix)
            with pytest.raises(ValueError, match="prefix"):
                list(store.scan(prefix))
            with pytest.raises(ValueError, match="prefix"):
                store.namespace("1")
            assert len(store) == 2

    def test_leases_need_another_column(
        self, numbered: tuple[KeyValueStore[int, Any], int, int]
    ) -> None:
        store, _, _ = numbered
        with pytest.raises(hskv.UnsupportedError):
            store.lease("a")
        with pytest.raises(hskv.UnsupportedError):
            store.get_or_set(1, bytes)
        assert not store


FOLDED: Final[dict[str, Callable[[Store, str, int], object]]] = {
    "get": lambda store, key, _: store.get(key),
    "getitem": lambda store, key, _: store[key],
    "contains": lambda store, key, _: key in store,
    "get_versioned": lambda store, key, _: store.get_versioned(key),
    "ttl": lambda store, key, _: store.ttl(key),
    "get_many": lambda store, key, _: store.get_many(["other", key]),
    "set": lambda store, key, _: store.set(key, 5),
    "set and keep": lambda store, key, _: store.set(key, 5, ttl=KEEP),
    "setitem": lambda store, key, _: store.__setitem__(key, 5),
    "set_many": lambda store, key, _: store.set_many({"new": 5, key: 5}),
    "set_many of pairs": lambda store, key, _: store.set_many(iter([(key, 5)])),
    "update": lambda store, key, _: store.update({key: 5}),
    "add": lambda store, key, _: store.add(key, 5),
    "replace": lambda store, key, _: store.replace(key, 5),
    "setdefault": lambda store, key, _: store.setdefault(key, 5),
    "swap": lambda store, key, _: store.swap(key, 5, default=None),
    "swap and keep": lambda store, key, _: store.swap(key, 5, KEEP, default=None),
    "compare_and_set": lambda store, key, version: store.compare_and_set(key, 5, version),
    "touch": lambda store, key, _: store.touch(key, 5),
    "delete": lambda store, key, _: store.delete(key),
    "delitem": lambda store, key, _: store.__delitem__(key),
    "delete_many": lambda store, key, _: store.delete_many(["other", key]),
    "pop": lambda store, key, _: store.pop(key, None),
    "incr": lambda store, key, _: store.incr(key),
    "decr": lambda store, key, _: store.decr(key, floor=0),
    "get_or_set": lambda store, key, _: store.get_or_set(key, lambda: 5),
}


@pytest.fixture(scope="module")
def folding(run_sql: Sql) -> Table:
    """A table whose key ignores case, accents and trailing spaces."""
    ddl = Table("folding").create_sql()
    key = "VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    run_sql("DROP TABLE IF EXISTS folding")
    run_sql(ddl.replace("VARBINARY(255)", key))
    return Table("folding", key_bytes=50, byte_exact=False)


class TestKeysThatAreTakenForOthers:
    @pytest.fixture
    def folded(self, folding: Table, hskv_server: PrivateServer, run_sql: Sql) -> Iterator[Store]:
        run_sql("DELETE FROM folding")
        with KeyValueStore(hskv_server.url, folding) as store:
            store.set("foo", 1, ttl=600)
            yield store

    @pytest.mark.parametrize("key", ["Foo", "foo ", "fóo"])
    @pytest.mark.parametrize("call", FOLDED)
    def test_no_call_takes_foo_for_another(
        self, folded: Store, run_sql: Sql, call: str, key: str
    ) -> None:
        version = folded.get_versioned("foo")[1]
        before = run_sql("SELECT * FROM folding")
        with pytest.raises((hskv.KeyMismatchError, BatchError)) as caught:
            FOLDED[call](folded, key, version)
        if isinstance(caught.value, BatchError):
            assert isinstance(caught.value.__cause__, hskv.KeyMismatchError)
        assert "foo" in str(caught.value)
        assert run_sql("SELECT * FROM folding") == before

    @pytest.mark.parametrize("there", [True, False])
    @pytest.mark.parametrize("names", [("foo", "Foo"), ("Foo", "foo")])
    def test_a_batch_of_both_never_gives_one_the_value_of_the_other(
        self, folded: Store, there: bool, names: tuple[str, str]
    ) -> None:
        if not there:
            del folded["foo"]
        items = {name: f"of {name}" for name in names}
        with pytest.raises((hskv.KeyMismatchError, BatchError)):
            folded.set_many(items)
        left = folded.to_dict()
        left.pop("foo" if left.get("foo") == 1 else "", None)
        assert left.items() <= items.items()

    def test_keys_that_differ_work_as_ever(self, folded: Store) -> None:
        folded.update(bar=2, baz=[3])
        assert folded.incr("foo") == 2
        assert folded.swap("bar", 5) == 2
        assert folded.get_many(["foo", "bar", "x"]) == {"foo": 2, "bar": 5}
        assert folded.to_dict() == {"bar": 5, "baz": [3], "foo": 2}
        assert [key for key, _ in folded.scan(start="BAZ")] == ["baz", "foo"]
        assert folded.popitem() == ("bar", 5)
        assert folded.delete_many(["baz", "x"]) == 1
        assert folded.add("foo", 9) is False
        assert folded.purge_expired() == 0
        folded.clear()
        assert not folded

    def test_prefixes_leases_and_canaries_are_refused(
        self, folded: Store, folding: Table, hskv_server: PrivateServer
    ) -> None:
        for call in (
            lambda: folded.namespace("f"),
            lambda: list(folded.scan("f")),
            lambda: folded.delete_prefix("f"),
            lambda: folded.lease("l"),
            lambda: folded.get_or_set("new", list),
            lambda: KeyValueStore(hskv_server.url, folding, prefix="f"),
            folded.check,
        ):
            with pytest.raises(hskv.UnsupportedError, match="byte by byte"):
                call()
        assert folded.to_dict() == {"foo": 1}

    def test_a_table_with_names_of_its_own_is_checked_unless_it_is_said_to_be_exact(self) -> None:
        assert not Table("t", key="id").byte_exact
        assert Table("t", key="id", byte_exact=True).byte_exact
        assert Table("t").byte_exact

    def test_a_collation_that_ignores_nothing_tells_them_apart(
        self, make: Callable[[str], str], connection: Any, hskv_server: PrivateServer
    ) -> None:
        name = make(
            "CREATE TABLE THE (v LONGBLOB NOT NULL, k VARCHAR(50) CHARACTER SET utf8mb4 "
            "COLLATE utf8mb4_nopad_bin NOT NULL PRIMARY KEY)"
        )
        items = {key: key.encode() for key in ("foo", "Foo", "foo ", "fóo", "\U0001f600")}
        table = inspect_table(connection, name)
        with KeyValueStore(hskv_server.url, table, value_type=bytes) as store:
            store.set_many(items)
            assert store.to_dict() == dict(sorted(items.items()))
            assert all(store[key] == value for key, value in items.items())
            assert store.pop("foo ") == b"foo "
            assert len(store) == 4

    @pytest.mark.handlersocket("SQL cuts no key: it does not find it, and does not store it")
    def test_a_key_that_the_column_cuts_is_never_answered_for(
        self, make: Callable[[str], str], connection: Any, hskv_server: PrivateServer
    ) -> None:
        name = make("CREATE TABLE THE (name VARBINARY(8) NOT NULL PRIMARY KEY, v BLOB NOT NULL)")
        lacks: dict[str, Any] = dict.fromkeys((*COLUMNS, "expires_index"))
        table = Table(name, key="name", **lacks)
        with KeyValueStore(hskv_server.url, table, value_type=bytes) as store:
            store["12345678"] = b"eight"
            for call in (
                lambda: store.get("123456789"),
                lambda: store.get_many(["123456789"]),
                lambda: "123456789" in store,
                lambda: store.set("123456789", b"nine"),
                lambda: store.add("123456789", b"nine"),
                lambda: store.pop("123456789"),
                lambda: store.delete("123456789"),
            ):
                with pytest.raises(hskv.KeyMismatchError, match="narrower"):
                    call()
            assert store.to_dict() == {"12345678": b"eight"}
        known = inspect_table(connection, name, key="name")
        with (
            KeyValueStore(hskv_server.url, known, value_type=bytes) as store,
            pytest.raises(exceptions.KeyTooLongError, match="9 bytes"),
        ):
            store["123456789"] = b"nine"


KV: Final = "k VARBINARY(9) NOT NULL PRIMARY KEY, v LONGBLOB NOT NULL"
BODY: Final = f"CREATE TABLE THE ({KV}"

REFUSED: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "a view": ("CREATE VIEW THE AS SELECT * FROM kv", {}, "VIEW"),
    "a sequence": ("CREATE SEQUENCE THE NOCACHE", {}, "SEQUENCE"),
    "partitions": (f"{BODY}) PARTITION BY KEY (k) PARTITIONS 2", {}, "partition"),
    "system versioning": (f"{BODY}) WITH SYSTEM VERSIONING", {}, "VERSIONED"),
    "an engine without order": (
        (
            "CREATE TABLE THE (k VARBINARY(9) NOT NULL PRIMARY KEY, v VARBINARY(9) NOT NULL) "
            "ENGINE=MEMORY"
        ),
        {},
        "engine",
    ),
    "a generated column": (f"{BODY}, w INT AS (LENGTH(k)) VIRTUAL)", {}, "generated"),
    "a stored generated column": (f"{BODY}, w INT AS (LENGTH(k)) STORED)", {}, "generated"),
    "a trigger": (
        f"{BODY});;CREATE TRIGGER THE_t BEFORE INSERT ON THE FOR EACH ROW SET NEW.v = ''",
        {},
        "trigger",
    ),
    "a CHECK of the table": (f"{BODY}, CHECK (LENGTH(k) > 1))", {}, "CHECK"),
    "a CHECK of a column": (f"{BODY}, w INT DEFAULT 1 CHECK (w > 0))", {}, "CHECK"),
    "JSON, which is a CHECK": (
        "CREATE TABLE THE (k VARBINARY(9) NOT NULL PRIMARY KEY, v JSON NOT NULL)",
        {},
        "CHECK",
    ),
    "a default that is an expression": (
        f"{BODY}, w VARCHAR(40) NOT NULL DEFAULT (UUID()))",
        {},
        "default",
    ),
    "a default of now": (
        f"{BODY}, w TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
        {},
        "default",
    ),
    "a time of the last update": (
        f"{BODY}, w TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP)",
        {},
        "default",
    ),
    "another UNIQUE index": (f"{BODY}, w INT NOT NULL UNIQUE)", {}, "more than one UNIQUE"),
    "no UNIQUE index": (
        "CREATE TABLE THE (k VARBINARY(9) NOT NULL, v LONGBLOB NOT NULL, KEY (k))",
        {},
        "no PRIMARY or UNIQUE",
    ),
    "a key of two columns": (
        "CREATE TABLE THE (k VARBINARY(9), v VARBINARY(9), PRIMARY KEY (k, v))",
        {},
        "no PRIMARY or UNIQUE",
    ),
    "an index of the first bytes of the key": (
        "CREATE TABLE THE (k VARBINARY(9) NOT NULL, v LONGBLOB NOT NULL, UNIQUE KEY (k(4)))",
        {},
        "first|part|prefix",
    ),
    "a key in descending order": (
        "CREATE TABLE THE (k VARBINARY(9) NOT NULL, v LONGBLOB NOT NULL, PRIMARY KEY (k DESC))",
        {},
        "(?i)desc",
    ),
    "an expiry in descending order": (
        f"{BODY}, expires BIGINT NOT NULL, KEY (expires DESC))",
        {},
        "(?i)desc",
    ),
    "a key that may be NULL": (
        "CREATE TABLE THE (k VARBINARY(9) NULL UNIQUE, v LONGBLOB NOT NULL)",
        {},
        "NULL",
    ),
    "numbers that are given out": (
        "CREATE TABLE THE (k INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v LONGBLOB NOT NULL)",
        {},
        "AUTO_INCREMENT",
    ),
    "a value that may be NULL": (
        "CREATE TABLE THE (k VARBINARY(9) NOT NULL PRIMARY KEY, v LONGBLOB NULL)",
        {},
        "NULL",
    ),
    "a missing column": (f"{BODY})", {"number": "missing"}, "missing"),
    "no value": (f"{BODY})", {"value": None}, "value"),
    "no key": ("CREATE TABLE THE (id INT PRIMARY KEY, v LONGBLOB NOT NULL)", {}, "key"),
    "text for a number": (f"{BODY}, n VARCHAR(9) NOT NULL)", {}, "bigint"),
    "a number too small": (f"{BODY}, n INT NOT NULL)", {}, "bigint"),
    "a number without a sign": (f"{BODY}, n BIGINT UNSIGNED NOT NULL)", {}, "unsigned"),
    "a number that may be NULL": (f"{BODY}, n BIGINT)", {}, "NULL"),
    "a kind too large": (f"{BODY}, kind INT NOT NULL)", {}, "tinyint"),
    "a version too small": (f"{BODY}, version INT NOT NULL)", {}, "bigint"),
    "a version that may be NULL": (f"{BODY}, rev BIGINT)", {"version": "rev"}, "NULL"),
    "an expiry that is a time": (f"{BODY}, expires DATETIME NOT NULL)", {}, "bigint"),
    "an expiry that may be NULL": (f"{BODY}, expires BIGINT)", {}, "NULL"),
    "text values with a kind": (
        (
            "CREATE TABLE THE (k VARBINARY(9) NOT NULL PRIMARY KEY, v TEXT NOT NULL, "
            "kind TINYINT NOT NULL) CHARACTER SET utf8mb4"
        ),
        {},
        "kind=None",
    ),
}

KEYS_REFUSED: Final = (
    "VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
    "VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_nopad_ci",
    "VARCHAR(9) CHARACTER SET latin1 COLLATE latin1_nopad_bin",
    "CHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
    "BINARY(9)",
    "DECIMAL(9)",
    "DOUBLE",
    "DATETIME",
    "ENUM('a', 'b')",
    "UUID",
    "BIT(9)",
)

VALUES_REFUSED: Final = (
    "INT",
    "DOUBLE",
    "BINARY(9)",
    "BIT(9)",
    "DATETIME",
    "ENUM('a', 'b')",
    "TEXT CHARACTER SET latin1",
    "VARCHAR(9) CHARACTER SET utf8mb3",
    "CHAR(9) CHARACTER SET utf8mb4",
)

ACCEPTED: Final[dict[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "the standard one": (
        Table("THE").create_sql(),
        {},
        {"key_bytes": 255, "value_bytes": 2**32 - 1, "expires_index": "expires", "whole": True},
    ),
    "key and value": (
        f"{BODY})",
        {},
        {"key_bytes": 9, "columns": ["k", "v"], "expires_index": None, "byte_exact": True},
    ),
    "names of its own": (
        (
            "CREATE TABLE THE (id VARBINARY(9) NOT NULL, data BLOB NOT NULL, num BIGINT NOT NULL, "
            "type TINYINT NOT NULL, rev BIGINT NOT NULL, until BIGINT NOT NULL, "
            "UNIQUE KEY by_id (id), KEY by_end (until, rev))"
        ),
        {
            "key": "id",
            "value": "data",
            "number": "num",
            "kind": "type",
            "version": "rev",
            "expires": "until",
        },
        {"index": "by_id", "expires_index": "by_end", "value_bytes": 65535, "whole": True},
    ),
    "columns that it is told to leave": (
        f"{BODY}, n BIGINT NOT NULL, version BIGINT NOT NULL)",
        {"number": None},
        {"number": None, "version": "version", "kind": None},
    ),
    "an expiry without an index": (
        f"{BODY}, expires BIGINT NOT NULL)",
        {},
        {"expires": "expires", "expires_index": None},
    ),
    "constant defaults": (
        f"{BODY}, w INT NOT NULL DEFAULT 5, x VARCHAR(9) DEFAULT 'x', y DATE, z INT)",
        {},
        {"columns": ["k", "v"]},
    ),
    "a constant default with a bracket": (
        f"{BODY}, w VARCHAR(9) NOT NULL DEFAULT '(none)')",
        {},
        {"columns": ["k", "v"]},
    ),
    "another index": (f"{BODY}, w INT NOT NULL, KEY (w))", {}, {"index": "PRIMARY"}),
    "Aria": (f"{BODY}) ENGINE=Aria", {}, {"key_bytes": 9}),
    "a text of 20 characters": (
        (
            "CREATE TABLE THE (k VARBINARY(9) NOT NULL PRIMARY KEY, "
            "v VARCHAR(20) CHARACTER SET utf8mb4 NOT NULL)"
        ),
        {},
        {"value_bytes": 20},
    ),
}


class TestInspection:
    @pytest.mark.parametrize("case", REFUSED)
    def test_a_table_that_would_go_wrong_is_refused(
        self, make: Callable[[str], str], connection: Any, case: str
    ) -> None:
        statements, columns, words = REFUSED[case]
        name = make(statements)
        with pytest.raises(hskv.UnsupportedError, match=words) as caught:
            inspect_table(connection, name, **columns)
        assert name in str(caught.value)

    @pytest.mark.parametrize("kind", KEYS_REFUSED)
    def test_a_key_that_is_not_exact_is_refused(
        self, make: Callable[[str], str], connection: Any, kind: str
    ) -> None:
        name = make(f"CREATE TABLE THE (k {kind} NOT NULL PRIMARY KEY, v LONGBLOB NOT NULL)")
        with pytest.raises(hskv.UnsupportedError, match="key 'k'"):
            inspect_table(connection, name)

    @pytest.mark.parametrize("kind", VALUES_REFUSED)
    def test_a_value_that_would_not_come_back_is_refused(
        self, make: Callable[[str], str], connection: Any, kind: str
    ) -> None:
        name = make(f"CREATE TABLE THE (k VARBINARY(9) NOT NULL PRIMARY KEY, v {kind} NOT NULL)")
        with pytest.raises(hskv.UnsupportedError, match="value 'v'"):
            inspect_table(connection, name)

    @pytest.mark.parametrize(
        "case", [marked(case, NO_DEFAULT, "SQL fills none") for case in ACCEPTED]
    )
    def test_a_table_that_fits_is_described_as_it_is_and_works(
        self,
        make: Callable[[str], str],
        connection: Any,
        hskv_server: PrivateServer,
        case: str,
    ) -> None:
        statements, columns, expected = ACCEPTED[case]
        name = make(statements)
        table = inspect_table(connection, name, **columns)
        found = {word: getattr(table, word) for word in expected if word != "columns"}
        if "columns" in expected:
            found["columns"] = table.columns()
        assert found == expected
        options: dict[str, Any] = {} if table.kind else {"value_type": str}
        with KeyValueStore(hskv_server.url, table, **options) as store:
            store.set_many({"a": "one", "b": "two"})
            store["a"] = "three"
            assert store.to_dict() == {"a": "three", "b": "two"}
            assert store.pop("b") == "two"
            assert store.popitem() == ("a", "three")

    @pytest.mark.parametrize("kind", INTEGERS)
    def test_integer_keys_are_described_with_their_width(
        self, make: Callable[[str], str], connection: Any, kind: str
    ) -> None:
        name = make(f"CREATE TABLE THE (k {kind} NOT NULL PRIMARY KEY, v LONGBLOB NOT NULL)")
        table = inspect_table(connection, name)
        least, most = INTEGERS[kind]
        assert most - least == 256**table.key_bytes - 1
        assert table.key_unsigned is (least == 0)

    def test_a_table_that_is_not_there(self, connection: Any) -> None:
        with pytest.raises(hskv.TableNotFoundError, match="nowhere"):
            inspect_table(connection, "nowhere")
        with pytest.raises(hskv.TableNotFoundError, match="elsewhere"):
            inspect_table(connection, "kv", database="elsewhere")

    def test_a_table_of_another_database(self, connection: Any, run_sql: Sql) -> None:
        run_sql("CREATE DATABASE IF NOT EXISTS elsewhere_too")
        table = Table("far", database="elsewhere_too", key_bytes=20)
        run_sql("DROP TABLE IF EXISTS elsewhere_too.far")
        run_sql(table.create_sql())
        assert inspect_table(connection, "far", database="elsewhere_too").key_bytes == 20
        with pytest.raises(hskv.TableNotFoundError):
            inspect_table(connection, "far")

    def test_a_meaning_that_no_table_has(self, connection: Any) -> None:
        with pytest.raises(TypeError, match="colour"):
            inspect_table(connection, "kv", colour="c")


@pytest.mark.handlersocket("the raw API")
class TestTheTableItself:
    @pytest.fixture
    def named(
        self, make: Callable[[str], str], connection: Any, hskv_server: PrivateServer
    ) -> Iterator[Store]:
        statements, columns, _ = ACCEPTED["names of its own"]
        table = inspect_table(connection, make(statements), **columns)
        with KeyValueStore(hskv_server.url, table) as store:
            store.set_many({"a": 1, "b": 2, "c": 3})
            yield store

    def test_find_speaks_of_its_own_columns(self, named: Store) -> None:
        (row,) = named.find("=", ["a"])
        assert row[:4] == (b"a", b"", b"1", b"2")
        assert len(row) == 6
        assert named.find(">", ["a"], ["id", "num"], limit=9) == [(b"b", b"2"), (b"c", b"3")]
        assert named.find(">=", ["a"], ["id"], limit=9, offset=2) == [(b"c",)]
        assert named.find("<", ["b"], ["id"]) == [(b"a",)]
        assert named.find(
            ">=", ["a"], ["id"], limit=9, filters=iter([("num", "!=", 2), ("type", "=", 2)])
        ) == [(b"a",), (b"c",)]
        assert named.find(">=", ["a"], ["id"], limit=9, while_=[("num", "<", 2)]) == [(b"a",)]
        assert named.find("=", [""], ["num"], limit=2, in_=(0, ["c", "a"])) == [(b"3",), (b"1",)]
        named.touch("b", 60)
        assert named.find(">=", [0], ["id"], index_name="by_end") == [(b"b",)]

    def test_modify_speaks_of_its_own_columns(self, named: Store) -> None:
        assert named.modify("=", ["a"], "+", {"num": 4}) == 1
        assert named.modify("=", ["x"], "+", {"num": 4}) == 0
        assert named.modify("=", ["b"], "U", {"num": 9, "until": 2**63 - 1}) == 1
        assert named.modify(">=", ["a"], "-", {"num": 1}, limit=9, filters=[("num", ">", 4)]) == 2
        assert named.to_dict() == {"a": 4, "b": 8, "c": 3}
        assert named.modify(">=", ["b"], "D", limit=9, while_=[("id", "<", "c")]) == 1
        assert named.to_dict() == {"a": 4, "c": 3}
        with pytest.raises(hskv.ColumnNotFoundError):
            named.modify("=", ["a"], "U", {"n": 1})

    def test_the_client_and_the_manager_are_on_the_same_connections(self, named: Store) -> None:
        name = named.table.name
        assert named["a"] == 1
        before = named.stats()["read"]["connects"]
        index = named.client.open(name, ["num"], index_name="by_id")
        assert named.client.find(index, "=", [b"a"]) == [(b"1",)]
        manager = named.manager
        rows = manager.find("hskv", name, "=", ["id", "num"], ["c"], "by_id")
        assert rows == [[("id", "c"), ("num", "3")]]
        assert manager.incr("hskv", name, "=", ["num"], ["c"], ["2"], "by_id") == 1
        assert named["c"] == 5
        assert named.stats()["read"]["connects"] == before


@pytest.fixture(scope="module")
def other_server() -> Iterator[PrivateServer]:
    """Another server, which shows nobody what was written."""
    with PrivateServer(options={"autocommit": 0}) as server:
        yield server


class TestCheck:
    @pytest.mark.parametrize("prefix", ["", "some:", "x" * 250])
    def test_it_leaves_nothing(
        self, hskv_store: Store, hskv_server: PrivateServer, run_sql: Sql, prefix: str
    ) -> None:
        with hskv.connect(hskv_server.url, prefix=prefix) as store:
            for _ in range(3):
                store.check()
        assert run_sql("SELECT COUNT(*) FROM kv WHERE k LIKE '\\0T%%'") == ((0,),)

    @pytest.mark.parametrize("key_bytes", [4, 16, 35, 36, 100])
    def test_it_fits_into_keys_of_any_width(
        self, hskv_server: PrivateServer, run_sql: Sql, key_bytes: int
    ) -> None:
        table = Table(f"narrow{key_bytes}", key_bytes=key_bytes)
        run_sql(f"DROP TABLE IF EXISTS {table.name}")
        run_sql(table.create_sql())
        with KeyValueStore(hskv_server.url, table) as store:
            try:
                store.check()
            except hskv.UnsupportedError:
                assert key_bytes < 36
        assert run_sql(f"SELECT COUNT(*) FROM {table.name}") == ((0,),)

    @pytest.mark.handlersocket("SQL refuses what is too long")
    def test_a_key_column_that_is_narrower_than_the_table_says(
        self, hskv_server: PrivateServer, run_sql: Sql
    ) -> None:
        run_sql("DROP TABLE IF EXISTS cut")
        run_sql(Table("cut", key_bytes=254).create_sql())
        with KeyValueStore(hskv_server.url, Table("cut")) as store:
            with pytest.raises(hskv.KeyMismatchError, match="narrower than key_bytes=255"):
                store.check()
            assert run_sql("SELECT COUNT(*) FROM cut") == ((0,),)
        with KeyValueStore(hskv_server.url, Table("cut", key_bytes=254)) as store:
            store.check()

    @pytest.mark.parametrize("key_bytes", [4, 8, 35])
    def test_leases_of_different_names_do_not_meet_in_narrow_keys(
        self, hskv_server: PrivateServer, run_sql: Sql, key_bytes: int
    ) -> None:
        table = Table(f"leased{key_bytes}", key_bytes=key_bytes)
        run_sql(f"DROP TABLE IF EXISTS {table.name}")
        run_sql(table.create_sql())
        with KeyValueStore(hskv_server.url, table) as store:
            try:
                leases = [store.lease(f"a name of its own, {number}") for number in range(2)]
            except hskv.UnsupportedError:
                return
            assert [lease.acquire(wait=False) for lease in leases] == [True, True]

    @pytest.mark.handlersocket("its two ports")
    def test_the_two_ports_swapped(self, hskv_server: PrivateServer) -> None:
        url = f"hskv+unix:///hskv?read={hskv_server.directory}/write.sock"
        url += f"&write={hskv_server.directory}/read.sock"
        secrets: dict[str, Any] = {
            "secret": hskv_server.write_secret,
            "write_secret": hskv_server.secret,
        }
        with hskv.connect(url, **secrets) as store, pytest.raises(hskv.ReadOnlyError):
            store.check()

    @pytest.mark.handlersocket("its two ports")
    def test_the_read_port_of_another_server(
        self, hskv_server: PrivateServer, other_server: PrivateServer, run_sql: Sql
    ) -> None:
        own, other = (
            quote(str(server.directory / "read.sock"), safe="/")
            for server in (hskv_server, other_server)
        )
        url = hskv_server.url.replace(own, other)
        assert url != hskv_server.url
        with (
            hskv.connect(url, secret=other_server.secret) as store,
            pytest.raises(hskv.OperationalError, match="same server"),
        ):
            store.check()
        assert run_sql("SELECT COUNT(*) FROM kv WHERE k LIKE '\\0T%%'") == ((0,),)

    def test_a_server_that_does_not_commit(self, other_server: PrivateServer) -> None:
        with (
            hskv.connect(other_server.url) as store,
            pytest.raises(hskv.OperationalError, match="autocommit"),
        ):
            store.check()

    @pytest.mark.handlersocket("SQL names no index, and has a password")
    def test_a_wrong_name_or_secret(self, hskv_server: PrivateServer) -> None:
        wrong: list[tuple[Table, type[Exception]]] = [
            (Table("missing"), hskv.TableNotFoundError),
            (Table(number="missing", byte_exact=True), hskv.ColumnNotFoundError),
            (Table(index="missing"), hskv.IndexNotFoundError),
        ]
        for table, error in wrong:
            with KeyValueStore(hskv_server.url, table) as store, pytest.raises(error):
                store.check()
        for option in ("secret", "write_secret"):
            with (
                hskv.connect(hskv_server.url, **dict[str, Any]({option: "wrong"})) as store,
                pytest.raises(hskv.AuthenticationError),
            ):
                store.check()
