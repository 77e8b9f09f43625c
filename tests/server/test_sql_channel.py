"""A connection to SQL: how it is made, what a server's errors become, and how it ends."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from pymysql.connections import Connection
from pymysql.err import OperationalError

from hskv import exceptions
from hskv.mariadb import PrivateServer
from hskv.transport.endpoint import Address
from hskv.transport.servers import NoServers
from hskv.transport.sql_address import Password, SqlLogin
from hskv.transport.sql_channel import SqlChannel
from hskv.transport.sql_errors import refusal

pytestmark = pytest.mark.handlersocket("it is below the store")

SIGNAL = b"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = %d, MESSAGE_TEXT = 'its words'"


def opened(address: Address, user: str = "root", **times: float) -> SqlChannel:
    login = SqlLogin((address,), user, Password(None))
    return SqlChannel(
        address, login, **{"connect_timeout": 2.0, "timeout": 5.0, "lifetime": 60.0, **times}
    )


@pytest.fixture
def address(hskv_server: PrivateServer) -> Address:
    return Address(path=str(hskv_server.directory / "sql.sock"))


@pytest.fixture
def channel(address: Address) -> Iterator[SqlChannel]:
    with closing(opened(address)) as channel:
        yield channel


def soon() -> float:
    return time.monotonic() + 5


def test_what_comes_is_bytes_and_a_session_is_strict(channel: SqlChannel) -> None:
    results, refused = channel.run(b"SELECT 1 AS a, NULL, 'x'; SELECT @@sql_mode", 2, soon())
    assert refused is None
    assert list(results[0].rows) == [(b"1", None, b"x")]
    assert list(results[1].rows) == [(b"STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",)]
    channel.run(b"SELECT 1 AS a", 1, soon())
    assert channel.column_names == ["a"]
    assert "open" in repr(channel)
    assert not channel.gone()


def test_a_server_with_little_patience_keeps_it_as_long_as_a_pool(
    address: Address, run_sql: Callable[..., Any]
) -> None:
    ((before,),) = run_sql("SELECT @@global.wait_timeout")
    run_sql("SET GLOBAL wait_timeout = 1")
    try:
        with closing(opened(address)) as channel:
            (asked,), _ = channel.run(b"SELECT @@wait_timeout", 1, soon())
    finally:
        run_sql(f"SET GLOBAL wait_timeout = {before}")
    assert list(asked.rows) == [(b"60",)]


def test_a_session_heeds_no_limits_that_the_server_has_for_all(
    address: Address, run_sql: Callable[..., Any]
) -> None:
    run_sql("SET GLOBAL sql_select_limit = 1, GLOBAL sql_safe_updates = 1")
    try:
        with closing(opened(address)) as channel:
            numbers = b"SELECT 1 UNION SELECT 2; SELECT @@sql_safe_updates"
            (both, safe), _ = channel.run(numbers, 2, soon())
    finally:
        run_sql("SET GLOBAL sql_select_limit = DEFAULT, GLOBAL sql_safe_updates = DEFAULT")
    assert list(both.rows) == [(b"1",), (b"2",)]
    assert list(safe.rows) == [(b"0",)]


def test_a_session_sees_nothing_that_is_not_committed(
    address: Address, run_sql: Callable[..., Any]
) -> None:
    run_sql("SET GLOBAL TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
    try:
        with closing(opened(address)) as channel:
            (asked,), _ = channel.run(b"SELECT @@tx_isolation", 1, soon())
    finally:
        run_sql("SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert asked.rows == ((b"REPEATABLE-READ",),)


def test_an_error_of_pymysql_that_a_signal_handler_raises_is_no_answer(
    channel: SqlChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **named: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    def handler(number: int, frame: object) -> None:
        raise OperationalError(1213, "a deadlock of the handler's")

    monkeypatch.setattr(Connection, "_read_query_result", interrupted)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(OperationalError, match="of the handler's"):
            channel.run(b"SELECT 1", 1, soon())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert channel.closed


def test_a_session_keeps_the_max_allowed_packet_that_it_began_with(
    address: Address, run_sql: Callable[..., Any]
) -> None:
    ((before,),) = run_sql("SELECT @@global.max_allowed_packet")
    try:
        with closing(opened(address)) as channel:
            run_sql(f"SET GLOBAL max_allowed_packet = {2 * before}")
            channel.look(soon())
            (asked,), _ = channel.run(b"SELECT @@max_allowed_packet", 1, soon())
            assert asked.rows == ((b"%d" % channel.max_packet,),)
            with closing(opened(address)) as another:
                assert another.max_packet == 2 * before
    finally:
        run_sql(f"SET GLOBAL max_allowed_packet = {before}")


def test_an_error_comes_with_what_was_done_before_it(channel: SqlChannel) -> None:
    results, refused = channel.run(b"SELECT 1; " + SIGNAL % 1062 + b"; SELECT 2", 3, soon())
    assert [list(result.rows) for result in results] == [[(b"1",)]]
    assert isinstance(refused, exceptions.DuplicateKeyError)
    assert (refused.code, refused.reason) == (1062, "its words")
    assert not channel.closed


@pytest.mark.parametrize(
    ("number", "kind", "stays"),
    [
        (1045, exceptions.AuthenticationError, True),
        (4151, exceptions.AuthenticationError, True),
        (1146, exceptions.TableNotFoundError, True),
        (1205, exceptions.LockTimeoutError, True),
        (1213, exceptions.LockTimeoutError, True),
        (1290, exceptions.ReadOnlyError, True),
        (1317, exceptions.OperationalError, True),
        (1969, exceptions.OperationalError, True),
        (1047, exceptions.RecoverableConnectionError, False),
        (1053, exceptions.IndexedConnectionError, False),
        (1180, exceptions.IndexedConnectionError, False),
    ],
)
def test_what_a_number_means(
    channel: SqlChannel, number: int, kind: type[Exception], stays: bool
) -> None:
    _, refused = channel.run(SIGNAL % number, 1, soon())
    assert type(refused) is kind
    assert f"{number}: its words" in str(refused)
    assert channel.closed is not stays
    assert type(refusal(number, "")) is kind


def test_results_that_lack_are_no_reply(channel: SqlChannel) -> None:
    with pytest.raises(exceptions.ProtocolError, match="1 results, not 2"):
        channel.run(b"SELECT 1", 2, soon())
    assert channel.closed


def test_a_deadline_ends_it(channel: SqlChannel) -> None:
    began = time.monotonic()
    with pytest.raises(exceptions.RequestTimeoutError, match="raise timeout"):
        channel.run(b"SELECT SLEEP(9)", 1, began + 0.2)
    assert time.monotonic() - began < 1
    assert channel.closed
    channel.close()


def test_no_time_is_left_to_send(channel: SqlChannel) -> None:
    with pytest.raises(
        exceptions.RecoverableConnectionError, match="before the statement was sent"
    ):
        channel.run(b"SELECT 1", 1, time.monotonic() - 1)


def test_a_server_that_ended_it_is_seen_before_it_is_used(
    channel: SqlChannel, run_sql: Callable[..., Any]
) -> None:
    ((number,),) = channel.run(b"SELECT CONNECTION_ID()", 1, soon())[0][0].rows
    run_sql(f"KILL {int(number or 0)}")
    deadline = time.monotonic() + 5
    while not channel.gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert channel.gone()
    with pytest.raises(exceptions.ConnectionError):
        channel.look(soon())


def test_a_refusal_to_say_what_it_is_is_raised(
    channel: SqlChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hskv.transport.sql_channel._VARIABLES", SIGNAL % 1317)
    with pytest.raises(exceptions.OperationalError, match="1317"):
        channel.look(soon())


def test_a_session_that_is_not_as_it_must_be_is_not_used(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hskv.transport.sql_channel._SESSION", b"SET nix = %d, nix = %d")
    with pytest.raises(exceptions.OperationalError, match="1193"):
        opened(address)


@pytest.mark.parametrize(("status", "ready"), [("Primary", True), ("non-Primary", False)])
def test_a_node_of_galera_is_ready_while_it_has_a_majority(
    channel: SqlChannel, monkeypatch: pytest.MonkeyPatch, status: str, ready: bool
) -> None:
    variables = b"SELECT 'wsrep_on', 'ON' UNION SELECT 'read_only', 'OFF'"
    answer = f"SELECT 'wsrep_ready', 'ON' UNION SELECT 'wsrep_cluster_status', '{status}'"
    monkeypatch.setattr("hskv.transport.sql_channel._VARIABLES", variables)
    monkeypatch.setattr("hskv.transport.sql_channel._READY", answer.encode())
    state = channel.look(soon())
    assert (state.ready, state.wsrep_on, state.read_only) == (ready, True, False)


def test_an_interrupt_closes_it(channel: SqlChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(statement: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(channel._cursor, "execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        channel.run(b"SELECT 1", 1, soon())
    assert channel.closed


def test_a_forked_child_has_no_copy_and_says_nothing(channel: SqlChannel) -> None:
    child = os.fork()
    if not child:
        os._exit(0 if channel.closed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert channel.run(b"SELECT 1", 1, soon())[1] is None


class TestConnecting:
    @pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
    def test_nobody_listens(self, host: str) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = Address(host, unused.getsockname()[1])
            with pytest.raises(exceptions.ConnectionError, match=f"cannot connect to {host}"):
                opened(address)

    @pytest.mark.parametrize("greeting", [b"", b"\xff" * 200, b"\x05\x00\x00\x00\x0aabcd", None])
    def test_a_peer_that_is_no_mariadb(self, greeting: bytes | None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            done = threading.Event()

            def greet() -> None:
                client, _ = listener.accept()
                with client:
                    if greeting is not None:
                        client.sendall(greeting)
                    else:
                        done.wait(5)

            peer = threading.Thread(target=greet)
            peer.start()
            address = Address(*listener.getsockname()[:2])
            try:
                with pytest.raises(exceptions.ConnectionError, match="did not finish the login"):
                    opened(address, connect_timeout=0.5)
            finally:
                done.set()
                peer.join()

    def test_no_time_is_left(self, address: Address) -> None:
        with pytest.raises(exceptions.ConnectionError, match="cannot connect"):
            opened(address, connect_timeout=-1.0)

    def test_an_unknown_user(self, address: Address) -> None:
        with pytest.raises(exceptions.AuthenticationError, match="sql="):
            opened(address, "nobody")


def test_a_side_without_listeners_has_nothing_to_give_or_to_close() -> None:
    side = NoServers("writes")
    for call in (side.acquire,):
        with pytest.raises(
            exceptions.UnsupportedError, match="no HandlerSocket listener for writes"
        ):
            call()
    for back in (side.release, side.discard):
        with pytest.raises(RuntimeError, match="not on loan"):
            back(None)  # type: ignore[arg-type]
    side.purge()
    side.close()
    assert side.drain(1.0)
    assert side.stats() == {}
