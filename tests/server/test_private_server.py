"""PrivateServer: starts, restarts, keeps data, dies with its owner, and says what is wrong."""

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest

import hskv
from hskv.exceptions import ConnectionError
from hskv.mariadb import PrivateServer, ServerStartError, files
from hskv.mariadb import server as private_server


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def child_can_start(server: PrivateServer) -> bool:
    child = os.fork()
    if child == 0:
        try:
            server.start()
        except ServerStartError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("tcp", [False, True])
def test_a_store_works_at_once_and_data_survives_stop_and_kill(tcp: bool) -> None:
    with PrivateServer(tcp=tcp) as server:
        url, directory = server.url, server.directory
        with hskv.connect(url) as store:
            store["a"] = 1
            server.stop()
            assert "stopped" in repr(server)
            with pytest.raises(ConnectionError):
                store.get("a")
            server.start()
            server.start()
            assert server.url == url
            assert store["a"] == 1
            store["b"] = 2
            pid = server.pid
            server.kill()
            assert pid
            assert not alive(pid)
            server.start()
            assert dict(store) == {"a": 1, "b": 2}
            server.stop()
            assert not child_can_start(server)
    assert not directory.exists()


@pytest.mark.parametrize("of", ["the kernel", "Python"])
def test_it_is_waited_for_where_pidfd_open_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if of == "Python":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", refuse)
    with PrivateServer() as server:
        for end in (server.kill, server.stop):
            pid = server.pid
            end()
            assert pid
            assert not alive(pid)
            assert server.pid is None
            server.start()


