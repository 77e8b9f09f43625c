"""Bad input and failures: each gives its own clear error, and the store goes on working."""

import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pymysql
import pytest

import hskv
from hskv import Client, KeyValueStore, Table, exceptions
from hskv.mariadb import PrivateServer

Store = KeyValueStore[str, Any]
Peer = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def survivor(hskv_store: Store) -> Any:
    """The store that must go on working, with nothing half written, whatever a test did."""
    hskv_store["before"] = 1
    yield hskv_store
    assert dict(hskv_store) == {"before": 1}
    hskv_store["after"] = 2
    assert hskv_store.pop("after") == 2


class TestBadValues:
    def test_a_key_too_long(self, survivor: Store) -> None:
        with pytest.raises(exceptions.KeyTooLongError, match=r"256 bytes .* 255"):
            survivor["x" * 256] = 1

    def test_a_value_too_large(self, survivor: Store, hskv_server: PrivateServer) -> None:
        with KeyValueStore(hskv_server.url, Table(value_bytes=10)) as store:
            with pytest.raises(exceptions.ValueTooLargeError, match="11 bytes"):
                store["a"] = "x" * 11
            with pytest.raises(exceptions.ValueTooLargeError):
                store.set_many({"b": 1, "a": "x" * 11})

    def test_a_value_json_cannot_hold(self, survivor: Store) -> None:
        for write in (survivor.set, survivor.add, survivor.replace, survivor.setdefault):
            with pytest.raises(exceptions.SerializationError):
                write("a", {1, 2})

    def test_an_int_beyond_64_bits_in_a_counter(self, survivor: Store) -> None:
        with pytest.raises(OverflowError):
            survivor.incr("before", 2**63)
        with pytest.raises(OverflowError):
            survivor.incr("before", 2**63 - 1)

    def test_incr_on_text(self, survivor: Store) -> None:
        survivor["text"] = "5"
        with pytest.raises(TypeError, match="integer"):
            survivor.incr("text")
        assert survivor.pop("text") == "5"

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), "5", True])
    def test_a_ttl_that_is_none(self, survivor: Store, ttl: Any) -> None:
        for call in (survivor.touch, survivor.incr):
            with pytest.raises((TypeError, ValueError), match="ttl"):
                call("before", ttl=ttl)


@pytest.mark.handlersocket("its secrets")
class TestBadLogin:
    @pytest.mark.parametrize("secret", [None, "wrong", ""])
    def test_a_wrong_secret_or_none(
        self, survivor: Store, hskv_server: PrivateServer, secret: str | None
    ) -> None:
        url = hskv_server.url.replace(f":{hskv_server.secret}@", f":{secret}@" if secret else "")
        with hskv.connect(url, secret=secret) as store:
            for _ in range(2):
                with pytest.raises(hskv.AuthenticationError, match="secret"):
                    store.get("a")

    def test_a_wrong_write_secret(self, survivor: Store, hskv_server: PrivateServer) -> None:
        with hskv.connect(hskv_server.url, write_secret="wrong") as store:
            assert store["before"] == 1
            with pytest.raises(hskv.AuthenticationError, match="write_secret"):
                store["a"] = 1
            with pytest.raises(exceptions.BatchError) as caught:
                store.set_many({"a": 1, "b": 2})
            assert isinstance(caught.value.__cause__, hskv.AuthenticationError)
            assert caught.value.failed == ("a", "b")

    @pytest.mark.parametrize("secret", ["the same: for/both?", ""])
    def test_one_secret_for_both_ports_or_none_at_all(self, secret: str) -> None:
        names = ("handlersocket_plain_secret", "handlersocket_plain_secret_wr")
        with PrivateServer(options=dict.fromkeys(names, secret)) as server:
            for given in ({"secret": secret}, {"secret": "not asked for"}) if not secret else ({},):
                with hskv.connect(server.url.partition("&write_secret")[0], **given) as store:
                    store["a"] = 1
                    assert store["a"] == 1

    def test_the_secret_shows_in_no_error(self, hskv_server: PrivateServer) -> None:
        with hskv.connect(hskv_server.url, secret="hunter2") as store:
            with pytest.raises(hskv.AuthenticationError) as caught:
                store.get("a")
            assert "hunter2" not in repr(caught.value) + str(caught.value.__dict__)


