"""Benches on a server of their own."""

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager

import pymysql
import pytest

from hskv import Table
from hskv.mariadb import PrivateServer

from .bench import Bench
from .oracle import Figures

WORKERS = 8
TRANSPORTS = ("tcp", "unix")

BenchLoan = Callable[[str], AbstractContextManager[Bench]]


@pytest.fixture(scope="session")
def faulty_server(hskv_server: PrivateServer) -> Iterator[PrivateServer]:
    """A server with a table for each bench."""
    # The suite's own is asked for since it knows what to do where there is no MariaDB.
    options = {"innodb_flush_log_at_trx_commit": 0}
    with PrivateServer(options=options) as server:
        with closing(pymysql.connect(**server.sql)) as connection, connection.cursor() as cursor:
            for number in range(WORKERS):
                cursor.execute(Table(f"faults{number}").create_sql())
        yield server


@pytest.fixture(scope="session")
def lend_bench(faulty_server: PrivateServer) -> Iterator[BenchLoan]:
    """Lends a bench for a transport to one thread at a time."""
    free: dict[str, queue.Queue[Bench]] = {transport: queue.Queue() for transport in TRANSPORTS}
    with ExitStack() as exits:
        for number in range(WORKERS):
            # Half of them for each: the tests use both at once.
            transport = TRANSPORTS[number % len(TRANSPORTS)]
            bench = Bench(faulty_server, f"faults{number}", transport)
            free[transport].put(exits.enter_context(bench))

        @contextmanager
        def lend(transport: str) -> Iterator[Bench]:
            bench = free[transport].get(timeout=600)
            try:
                yield bench
            finally:
                free[transport].put(bench)

        yield lend


@pytest.fixture(params=TRANSPORTS)
def bench(lend_bench: BenchLoan, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench with new stores and its table as at first."""
    with lend_bench(request.param) as bench:
        bench.renew()
        bench.reset()
        yield bench


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """What a test counts in, for the summary."""
    figures = Figures()
    yield figures
    # Reports carry these even from another process.
    request.node.user_properties.append(("faults", figures.plain()))
