"""Clients that are killed, interrupted, signalled, closed, or at the end of their interpreter."""

import ctypes
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

import hskv
from hskv import KeyValueStore, exceptions
from hskv.mariadb import PrivateServer

from ..server.test_forks import all_in_mid_request, frozen
from .operations import OPERATIONS, Operation
from .oracle import Figures

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]

CHANNELS = 4
PROGRAM_SECONDS = 60


class Program:
    """Another interpreter, which runs a text with the URL of the server as its argument."""

    def __init__(self, text: str, *arguments: str, flags: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *flags, "-c", text, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Coverage of a program that is interrupted locks it up.
            env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
        )
        assert self.process.stdout
        self._said = self.process.stdout

    def line(self) -> str:
        """The next line that it writes."""
        return self._said.readline().removesuffix("\n")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[str, str]:
        """Let it end by itself; the rest of what it wrote, and what it complained of."""
        return self.process.communicate(timeout=PROGRAM_SECONDS)

    def kill(self) -> str:
        """End it; the rest of what it wrote."""
        self.process.kill()
        # Not communicate, which forgets what was read along with a line.
        said = self._said.read()
        self.end()
        return said


@pytest.fixture
def run() -> Iterator[Callable[..., Program]]:
    """Starts programs, which do not outlive the test."""
    programs: list[Program] = []

    def start(*arguments: Any, **options: Any) -> Program:
        programs.append(Program(*arguments, **options))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.poll() is None:
            program.kill()


WRITER = """
import os, sys, hskv

def tell(word):
    os.write(1, word.encode() + b"\\n")

url, name = sys.argv[1:]
with hskv.connect(url) as store:
    lease = store.lease("writer", ttl=0.5, max_skew=0.1, poll=0.01)
    store["large:" + name] = "0 " * 10
    tell("ready")
    for number in range(1, 1_000_000):
        store.incr("count:" + name)
        tell("c")
        store["large:" + name] = f"{number} " * (number % 7 * 30_000 + 10)
        tell("l")
        if lease.acquire(wait=False):
            store.incr("guarded")
            lease.release()
"""


class TestKilled:
    """Leases of the killed are in tests/server/test_lease_races.py."""

    def test_in_mid_write_leaves_whole_rows_and_no_lock(
        self, hskv_store: Store, hskv_server: PrivateServer, run_sql: Sql, run: Any
    ) -> None:
        self.kill_some(4, hskv_store, hskv_server, run)
        assert run_sql("CHECK TABLE kv EXTENDED")[-1][-1] == "OK"

    @pytest.mark.stress
    @pytest.mark.timeout(300)
    def test_100_times_leaves_whole_rows_and_no_lock(
        self,
        hskv_store: Store,
        hskv_server: PrivateServer,
        run_sql: Sql,
        run: Any,
        figures: Figures,
    ) -> None:
        for _ in range(25):
            acknowledged, unknown = self.kill_some(4, hskv_store, hskv_server, run)
            figures.rounds["clients killed"] += 4
            figures.calls += acknowledged + unknown
            figures.acknowledged += acknowledged
            figures.unknown += unknown
        assert run_sql("CHECK TABLE kv EXTENDED")[-1][-1] == "OK"

    def kill_some(
        self, count: int, store: Store, server: PrivateServer, run: Any
    ) -> tuple[int, int]:
        """How many of their writes were acknowledged, and how many done without that."""
        writers = [run(WRITER, server.url, str(number)) for number in range(count)]
        for writer in writers:
            assert writer.line() == "ready"
        acknowledged = done = 0
        for number, writer in enumerate(writers):
            time.sleep(random.uniform(0.05, 0.3))
            told = writer.kill().split()
            began = time.monotonic()
            store["after"] = number
            assert time.monotonic() - began < 2
            acknowledged += told.count("c")
            done += self.whole(store, number, told)
        assert store.lease("writer", ttl=5, max_skew=0.1, poll=0.01).acquire(wait=5)
        store.modify(">=", [""], "D", limit=1000)
        return acknowledged, done - acknowledged

    def whole(self, store: Store, number: int, told: list[str]) -> int:
        """The count of a writer, which is right, as is the last value that it wrote."""
        counted: int = store.get(f"count:{number}", 0)
        assert told.count("c") <= counted + 1
        words = store[f"large:{number}"].split()
        assert set(words) == {words[0]}
        assert len(words) == int(words[0]) % 7 * 30_000 + 10
        assert told.count("l") <= int(words[0]) <= told.count("l") + 1
        return counted


