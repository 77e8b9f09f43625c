"""Each finding of the doctor about a server and its ports: provoked, and gone after its advice."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pymysql
import pytest

import hskv
from hskv.mariadb import PrivateServer
from hskv.mariadb.doctor import Report, examine
from hskv.transport.sql_address import parse_sql_url, pymysql_logins

from .patients import HANDLERSOCKET, Patient, ids, of

# Of the settings that can be wrong at the same time: what to write, and the finding.
SETTINGS: Final[dict[str, dict[str, str | int | None]]] = {
    "bind-address": {"handlersocket_address": None},
    "secret-random": {
        "handlersocket_plain_secret": None,
        "handlersocket_plain_secret_wr": None,
    },
    "threads-write": {"handlersocket_threads_wr": 4},
    "threads-read": {"handlersocket_threads": 1},
    "timeout-idle": {"handlersocket_timeout": 86400},
    "timeout-table-lock": {"lock_wait_timeout": None},
    "timeout-row-lock": {"innodb_lock_wait_timeout": None},
    "autocommit": {"autocommit": 0},
    "flush-log": {"innodb_flush_log_at_trx_commit": 0},
    "rollback-on-timeout": {"innodb_rollback_on_timeout": 1},
}


class Course(dict[str, Report]):
    """The reports before and after a treatment."""


@pytest.fixture(scope="module")
def settings_course() -> Iterator[Course]:
    """A server with every setting of `SETTINGS` wrong, and after its treatment."""
    broken = {name: value for lines in SETTINGS.values() for name, value in lines.items()}
    with Patient(**broken) as patient:
        before = patient.examine()
        patient.treat(of_these(before, set(SETTINGS)))
        yield Course(before=before, after=patient.examine())


def of_these(report: Report, names: set[str]) -> list[Any]:
    return [finding for finding in report.findings if finding.id in names]


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    """A server that is well when a test begins."""
    with Patient() as patient:
        yield patient


@pytest.fixture
def well(patient: Patient) -> Iterator[Patient]:
    report = patient.examine()
    assert (report.findings, report.verdict) == ([], "healthy")
    yield patient
    patient.recover()


@pytest.fixture(scope="module")
def other(patient: Patient) -> Iterator[PrivateServer]:
    """Another server, with the same secrets, as all servers of a store have."""
    secrets = {
        "handlersocket_plain_secret": patient.secret,
        "handlersocket_plain_secret_wr": patient.write_secret,
    }
    with PrivateServer(tcp=True, sql_tcp=True, options=secrets) as server:
        yield server


@pytest.mark.parametrize("name", SETTINGS)
def test_a_wrong_setting(settings_course: Course, name: str) -> None:
    assert name in ids(settings_course["before"])
    assert name not in ids(settings_course["after"])


def test_nothing_else_is_found_wrong(settings_course: Course) -> None:
    # The URL has secrets that the server does not know.
    assert ids(settings_course["before"]) == {*SETTINGS, "secret-wrong"}
    assert settings_course["after"].findings == []
    assert settings_course["after"].unseen == []


def treated(patient: Patient, name: str, **options: Any) -> None:
    """The finding is there, and gone after its treatment."""
    found = of(patient.examine(**options), name)
    patient.treat(found)
    assert name not in ids(patient.examine(**options))


PLAIN: Final = dict.fromkeys((*HANDLERSOCKET, "plugin_load_add", "plugin_maturity"))


class TestFromNothing:
    def test_a_plain_configuration_is_led_to_a_healthy_server(self, well: Patient) -> None:
        well.restart(**PLAIN)
        found = []
        while not (report := well.examine()).healthy or report.findings:
            found.append(ids(report))
            assert len(found) < 5, found
            well.treat(report.sorted())
        assert found == [{"plugin-missing", "plugin-maturity"}]
        assert report.verdict == "healthy"
        with hskv.connect(well.client_url) as store:
            store.check()

    def test_nobody_listens_and_sql_is_not_there_to_ask(self, well: Patient) -> None:
        well.restart(**PLAIN)
        unseen = well.examine(by_sql=False).unseen
        assert {"bind-address", "secret-empty", "table-missing", "column-missing"} <= set(unseen)
        assert "port-refused" not in unseen
        treated(well, "port-refused", by_sql=False)
        unseen = well.examine(by_sql=False).unseen
        assert {"bind-address", "secret-empty", "column-missing", "table-view"}.isdisjoint(unseen)

    def test_ports_that_are_not_set(self, well: Patient) -> None:
        well.restart(handlersocket_port=None, handlersocket_port_wr=None)
        assert len(of(well.examine(), "port-unset")) == 2
        treated(well, "port-unset")
        assert well.examine().verdict == "healthy"

    def test_one_port_for_both(self, well: Patient) -> None:
        well.restart(handlersocket_port_wr=well._ports["read"])
        treated(well, "ports-equal")
        assert well.examine().verdict == "healthy"


class TestPorts:
    def url(self, patient: Patient, read: object, write: object) -> str:
        own = f"{patient._ports['read']},{patient._ports['write']}"
        return patient.url.replace(own, f"{read},{write}")

    def test_a_port_that_nobody_listens_on(self, well: Patient) -> None:
        well.client_url = self.url(well, 9, well._ports["write"])
        treated(well, "port-refused")
        assert well.examine().verdict == "healthy"

    @pytest.mark.parametrize("by_sql", [True, False])
    def test_a_port_of_sql(self, well: Patient, by_sql: bool) -> None:
        well.client_url = self.url(well, well._ports["sql"], well._ports["write"])
        (finding,) = of(well.examine(by_sql=by_sql), "port-foreign")
        if by_sql:
            well.treat([finding])
        else:
            ((read, write),) = well.ask(finding.mend[0].line)
            well.client_url = self.url(well, read, write)
        assert well.examine().verdict == "healthy"

    @pytest.mark.parametrize("by_sql", [True, False])
    def test_the_two_ports_swapped(self, well: Patient, by_sql: bool) -> None:
        well.client_url = self.url(well, well._ports["write"], well._ports["read"])
        treated(well, "ports-crossed", by_sql=by_sql)
        assert well.examine().verdict == "healthy"

    def test_a_write_port_to_read_from(self, well: Patient) -> None:
        well.client_url = self.url(well, well._ports["write"], 9)
        treated(well, "ports-crossed")
        assert well.examine().verdict == "healthy"

    @pytest.mark.parametrize("by_sql", [True, False])
    def test_the_read_port_of_another_server(
        self, well: Patient, other: PrivateServer, by_sql: bool
    ) -> None:
        well.client_url = self.url(well, other._ports["read"], well._ports["write"])
        report = well.examine(by_sql=by_sql)
        (finding,) = of(report, "ports-of-two-servers")
        if by_sql:
            well.treat([finding])
            assert well.examine().verdict == "healthy"

    def test_sql_of_another_server(self, well: Patient, other: PrivateServer) -> None:
        well.client_url = other.url
        treated(well, "sql-of-another-server")

    def test_a_listener_that_was_stopped(self, well: Patient) -> None:
        # One byte stops all threads of a port, before any login.
        with socket.create_connection(("127.0.0.1", int(well._ports["read"]))) as connection:
            connection.sendall(b"Q\n")
        well.client_url += "&timeout=0.3&connect_timeout=0.3"
        while "port-silent" not in ids(report := well.examine(by_sql=False)):
            time.sleep(0.01)
        (finding,) = of(report, "port-silent")
        well.treat([finding])
        well.client_url = well.url
        assert well.examine().verdict == "healthy"

    def test_a_server_that_may_not_be_written_to(self, well: Patient) -> None:
        well.ask("SET GLOBAL read_only = 1")
        for by_sql in (False, True):
            (finding,) = of(well.examine(by_sql=by_sql), "writes-refused")
        well.treat([finding])
        assert well.examine().verdict == "healthy"

    def test_somebody_holds_the_lock_of_writers(self, well: Patient) -> None:
        well.client_url += "&timeout=0.5"
        with closing(pymysql.connect(**well.sql)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK('handlersocket_wr', 5)")
            treated(well, "writes-refused")
            with pytest.raises(pymysql.err.Error):
                cursor.execute("SELECT 1")
        well.client_url = well.url
        assert well.examine().verdict == "healthy"

    def test_a_long_way(self, well: Patient) -> None:
        with (
            a_long_way(int(well._ports["read"])) as read,
            a_long_way(int(well._ports["write"])) as write,
        ):
            well.client_url = self.url(well, read, write)
            treated(well, "latency")
        assert well.examine().verdict == "healthy"

    def test_everybody_reaches_them_and_sql_is_not_there_to_ask(self, well: Patient) -> None:
        well.restart(handlersocket_address=None)
        treated(well, "bind-address", by_sql=False)


@contextlib.contextmanager
def a_long_way(port: int, seconds: float = 0.008) -> Iterator[int]:
    """A port that leads to another one, some milliseconds away."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=carry, args=ends, daemon=True).start()

    def carry(source: socket.socket, target: socket.socket) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(seconds)
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


