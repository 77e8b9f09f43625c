"""Secrets that change, are wrong or are mended while a client lives; and restarts without that."""

import logging
import pickle
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql
import pytest

import hskv
from hskv import Client, KeyValueStore
from hskv.exceptions import (
    AuthenticationError,
    ConnectionError,
    HandlerSocketError,
    OutcomeUnknownError,
    ProtocolError,
)
from hskv.mariadb import PrivateServer

User = Client | KeyValueStore[str, Any]

FIRST = "first-secret"
SECOND = 'the "second" secret: \\ ` % / ? # @ \' é'
WRONG = "hunter2/ü"


on_both_kinds_of_sockets = pytest.mark.parametrize(
    "server", [False, True], ids=["unix", "tcp"], indirect=True
)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    with PrivateServer(tcp=getattr(request, "param", False)) as server:
        yield server


def restart(
    server: PrivateServer, secret: str | None = None, write_secret: str | None = None
) -> None:
    """Kill and start it, with another secret if one is given."""
    server.kill()
    if secret is not None:
        server.secret, server.write_secret = secret, write_secret or secret
    server.start()


def bare_url(server: PrivateServer, option: str = "") -> str:
    """The URL of a server without its secrets."""
    url = re.sub("//:[^@]*@", "//", server.url).partition("write_secret=")[0]
    assert server.secret not in url
    return (url + option).rstrip("?&")


class Source:
    """Where a secret is read, and can be changed."""

    def __init__(self, server: PrivateServer, form: str, file: Path) -> None:
        self.form = form
        self.secret = ""
        self._file = file
        self.url = bare_url(server)
        self.options: dict[str, Any] = {}
        if form == "callable":
            self.options["secret"] = lambda: self.secret
        elif form == "file":
            self.options["secret_file"] = str(file)
        else:
            self.url = bare_url(server, f"secret_file={quote(str(file))}")

    def tell(self, secret: str) -> None:
        self.secret = secret
        self._file.write_text(secret + "\n", encoding="utf-8")

    def open(self, kind: type[User], **options: Any) -> Any:
        return kind(self.url, **self.options, **options)


@pytest.fixture(params=["callable", "file", "option of the URL"])
def source(request: pytest.FixtureRequest, server: PrivateServer, tmp_path: Path) -> Source:
    return Source(server, request.param, tmp_path / "the secret")


@pytest.fixture
def file(server: PrivateServer, tmp_path: Path) -> Source:
    return Source(server, "file", tmp_path / "secret")