class Throwing:
    """Threads that call, each asking its own questions, while exceptions are thrown at them."""

    def __init__(self, store: Store, threads: int) -> None:
        self.calls = 0
        self.caught = 0
        self.errors: list[BaseException] = []
        self.wrong: list[object] = []
        self._store = store
        self._stop = False
        self._armed = [False] * threads
        self._threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(threads)
        ]

    def throw(self, times: int, seconds: float) -> None:
        """Interrupt one of them, whatever it does, so many times, or for so long."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.start()
        try:
            while (times := times - 1) >= 0 and time.monotonic() < until:
                self._throw(random.randrange(len(self._threads)))
                time.sleep(random.uniform(0, 0.002))
        finally:
            self._stop = True
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _throw(self, number: int) -> None:
        # One that has not caught the last one yet could meet the next while it does.
        if not self._armed[number]:
            return
        self._armed[number] = False
        thread = ctypes.c_ulong(self._threads[number].ident or 0)
        kind = random.choice((KeyboardInterrupt, SystemExit))
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(kind))

    def _work(self, number: int) -> None:
        # What strikes while coverage notes a line is lost to the program, or locks it up.
        sys.settrace(None)
        while not self._stop:
            try:
                self._armed[number] = True
                self._call_on(number)
                # For the last one to come, if it is under way.
                time.sleep(0.1)
            except (KeyboardInterrupt, SystemExit):
                self.caught += 1
            except exceptions.HandlerSocketError as error:
                self.errors.append(error)

    def _call_on(self, number: int) -> None:
        key, counter, value = f"own{number}", f"n{number}", f"value {number}"
        before = 0
        while not self._stop:
            self.calls += 3
            if (seen := self._store.get(key)) != value:
                self.wrong.append((key, seen))
            if (counted := self._store.incr(counter)) <= before:
                self.wrong.append((counter, counted, before))
            before = counted
            found = self._store.get_many([key, "none", "shared"])
            if found != {key: value, "shared": "value"}:
                self.wrong.append(found)


def whole(store: Store, server: PrivateServer) -> None:
    """Every place of both pools can be taken at once, and each gives the right answer."""
    for side, counts in store.stats().items():
        assert counts["size"] == counts["idle"], f"{side}: a channel was never given back"
        assert counts["waiting"] == 0
    with all_in_mid_request(store, server, CHANNELS):
        pass


SIGNALLED = """
import json, signal, sys, hskv

url, times, rounds = sys.argv[1], int(sys.argv[2]), 0
armed, signals, caught, wrong = False, 0, 0, []

def interrupt(number, frame):
    global armed, signals
    signals += 1
    if armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)
with hskv.connect(url, pool_size=4, pool_timeout=1) as store:
    store["own"] = "value"
    print("ready", flush=True)
    while signals < times:
        rounds += 1
        try:
            armed = True
            seen = store.get("own"), store.incr("n") > 0, store.get_many(["own", "none"])
            armed = False
            if seen != ("value", True, {"own": "value"}):
                wrong.append(repr(seen))
        except KeyboardInterrupt:
            caught += 1
        except hskv.HandlerSocketError as error:
            wrong.append(repr(error))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stats = store.stats()
    print(json.dumps([stats, wrong[:5], caught, rounds]), flush=True)
"""


ALARMED = """
import json, random, signal, sys, time, hskv, pymysql

url, times = sys.argv[1], int(sys.argv[2])
make = {
    "TimeoutError": lambda: TimeoutError("the alarm"),
    "LookupError": lambda: LookupError("the alarm"),
    # As of a deadlock, which is sent again.
    "MySQLError": lambda: pymysql.err.OperationalError(1213, "the alarm"),
}[sys.argv[3]]
kind = type(make())
armed, caught, before, wrong = False, 0, 0, []

def alarm(number, frame):
    if armed:
        raise make()

signal.signal(signal.SIGALRM, alarm)
with hskv.connect(url, cull=False) as store:
    store["n"] = 0
    for _ in range(times):
        counted = None
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.0005))
            counted = store.incr("n")
        except kind:
            caught += 1
        except hskv.HandlerSocketError as error:
            wrong.append(repr(error))
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        after = store["n"]
        # What was sent may be done after the alarm was heard.
        for _ in range(10 if counted is None else 0):
            time.sleep(0.003 * (after == before))
            after = store["n"]
        if after - before > 1 or counted not in (None, before + 1):
            wrong.append([before, counted, after])
        before = after