def test_sql_sees_the_table(hskv_server: PrivateServer) -> None:
    with closing(pymysql.connect(**hskv_server.sql)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@innodb_flush_log_at_trx_commit, @@innodb_lock_wait_timeout")
        assert cursor.fetchone() == (1, 1)
        cursor.execute("SHOW CREATE TABLE kv")
        assert "`k` varbinary(255) NOT NULL" in cursor.fetchone()[1]


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """One that the user mysql can reach, as it cannot reach pytest's."""
    with tempfile.TemporaryDirectory(prefix="hskv-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_a_data_directory_that_was_given_stays(public_directory: Path) -> None:
    datadir = public_directory / "data"
    with pytest.raises(ServerStartError, match="did not end within"):
        PrivateServer(datadir, start_timeout=0.1).start()
    assert list(datadir.iterdir()) == []
    with PrivateServer(datadir) as server, hskv.connect(server.url) as store:
        store["kept"] = 1
        with pytest.raises(ServerStartError, match="in use by another server"):
            PrivateServer(datadir).start()
    with PrivateServer(datadir) as server, hskv.connect(server.url) as store:
        assert store["kept"] == 1


def test_no_secret_shows(hskv_server: PrivateServer) -> None:
    shown = repr(hskv_server) + hskv_server.log
    command = Path(f"/proc/{hskv_server.pid}/cmdline").read_text()
    for secret in (hskv_server.secret, hskv_server.write_secret):
        assert secret not in shown + command
    assert hskv_server.log
    settings = hskv_server.directory / "my.cnf"
    assert settings.stat().st_mode & 0o077 == 0
    assert hskv_server.directory.stat().st_mode & 0o077 == 0


def test_a_missing_mariadbd_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSKV_MARIADBD", "/nonexistent/mariadbd")
    with pytest.raises(ServerStartError, match="apt-get install mariadb-server"):
        PrivateServer()


def test_a_missing_plugin_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "bin" / "mariadbd"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("HSKV_MARIADBD", str(other))
    with pytest.raises(ServerStartError, match=r"handlersocket\.so was not found"):
        PrivateServer()


def test_a_failed_start_quotes_the_log_without_secrets_and_leaves_nothing(
    public_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(public_directory))
    server = PrivateServer(options={"no_such_setting": 1})
    with pytest.raises(ServerStartError, match="unknown variable 'no_such_setting") as caught:
        server.start()
    assert server.secret not in str(caught.value)
    assert server.pid is None
    assert list(public_directory.iterdir()) == []


def test_two_servers_do_not_meet() -> None:
    with (
        PrivateServer(tcp=True) as one,
        PrivateServer(tcp=True) as two,
        hskv.connect(one.url) as first,
        hskv.connect(two.url) as second,
    ):
        first["a"] = 1
        assert "a" not in second


def test_a_port_taken_meanwhile_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pick = files.free_ports  # the one way to be late between choice and start
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        choices = iter([taken, ""])

        def picked_late(count: int) -> list[str]:
            *ports, last = pick(count)
            return [*ports, next(choices) or last]

        monkeypatch.setattr(private_server, "free_ports", picked_late)
        with PrivateServer(tcp=True) as server, hskv.connect(server.url) as store:
            assert f",{taken}/" not in server.url
            store["a"] = 1
            url = server.url
            server.stop()
            read = int(url.partition("127.0.0.1:")[2].partition(",")[0])
            with socket.create_server(("127.0.0.1", read)):
                server._start_timeout = 3.0
                with pytest.raises(ServerStartError, match="did not answer in time"):
                    server.start()
            server.start()
            assert server.url == url
            assert store["a"] == 1


def test_sql_on_a_port_has_a_user_who_owns_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    pick = files.free_ports
    with socket.create_server(("127.0.0.1", 0)) as other:
        choices = iter([str(other.getsockname()[1])])
        monkeypatch.setattr(
            private_server,
            "free_ports",
            lambda count: [*pick(count)[1:], *choices, *pick(1)][:count],
        )
        with PrivateServer(sql_tcp=True) as server:
            assert not server.sql_url.endswith(f":{other.getsockname()[1]}/")
            url = urlsplit(server.sql_url)
            assert url.password
            login: dict[str, Any] = {"host": url.hostname, "port": url.port, "user": url.username}
            with (
                closing(pymysql.connect(password=url.password, **login)) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute("INSERT hskv.kv (k, v) VALUES ('a', '1')")
                with pytest.raises(pymysql.err.OperationalError, match="denied"):
                    cursor.execute("SELECT * FROM mysql.global_priv")
            for user in ("hskv", "root"):
                with pytest.raises(pymysql.err.OperationalError, match="denied"):
                    pymysql.connect(**{**login, "user": user})
            server.stop()
            server.start()
            assert url.password not in server.log
    with PrivateServer() as server, pytest.raises(ServerStartError, match="sql_tcp=True"):
        _ = server.sql_url


@pytest.mark.skipif(os.geteuid() != 0, reason="the server runs as another user only for root")
def test_a_directory_closed_to_the_servers_user(
    public_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public_directory.chmod(0o700)
    with pytest.raises(ServerStartError, match=rf"chmod o\+x {public_directory}"):
        PrivateServer(public_directory / "data").start()
    monkeypatch.setattr(tempfile, "tempdir", str(public_directory))
    with PrivateServer() as server:
        assert public_directory not in server.directory.parents


def test_a_process_that_ends_without_close_leaves_no_directory() -> None:
    script = """
        from hskv.mariadb import PrivateServer
        server = PrivateServer()
        server.start()
        print(server.pid, server.directory)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    pid, directory = done.stdout.split()
    assert not alive(int(pid))
    assert not Path(directory).exists()


def test_it_dies_with_a_process_that_was_killed() -> None:
    script = """
        import sys, time
        from hskv.mariadb import PrivateServer
        server = PrivateServer()
        server.start()
        print(server.pid, server.directory, flush=True)
        time.sleep(60)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout
    with owner.stdout as output:
        pid, directory = output.readline().split()
    assert alive(int(pid))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert wait_until_gone(int(pid))
    subprocess.run(["rm", "-r", directory], check=True)


def test_a_forked_child_does_not_stop_it(hskv_server: PrivateServer) -> None:
    child = os.fork()
    if child == 0:
        hskv_server.stop()
        hskv_server.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert hskv_server.pid
    assert alive(hskv_server.pid)
    assert hskv_server.directory.exists()


def test_nothing_is_left_behind() -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with PrivateServer() as server:
        pid, directory = server.pid, server.directory
    assert pid
    assert not alive(pid)
    assert not directory.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_the_fixture_skips_or_fails_where_mariadb_is_missing(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(hskv_store): hskv_store['a'] = 1\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "HSKV_MARIADBD": "/nonexistent"}
    environment.pop("CI", None)
    skipped = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert "1 skipped" in skipped.stdout
    environment["CI"] = "true"
    failed = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert "apt-get install mariadb-server" in failed.stdout
    assert failed.returncode == 1


def test_it_starts_again_after_close() -> None:
    server = PrivateServer()
    for _ in range(2):
        with server, hskv.connect(server.url) as store:
            assert len(store) == 0


def test_a_failed_restart_keeps_the_data() -> None:
    with PrivateServer() as server:
        with hskv.connect(server.url) as store:
            store["a"] = 1
        server.kill()
        server._options["no_such_setting"] = 1
        with pytest.raises(ServerStartError):
            server.start()
        del server._options["no_such_setting"]
        server.start()
        with hskv.connect(server.url) as store:
            assert store["a"] == 1


def test_a_secret_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="handlersocket_plain_secret"):
        PrivateServer(options={"handlersocket-plain-secret": None})