class TestUnixSockets:
    def test_a_server_on_unix_sockets(self, hskv_server: PrivateServer) -> None:
        assert examine(hskv_server.url, [hskv_server.sql]).verdict == "healthy"

    def test_a_path_where_nobody_listens(self, hskv_server: PrivateServer) -> None:
        url = hskv_server.url.replace("/read.sock", "/nowhere.sock")
        (finding,) = of(examine(url, [hskv_server.sql]), "port-refused")
        (mend,) = finding.mend
        url = mend.line.replace(":***@", f":{hskv_server.secret}@")
        url = url.replace("write_secret=***", f"write_secret={hskv_server.write_secret}")
        assert examine(url, [hskv_server.sql]).verdict == "healthy"


def with_files(patient: Patient, **files: Path) -> str:
    """The URL of a client whose secrets are in files."""
    bare = patient.url.replace(f":{patient.secret}@", "").partition("?")[0]
    return f"{bare}?" + "&".join(f"{name}={quote(str(file))}" for name, file in files.items())


class TestSecrets:
    @pytest.mark.parametrize("side", ["secret", "write_secret"])
    def test_a_wrong_secret(self, well: Patient, side: str) -> None:
        well.client_url = well.url.replace(getattr(well, side), "another-one-altogether")
        treated(well, "secret-wrong")
        assert well.examine().verdict == "healthy"

    def test_the_two_secrets_swapped(self, well: Patient) -> None:
        url = well.url.replace(well.secret, "?").replace(well.write_secret, well.secret)
        well.client_url = url.replace(":?@", f":{well.write_secret}@")
        treated(well, "secret-wrong")
        assert well.examine().verdict == "healthy"

    @pytest.mark.parametrize("same_file", [False, True])
    def test_a_wrong_secret_in_a_file(self, well: Patient, tmp_path: Path, same_file: bool) -> None:
        read, write = tmp_path / "its secret", tmp_path / "its secret-write"
        read.write_text("another-one-altogether")
        options = (
            {"secret_file": read}
            if same_file
            else {"secret_file": read, "write_secret_file": write}
        )
        well.client_url = with_files(well, **options)
        write.write_text(well.write_secret)
        treated(well, "secret-wrong")
        assert well.examine().verdict == "healthy"
        assert read.read_text() == well.secret
        assert well.secret not in well.client_url

    @pytest.mark.parametrize("named", [["secret_file"], ["secret_file", "write_secret_file"]])
    def test_a_guessable_secret_in_a_file(
        self, well: Patient, tmp_path: Path, named: list[str]
    ) -> None:
        file = tmp_path / "secret"
        file.write_text("CHANGE-ME")
        well.restart(
            handlersocket_plain_secret="CHANGE-ME", handlersocket_plain_secret_wr="CHANGE-ME"
        )
        well.client_url = with_files(well, **dict.fromkeys(named, file))
        treated(well, "secret-weak")
        assert well.examine().verdict == "healthy"
        made = tmp_path / "secret-write"
        assert made.stat().st_mode & 0o077 == 0
        with hskv.connect(well.client_url) as store:
            store.check()

    def test_a_secret_file_that_is_not_there(self, well: Patient) -> None:
        well.client_url = f"{well.url.replace(f':{well.secret}@', '')}&secret_file=/no/file%20here"
        report = well.examine()
        assert [finding.id for finding in report.findings] == ["secret-wrong"]
        assert "the secret file /no/file here cannot be read" in report.findings[0].what
        assert report.findings[0].mend[0].line == "namei -l '/no/file here'"

    def test_no_secret_at_all(self, well: Patient) -> None:
        well.restart(handlersocket_plain_secret='""', handlersocket_plain_secret_wr='""')
        treated(well, "secret-empty", by_sql=False)
        assert well.examine().verdict == "healthy"

    def test_a_secret_that_can_be_guessed(self, well: Patient) -> None:
        well.restart(handlersocket_plain_secret="CHANGE-ME")
        well.client_url = well.url.replace(well.secret, "CHANGE-ME")
        treated(well, "secret-weak")
        assert well.examine().verdict == "healthy"

    def test_where_it_writes_by_sql_there_is_none_to_write(self, well: Patient) -> None:
        read = f"hskv://:CHANGE-ME@127.0.0.1:{well._ports['read']}/hskv/kv"
        well.client_url = f"{read}?writes=sql&sql={well.sql_url}"
        well.restart(
            handlersocket_plain_secret="CHANGE-ME",
            handlersocket_plain_secret_wr=None,
            handlersocket_port_wr=None,
        )
        (weak,) = of(well.examine(), "secret-weak")
        well.client_url = well.client_url.replace("CHANGE-ME", "another-one-altogether")
        (wrong,) = of(well.examine(), "secret-wrong")
        assert not any("_wr" in mend.line for mend in (*weak.mend, *wrong.mend))
        treated(well, "secret-wrong")
        treated(well, "secret-weak")
        assert well.examine().verdict == "healthy"

    def test_no_report_shows_one(self, well: Patient) -> None:
        well.client_url = well.url.replace("127.0.0.1:", "127.0.0.2:")
        text = json.dumps([well.examine().as_dict(), well.examine(by_sql=False).as_dict()])
        assert "port-refused" in text
        assert well.secret not in text
        assert well.write_secret not in text