print(json.dumps([caught, wrong[:5]]))
"""


# What matters is the place in the pool that a lost channel had, not its socket.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
class TestInterrupted:
    def test_threads_at_any_point_leave_the_pool_whole_and_every_answer_right(
        self, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        self.throw_at_threads(1000, 5, hskv_server)

    @pytest.mark.stress
    @pytest.mark.timeout(300)
    def test_threads_20000_times(
        self, hskv_store: Store, hskv_server: PrivateServer, figures: Figures
    ) -> None:
        thrown = self.throw_at_threads(20_000, 200, hskv_server)
        figures.faults["interrupt of a thread"] += thrown.caught
        figures.calls += thrown.calls

    def throw_at_threads(self, times: int, seconds: float, server: PrivateServer) -> Throwing:
        with hskv.connect(server.url, pool_size=CHANNELS, pool_timeout=1) as store:
            store["shared"] = "value"
            store.set_many({f"own{number}": f"value {number}" for number in range(8)})
            throwing = Throwing(store, 8)
            throwing.throw(times, seconds)
            assert throwing.wrong == []
            assert throwing.caught > 20
            # A traceback may refer to itself, and to a channel.
            gc.collect()
            whole(store, server)
            assert throwing.errors == []
        return throwing

    @pytest.mark.parametrize(
        "where",
        [
            pytest.param("hskv.exchange.monotonic", id="with a channel in hand"),
            pytest.param("hskv.transport.pool.monotonic", id="taking or giving back a channel"),
        ],
    )
    def test_between_the_pool_and_the_exchange_leaves_the_pool_whole(
        self,
        hskv_server: PrivateServer,
        hskv_store: Store,
        monkeypatch: pytest.MonkeyPatch,
        where: str,
    ) -> None:
        with hskv.connect(hskv_server.url, pool_size=CHANNELS, pool_timeout=0.2) as store:
            store["own"] = store["own"] = "value"
            for turn in range(4):
                # At each look at the clock in turn: as good a point as any.
                with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                    patch.setattr(where, _interrupting(turn))
                    assert store.get("own") == "value"
            gc.collect()
            assert store.get("own") == "value"
            whole(store, hskv_server)

    def test_main_thread_by_real_signals_leaves_the_pool_whole(
        self, hskv_store: Store, hskv_server: PrivateServer, run: Any
    ) -> None:
        self.interrupt_a_program(300, hskv_server, run)

    @pytest.mark.stress
    @pytest.mark.timeout(300)
    def test_main_thread_by_20000_real_signals(
        self, hskv_store: Store, hskv_server: PrivateServer, run: Any, figures: Figures
    ) -> None:
        caught, rounds = self.interrupt_a_program(20_000, hskv_server, run)
        figures.faults["signal to a main thread"] += caught
        figures.calls += 3 * rounds

    @pytest.mark.parametrize("by", ["HandlerSocket", "SQL"])
    @pytest.mark.parametrize("kind", ["TimeoutError", "LookupError", "MySQLError"])
    def test_an_alarm_in_mid_request_gets_out_and_nothing_is_done_twice(
        self, hskv_store: Store, hskv_server: PrivateServer, run: Any, by: str, kind: str
    ) -> None:
        url = hskv_server.url
        if by == "SQL":
            sql = f"mysql+unix://root@{hskv_server.sql['unix_socket']}"
            url = f"hskv:///hskv?reads=sql&writes=sql&sql={quote(sql, safe='')}"
        program = run(ALARMED, url, "300", kind)
        # Python tells of an exception that it cannot raise where the signal came.
        said, complaint = program.end()
        assert program.process.returncode == 0, complaint
        caught, wrong = json.loads(said)
        assert wrong == []
        assert caught > 30

    @pytest.mark.parametrize("by", ["HandlerSocket", "SQL"])
    def test_an_alarm_in_mid_login_gets_out(self, tmp_path: Path, by: str) -> None:
        path = tmp_path / "silent.sock"
        url = f"hskv+unix://:secret@/hskv?read={path}&write=/nowhere"
        if by == "SQL":
            url = f"hskv:///hskv?reads=sql&writes=sql&sql=mysql%2Bunix://root@{path}"

        def alarm(number: int, frame: object) -> None:
            raise TimeoutError("the alarm")

        before = signal.signal(signal.SIGUSR1, alarm)
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        try:
            with socket.socket(socket.AF_UNIX) as listener, hskv.connect(url) as store:
                listener.bind(str(path))
                listener.listen()
                timer.start()
                with pytest.raises(TimeoutError, match="the alarm"):
                    store.get("key")
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)

    def interrupt_a_program(self, times: int, server: PrivateServer, run: Any) -> tuple[int, int]:
        program = run(SIGNALLED, server.url, str(times))
        assert program.line() == "ready"
        deadline = time.monotonic() + PROGRAM_SECONDS + times / 200
        # Signals that meet in one moment are one.
        while program.process.poll() is None and time.monotonic() < deadline:
            program.send(signal.SIGINT)
            time.sleep(random.uniform(0, 0.002))
        # Python complains of those that meet it where it cannot raise them.
        said, complaint = program.end()
        assert program.process.returncode == 0, complaint
        stats, wrong, caught, rounds = json.loads(said)
        assert wrong == []
        assert caught > times // 20
        for side in stats.values():
            assert side["size"] == side["idle"]
        return caught, rounds


def _interrupting(turn: int) -> Callable[[], float]:
    """A clock whose look number `turn` is the moment of an interrupt."""
    looks = iter(range(turn + 1))

    def look() -> float:
        if next(looks, None) == turn:
            raise KeyboardInterrupt
        return time.monotonic()

    return look


TIMED = """
import json, signal, sys, time, hskv