class TestBadNames:
    def test_a_missing_table(self, survivor: Store, hskv_server: PrivateServer) -> None:
        with KeyValueStore(hskv_server.url, "missing") as store:
            with pytest.raises(hskv.TableNotFoundError, match="table"):
                store.get("a")
            with pytest.raises(hskv.TableNotFoundError):
                store["a"] = 1
            with pytest.raises(exceptions.BatchError) as caught:
                store.set_many({"a": 1, "b": 2})
            assert caught.value.failed == ("a", "b")

    def test_a_missing_column(self, survivor: Store, hskv_server: PrivateServer) -> None:
        with (
            KeyValueStore(hskv_server.url, Table(number="missing")) as store,
            pytest.raises(hskv.ColumnNotFoundError),
        ):
            store.get("a")

    @pytest.mark.handlersocket("SQL names no index")
    def test_a_missing_index(self, survivor: Store, hskv_server: PrivateServer) -> None:
        with (
            KeyValueStore(hskv_server.url, Table(index="missing")) as store,
            pytest.raises(hskv.IndexNotFoundError),
        ):
            store.get("a")

    def test_a_table_can_be_made_after_the_error_and_is_found(
        self, hskv_server: PrivateServer, run_sql: Callable[..., Any]
    ) -> None:
        # The server keeps the name locked while the worker that looked for it has connections.
        run_sql("DROP TABLE IF EXISTS late")
        with KeyValueStore(hskv_server.url, "late") as store:
            with pytest.raises(hskv.TableNotFoundError):
                store["a"] = 1
            run_sql(Table("late").create_sql())
            store["a"] = 1
            assert store["a"] == 1


@pytest.mark.handlersocket("the raw API")
class TestBadRequests:
    def test_an_operator_not_on_the_list(self, survivor: Store) -> None:
        client = survivor.client
        index = client.open("kv", ["n"], filter_columns=["kind"])
        for operation in ("!=", "<>", "", "+", "P"):
            with pytest.raises(ValueError, match="is not one of"):
                client.find(index, operation, [b"a"])
            with pytest.raises(ValueError, match="is not one of"):
                client.modify(index, operation, [b"a"], "D")
        for operation in ("<>", "like", "==", ""):
            with pytest.raises(ValueError, match="is not one of"):
                client.modify(index, ">=", [b""], "D", filters=[("kind", operation, 0)])
        for operation in ("", "d", "D?", "Delete", "D\t"):
            with pytest.raises(ValueError, match="is not one of"):
                client.modify(index, "=", [b"before"], operation)

    def test_33_values(self, survivor: Store) -> None:
        client = survivor.client
        index = client.open("kv", ["n"] * 33)
        with pytest.raises(ValueError, match="33 values"):
            client.insert(index, [b"x"] * 33)
        with pytest.raises(ValueError, match="33 key values"):
            client.find(index, "=", [b"x"] * 33)

    def test_an_update_with_too_few_values(self, survivor: Store) -> None:
        client = survivor.client
        index = client.open("kv", ["n", "kind"])
        with pytest.raises(ValueError, match="1 values for 2 columns"):
            client.modify(index, "=", [b"before"], "U", [5])
        with pytest.raises(ValueError, match="blank"):
            client.pipeline().modify(index, "=", [b"before"], "U", [5])

    def test_an_unknown_filter_column(self, survivor: Store) -> None:
        index = survivor.client.open("kv", ["n"], filter_columns=["kind"])
        with pytest.raises(ValueError, match="no filter column"):
            survivor.client.find(index, "=", [b"a"], filters=[("n", "=", 1)])

    @pytest.mark.parametrize("filters", [[""], ["n=1"], [None], [("n",)], [()]])
    def test_filters_of_a_store_that_are_none(self, survivor: Store, filters: Any) -> None:
        for option in ("filters", "while_"):
            with pytest.raises((TypeError, ValueError), match="filters and while_ are lists"):
                survivor.find("=", ["before"], **{option: filters})

    @pytest.mark.parametrize("key", ["before", b"before", bytearray(b"before")])
    def test_a_key_that_is_no_list(self, survivor: Store, key: Any) -> None:
        index = survivor.client.open("kv", ["n"])
        with pytest.raises(TypeError, match="list of values"):
            survivor.client.find(index, "=", key)

    def test_limits_out_of_range(self, survivor: Store) -> None:
        index = survivor.client.open("kv", ["n"])
        for limit, offset in ((0, 0), (-2, 0), (2**32, 0), (1, -1), (2**32 - 1, 1)):
            with pytest.raises(ValueError, match="limit"):
                survivor.client.find(index, "=", [b"a"], limit=limit, offset=offset)

    @pytest.mark.parametrize("name", ["a,b", "a\tb", "a\nb", "a\x00b"])
    def test_a_name_the_protocol_cannot_carry(self, survivor: Store, name: str) -> None:
        with pytest.raises(ValueError, match="comma or a control"):
            survivor.client.open("kv", [name])
        with pytest.raises(ValueError, match="comma or a control"):
            survivor.client.open(name, ["n"])