class TestWhatGoesOn:
    def test_a_timeout_set_too_late(self, well: Patient) -> None:
        well.ask("SET GLOBAL lock_wait_timeout = 11")
        treated(well, "timeout-not-in-effect")
        assert well.ask("SELECT @@GLOBAL.lock_wait_timeout") == ((11,),)
        assert well.examine().verdict == "healthy"

    @pytest.mark.parametrize("seconds", [5.0, -5.0])
    def test_a_clock_that_is_wrong(self, well: Patient, seconds: float) -> None:
        well.clock_is_off_by = seconds
        (finding,) = of(well.examine(), "clock")
        assert ("behind" if seconds > 0 else "ahead") in finding.what
        assert "5.0 s" in finding.what
        treated(well, "clock")

    def test_a_statement_that_waits_for_a_table(self, well: Patient) -> None:
        with hskv.connect(well.url) as store:
            store["a"] = 1
            failed: list[Exception] = []
            waiting = threading.Thread(target=self.alter, args=(well, failed))
            waiting.start()
            try:
                while not well.ask(
                    "SELECT 1 FROM information_schema.processlist "
                    "WHERE state = 'Waiting for table metadata lock'"
                ):
                    time.sleep(0.01)
                report = well.examine()
                assert report.why_not("table") == (
                    "to open the table now would wait, and make others wait"
                )
                assert "ALTER TABLE kv COMMENT" in of(report, "metadata-lock")[0].what
                well.treat(of(report, "metadata-lock"))
            finally:
                waiting.join(10.0)
            assert not waiting.is_alive()
            assert len(failed) == 1
        assert well.examine().verdict == "healthy"

    def alter(self, well: Patient, failed: list[Exception]) -> None:
        try:
            well.ask("ALTER TABLE kv COMMENT 'changed'")
        except pymysql.err.Error as error:
            failed.append(error)

    def test_an_examination_leaves_nothing(self, well: Patient) -> None:
        before = well.ask("SELECT COUNT(*) FROM kv")
        for by_sql in (True, False):
            assert well.examine(by_sql=by_sql).why_not("table") is None
        assert well.ask("SELECT COUNT(*) FROM kv") == before
        # Nobody has it open.
        well.ask("SET STATEMENT lock_wait_timeout = 2 FOR ALTER TABLE kv COMMENT 'examined'")

    def test_rows_that_nobody_removes(self, well: Patient) -> None:
        long_ago = int((time.time() - 3600) * 1000)
        rows = f"SELECT seq, '', {long_ago} FROM seq_1_to_10001"
        well.ask(f"INSERT INTO kv (k, v, expires) {rows}")
        treated(well, "expired-rows")
        assert well.ask(f"SELECT COUNT(*) FROM kv WHERE expires = {long_ago}") == ((0,),)

    def test_a_wrong_password_of_sql(self, well: Patient) -> None:
        login = {"host": "127.0.0.1", "port": int(well._ports["sql"]), "user": "hskv"}
        well.login = {**login, "password": "wrong"}
        treated(well, "sql-refused")
        assert well.examine().verdict == "healthy"

    def test_a_server_that_is_down(self, well: Patient) -> None:
        password = well._sql_password
        login = {"host": "127.0.0.1", "port": int(well._ports["sql"]), "user": "hskv"}
        well.login = {**login, "password": password}
        well.stop()
        report = well.examine()
        assert ids(report) == {"sql-refused"}
        assert ids(well.examine(by_sql=False)) == {"port-refused"}
        well.treat(of(report, "sql-refused"))
        assert well.examine().verdict == "healthy"

    def test_a_user_with_few_rights(self, well: Patient) -> None:
        well.ask("CREATE OR REPLACE USER few@127.0.0.1 IDENTIFIED BY 'few'")
        login = {"host": "127.0.0.1", "port": int(well._ports["sql"])}
        well.login = {**login, "user": "few", "password": "few"}
        report = well.examine()
        assert {"metadata-lock", "table-trigger", "key-type"} <= set(report.unseen)
        treated(well, "rights")
        assert (well.examine().verdict, well.examine().unseen) == ("healthy", [])


