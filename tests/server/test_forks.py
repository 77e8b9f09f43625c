"""One store on both sides of a fork, on the real server: whose sockets, whose answers."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import hskv
from hskv import Client, KeyValueStore
from hskv.mariadb import PrivateServer

# Of Python 3.12 and later: the thread that keeps the server makes every fork here suspect.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

Store = KeyValueStore[str, Any]

CHILD_SECONDS = 10


class Child:
    """A forked child that calls `work` and may take so long; its answer comes over a pipe."""

    def __init__(self, work: Callable[[], Any], seconds: int = CHILD_SECONDS) -> None:
        self._seconds = seconds
        self._pipe, writer = multiprocessing.Pipe(duplex=False)
        self.pid = os.fork()
        if self.pid == 0:
            self._work(work, writer)
        writer.close()

    def _work(self, work: Callable[[], Any], pipe: Connection) -> None:
        with suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(self._seconds)
            sys.setswitchinterval(0.005)
            try:
                answer = (True, work())
            except BaseException:  # noqa: BLE001 the parent shall see it, whatever it is
                answer = (False, traceback.format_exc())
            pipe.send_bytes(pickle.dumps(answer))
        os._exit(0)

    def result(self) -> Any:
        try:
            assert self._pipe.poll(self._seconds + 1), "the child is still at work"
            worked, answer = pickle.loads(self._pipe.recv_bytes())
        except EOFError:
            pytest.fail("the child was still at work")
        finally:
            self._pipe.close()
            # One that hangs in what runs at the fork itself has no alarm yet.
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        assert worked, answer
        return answer


def use(store: Store, name: str, turns: int = 60) -> list[int]:
    """Write and read keys of one's own, and count with everyone else; the numbers counted."""
    counted = []
    for turn in range(turns):
        key = f"{name}:{turn}"
        store[key] = f"the value of {key}"
        assert store[key] == f"the value of {key}"
        counted.append(store.incr("n"))
    values = store.get_many([f"{name}:{turn}" for turn in range(turns)])
    assert values == {key: f"the value of {key}" for key in values}
    assert len(values) == turns
    return counted


def connects(store: Store) -> dict[str, int]:
    return {side: counts["connects"] for side, counts in store.client.stats().items()}


def settle(store: Store) -> None:
    """Wait until reads have channels: on a cluster they go by SQL until its health is known."""
    eventually(lambda: store.get("n", 0) >= 0 and connects(store)["read"] > 0)


def sockets() -> set[str]:
    """The sockets that this process holds, by a name that a forked child sees too."""
    names = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            names.add(str(descriptor.readlink()))
    return {name for name in names if name.startswith("socket:")}


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def frozen(server: PrivateServer) -> Iterator[None]:
    """No thread of the server does anything meanwhile."""
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    try:
        stats = [task / "stat" for task in Path(f"/proc/{server.pid}/task").iterdir()]
        eventually(lambda: {s.read_text().rpartition(") ")[2][0] for s in stats} == {"T"})
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextmanager
def all_in_mid_request(store: Store, server: PrivateServer, count: int = 4) -> Iterator[list[int]]:
    """Meanwhile so many threads read and as many count, each on a channel of its own.

    The numbers counted are given, once the threads have ended.
    """
    seen: list[int] = []
    for number in range(count):
        store[f"mid:{number}"] = number
    settle(store)
    before = store.get("n", 0)
    with ThreadPoolExecutor(2 * count) as threads:
        with frozen(server):
            reads = [threads.submit(store.get, f"mid:{number}") for number in range(count)]
            writes = [threads.submit(store.incr, "n") for _ in range(count)]
            sides = store.client.stats
            eventually(lambda: {(s["size"], s["idle"]) for s in sides().values()} == {(count, 0)})
            yield seen
        assert [read.result(10) for read in reads] == list(range(count))
        seen += [write.result(10) for write in writes]
        assert len(set(seen)) == count
        assert min(seen) > before


@pytest.fixture
def crowded(hskv_server: PrivateServer, hskv_store: Store) -> Iterator[Store]:
    """A store that has opened four channels to each port."""
    # Logins, and in some modes the health of servers, are not given up while a server is frozen.
    with hskv.connect(hskv_server.url, pool_size=4, connect_timeout=30) as store:
        with all_in_mid_request(store, hskv_server):
            pass
        yield store


def test_four_forked_workers_and_their_parent_use_one_store_at_once(hskv_store: Store) -> None:
    counted = use(hskv_store, "early", 10)
    settle(hskv_store)
    opened = connects(hskv_store)
    everyone = multiprocessing.get_context("fork").Barrier(5)

    def work(name: str) -> list[int]:
        everyone.wait(CHILD_SECONDS)
        return use(hskv_store, name)

    workers = [Child(partial(work, f"worker{number}")) for number in range(4)]
    counted += work("parent")
    for worker in workers:
        counted += worker.result()
    assert sorted(counted) == list(range(1, 311))
    assert hskv_store["n"] == 310
    assert len(hskv_store) == 311
    assert connects(hskv_store) == opened, "the parent went on with the channels it had"


