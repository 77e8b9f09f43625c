"""Who asks the servers, when, and what a request sees of it. No network."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.transport import health as health_module
from hskv.transport.checkup import Checkup
from hskv.transport.health import Health
from hskv.transport.pool import ChannelPool
from hskv.transport.servers import Servers

from .fake_channels import Server

WELL = Checkup(None)
PRIMARY = Checkup(None, primary=True)
ILL = Checkup("replication is stopped")


class Body:
    """A server that is asked, and says what a test has it say."""

    def __init__(self, says: Checkup = WELL) -> None:
        self.says = says
        self.asked = 0
        self.closed = 0
        self.hangs = False
        self.answers = threading.Event()
        self.answers.set()

    def examiner(self) -> "Examiner":
        return Examiner(self)


class Examiner:
    """Asks a body."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def __call__(self) -> Checkup:
        body = self._body
        if not body.answers.is_set():
            body.hangs = True
            body.answers.wait(10)
        body.asked += 1
        return body.says

    def close(self) -> None:
        self._body.closed += 1


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(health_module, "_SOON_SECONDS", 0.01)


@pytest.fixture
def bodies() -> list[Body]:
    return [Body(), Body(), Body()]


def health_from(bodies: list[Body], timeout: float = 5.0) -> Health:
    servers: list[Any] = [(f"server{n}", body.examiner) for n, body in enumerate(bodies)]
    return Health(servers, timeout)


@pytest.fixture
def health(bodies: list[Body]) -> Iterator[Health]:
    health = health_from(bodies)
    yield health
    health.close()
    for body in bodies:
        body.answers.set()
    # The next test counts threads.
    assert eventually(lambda: threads() == [])


def well(health: Health) -> tuple[int, ...]:
    return health.well(time.monotonic())


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("hskv health of")]


def all_known(health: Health) -> bool:
    return all(one.checkup is not health_module._NOT_ASKED for one in health._patients)


def test_nobody_is_asked_before_the_first_request(health: Health, bodies: list[Body]) -> None:
    assert threads() == []
    assert repr(health) == "<Health, 0 of 3 servers well>"
    assert well(health)
    assert eventually(lambda: well(health) == (0, 1, 2))
    assert sorted(one.name for one in threads()) == [f"hskv health of server{n}" for n in range(3)]
    assert all(one.daemon for one in threads())


def test_each_is_asked_again_and_again_and_a_request_asks_nobody(
    health: Health, bodies: list[Body]
) -> None:
    assert eventually(lambda: well(health) == (0, 1, 2))
    bodies[1].says = ILL
    assert eventually(lambda: well(health) == (0, 2))
    assert health.troubles() == {"server1": "replication is stopped"}
    bodies[1].says = WELL
    assert eventually(lambda: well(health) == (0, 1, 2))
    assert health.troubles() == {}
    assert len(threads()) == 3


def test_the_first_request_waits_for_one_that_is_well_and_not_for_those_that_hang(
    health: Health, bodies: list[Body]
) -> None:
    bodies[0].answers.clear()
    bodies[2].answers.clear()
    assert well(health) == (1,)
    assert health.troubles() == dict.fromkeys(
        ("server0", "server2"), "it has not answered by SQL yet"
    )


def test_the_first_request_waits_for_all_where_the_first_answers_are_bad(
    health: Health, bodies: list[Body]
) -> None:
    bodies[0].says = bodies[1].says = ILL
    bodies[2].answers.clear()
    threading.Timer(0.1, bodies[2].answers.set).start()
    assert well(health) == (2,)


def test_where_none_is_well_the_error_names_the_trouble_of_each(
    health: Health, bodies: list[Body]
) -> None:
    bodies[0].says = bodies[1].says = ILL
    bodies[2].says = Checkup("SQL failed: refused")
    with pytest.raises(HskvConnectionError, match=r"server0: replication is stopped; server1:.*; "):
        well(health)
    with pytest.raises(HskvConnectionError, match="server2: SQL failed: refused"):
        well(health)
    bodies[2].says = WELL
    assert eventually(lambda: health._known[0] == (2,))
    assert well(health) == (2,)


def test_where_none_answers_the_request_waits_no_longer_than_its_timeout(
    bodies: list[Body],
) -> None:
    for body in bodies:
        body.answers.clear()
    health = health_from(bodies, timeout=0.1)
    began = time.monotonic()
    with pytest.raises(HskvConnectionError, match="it has not answered by SQL yet"):
        well(health)
    assert 0.1 <= time.monotonic() - began < 5
    health.close()
    for body in bodies:
        body.answers.set()