class TestCommand:
    @pytest.fixture
    def run(self, well: Patient) -> Callable[..., "subprocess.CompletedProcess[str]"]:
        def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [sys.executable, "-m", "hskv", "doctor", *arguments],
                env={**os.environ, "HSKV_URL": well.client_url, **environment},
                capture_output=True,
                text=True,
                timeout=30,
            )

        return run

    def test_a_healthy_server(self, well: Patient, run: Any) -> None:
        done = run(HSKV_SQL=well.sql_url)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(" things looked at\nhealthy\n")

    def test_without_sql_it_says_what_it_cannot_see(self, run: Any) -> None:
        done = run(COLUMNS="50")
        assert done.returncode == 0
        assert "SQL was not given (--sql)" in done.stdout
        assert "timeout-table-lock" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 50

    @pytest.mark.parametrize("columns", ["40", "160"])
    def test_a_finding_as_people_read_it(self, well: Patient, run: Any, columns: str) -> None:
        well.client_url = well.url.replace(well.secret, "another-one-altogether")
        done = run(COLUMNS=columns)
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        assert lines[0] == "problem secret-wrong"
        # Whole, whatever the width.
        select = "    SELECT @@handlersocket_plain_secret, @@handlersocket_plain_secret_wr;"
        assert select in lines
        assert all(line == line.rstrip() for line in lines)
        assert lines[-1] == "1 problem found"
        assert "another-one" not in done.stdout + done.stderr

    def test_json(self, well: Patient, run: Any) -> None:
        well.client_url = well.url.replace("127.0.0.1:", "127.0.0.2:")
        done = run("--json", HSKV_SQL=well.sql_url)
        assert done.returncode == 1
        found = json.loads(done.stdout)
        assert found["healthy"] is False
        (finding,) = found["findings"]
        assert (finding["id"], finding["severity"]) == ("port-refused", "problem")
        assert finding["mend"][0]["where"] == "url"

    def test_strict_counts_warnings(self, well: Patient, run: Any) -> None:
        well.ask("SET GLOBAL innodb_lock_wait_timeout = 1")
        assert run(HSKV_SQL=well.sql_url).returncode == 0
        assert run("--strict", HSKV_SQL=well.sql_url).returncode == 1
        well.restart()

    def test_a_url_that_cannot_be_meant(self, well: Patient, run: Any) -> None:
        done = run(HSKV_URL="hskv://127.0.0.1:99999/hskv")
        assert done.returncode == 2
        assert "99999 is no port" in done.stderr


