"""Marks tests by the directory they are in; clocks, SQL, and peers that misbehave."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import pytest

import hskv
from hskv import Client, KeyValueStore
from hskv.mariadb import PrivateServer

from .modes import MODES, PLAIN


def pytest_configure() -> None:
    # A shell has what runs in its background ignore it, and so would the programs under test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hskv-mode", choices=list(MODES), default=PLAIN, help="how stores go")


def pytest_report_header(config: pytest.Config) -> str:
    mode = config.getoption("--hskv-mode")
    return f"hskv {hskv.__version__}, codec {hskv.codec_implementation}, stores by {mode}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    if config.getoption("--hskv-mode") != PLAIN:
        items[:] = [item for item in items if "hskv_server" in getattr(item, "fixturenames", ())]
    for item in items:
        if config.getoption("--hskv-mode") != PLAIN:
            _leave_out(item)
        directory = item.path.relative_to(root).parts[0]
        item.add_marker(getattr(pytest.mark, directory))


def _leave_out(item: pytest.Item) -> None:
    """Skip what speaks of HandlerSocket itself, in a run of stores that go by SQL."""
    mark = item.get_closest_marker("handlersocket")
    reason = mark.args[0] if mark else None
    for fixture, why in (("relay", "the relay speaks HandlerSocket"), ("client", "the raw API")):
        if fixture in getattr(item, "fixturenames", ()):
            reason = why
    if reason:
        item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    # Here, since of several processes the one that reports loads no conftest below this one.
    from .faults.summary import show_figures

    show_figures(terminalreporter)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def hskv_server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """As users' `hskv_server`, in the mode of this run."""
    mode = request.config.getoption("--hskv-mode")
    with MODES[mode](lambda: request.getfixturevalue("hskv_server")) as server:
        yield server


def empty(server: PrivateServer) -> None:
    """Remove every row, of this server: a module may have one of its own."""
    with (
        closing(pymysql.connect(autocommit=True, **server.sql)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("DELETE FROM kv")


@pytest.fixture
def hskv_store(hskv_server: PrivateServer) -> Iterator[KeyValueStore[str, Any]]:
    empty(hskv_server)
    with KeyValueStore(hskv_server.url) as store:
        yield store


@pytest.fixture(scope="session")
def tcp_server() -> Iterator[PrivateServer]:
    with PrivateServer(tcp=True) as server:
        yield server


@pytest.fixture
def timed_store(hskv_server: PrivateServer, clock: Clock) -> Iterator[KeyValueStore[str, Any]]:
    empty(hskv_server)
    with KeyValueStore(hskv_server.url, clock=clock) as store:
        yield store


@pytest.fixture
def client(hskv_server: PrivateServer) -> Iterator[Client]:
    with Client(hskv_server.url) as client:
        yield client


def sql_on(server: PrivateServer, statement: str, *arguments: Any) -> tuple[tuple[Any, ...], ...]:
    """Run a statement on a server, committed at once; its rows."""
    with (
        closing(pymysql.connect(autocommit=True, **server.sql)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, arguments or None)
        return tuple(cursor.fetchall())


@pytest.fixture(scope="session")
def run_sql(hskv_server: PrivateServer) -> Callable[..., tuple[tuple[Any, ...], ...]]:
    return partial(sql_on, hskv_server)


@pytest.fixture
def peer() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a TCP peer that treats each connection as a function says; gives its URL."""
    listeners: list[socket.socket] = []

    def start(behave: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                behave(connection)

        threading.Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        return f"hskv://:secret@127.0.0.1:{port},{port + 1 if port < 65535 else 1}/hskv"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