def test_primaries_are_those_that_take_writes(health: Health, bodies: list[Body]) -> None:
    bodies[1].says = PRIMARY
    well(health)
    assert eventually(lambda: health.primaries(time.monotonic()) == (1,))


def test_an_answer_that_has_become_old_is_not_believed(
    health: Health, bodies: list[Body], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "_TRUSTED_SECONDS", 0.2)
    assert eventually(lambda: well(health) == (0, 1, 2))
    bodies[0].answers.clear()
    assert eventually(lambda: well(health) == (1, 2))
    assert health.troubles() == {"server0": "it has not answered by SQL any more"}


def test_what_a_process_knew_before_it_was_suspended_is_not_believed(
    health: Health, bodies: list[Body], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert eventually(lambda: well(health) == (0, 1, 2))
    for body in bodies:
        body.answers.clear()
    assert eventually(lambda: all(body.hangs for body in bodies))
    health._timeout = 0.1
    an_hour_later = time.monotonic() + 3600.0
    monkeypatch.setattr(health_module, "monotonic", lambda: an_hour_later)
    with pytest.raises(HskvConnectionError, match="it has not answered by SQL any more"):
        health.well(an_hour_later)


def test_the_threads_end_with_it(bodies: list[Body]) -> None:
    health = health_from(bodies)
    well(health)
    assert eventually(lambda: all_known(health))
    health.close()
    assert eventually(lambda: threads() == [])
    health.close()
    assert all(body.closed for body in bodies)
    # Whoever asks on learns from the pools that they are closed.
    assert well(health) == (0, 1, 2)
    assert threads() == []


def test_closing_it_ends_the_wait_of_a_request(bodies: list[Body]) -> None:
    for body in bodies:
        body.answers.clear()
    health = health_from(bodies, timeout=30.0)
    seen: list[tuple[int, ...]] = []
    request = threading.Thread(target=lambda: seen.append(well(health)))
    request.start()
    assert eventually(lambda: all(body.hangs for body in bodies))
    health.close()
    request.join(10)
    assert seen == [(0, 1, 2)]
    for body in bodies:
        body.answers.set()
    assert eventually(lambda: threads() == [])


def test_one_that_was_closed_is_so_in_a_forked_child(health: Health) -> None:
    health.close()
    health.after_fork()
    assert well(health) == (0, 1, 2)
    assert threads() == []


def test_the_threads_end_when_it_is_gone(bodies: list[Body]) -> None:
    health = health_from(bodies)
    well(health)
    del health
    gc.collect()
    assert eventually(lambda: threads() == [])


def test_the_threads_end_when_nobody_asks_and_begin_anew(
    health: Health, bodies: list[Body], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(health_module, "_UNUSED_SECONDS", 0.1)
        assert eventually(lambda: well(health) == (0, 1, 2))
        assert eventually(lambda: threads() == [])
    bodies[0].says = ILL
    assert 0 not in well(health), "what was said before they ended is not believed"
    assert eventually(lambda: well(health) == (1, 2))
    assert len(threads()) == 3


def test_a_server_that_is_not_asked_any_more_is_not_trusted_while_others_are(
    health: Health, bodies: list[Body]
) -> None:
    assert eventually(lambda: well(health) == (0, 1, 2))
    bodies[1].answers.clear()
    ended = health._patients[1]
    assert ended.examiner
    health._end(ended, ended.examiner)
    assert well(health) == (0, 2)
    bodies[1].answers.set()
    assert eventually(lambda: well(health) == (0, 1, 2))
    assert eventually(lambda: len(threads()) == 3)


def test_a_request_never_sees_that_none_is_well(
    bodies: list[Body], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks without the lock while a thread writes down what it learned."""
    health = health_from(bodies)
    monkeypatch.setattr(health, "_first_known", lambda now: (-1,))
    seen: set[tuple[int, ...]] = set()

    def look(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code is Health._decide.__code__:
            seen.add(well(health))
            return look
        return None

    before = sys.gettrace()
    for says in (WELL, ILL, WELL):
        for patient in health._patients:
            patient.checkup, patient.trusted_until = says, time.monotonic() + 60
        sys.settrace(look)
        try:
            health._decide(time.monotonic())
        finally:
            sys.settrace(before)
    assert seen == {(0, 1, 2), (-1,)}


class Broken(logging.Handler):
    """A handler that fails."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("no space left")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_ends_a_thread_the_next_request_begins_another() -> None:
    body = Body()
    health = health_from([body])
    assert well(health) == (0,)
    (first,) = threads()
    logger, handler = logging.getLogger("hskv"), Broken()
    logger.addHandler(handler)
    try:
        body.says = ILL
        assert eventually(lambda: not first.is_alive())
    finally:
        logger.removeHandler(handler)
    body.says = WELL
    assert well(health) == (0,)
    assert first not in threads()
    health.close()
    assert eventually(lambda: threads() == [])
    assert body.closed == 2


def test_who_has_too_many_threads_is_told_and_may_try_again(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            well(health)
    assert well(health)
    assert eventually(lambda: len(threads()) == 3)


def test_a_thread_goes_on_though_no_other_can_be_started(
    health: Health, bodies: list[Body], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert eventually(lambda: well(health) == (0, 1, 2))
    ended = health._patients[1]
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert ended.examiner
        health._end(ended, ended.examiner)
        asked = [body.asked for body in bodies]
        assert eventually(lambda: bodies[0].asked > asked[0] + 3)
        assert eventually(lambda: bodies[2].asked > asked[2] + 3)
        assert well(health) == (0, 2)
    assert eventually(lambda: well(health) == (0, 1, 2))


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_child_begins_anew(health: Health, bodies: list[Body]) -> None:
    well(health)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            bodies[0].says = ILL
            before = (len(threads()), health._known[0])
            os.write(write, repr((before, well(health)[0] != 0)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"((0, ()), True)"
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("closed", [False, True])
def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_had(
    health: Health, closed: bool
) -> None:
    if closed:
        health.close()
    # As it is while a thread begins to wait.
    with health._closed._cond:  # type: ignore[attr-defined]
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(5)
            same = health._closed.is_set() is closed
            health.close()
            os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_greenlet_that_lives_on_in_a_child_asks_no_more(
    health: Health, bodies: list[Body]
) -> None:
    assert eventually(lambda: well(health) == (0, 1, 2))
    old = threads()
    health.after_fork()
    assert eventually(lambda: not any(one.is_alive() for one in old))
    assert well(health)


def test_what_it_learns_there_is_not_heeded(bodies: list[Body]) -> None:
    body = bodies[0]
    body.answers.clear()
    health = health_from([body], timeout=0.05)
    with pytest.raises(HskvConnectionError):
        well(health)
    assert eventually(lambda: body.hangs)
    (old,) = threads()
    health.after_fork()
    body.answers.set()
    assert eventually(lambda: not old.is_alive())
    assert not all_known(health)
    health.close()


def test_what_changes_is_logged_once(
    health: Health, bodies: list[Body], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hskv")
    assert eventually(lambda: well(health) == (0, 1, 2))
    bodies[1].says = ILL
    assert eventually(lambda: well(health) == (0, 2))
    asked = bodies[1].asked
    assert eventually(lambda: bodies[1].asked > asked + 3)
    bodies[1].says = WELL
    assert eventually(lambda: "may be read" in caplog.text)
    assert [record.getMessage() for record in caplog.records] == [
        "server1 is not read from: replication is stopped",
        "server1 may be read from again",
    ]


class TestServers:
    """Only those that are well are used."""

    @pytest.fixture
    def servers(self, health: Health) -> Servers[Any]:
        self.fakes = [Server() for _ in range(3)]
        self.pools = [ChannelPool(fake.connect, size=4, timeout=0.02) for fake in self.fakes]
        return Servers[Any](self.pools, health)

    def asked(self, servers: Servers[Any], times: int = 30) -> set[int]:
        numbers = set()
        for _ in range(times):
            channel: Any = servers.acquire()
            numbers.add(self.pools.index(channel.holder))
            servers.release(channel)
        return numbers

    def test_a_server_in_trouble_gets_no_request_though_it_answers(
        self, servers: Servers[Any], health: Health, bodies: list[Body]
    ) -> None:
        assert eventually(lambda: self.asked(servers) == {0, 1, 2})
        bodies[2].says = ILL
        assert eventually(lambda: health._known[0] == (0, 1))
        assert self.asked(servers) == {0, 1}
        bodies[2].says = WELL
        assert eventually(lambda: self.asked(servers) == {0, 1, 2})

    def test_one_that_is_set_aside_is_not_tried_while_it_is_in_trouble(
        self, servers: Servers[Any], health: Health, bodies: list[Body]
    ) -> None:
        assert eventually(lambda: self.asked(servers) == {0, 1, 2})
        bodies[0].says = bodies[1].says = ILL
        assert eventually(lambda: health._known[0] == (2,))
        self.pools[2].drop_idle()
        self.fakes[2].down = True
        with pytest.raises(HskvConnectionError, match="refused"):
            servers.acquire()
        self.fakes[2].down = False
        assert self.asked(servers) == {2}

    def test_closing_them_ends_the_questions(self, servers: Servers[Any]) -> None:
        self.asked(servers)
        servers.close()
        assert eventually(lambda: threads() == [])
        with pytest.raises(HskvConnectionError, match="closed"):
            servers.acquire()
