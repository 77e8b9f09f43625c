"""Connections to SQL by TLS, with certificates of the test's own, on a server that asks for it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest
import trustme

import hskv
from hskv import exceptions
from hskv.mariadb import PrivateServer
from hskv.transport.address import load_settings
from hskv.transport.sql_address import SqlLogin, parse_sql_url, pymysql_logins, sql_login
from hskv.transport.sql_channel import SqlChannel

from ..conftest import sql_on
from ..faults.proxy import Direction, Fault, Kind, Proxy
from .cli import Shell

pytestmark = pytest.mark.handlersocket("it is below the store")

PROGRAM = Path(__file__).parent / "programs" / "tls_greenlets.py"
BY_SQL = "hskv:///hskv?reads=sql&writes=sql&timeout=1&sql="


class Secured:
    """A server with a certificate, which can be given another; the files for those who call it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority, self.stranger = trustme.CA(), trustme.CA()
        self.ca, self.other_ca = str(directory / "ca.pem"), str(directory / "other.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self.stranger.cert_pem.write_to_path(self.other_ca)
        self.certify()
        self.cert, self.key = self.issue("client.example", name="client")
        options = {"ssl_ca": self.ca, "ssl_cert": self._path("server-cert")}
        self.server = PrivateServer(
            tcp=True, sql_tcp=True, options={**options, "ssl_key": self._path("server-key")}
        )

    def start(self) -> None:
        self.server.start()
        sql_on(self.server, "ALTER USER hskv@127.0.0.1 REQUIRE SSL")

    def certify(self, *names: str, by: trustme.CA | None = None, days: int = 1) -> None:
        """Have another certificate for the server."""
        self.issue(*(names or ("127.0.0.1", "localhost")), name="server", by=by, days=days)

    def issue(
        self, *names: str, name: str, by: trustme.CA | None = None, days: int = 1
    ) -> tuple[str, str]:
        end = datetime.now(UTC) + timedelta(days=days)
        made = (by or self.authority).issue_cert(*names, not_after=end)
        cert, key = self._path(f"{name}-cert"), self._path(f"{name}-key")
        made.cert_chain_pems[0].write_to_path(cert)
        made.private_key_pem.write_to_path(key)
        for path in (cert, key):
            Path(path).chmod(0o644)
        return cert, key

    def reload(self) -> None:
        sql_on(self.server, "FLUSH SSL")

    def login(self, url: str = "", **options: Any) -> SqlLogin:
        login = sql_login({"sql_ssl_ca": self.ca, **options}, parse_sql_url(url or self.url))
        assert login
        return login

    @property
    def url(self) -> str:
        return self.server.sql_url

    def _path(self, name: str) -> str:
        return str(self.directory / f"{name}.pem")


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    # Not below pytest's directories, which are for one user: mariadbd may run as another.
    with tempfile.TemporaryDirectory(prefix="hskv-tls-") as directory:
        Path(directory).chmod(0o755)
        secured = Secured(Path(directory))
        with closing(secured.server):
            secured.start()
            yield secured


@pytest.fixture
def proxy(secured: Secured) -> Iterator[Proxy]:
    with Proxy(str(secured.server.directory / "sql.sock")) as proxy:
        yield proxy


def opened(login: SqlLogin, **times: float) -> SqlChannel:
    times = {"connect_timeout": 2.0, "timeout": 5.0, "lifetime": 60.0, **times}
    return SqlChannel(login.hosts[0], login, **times)


def through(proxy: Proxy) -> str:
    return f"mysql://root@127.0.0.1:{proxy.place}/"


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


def test_a_store_goes_by_tls_where_it_was_told_to(secured: Secured) -> None:
    with (
        hskv.connect(f"{BY_SQL}{secured.url}") as store,
        pytest.raises(hskv.AuthenticationError, match="sql_ssl"),
    ):
        store.get("a")
    with hskv.connect(f"{BY_SQL}{secured.url}&sql_ssl_ca={secured.ca}") as store:
        store["a"] = 1
        assert store["a"] == 1
    with hskv.connect(f"{BY_SQL}{secured.url}", sql_ssl_ca=secured.ca, sql_ssl=True) as store:
        assert store["a"] == 1


@pytest.mark.parametrize("reads", ["handlersocket", "sql"])
def test_the_health_of_servers_is_asked_by_tls_too(secured: Secured, reads: str) -> None:
    listener, port = load_settings(secured.server.url).readers[0].port, secured.url.split(":")[-1]
    url = secured.server.url.replace("?", f"?replica=localhost:{listener}&read=replica&")
    hosts = secured.url.replace(port, f"{port[:-1]},localhost:{port}")
    options: dict[str, Any] = {"writes": "sql", "reads": reads, "sql": hosts}
    with hskv.connect(url, **options, sql_ssl_ca=secured.ca, timeout=3) as store:
        store["a"] = 2
        assert [store["a"] for _ in range(9)] == [2] * 9
        assert store.get_many(["a", "b"]) == {"a": 2}
    with hskv.connect(url, **options, timeout=0.5) as store:
        health = store.client._health
        assert health is not None
        with pytest.raises(exceptions.ConnectionError, match=r"no server may .* wants TLS of it"):
            health.well(time.monotonic())


def test_nothing_but_the_greeting_is_in_plain_text(secured: Secured, proxy: Proxy) -> None:
    with closing(opened(secured.login(through(proxy)))) as channel:
        channel.run(b"SELECT 'a secret value'", 1, soon())
    assert b"root" not in proxy.seen(Direction.REQUEST)
    assert b"secret" not in proxy.seen(Direction.REQUEST) + proxy.seen(Direction.REPLY)


def test_a_server_without_tls_is_not_spoken_to_in_plain_text(
    secured: Secured, hskv_server: PrivateServer
) -> None:
    with Proxy(str(hskv_server.directory / "sql.sock")) as proxy:
        with pytest.raises(exceptions.ConnectionError, match="offers no TLS: set ssl_cert"):
            opened(secured.login(through(proxy)))
        assert proxy.seen(Direction.REQUEST) == b""


@pytest.mark.parametrize(
    ("names", "signed", "days", "options", "says"),
    [
        (("db.example",), True, 1, {}, "write the name that it is made out to in sql="),
        (("192.0.2.1",), True, 1, {}, "write the name that it is made out to in sql="),
        ((), False, 1, {}, "give the certificate of the CA that signed it by sql_ssl_ca"),
        ((), True, -1, {}, "see that it is renewed"),
        ((), True, 1, {"sql_ssl_ca": None, "sql_ssl": True}, "of the CA that signed it"),
        ((), False, 1, {"sql_ssl_verify_identity": "off"}, "of the CA that signed it"),
        (("db.example",), True, 1, {"sql_ssl_verify_identity": "off"}, None),
        ((), True, 1, {}, None),
    ],
)
def test_a_certificate_that_does_not_count_is_told_of(
    secured: Secured,
    names: tuple[str, ...],
    signed: bool,
    days: int,
    options: dict[str, Any],
    says: str | None,
) -> None:
    secured.certify(*names, by=None if signed else secured.stranger, days=days)
    secured.reload()
    if says is None:
        opened(secured.login(**options)).close()
        return
    with pytest.raises(exceptions.ConnectionError, match=says) as caught:
        opened(secured.login(**options))
    assert "127.0.0.1" in str(caught.value)


class TestOnACertificateThatCounts:
    @pytest.fixture(autouse=True)
    def certified(self, secured: Secured) -> None:
        secured.certify()
        secured.reload()

    def test_ones_own_certificate_is_shown_where_the_server_asks_for_it(
        self, secured: Secured
    ) -> None:
        sql_on(secured.server, "ALTER USER hskv@127.0.0.1 REQUIRE X509")
        try:
            with pytest.raises(hskv.AuthenticationError, match="sql_ssl_cert"):
                opened(secured.login())
            own = {"sql_ssl_cert": secured.cert, "sql_ssl_key": secured.key}
            opened(secured.login(**own)).close()
        finally:
            sql_on(secured.server, "ALTER USER hskv@127.0.0.1 REQUIRE SSL")

    def test_the_servers_own_certificate_can_be_trusted_by_itself(self, secured: Secured) -> None:
        opened(secured.login(sql_ssl_ca=secured._path("server-cert"))).close()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"sql_ssl_ca": "/nix/ca.pem"}, r"sql_ssl_ca \(/nix/ca.pem\) cannot be used: No such"),
            ({"sql_ssl_ca": "/dev/null"}, "cannot be used: NO_CERTIFICATE_OR_CRL_FOUND"),
            ({"sql_ssl_cert": "/nix/a", "sql_ssl_key": "/nix/b"}, r"and sql_ssl_key \(/nix/b\)"),
        ],
    )
    def test_files_that_are_not_there(
        self, secured: Secured, options: dict[str, str], says: str
    ) -> None:
        with pytest.raises(exceptions.ConnectionError, match=says):
            opened(secured.login(**options))

    def test_a_key_with_a_password_is_refused_and_nobody_is_asked(self, secured: Secured) -> None:
        from cryptography.hazmat.primitives import serialization as pem

        key = pem.load_pem_private_key(Path(secured.key).read_bytes(), None)
        locked = Path(secured._path("locked"))
        form = pem.PrivateFormat.TraditionalOpenSSL
        how = pem.BestAvailableEncryption(b"password")
        locked.write_bytes(key.private_bytes(pem.Encoding.PEM, form, how))
        with pytest.raises(exceptions.ConnectionError, match="a key without a password"):
            opened(secured.login(sql_ssl_cert=secured.cert, sql_ssl_key=str(locked)))

    def test_pymysql_takes_the_same_login(self, secured: Secured) -> None:
        (login,) = pymysql_logins(secured.login(), "hskv")
        with closing(pymysql.connect(**login)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
            assert cursor.fetchone()[1].startswith("TLSv1.")
        with pytest.raises(pymysql.err.OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            pymysql.connect(**pymysql_logins(secured.login(sql_ssl_ca=secured.other_ca))[0])

    @pytest.mark.parametrize("by_option", [True, False])
    def test_commands_go_by_tls_where_the_url_does(
        self, secured: Secured, shell: Shell, by_option: bool
    ) -> None:
        url = f"{secured.server.url}&sql={secured.url}&sql_ssl_ca="
        shell.export("HSKV_URL", url + secured.ca)
        shell.export("HSKV_SQL", secured.url if by_option else None)
        assert shell("init").code == 0
        shell.export("HSKV_URL", url + secured.other_ca)
        refused = shell("init")
        assert refused.code != 0
        assert "CERTIFICATE_VERIFY_FAILED" in refused.err

    @pytest.mark.parametrize("offset", [0, 200])
    def test_a_handshake_that_stands_still_ends_in_time(
        self, secured: Secured, proxy: Proxy, offset: int
    ) -> None:
        proxy.arm(Fault(Kind.BLACK_HOLE, Direction.REPLY, offset))
        began = time.monotonic()
        with pytest.raises(exceptions.ConnectionError, match="did not finish the login"):
            opened(secured.login(through(proxy)), connect_timeout=0.15)
        assert proxy.fired
        assert 0.1 < time.monotonic() - began < 1

    @pytest.mark.parametrize("kind", [Kind.CUT, Kind.GARBLE])
    def test_a_handshake_that_breaks(self, secured: Secured, proxy: Proxy, kind: Kind) -> None:
        proxy.arm(Fault(kind, Direction.REPLY, 200))
        with pytest.raises(exceptions.ConnectionError, match=r"login|TLS with 127"):
            opened(secured.login(through(proxy)))

    def test_a_deadline_ends_what_the_server_takes_long_for(self, secured: Secured) -> None:
        with closing(opened(secured.login())) as channel:
            began = time.monotonic()
            with pytest.raises(exceptions.RequestTimeoutError, match="raise timeout"):
                channel.run(b"SELECT SLEEP(9)", 1, began + 0.2)
            assert time.monotonic() - began < 1
            assert channel.closed

    def test_a_deadline_is_for_all_of_a_reply_that_never_ends(
        self, secured: Secured, proxy: Proxy
    ) -> None:
        with closing(opened(secured.login(through(proxy)))) as channel:
            proxy.arm(Fault(Kind.ENDLESS, Direction.REPLY, 9000, seconds=0.01))
            began = time.monotonic()
            with pytest.raises(exceptions.RequestTimeoutError):
                channel.run(b"SELECT REPEAT('x', 50000)", 1, began + 0.2)
            assert time.monotonic() - began < 1

    def test_a_deadline_is_for_all_of_what_is_sent(self, secured: Secured, proxy: Proxy) -> None:
        with closing(opened(secured.login(through(proxy)))) as channel:
            proxy.arm(Fault(Kind.LATE, Direction.REQUEST, 0, seconds=1.0))
            began = time.monotonic()
            with pytest.raises(exceptions.RecoverableConnectionError, match="before the statement"):
                channel.run(b"SELECT '%s'" % (b"x" * 12_000_000), 1, began + 0.2)
            assert time.monotonic() - began < 0.9

    def test_large_values_come_and_go(self, secured: Secured) -> None:
        with hskv.connect(f"{BY_SQL}{secured.url}", sql_ssl_ca=secured.ca, timeout=9) as store:
            store["a"] = value = os.urandom(3_000_000)
            assert store["a"] == value

    def test_a_reply_that_is_cut_is_seen(self, secured: Secured, proxy: Proxy) -> None:
        with closing(opened(secured.login(through(proxy)))) as channel:
            proxy.arm(Fault(Kind.CUT, Direction.REPLY, 5000))
            with pytest.raises(exceptions.IndexedConnectionError, match="closed the connection"):
                channel.run(b"SELECT REPEAT('x', 50000)", 1, soon())

    def test_an_idle_connection_is_kept_and_one_that_was_ended_is_not_used(
        self, secured: Secured
    ) -> None:
        with hskv.connect(f"{BY_SQL}{secured.url}", sql_ssl_ca=secured.ca, cull=False) as store:
            store["a"] = 1
            time.sleep(0.05)
            assert store.incr("a") == 2
            assert store.stats()["write"]["connects"] == 1
            ended = "SELECT id FROM information_schema.processlist WHERE command = 'Sleep'"
            ((number,),) = sql_on(secured.server, ended)
            sql_on(secured.server, f"KILL {number}")
            for _ in wait_until(lambda: not sql_on(secured.server, ended)):
                time.sleep(0.01)
            assert store.incr("a") == 3
            assert store.stats()["write"]["connects"] == 2

    def test_a_forked_child_makes_its_own_and_leaves_its_parents_alone(
        self, secured: Secured
    ) -> None:
        with hskv.connect(f"{BY_SQL}{secured.url}", sql_ssl_ca=secured.ca, cull=False) as store:
            store["a"] = 1
            child = os.fork()
            if not child:
                good = store.stats()["write"]["size"] == 0 and store.incr("a") == 2
                store.close()
                os._exit(0 if good else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert store.incr("a") == 3
            assert store.stats()["write"]["connects"] == 1

    def test_greenlets_hold_each_other_up_by_nothing(self, secured: Secured) -> None:
        command = [sys.executable, str(PROGRAM), secured.url, secured.ca]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert (done.stdout, done.stderr) == ("all went well", "")


def wait_until(what: Callable[[], bool], seconds: float = 5) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        yield


def test_an_older_pymysql_is_not_trusted_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymysql, "VERSION", (1, 1, 3, "final"))
    hskv.connect(f"{BY_SQL}mysql://u@h/").close()
    with pytest.raises(ImportError, match=r"PyMySQL 1.2 or later: pip install -U 'hskv\[sql\]'"):
        hskv.connect(f"{BY_SQL}mysql://u@h/&sql_ssl=on")