def test_a_child_that_uses_and_closes_the_store_leaves_its_parents_idle_channels_alive(
    crowded: Store, hskv_server: PrivateServer
) -> None:
    before = crowded.client.stats()
    assert {side["idle"] for side in before.values()} == {4}

    def use_and_close() -> list[int]:
        counted = use(crowded, "child", 5)
        crowded.close()
        return counted

    assert Child(use_and_close).result() == [5, 6, 7, 8, 9]
    with all_in_mid_request(crowded, hskv_server):
        pass
    assert crowded.client.stats() == before, "each of the eight sockets answered again"


def test_channels_idle_for_long_enough_to_be_looked_at_first_are_found_alive_after_a_fork(
    crowded: Store, hskv_server: PrivateServer
) -> None:
    opened = connects(crowded)
    assert Child(partial(use, crowded, "child", 5)).result() == [5, 6, 7, 8, 9]
    time.sleep(1.1)
    with all_in_mid_request(crowded, hskv_server):
        pass
    assert connects(crowded) == opened


@pytest.mark.handlersocket("it counts the channels of two ports")
def test_a_child_keeps_no_copy_of_the_channels(hskv_server: PrivateServer) -> None:
    others = sockets()
    with hskv.connect(hskv_server.url, pool_size=4) as store:
        with all_in_mid_request(store, hskv_server):
            pass
        channels = sockets() - others
        assert len(channels) == 8
        with all_in_mid_request(store, hskv_server):
            in_use = Child(lambda: sockets() & channels)
        idle = Child(lambda: sockets() & channels)
        assert in_use.result() == idle.result() == set()
        assert sockets() - others == channels


def test_a_child_keeps_no_copy_of_a_channel_that_was_being_connected(
    hskv_server: PrivateServer,
) -> None:
    others = sockets()
    with hskv.connect(hskv_server.url) as store, ThreadPoolExecutor(1) as thread:
        with frozen(hskv_server):
            answer = thread.submit(store.get, "missing", "nothing")
            eventually(lambda: len(sockets() - others) == 1)
            # For the socket to be connected, and the login sent.
            time.sleep(0.05)
            connecting = sockets() - others
            child = Child(lambda: sockets() & connecting)
        assert answer.result(10) == "nothing"
        assert child.result() == set()


def test_threads_in_mid_request_at_a_fork_get_their_own_answers_and_so_does_the_child(
    crowded: Store, hskv_server: PrivateServer
) -> None:
    opened = connects(crowded)
    with all_in_mid_request(crowded, hskv_server) as in_parent:
        child = Child(partial(use, crowded, "child", 20))
    assert sorted(child.result() + in_parent) == list(range(5, 29))
    assert crowded["n"] == 28
    assert connects(crowded) == opened


@pytest.fixture
def eager_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@contextmanager
def busy_threads(work: Callable[[], object]) -> Iterator[None]:
    """Eight threads repeat `work` meanwhile."""
    stop = threading.Event()

    def repeat() -> None:
        # coverage's tracer holds a lock now and then, which it does not renew in a child.
        sys.settrace(None)
        while not stop.is_set():
            work()

    with ThreadPoolExecutor(8) as pool:
        threads = [pool.submit(repeat) for _ in range(8)]
        try:
            yield
        finally:
            stop.set()
        for thread in threads:
            thread.result(10)