class TestBadServers:
    """Peers that are no server, or a broken one; a read and a write each."""

    def check(self, url: str, error: type[Exception], text: str, *, written: bool = False) -> None:
        """A read and writes, all to the listener of the read port; `written`: one is sent."""
        settings = Client(url, timeout=0.5, connect_timeout=0.5).settings
        with Client.from_settings(replace(settings, writers=settings.readers)) as client:
            store = KeyValueStore(client)
            started = time.monotonic()
            with pytest.raises(error, match=text):
                store.get("a")
            assert time.monotonic() - started < 2
            for write in (store.incr, lambda key: store.set(key, 1), store.pop):
                started = time.monotonic()
                with pytest.raises(hskv.OutcomeUnknownError if written else error):
                    write("a")
                assert time.monotonic() - started < 2
            with pytest.raises(exceptions.BatchError) as caught:
                store.set_many({"a": 1, "b": 2})
            assert (caught.value.unknown if written else caught.value.failed) == ("a", "b")

    def test_a_server_that_is_not_there(self, survivor: Store) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            url = f"hskv://:x@127.0.0.1:{port}/d"
            self.check(url, exceptions.ConnectionError, "is MariaDB running")

    def test_a_socket_file_that_is_not_there(self, survivor: Store) -> None:
        url = "hskv+unix:///d?read=/nonexistent/r&write=/nonexistent/w"
        self.check(url, exceptions.ConnectionError, "No such file")

    def test_one_that_accepts_and_never_answers(self, survivor: Store, peer: Peer) -> None:
        url = peer(lambda connection: time.sleep(5))
        self.check(url, exceptions.ConnectionError, "did not finish the login")

    def test_one_that_drips_a_byte_at_a_time(self, survivor: Store, peer: Peer) -> None:
        def drip(connection: socket.socket) -> None:
            connection.recv(1 << 16)
            connection.sendall(b"0\t1\n")
            connection.recv(1 << 16)
            connection.sendall(b"0\t1\n0\t1\t")
            for _ in range(50):
                connection.sendall(b"1")
                time.sleep(0.1)

        self.check(peer(drip), exceptions.RequestTimeoutError, "in time", written=True)

    def test_one_that_closes_in_mid_reply(self, survivor: Store, peer: Peer) -> None:
        def cut(connection: socket.socket) -> None:
            connection.recv(1 << 16)
            connection.sendall(b"0\t1\n")
            connection.recv(1 << 16)
            connection.sendall(b"0\t3\thal")

        self.check(peer(cut), exceptions.IndexedConnectionError, "closed the conn", written=True)

    def test_an_http_server(self, survivor: Store, peer: Peer) -> None:
        def http(connection: socket.socket) -> None:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        self.check(peer(http), hskv.ProtocolError, "no reply of HandlerSocket")

    def test_the_sql_port(self, survivor: Store, hskv_server: PrivateServer) -> None:
        path = hskv_server.sql["unix_socket"]
        url = f"hskv+unix://:x@/hskv?read={path}&write={path}x"
        self.check(url, hskv.ProtocolError, "SQL port")

    @pytest.mark.handlersocket("its two ports")
    def test_the_two_ports_swapped(self, survivor: Store, hskv_server: PrivateServer) -> None:
        url = f"hskv+unix:///hskv?read={hskv_server.directory}/write.sock"
        url += f"&write={hskv_server.directory}/read.sock"
        with hskv.connect(
            url, secret=hskv_server.write_secret, write_secret=hskv_server.secret
        ) as store:
            assert store["before"] == 1
            with pytest.raises(hskv.ReadOnlyError, match="swapped"):
                store["a"] = 1

    def test_a_write_whose_reply_is_lost_is_of_unknown_outcome(
        self, survivor: Store, peer: Peer, hskv_server: PrivateServer
    ) -> None:
        asked: list[bytes] = []

        def lose(connection: socket.socket) -> None:
            connection.recv(1 << 16)
            connection.sendall(b"0\t1\n")
            asked.append(connection.recv(1 << 16))

        with Client(peer(lose)) as client:
            # The write port of such a URL leads nowhere: send both to the peer.
            settings = client.settings
            store = KeyValueStore(Client.from_settings(replace(settings, writers=settings.readers)))
            with pytest.raises(hskv.OutcomeUnknownError, match="may or may not") as caught:
                store["a"] = 1
            assert len(asked) == 1, "a write is not sent twice"
            assert b"%d" % (caught.value.version or 0) in asked[0]
            with pytest.raises(hskv.OutcomeUnknownError):
                store.incr("a")
            with pytest.raises(exceptions.BatchError) as batch:
                store.set_many({"a": 1, "b": 2})
            assert batch.value.unknown == ("a", "b")
            store.client.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hksv://127.0.0.1/hskv", "begins with hskv://"),
        ("hskv:/127.0.0.1/hskv", "begins with hskv://"),
        ("hskv://127.0.0.1:99999/hskv", "99999 is no port"),
        ("hskv://127.0.0.1:9998,9998/hskv", "both 9998"),
        ("hskv://127.0.0.1:port/hskv", "HOST:READ_PORT,WRITE_PORT"),
        ("hskv://127.0.0.1", "/DATABASE"),
        ("hskv://127.0.0.1/", "/DATABASE"),
        ("hskv://127.0.0.1/hskv/kv/more", "/DATABASE/TABLE"),
        ("hskv://secret@127.0.0.1/hskv", "no users"),
        ("hskv://[::1]/hskv", "IPv6"),
        ("hskv://127.0.0.1/hskv?timeuot=3", "'timeuot' is no option"),
        ("hskv://127.0.0.1/hskv?timeout=soon", "timeout of the URL is no number"),
        ("hskv://127.0.0.1/hskv?timeout=0", "seconds above zero"),
        ("hskv://127.0.0.1/hskv?pool_size=0", "pool_size"),
        ("hskv+unix:///hskv?read=/r", "option write"),
        ("", "no server is named"),
    ],
)
def test_a_url_with_a_typo_says_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hskv.connect(url)