def test_a_url_that_is_none(patient: Patient) -> None:
    with pytest.raises(ValueError, match="hskv://"):
        examine("http://127.0.0.1", [patient.sql])


class TestCopies:
    def test_a_binary_log_that_misses_what_is_written(self, well: Patient) -> None:
        well.restart(log_bin="binary-log")
        treated(well, "binary-log")
        assert "writes=sql" in well.client_url
        # Nobody is to write by HandlerSocket any more.
        treated(well, "write-port-open")
        assert (well.examine().verdict, well.examine().unseen) == ("healthy", [])

    def test_several_servers(self, well: Patient, other: PrivateServer) -> None:
        well.client_url += f"&replica=127.0.0.1:{other._ports['read']}"
        report = well.examine()
        assert report.why_not("table") == "a store refuses to write to several servers"
        well.login = pymysql_logins(parse_sql_url(well.sql_url))[0]
        well.client_url += "&max_lag=0.1"
        treated(well, "several-servers")
        # The usual port, which only those who set it up know better.
        well.client_url = well.client_url.replace(":3306", f":{other._ports['sql']}")
        treated(well, "binary-log-missing")
        # The other one is no replica yet.
        (finding,) = of(well.examine(), "ports-of-two-servers")
        assert finding.what.startswith(f"127.0.0.1:{other._ports['read']} does not see")

    def test_by_sql_alone(self, well: Patient) -> None:
        well.client_url = f"hskv:///hskv?writes=sql&reads=sql&sql={well.sql_url}"
        report = well.examine(by_sql=False)
        assert report.verdict == "healthy, as far as could be seen"
        assert report.lacking.keys() == {"ports", "table"}
        well.ask("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
        assert ids(well.examine(by_sql=False)) == {"flush-log"}
        well.restart()