url, call, interval = sys.argv[1], sys.argv[2], float(sys.argv[3])
signals, began = 0, time.monotonic()

def count(number, frame):
    global signals
    signals += 1
    if time.monotonic() > began + 2:
        signal.setitimer(signal.ITIMER_REAL, 0)

signal.signal(signal.SIGALRM, count)
store = hskv.connect(url, timeout=0.5, connect_timeout=0.5)
if call != "connect":
    store["own"] = store["own"] = 1
    store["own"]
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
signal.setitimer(signal.ITIMER_REAL, interval, interval)
try:
    store.incr("own") if call == "write" else store.get("own")
    error = None
except hskv.HandlerSocketError as raised:
    error = type(raised).__name__
took = time.monotonic() - began
signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps([error, took, signals]), flush=True)
"""


class TestSignalled:
    """Handlers that return: what was interrupted is begun anew, with its whole time out."""

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            ("read", "RequestTimeoutError"),
            ("write", "OutcomeUnknownError"),
            ("connect", "ConnectionError"),
        ],
    )
    def test_every_50_ms_a_call_to_a_frozen_server_still_ends_in_time(
        self, hskv_store: Store, hskv_server: PrivateServer, run: Any, call: str, error: str
    ) -> None:
        program = run(TIMED, hskv_server.url, call, "0.05")
        assert program.line() == "ready"
        with frozen(hskv_server):
            said, complaint = program.end()
        assert complaint == ""
        raised, took, signals = json.loads(said)
        assert signals > 5
        assert raised == error
        # A read may be at connecting anew when its time is out.
        allowed = 0.5 if call == "write" else 1.0
        assert took < allowed + 1, f"{took:.1f} s"


CALLING = """
import json, random, signal, sys, threading, time, hskv

url = sys.argv[1]
calls, wrong, until = 0, [], time.monotonic() + 3

def ask(number):
    if store.get(f"own{number}") != number:
        wrong.append(number)

def interrupt(number, frame):
    global calls
    calls += 1
    try:
        ask(9)
    except hskv.PoolTimeoutError:
        pass
    if time.monotonic() < until:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.002))

def work(number):
    while time.monotonic() < until:
        try:
            ask(number)
        except hskv.PoolTimeoutError:
            pass

with hskv.connect(url, pool_size=3, pool_timeout=0.5) as store:
    for number in range(10):
        store[f"own{number}"] = number
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    work(8)
    for thread in threads:
        thread.join()
    print(json.dumps([calls, wrong, store.stats()["read"]]))
"""


class TestCallingFromASignalHandler:
    def test_is_answered_or_told_in_time_wherever_it_strikes(
        self, hskv_store: Store, hskv_server: PrivateServer, run: Any
    ) -> None:
        """Its own thread may have a lock of the pool, and would wait for itself for ever."""
        began = time.monotonic()
        said, complaint = run(CALLING, hskv_server.url).end()
        assert time.monotonic() - began < 20
        assert complaint == ""
        calls, wrong, stats = json.loads(said)
        assert calls > 20
        assert wrong == []
        assert stats["size"] == stats["idle"]
        assert stats["waiting"] == 0


LEAVING = """
import os, sys, threading, hskv