class TestLocks:
    @pytest.mark.parametrize("write", ["incr", "touch", "delete"])
    def test_a_write_to_a_row_that_sql_keeps_locked_is_not_done(
        self, survivor: Store, hskv_server: PrivateServer, write: str
    ) -> None:
        with closing(pymysql.connect(**hskv_server.sql)) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM kv WHERE k = 'before' FOR UPDATE")
            started = time.monotonic()
            # With the defaults: the server waits 3 s, less than the request may take.
            with pytest.raises(hskv.LockTimeoutError, match="try again"):
                getattr(survivor, write)("before")
            assert time.monotonic() - started < 5
            connection.rollback()
        assert survivor["before"] == 1
        assert survivor.ttl("before") is None

    # By SQL it is told that the row is locked: test_sql_packets.py.
    @pytest.mark.handlersocket("SQL tells the server how long to wait")
    def test_a_packet_waits_once_for_each_of_its_requests(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        # Insert, update and find wait 1 s each: longer than the 2 s of a request.
        with (
            closing(pymysql.connect(**hskv_server.sql)) as connection,
            hskv.connect(hskv_server.url, timeout=2) as impatient,
        ):
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO kv (k, v) VALUES ('locked', '')")
            started = time.monotonic()
            with pytest.raises(hskv.OutcomeUnknownError):
                impatient.add("locked", 1)
            assert time.monotonic() - started < 3
            connection.rollback()
        assert hskv_store.setdefault("locked", 1) == 1
