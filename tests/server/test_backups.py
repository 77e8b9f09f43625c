"""What docs/backups.md says of backups while clients are connected."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from ..conftest import sql_on

RunSql = Callable[..., tuple[tuple[Any, ...], ...]]
Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def hskv_server() -> Iterator[PrivateServer]:
    """A server of their own: who is connected to the shared one would be waited for, too."""
    with PrivateServer() as server:
        yield server


@pytest.fixture(scope="module")
def run_sql(hskv_server: PrivateServer) -> RunSql:
    return partial(sql_on, hskv_server)


@pytest.fixture
def hskv_store(hskv_server: PrivateServer) -> Iterator[KeyValueStore[str, Any]]:
    with hskv.connect(hskv_server.url) as store:
        store.modify(">=", [""], "D", limit=2**32 - 1)
        yield store


@pytest.fixture
def run(hskv_server: PrivateServer, tmp_path: Path) -> Run:
    """Runs a line of shell, whose MariaDB programs find the server."""
    login = f"[client]\nsocket = {hskv_server.sql['unix_socket']}\nuser = root\n"
    (tmp_path / ".my.cnf").write_text(login)

    def line(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=40,
        )

    return line


@pytest.fixture
def waits_a_second(run_sql: RunSql) -> Iterator[None]:
    """Bounds how long SQL waits for locks, where it would be ten seconds, or a day."""
    ((usual,),) = run_sql("SELECT @@global.lock_wait_timeout")
    run_sql("SET GLOBAL lock_wait_timeout = 1")
    yield
    run_sql(f"SET GLOBAL lock_wait_timeout = {usual}")


@contextmanager
def writing(store: KeyValueStore[str, Any]) -> Iterator[list[str]]:
    """Keys w0, w1, w2... while the block runs, each once it was acknowledged."""
    done, written = threading.Event(), list[str]()

    def write() -> None:
        while not done.is_set():
            key = f"w{len(written):08}"
            store.set(key, {"number": len(written)}, ttl=3600)
            written.append(key)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while len(written) < 50:
            done.wait(0.01)
        yield written
    finally:
        done.set()
        thread.join()


@pytest.fixture
def restored(run_sql: RunSql) -> Iterator[str]:
    run_sql("CREATE DATABASE restored")
    yield "restored"
    run_sql("DROP DATABASE restored")


def test_a_dump_in_one_transaction_has_what_was_acknowledged_when_it_began(
    hskv_store: KeyValueStore[str, Any], run: Run, run_sql: RunSql, restored: str
) -> None:
    with writing(hskv_store) as written:
        before = len(written)
        dump = run("mariadb-dump --single-transaction --hex-blob hskv kv > restored.sql")
        assert (dump.returncode, dump.stderr) == (0, "")
        after = len(written) + 1
    assert run(f"mariadb {restored} < restored.sql").returncode == 0
    keys = [key.decode() for (key,) in run_sql(f"SELECT k FROM {restored}.kv ORDER BY k")]
    assert before <= len(keys) <= after
    assert keys == [f"w{number:08}" for number in range(len(keys))]


def test_what_is_read_in_is_every_column_of_every_row(
    hskv_store: KeyValueStore[str, Any], run: Run, run_sql: RunSql, restored: str
) -> None:
    everything = bytes(range(256)) * 9
    hskv_store.set_many({"bytes": everything, "té xt": "ü", "none": None, "big": -(2**63)})
    hskv_store.set("ends", [1, 2], ttl=60)
    hskv_store.lease("held", ttl=60).acquire()
    done = run(f"mariadb-dump --single-transaction --hex-blob hskv kv | mariadb {restored}")
    assert (done.returncode, done.stderr) == (0, "")
    columns = "k, v, n, kind, version, expires"
    rows = run_sql(f"SELECT {columns} FROM kv ORDER BY k")
    assert len(rows) == 6
    assert run_sql(f"SELECT {columns} FROM {restored}.kv ORDER BY k") == rows


@pytest.mark.usefixtures("waits_a_second")
@pytest.mark.parametrize(
    "command",
    [
        "mariadb-dump hskv kv",
        "mariadb-dump --lock-all-tables hskv kv",
        "mariadb -e 'FLUSH TABLES WITH READ LOCK'",
        "mariadb hskv -e 'LOCK TABLES kv READ'",
    ],
)
def test_what_locks_waits_for_a_writer_that_is_connected_and_not_for_one_that_is_drained(
    hskv_store: KeyValueStore[str, Any], run: Run, command: str
) -> None:
    hskv_store["a"] = 1  # connected from now on, and idle
    waited = run(command)
    assert waited.returncode != 0
    assert "Lock wait timeout exceeded" in waited.stderr
    assert hskv_store.client.drain()
    try:
        assert run(command).returncode == 0
    finally:
        hskv_store.client.resume()
    assert hskv_store["a"] == 1