@pytest.fixture(params=[Client, KeyValueStore], ids=["client", "store"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def count(user: User, key: str = "counter") -> int:
    """Write: one more than what `seen` gave."""
    if isinstance(user, KeyValueStore):
        return user.incr(key)
    index = user.open("kv", ["n"])
    if user.modify(index, "=", [key], "+", [1]) == 0:
        user.insert(user.open("kv", ["k", "n", "kind"]), [key, 1, 2])
    return seen(user, key)


def seen(user: User, key: str = "counter") -> int:
    """Read: how often `count` was called."""
    if isinstance(user, KeyValueStore):
        return int(user.get(key, 0))
    rows = user.find(user.open("kv", ["n"]), "=", [key])
    return int(rows[0][0] or 0) if rows else 0


def client_of(user: User) -> Client:
    return user.client if isinstance(user, KeyValueStore) else user


@contextmanager
def sql(server: PrivateServer, *statements: str) -> Iterator[Any]:
    """A cursor on a connection that has run some statements; the end of it undoes locks."""
    with (
        closing(pymysql.connect(**server.sql, autocommit=True)) as connection,
        connection.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)
        yield cursor


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestAnotherSecret:
    def test_is_read_again_after_a_restart(
        self, server: PrivateServer, source: Source, kind: type[User]
    ) -> None:
        source.tell(FIRST)
        restart(server, FIRST)
        with source.open(kind) as user:
            number = count(user)
            for secret in (SECOND, FIRST):
                source.tell(secret)
                restart(server, secret)
                assert seen(user) == number
                number += 1
                assert count(user) == number

    def test_is_read_again_by_a_writer_that_comes_first(
        self, server: PrivateServer, file: Source, kind: type[User]
    ) -> None:
        file.tell(FIRST)
        restart(server, FIRST)
        with file.open(kind) as user:
            number = count(user)
            file.tell(SECOND)
            restart(server, SECOND)
            assert count(user) == number + 1

    def test_of_an_orderly_restart_is_read_again(
        self, server: PrivateServer, file: Source, kind: type[User]
    ) -> None:
        file.tell(FIRST)
        restart(server, FIRST)
        with file.open(kind) as user:
            number = count(user)
            server.stop()
            with pytest.raises(ConnectionError, match="cannot connect"):
                seen(user)
            file.tell(SECOND)
            restart(server, SECOND)
            assert seen(user) == number
            assert count(user) == number + 1

    def test_that_is_written_down_late_is_an_error_until_then(
        self, server: PrivateServer, file: Source, kind: type[User]
    ) -> None:
        file.tell(FIRST)
        restart(server, FIRST)
        with file.open(kind, pool_size=2, pool_timeout=0.5) as user:
            number = count(user)
            restart(server, SECOND)
            for _ in range(4):
                for request in (seen, count):
                    with pytest.raises(AuthenticationError, match="secret is missing or wrong"):
                        request(user)
            stats = client_of(user).stats()
            assert (stats["read"]["size"], stats["write"]["size"]) == (0, 0)
            file.tell(SECOND)
            assert seen(user) == number
            assert count(user) == number + 1

    def test_that_is_wrong_leaves_open_connections_alone(
        self, server: PrivateServer, file: Source, kind: type[User]
    ) -> None:
        file.tell(FIRST)
        restart(server, FIRST)
        with file.open(kind) as user:
            number = count(user)
            assert seen(user) == number
            file.tell(WRONG)
            assert count(user) == number + 1
            assert seen(user) == number + 1
            client_of(user).purge()
            for request in (seen, count):
                with pytest.raises(AuthenticationError):
                    request(user)
            file.tell(FIRST)
            assert count(user) == number + 2

    def test_is_read_by_threads_that_log_in_at_once(
        self, server: PrivateServer, source: Source
    ) -> None:
        source.tell(FIRST)
        restart(server, FIRST)
        with source.open(Client) as user, ThreadPoolExecutor(8) as executor:
            seen(user)
            source.tell(SECOND)
            restart(server, SECOND)
            counted = executor.map(lambda number: count(user, f"thread {number}"), range(8))
            assert all(counted)


class TestSourceThatFails:
    def test_missing_file_says_so_and_is_read_once_it_is_back(
        self, server: PrivateServer, file: Source, kind: type[User], tmp_path: Path
    ) -> None:
        file.tell(FIRST)
        restart(server, FIRST)
        with file.open(kind, pool_size=1, pool_timeout=0.5) as user:
            number = count(user)
            (tmp_path / "secret").unlink()
            restart(server, SECOND)
            for _ in range(3):
                for request in (seen, count):
                    with pytest.raises(AuthenticationError, match="secret cannot be read: No such"):
                        request(user)
            file.tell(SECOND)
            assert count(user) == number + 1

    def test_callable_that_raises_is_called_again(
        self, server: PrivateServer, kind: type[User]
    ) -> None:
        answers: list[str | Exception] = []

        def ask() -> str:
            answer = answers.pop(0) if answers else SECOND
            if isinstance(answer, Exception):
                raise answer
            return answer

        restart(server, SECOND)
        with kind(bare_url(server), secret=ask, pool_size=1, pool_timeout=0.5) as user:
            number = count(user)
            client_of(user).purge()
            for request in (seen, count):
                for _ in range(3):
                    answers.append(LookupError("the vault is sealed"))
                    with pytest.raises(LookupError, match="sealed"):
                        request(user)
            assert count(user) == number + 1

    def test_callable_may_give_bytes_or_nothing(
        self, server: PrivateServer, kind: type[User]
    ) -> None:
        answers: list[Any] = [None, None]
        restart(server, FIRST)
        with kind(bare_url(server), secret=lambda: answers.pop(0)) as user:
            for request in (seen, count):
                with pytest.raises(AuthenticationError, match="secret is missing"):
                    request(user)
            answers += [FIRST.encode(), FIRST.encode()]
            number = count(user)
            assert seen(user) == number


class TestWriteSecret:
    def test_may_be_another_and_change_with_a_restart(
        self, server: PrivateServer, kind: type[User]
    ) -> None:
        secrets = {"read": FIRST, "write": SECOND}
        restart(server, FIRST, SECOND)
        with kind(
            bare_url(server),
            secret=lambda: secrets["read"],
            write_secret=lambda: secrets["write"],
        ) as user:
            number = count(user)
            secrets = {"read": "third", "write": "fourth"}
            restart(server, "third", "fourth")
            assert count(user) == number + 1
            assert seen(user) == number + 1

    def test_in_the_url_stands_beside_a_secret_in_a_file(
        self, server: PrivateServer, file: Source, kind: type[User]
    ) -> None:
        file.tell(SECOND)
        restart(server, SECOND, FIRST)
        with kind(bare_url(server, f"write_secret={FIRST}"), **file.options) as user:
            number = count(user)
            file.tell("another")
            restart(server, "another", FIRST)
            assert count(user) == number + 1
            assert seen(user) == number + 1

    def test_that_is_wrong_is_named_and_stops_no_reader(
        self, server: PrivateServer, kind: type[User]
    ) -> None:
        current = [WRONG]
        restart(server, FIRST, SECOND)
        with kind(bare_url(server), secret=FIRST, write_secret=lambda: current[0]) as user:
            number = seen(user)
            for _ in range(2):
                with pytest.raises(AuthenticationError, match="write_secret"):
                    count(user)
                assert seen(user) == number
            current[0] = SECOND
            assert count(user) == number + 1

    def test_that_is_missing_is_named(self, server: PrivateServer, kind: type[User]) -> None:
        restart(server, FIRST, SECOND)
        with kind(bare_url(server), secret=FIRST) as user:
            seen(user)
            with pytest.raises(AuthenticationError, match="write_secret"):
                count(user)


def shown(error: BaseException, user: User, caplog: pytest.LogCaptureFixture) -> str:
    """All that an error, its client and the log tell whoever looks."""
    client = client_of(user)
    told = [
        "".join(traceback.format_exception(error)),
        caplog.text,
        *(str(record.args) for record in caplog.records),
    ]
    chain: BaseException | None = error
    while chain is not None:
        told += [str(chain), repr(chain), str(chain.args), str(vars(chain))]
        told.append(pickle.dumps(chain).decode("utf-8", "backslashreplace"))
        chain = chain.__cause__ or chain.__context__
    told += [
        repr(user),
        repr(client),
        repr(client.settings),
        repr(vars(client)),
        str(client.stats()),
    ]
    return "\n".join(told)


class TestWrongSecretIsShownNowhere:
    @pytest.fixture(autouse=True)
    def logged(self, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "hskv.traffic"):
            yield

    def check(self, text: str, *secrets: str) -> None:
        for secret in secrets:
            for form in (secret, quote(secret, safe=""), repr(secret.encode())[2:-1]):
                assert form not in text

    @pytest.mark.parametrize("form", ["text", "bytes", "callable", "file", "URL"])
    def test_when_it_is_refused(
        self,
        server: PrivateServer,
        kind: type[User],
        form: str,
        file: Source,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        restart(server, FIRST)
        file.tell(WRONG)
        url = bare_url(server)
        forms: dict[str, dict[str, Any]] = {
            "text": {"secret": WRONG},
            "bytes": {"secret": WRONG.encode()},
            "callable": {"secret": lambda: WRONG},
            "file": file.options,
            "URL": {},
        }
        if form == "URL":
            url = url.replace("//", f"//:{quote(WRONG, safe='')}@", 1)
        with kind(url, **forms[form]) as user:
            for request in (seen, count):
                with pytest.raises(AuthenticationError, match="give handlersocket_plain") as caught:
                    request(user)
                assert (caught.value.code, caught.value.reason) == (3, "unauth")
                self.check(shown(caught.value, user, caplog), WRONG, FIRST)
        assert "A\\t1\\t***" in caplog.text

    def test_when_it_is_that_for_writing(
        self, server: PrivateServer, kind: type[User], caplog: pytest.LogCaptureFixture
    ) -> None:
        restart(server, FIRST, SECOND)
        url = bare_url(server, f"write_secret={quote(WRONG, safe='')}")
        with kind(url, secret=FIRST) as user:
            seen(user)
            with pytest.raises(AuthenticationError) as caught:
                count(user)
            self.check(shown(caught.value, user, caplog), WRONG, FIRST, SECOND)
        assert caplog.text.count("A\\t1\\t***") >= 2

    def test_when_a_right_one_is_replaced_by_it(
        self, server: PrivateServer, source: Source, caplog: pytest.LogCaptureFixture
    ) -> None:
        source.tell(FIRST)
        restart(server, FIRST)
        with source.open(KeyValueStore) as user:
            count(user)
            source.tell(WRONG)
            restart(server, SECOND)
            with pytest.raises(AuthenticationError) as caught:
                seen(user)
            self.check(shown(caught.value, user, caplog), WRONG, FIRST, SECOND)

    @pytest.mark.parametrize(("end", "why"), [("\x01", "below 0x10"), ("\ud800", "secret")])
    def test_when_it_can_be_no_secret(
        self,
        server: PrivateServer,
        kind: type[User],
        caplog: pytest.LogCaptureFixture,
        end: str,
        why: str,
    ) -> None:
        with kind(bare_url(server), secret=lambda: WRONG + end) as user:
            for request in (seen, count):
                with pytest.raises(ValueError, match=why) as caught:
                    request(user)
                self.check(shown(caught.value, user, caplog), WRONG)
            stats = client_of(user).stats()
            assert (stats["read"]["size"], stats["write"]["size"]) == (0, 0)

    def test_when_it_was_sent_to_the_port_of_sql(
        self, server: PrivateServer, kind: type[User], caplog: pytest.LogCaptureFixture
    ) -> None:
        path = server.sql["unix_socket"]
        with kind(f"hskv+unix:///hskv?read={path}&write={path}x", secret=FIRST) as user:
            with pytest.raises(ProtocolError) as caught:
                seen(user)
            self.check(shown(caught.value, user, caplog), FIRST)

    def test_when_the_server_is_gone(
        self, server: PrivateServer, kind: type[User], caplog: pytest.LogCaptureFixture
    ) -> None:
        with kind(bare_url(server), secret=FIRST) as user:
            server.kill()
            try:
                for request in (seen, count):
                    with pytest.raises(ConnectionError) as caught:
                        request(user)
                    self.check(shown(caught.value, user, caplog), FIRST)
            finally:
                server.start()


def variables(error: BaseException) -> str:
    """The variables of hskv's functions, as pytest and others print them in a traceback."""
    package = str(Path(hskv.__file__).parent)
    told = []
    chain: BaseException | None = error
    while chain is not None:
        for frame, _ in traceback.walk_tb(chain.__traceback__):
            if frame.f_code.co_filename.startswith(package):
                told += [f"{name} = {value!r}" for name, value in frame.f_locals.items()]
        chain = chain.__cause__ or chain.__context__
    assert told
    return "\n".join(told)


class TestWrongSecretIsInNoVariableOfATraceback:
    def test_when_it_is_refused(self, server: PrivateServer) -> None:
        with Client(bare_url(server), secret="hunter2") as client:
            with pytest.raises(AuthenticationError) as caught:
                seen(client)
            assert "hunter2" not in variables(caught.value)

    def test_when_it_can_be_no_secret(self, server: PrivateServer) -> None:
        with Client(bare_url(server), secret="hunter2\x01") as client:
            with pytest.raises(ValueError, match="bytes below 0x10") as caught:
                seen(client)
            assert "hunter2" not in variables(caught.value)

    def test_when_the_server_hangs_up(self, peer: Callable[[Callable[[Any], None]], str]) -> None:
        with Client(peer(lambda connection: connection.recv(100)), secret="hunter2") as client:
            with pytest.raises(ConnectionError, match="did not finish the login") as caught:
                seen(client)
            assert "hunter2" not in variables(caught.value)


CHANNELS = 6


@pytest.fixture
def busy_store(server: PrivateServer) -> Iterator[KeyValueStore[str, Any]]:
    """A store with several channels to each port, all of them idle again."""
    restart(server)
    with KeyValueStore(server.url) as store, ThreadPoolExecutor(2 * CHANNELS) as executor:
        with sql(server, "LOCK TABLES kv WRITE"):
            waiting = [executor.submit(seen, store, f"k{n}") for n in range(CHANNELS)]
            waiting += [executor.submit(count, store, f"k{n}") for n in range(CHANNELS)]
            wait_until(lambda: sizes(store) == {"read": CHANNELS, "write": CHANNELS})
        for future in waiting:
            future.result(10)
        yield store


def sizes(store: KeyValueStore[str, Any]) -> dict[str, int]:
    return {side: stats["size"] for side, stats in store.client.stats().items()}


def errors_of(futures: list[Future[int]]) -> list[BaseException]:
    done, late = wait(futures, 20)
    assert not late
    return [error for future in done if (error := future.exception())]


@on_both_kinds_of_sockets
class TestRestartWithTheSameSecret:
    @pytest.mark.parametrize("orderly", [True, False], ids=["stop", "kill"])
    def test_costs_idle_readers_and_writers_no_error(
        self, server: PrivateServer, busy_store: KeyValueStore[str, Any], orderly: bool
    ) -> None:
        numbers = {n: seen(busy_store, f"k{n}") for n in range(CHANNELS)}
        if orderly:
            server.stop()
        restart(server)
        with ThreadPoolExecutor(2 * CHANNELS) as executor:
            reads = [executor.submit(seen, busy_store, "k0") for _ in range(CHANNELS)]
            writes = [executor.submit(count, busy_store, f"k{n}") for n in range(CHANNELS)]
            assert errors_of(reads + writes) == []
        assert [write.result() for write in writes] == [numbers[n] + 1 for n in range(CHANNELS)]

    def test_costs_writers_at_most_what_was_in_flight(
        self, server: PrivateServer, busy_store: KeyValueStore[str, Any]
    ) -> None:
        in_flight = 3
        before = seen(busy_store, "flying")
        with ThreadPoolExecutor(in_flight) as executor:
            with sql(server, "SELECT GET_LOCK('handlersocket_wr', 5)"):
                flying = [executor.submit(count, busy_store, "flying") for _ in range(in_flight)]
                idle = CHANNELS - in_flight
                wait_until(lambda: busy_store.client.stats()["write"]["idle"] == idle)
                restart(server)
            errors = errors_of(flying)
        assert len(errors) <= in_flight
        assert {type(error) for error in errors} <= {OutcomeUnknownError}
        after = seen(busy_store, "flying")
        done = in_flight - len(errors)
        assert before + done <= after <= before + in_flight
        assert [count(busy_store, "flying") for _ in range(9)] == list(range(after + 1, after + 10))

    def test_under_load_costs_no_error_once_the_server_is_back(self, server: PrivateServer) -> None:
        threads = 4
        stop = threading.Event()
        acknowledged = [0] * threads
        failures: list[tuple[float, str, BaseException]] = []

        def repeat(request: Callable[[], object], side: str) -> None:
            while not stop.is_set():
                try:
                    request()
                except HandlerSocketError as error:
                    failures.append((time.monotonic(), side, error))

        restart(server)
        with KeyValueStore(server.url) as store, ThreadPoolExecutor(2 * threads) as executor:

            def write(number: int) -> None:
                store.incr(f"load {number}")
                acknowledged[number] += 1

            store.delete_many(f"load {number}" for number in range(threads))
            running = [
                executor.submit(repeat, request, side)
                for number in range(threads)
                for side, request in (
                    ("read", lambda: store.get("load 0")),
                    ("write", lambda number=number: write(number)),
                )
            ]
            try:
                wait_until(lambda: min(acknowledged) > 10)
                restart(server)
                back = time.monotonic()
                then = list(acknowledged)
                wait_until(lambda: all(map(int.__gt__, acknowledged, [n + 10 for n in then])))
            finally:
                stop.set()
            for future in running:
                future.result(10)
            late = [error for at, _, error in failures if at > back + 0.1]
            unknown = [e for _, _, e in failures if isinstance(e, OutcomeUnknownError)]
            assert late == []
            assert len(unknown) <= threads
            assert {side for _, side, e in failures if e in unknown} <= {"write"}
            stored = sum(store.get(f"load {number}") for number in range(threads))
        assert sum(acknowledged) <= stored <= sum(acknowledged) + len(unknown)