url, wait = sys.argv[1], float(sys.argv[2])
stores = [hskv.connect(url, pool_size=2, pool_timeout=5) for _ in range(2)]
stores[0]["own"] = "value"
name = f"leaving{os.getpid()}"
leases = [store.lease(f"{name}:{n}", ttl=0.3, renew=True) for n, store in enumerate(stores)]
for lease in leases:
    lease.acquire()
started = threading.Barrier(9)

def work(number):
    store = stores[number % 2]
    started.wait()
    while True:
        store.get("own")
        store.incr("n")

for number in range(8):
    threading.Thread(target=work, args=(number,), daemon=True).start()
started.wait()
print("ready", flush=True)
sys.stdin.readline()
threading.Event().wait(wait)
"""


class TestEndOfTheInterpreter:
    @pytest.mark.parametrize("flags", [(), ("-W", "error")], ids=["", "warnings are errors"])
    @pytest.mark.parametrize("wait", ["0", "0.2"])
    def test_with_daemon_threads_in_calls_is_silent(
        self,
        hskv_store: Store,
        hskv_server: PrivateServer,
        run: Any,
        flags: tuple[str, ...],
        wait: str,
    ) -> None:
        programs = [run(LEAVING, hskv_server.url, wait, flags=flags) for _ in range(3)]
        for program in programs:
            assert program.line() == "ready"
        for program in programs:
            _, complaint = program.end()
            assert (program.process.returncode, complaint) == (0, "")

    def test_with_daemon_threads_that_wait_for_a_frozen_server_is_silent(
        self, hskv_store: Store, hskv_server: PrivateServer, run: Any
    ) -> None:
        program = run(LEAVING, hskv_server.url, "0.2")
        assert program.line() == "ready"
        with frozen(hskv_server):
            began = time.monotonic()
            _, complaint = program.end()
            assert time.monotonic() - began < 3
        assert (program.process.returncode, complaint) == (0, "")


CLOSED = "this client is closed: make a new one"


class TestClosed:
    """Threads whose store is closed meanwhile are in tests/server/test_threads.py."""

    @pytest.mark.parametrize("operation", OPERATIONS, ids=str)
    def test_every_method_says_so_and_connects_no_more(
        self, hskv_server: PrivateServer, hskv_store: Store, operation: Operation
    ) -> None:
        store = hskv.connect(hskv_server.url)
        opened: Any = SimpleNamespace(
            store=store, client=store.client, manager=store.manager, table="kv"
        )
        operation.prepare(opened)
        store.close()
        connects = {side: counts["connects"] for side, counts in store.stats().items()}
        with pytest.raises(exceptions.HandlerSocketError) as caught:
            operation.call(opened)
        error: BaseException | None = caught.value
        if isinstance(error, exceptions.BatchError):
            assert (error.stored, error.unknown) == ((), ())
            error = error.__cause__
        assert isinstance(error, exceptions.ConnectionError)
        assert not isinstance(error, exceptions.OutcomeUnknownError)
        assert CLOSED in str(error)
        for side, counts in store.stats().items():
            assert counts["connects"] == connects[side] or counts["size"] == 0
            assert counts["size"] == 0

    def test_what_asks_the_server_nothing_still_works(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        store = hskv.connect(hskv_server.url)
        lease = store.lease("closed")
        assert lease.acquire()
        store.close()
        store.close()
        store.client.close()
        assert store.client.drain(0.1)
        store.client.resume()
        store.client.purge()
        assert store.row_key("a") == b"a"
        assert lease.held
        assert {counts["size"] for counts in store.stats().values()} == {0}
        for derived in (store.namespace("x:"), store.reserved(b"I")):
            with pytest.raises(exceptions.ConnectionError, match=CLOSED):
                derived.get("a")

    def test_an_iterator_that_was_begun_says_so(
        self, hskv_server: PrivateServer, hskv_store: Store
    ) -> None:
        hskv_store.set_many({str(number): number for number in range(3000)})
        store = hskv.connect(hskv_server.url)
        for begun in (iter(store), iter(store.items()), store.scan(batch=1)):
            next(begun)
        store.close()
        with pytest.raises(exceptions.ConnectionError, match=CLOSED):
            list(begun)