@pytest.mark.usefixtures("eager_threads")
def test_forks_at_any_moment_of_busy_threads_leave_every_answer_right(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    counted: list[int] = []

    def work() -> None:
        counted.append(store.incr("n"))
        for _ in range(10):
            assert store["same"] == "value"

    with hskv.connect(hskv_server.url, pool_size=4) as store:
        store["same"] = "value"
        with busy_threads(work):
            for number in range(40):
                in_child = Child(partial(use, store, f"child{number}", 1), seconds=5).result()
                counted += in_child
        assert sorted(counted) == list(range(1, store["n"] + 1))
        for side in store.client.stats().values():
            assert side["size"] == side["idle"] == side["connects"] <= 4


@pytest.mark.handlersocket("its readers are one server")
@pytest.mark.usefixtures("eager_threads")
@pytest.mark.handlersocket("several readers by SQL are replicas, whose health is asked")
def test_forks_at_any_moment_of_busy_threads_leave_a_client_of_several_readers_usable(
    hskv_store: Store,
) -> None:
    hskv_store["same"] = "value"
    settings = hskv_store.client.settings
    with Client.from_settings(replace(settings, readers=settings.readers * 3)) as client:
        store: Store = KeyValueStore(client)
        with busy_threads(lambda: store["same"]):
            for _ in range(40):
                assert Child(lambda: store["same"], seconds=3).result() == "value"


def test_a_thread_may_fork(crowded: Store) -> None:
    opened = connects(crowded)
    with ThreadPoolExecutor(2) as threads:
        children = list(threads.map(lambda n: Child(partial(use, crowded, f"child{n}")), range(2)))
    counted = sorted(number for child in children for number in child.result())
    assert counted == list(range(5, 125))
    assert crowded["n"] == 124
    assert connects(crowded) == opened


def test_a_child_of_a_child_uses_the_store_while_both_its_elders_do(hskv_store: Store) -> None:
    use(hskv_store, "parent", 5)
    settle(hskv_store)
    opened = connects(hskv_store)

    def have_a_child() -> tuple[list[int], dict[str, int]]:
        counted = use(hskv_store, "child", 5)
        settle(hskv_store)
        own = connects(hskv_store)
        grandchild = Child(partial(use, hskv_store, "grandchild"))
        counted += use(hskv_store, "child")
        counted += grandchild.result()
        return counted, {side: count - own[side] for side, count in connects(hskv_store).items()}

    child = Child(have_a_child)
    counted = use(hskv_store, "parent")
    in_child, more = child.result()
    assert sorted(counted + in_child) == list(range(6, 191))
    assert more == {"read": 0, "write": 0}
    assert connects(hskv_store) == opened


def test_parent_and_children_never_give_two_writes_the_same_version(
    hskv_store: Store, run_sql: Callable[..., tuple[tuple[Any, ...], ...]]
) -> None:
    def write(name: str) -> None:
        hskv_store.set_many({f"{name}:{turn}": turn for turn in range(50)})

    for child in [Child(partial(write, f"child{number}")) for number in range(4)]:
        child.result()
    write("parent")
    assert run_sql("SELECT COUNT(DISTINCT version) FROM kv") == ((250,),)


def test_a_child_forked_while_the_client_is_drained_opens_nothing_until_it_resumes_itself(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    with hskv.connect(hskv_server.url, pool_timeout=0.2) as store:
        store["a"] = 1
        assert store["a"] == 1
        assert store.client.drain()

        def resume() -> tuple[int, int]:
            for request in (store.get, store.incr):
                with pytest.raises(hskv.PoolTimeoutError, match="stayed drained"):
                    request("a")
            store.client.resume()
            return store["a"], store.incr("a")

        assert Child(resume).result() == (1, 2)
        with pytest.raises(hskv.PoolTimeoutError, match="stayed drained"):
            store.get("a")
        assert {side["size"] for side in store.client.stats().values()} == {0}
        store.client.resume()
        assert store["a"] == 2


@pytest.mark.handlersocket("by SQL writes wait for the connections of reads, and are refused")
def test_a_fork_while_a_drain_waits_for_requests_delays_neither_side(
    crowded: Store, hskv_server: PrivateServer
) -> None:
    def use_after_resume() -> list[int]:
        crowded.client.resume()
        return use(crowded, "child", 5)

    with ThreadPoolExecutor(1) as thread:
        with all_in_mid_request(crowded, hskv_server):
            drained = thread.submit(crowded.client.drain, 5.0, refuse=True)
            eventually(lambda: refuses(crowded))
            child = Child(use_after_resume)
        assert drained.result(10)
    assert len(child.result()) == 5
    assert {side["size"] for side in crowded.client.stats().values()} == {0}
    crowded.client.resume()
    assert crowded["n"] == 13


def refuses(store: Store) -> bool:
    try:
        store.get("a")
    except hskv.PoolTimeoutError as error:
        return "is drained" in str(error)
    return False


def report(store: Store, name: str, turns: int, pipe: Connection) -> None:
    with store, pipe:
        pipe.send(use(store, name, turns))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_store_is_an_argument_of_processes(
    method: str,
    hskv_server: PrivateServer,
    hskv_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A fresh process imports this module by its name, wherever pytest was started from.
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    context: Any = multiprocessing.get_context(method)
    with hskv.connect(hskv_server.url, prefix="shared:", pool_size=2) as store:
        counted = use(store, "parent", 5)
        settle(store)
        opened = connects(store)
        pipes, processes = [], []
        for number in range(2):
            receiver, sender = multiprocessing.Pipe(duplex=False)
            pipes.append(receiver)
            arguments = (store, f"process{number}", 60, sender)
            processes.append(context.Process(target=report, args=arguments, daemon=True))
        try:
            for process in processes:
                process.start()
            counted += use(store, "parent")
            for pipe in pipes:
                assert pipe.poll(20)
                counted += pipe.recv()
            for process in processes:
                process.join(10)
                assert process.exitcode == 0
        finally:
            for process in processes:
                process.kill()
        assert sorted(counted) == list(range(1, 186))
        assert connects(store) == opened
    assert hskv_store["shared:n"] == 185
