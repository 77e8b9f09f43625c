"""Leases among processes and threads: exclusive, whoever stalls, stops, forks or dies."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import IO, Any, NamedTuple

import pytest

import hskv
from hskv import KeyValueStore, Lease
from hskv.exceptions import LeaseLostError
from hskv.mariadb import PrivateServer

from .test_exchange import Crowd

Store = KeyValueStore[str, Any]
Sql = Callable[..., tuple[tuple[Any, ...], ...]]

PROCESSES = 8
# What a busy machine may add to any wait.
SLOW_SECONDS = 10.0


class Race(NamedTuple):
    """What each process does; every `stall_every`-th turn it stalls past the end."""

    turns: int
    ttl: float
    stall_every: int = 0
    fence: bool = False


class Turn(NamedTuple):
    """One time that a process had the lease, in monotonic seconds, which all processes share."""

    began: float
    """Its acquire had returned."""
    trusted: float
    """The last time that it saw `held`."""
    let_go: float
    """It was about to release."""
    ended: float
    """Its release had returned."""
    lost: bool
    """The release said so."""
    read: int
    written: int | None
    """None where it found that it no longer held the lease, so that it did not write."""
    timely: bool
    """It still held the lease when its write had been answered."""
    fence: int | None


def take_turns(number: int, url: str, race: Race) -> list[Turn]:
    """Read a number, wait a little, and write the next one: the lease alone keeps others out."""
    chance = random.Random(number)
    with hskv.connect(url) as store:
        # One clock for all: no takeover has to wait for another's.
        lease = store.lease("race", race.ttl, max_skew=0, fence=race.fence, poll=0.002)
        turns = []
        for turn in range(race.turns):
            pause = chance.uniform(0, 0.001)
            if race.stall_every and turn % race.stall_every == number % race.stall_every:
                pause = race.ttl * chance.uniform(1.2, 1.8)
            turns.append(take_turn(store, lease, pause))
        return turns


def take_turn(store: Store, lease: Lease, pause: float) -> Turn:
    lease.acquire()
    began, fence, written = time.monotonic(), lease.fence, None
    read: int = store["number"]
    trusted = watched(lease, pause)
    if lease.held:
        written = read + 1
        store["number"] = written
    at, timely = time.monotonic(), lease.held
    let_go, lost = time.monotonic(), False
    try:
        lease.release()
    except LeaseLostError:
        lost = True
    ended = time.monotonic()
    return Turn(began, at if timely else trusted, let_go, ended, lost, read, written, timely, fence)


def watched(lease: Lease, seconds: float) -> float:
    """Let so much time pass; when `held` was true for the last time."""
    trusted, until = float("-inf"), time.monotonic() + seconds
    while (at := time.monotonic()) < until:
        if lease.held:
            trusted = at
        time.sleep(min(0.005, until - at))
    return trusted


def check_exclusive(turns: list[Turn]) -> None:
    """No two held it at once, and who was overtaken was told so."""
    # A machine may stop a process until its lease has ended, before it can say that it has it:
    # such a one never trusted it, and by its late word it would come behind who took over.
    holders = sorted(turn for turn in turns if turn.trusted >= turn.began)
    assert len(holders) > len(turns) / 2
    for before, after in pairwise(holders):
        assert before.trusted < after.began, "two of them held the lease at once"
        if after.began < before.let_go:
            assert before.lost, "a release did not see that another had taken over"


def check_no_update_was_lost(turns: list[Turn]) -> None:
    """Each turn read what the one before wrote, where both wrote while they held the lease."""
    writes = sorted(turn for turn in turns if turn.written is not None)
    # A machine may stop a process between its last look and its write: that one may do harm.
    late = [turn for turn in writes if not turn.timely]
    for before, after in pairwise(writes):
        if not any(one.began <= after.ended and one.ended >= before.began for one in late):
            assert after.read == before.written
    assert len(late) < len(writes) / 2


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    with Crowd() as crowd:
        yield crowd


class TestRaces:
    @pytest.mark.timeout(180)
    def test_2000_turns_of_8_processes_lose_no_update(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        hskv_store["number"] = 0
        parts = crowd(take_turns, hskv_server.url, Race(turns=250, ttl=0.5))
        turns = [turn for part in parts for turn in part]
        check_exclusive(turns)
        check_no_update_was_lost(turns)
        if all(turn.timely for turn in turns):
            assert hskv_store["number"] == len(turns) == 2_000

    @pytest.mark.timeout(180)
    @pytest.mark.parametrize("fence", [False, True])
    def test_holders_that_stall_past_the_end_are_overtaken_and_told_so(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer, fence: bool
    ) -> None:
        hskv_store["number"] = 0
        race = Race(turns=25, ttl=0.2, stall_every=25, fence=fence)
        turns = [turn for part in crowd(take_turns, hskv_server.url, race) for turn in part]
        check_exclusive(turns)
        check_no_update_was_lost(turns)
        assert any(turn.lost for turn in turns)
        assert any(turn.written is None for turn in turns)
        if fence:
            assert sorted(turn.fence or 0 for turn in turns) == list(range(1, len(turns) + 1))

    @pytest.mark.timeout(180)
    def test_2000_fences_of_8_processes_are_distinct_gapless_and_growing(
        self, crowd: Crowd, hskv_store: Store, hskv_server: PrivateServer
    ) -> None:
        parts = crowd(take_numbers, hskv_server.url, 250)
        assert sorted(number for part in parts for number in part) == list(range(1, 2_001))
        assert all(part == sorted(part) for part in parts)


def take_numbers(number: int, url: str, turns: int) -> list[int]:
    with hskv.connect(url) as store:
        lease = store.lease("numbers", ttl=30, fence=True, poll=0.002)
        numbers = []
        for _ in range(turns):
            with lease:
                assert lease.fence is not None
                numbers.append(lease.fence)
        return numbers


class TestThreads:
    def test_16_threads_that_share_one_lease_are_never_two_inside(self, hskv_store: Store) -> None:
        lease = hskv_store.lease("shared", ttl=60, poll=0.004)
        assert crowded([lease] * 16) == 0

    def test_16_threads_with_a_lease_each_are_never_two_inside(self, hskv_store: Store) -> None:
        leases = [hskv_store.lease("each", ttl=60, poll=0.004) for _ in range(16)]
        assert crowded(leases) == 0

    def test_a_shared_lease_is_refused_to_a_second_thread_while_a_first_has_it(
        self, hskv_store: Store
    ) -> None:
        lease = hskv_store.lease("second", ttl=60)
        lease.acquire()
        token = lease.token
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(lease.acquire, wait) for wait in (False, 0, 0.1, 0.2)]
            assert [one.result() for one in asked] == [False] * 4
        assert lease.token == token
        assert lease.held

    def test_a_thread_that_waits_gets_it_when_another_lets_go(self, hskv_store: Store) -> None:
        lease = hskv_store.lease("handed over", ttl=60, poll=0.01)
        lease.acquire()
        first = lease.token
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lease.acquire)
            time.sleep(0.1)
            assert not waiting.done()
            lease.release()
            assert waiting.result(SLOW_SECONDS)
        assert lease.held
        assert lease.token != first


def crowded(leases: list[Lease]) -> int:
    """How often a thread found another inside, in 20 turns of each."""
    start = threading.Barrier(len(leases))
    inside: list[Lease] = []

    def work(lease: Lease) -> int:
        met = 0
        start.wait()
        for _ in range(20):
            with lease:
                inside.append(lease)
                time.sleep(0)
                met += len(inside) - 1
                inside.pop()
        return met

    with ThreadPoolExecutor(len(leases)) as pool:
        return sum(pool.map(work, leases))


HOLDER = """
import os, sys, time
import hskv

store = hskv.connect(sys.argv[1])
lease = store.lease(sys.argv[2], **eval(sys.argv[3]))

def outcome(action):
    try:
        return action()
    except Exception as error:
        return type(error).__name__

def serve(questions, answers):
    for question in questions:
        print(eval(question), file=answers, flush=True)

def fork():
    if os.fork() == 0:
        serve(os.fdopen(int(sys.argv[4])), os.fdopen(int(sys.argv[5]), "w"))
        os._exit(0)

lease.acquire()
serve(sys.stdin, sys.stdout)
"""


class Holder:
    """Another process, which acquires a lease and then says what it is asked.

    After "fork()" its child does so too, until it is asked no more.
    """

    def __init__(self, url: str, name: str, **options: Any) -> None:
        theirs, child_questions = os.pipe()
        child_answers, also_theirs = os.pipe()
        command = [sys.executable, "-c", HOLDER, url, name, repr(options)]
        self.process = subprocess.Popen(
            [*command, str(theirs), str(also_theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(theirs, also_theirs),
            text=True,
        )
        os.close(theirs)
        os.close(also_theirs)
        assert self.process.stdin
        assert self.process.stdout
        self._own = (self.process.stdin, self.process.stdout)
        self._childs = (os.fdopen(child_questions, "w"), os.fdopen(child_answers))
        try:
            assert self.ask("lease.token is not None") == "True"
        except BaseException:
            self.end()
            raise

    def ask(self, question: str) -> str:
        return _answer(*self._own, question)

    def ask_child(self, question: str) -> str:
        return _answer(*self._childs, question)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        for pipe in (*self._own, *self._childs):
            pipe.close()


def _answer(questions: IO[str], answers: IO[str], question: str) -> str:
    print(question, file=questions, flush=True)
    return answers.readline().removesuffix("\n")


@pytest.fixture
def hold(hskv_server: PrivateServer) -> Iterator[Callable[..., Holder]]:
    """Starts another process that holds a lease."""
    holders: list[Holder] = []

    def start(name: str, **options: Any) -> Holder:
        holders.append(Holder(hskv_server.url, name, **options))
        return holders[-1]

    yield start
    for holder in holders:
        holder.end()


class TestStopped:
    def test_it_does_not_believe_that_it_still_holds(
        self, hskv_store: Store, hold: Callable[..., Holder]
    ) -> None:
        holder = hold("stopped", ttl=0.6, max_skew=0)
        holder.send(signal.SIGSTOP)
        other = hskv_store.lease("stopped", ttl=60, max_skew=0, poll=0.01)
        assert other.acquire(SLOW_SECONDS)
        holder.send(signal.SIGCONT)
        assert holder.ask("lease.held") == "False"
        assert holder.ask("outcome(lease.extend)") == "LeaseLostError"
        assert holder.ask("lease.held") == "False"
        assert holder.ask("outcome(lease.release)") == "LeaseLostError"
        assert other.held
        other.release()

    def test_where_nobody_took_it_over_it_may_go_on(
        self, hskv_store: Store, hold: Callable[..., Holder]
    ) -> None:
        holder = hold("went on", ttl=0.8, max_skew=0)
        holder.send(signal.SIGSTOP)
        time.sleep(0.9)
        holder.send(signal.SIGCONT)
        assert holder.ask("(lease.held, lease.extend(60), lease.held)") == "(False, None, True)"
        assert not hskv_store.lease("went on", max_skew=0).acquire(wait=False)
        assert holder.ask("lease.release()") == "None"

    def test_one_that_renews_finds_it_lost(
        self, hskv_store: Store, hold: Callable[..., Holder]
    ) -> None:
        holder = hold("stopped renewal", ttl=0.6, max_skew=0, renew=True)
        holder.send(signal.SIGSTOP)
        other = hskv_store.lease("stopped renewal", ttl=60, max_skew=0, poll=0.01)
        assert other.acquire(SLOW_SECONDS)
        holder.send(signal.SIGCONT)
        assert holder.ask("(time.sleep(0.5), lease.held)") == "(None, False)"
        assert holder.ask("outcome(lease.release)") == "LeaseLostError"
        assert other.held
        other.release()


class TestKilled:
    def test_it_delays_others_by_its_ttl_and_the_skew(
        self, hskv_store: Store, hold: Callable[..., Holder], run_sql: Sql
    ) -> None:
        holder = hold("killed", ttl=1.0, max_skew=0.5, renew=True)
        holder.kill()
        died = time.time()
        ((end,),) = run_sql("SELECT expires / 1000 FROM kv WHERE k LIKE '%%killed'")
        assert float(end) <= died + 1.0
        other = hskv_store.lease("killed", ttl=60, max_skew=0.5, poll=0.01)
        assert other.acquire()
        taken = time.time()
        assert float(end) + 0.5 <= taken < died + 1.5 + SLOW_SECONDS
        other.release()

    def test_a_forked_child_holds_nothing_and_does_not_renew(
        self, hskv_store: Store, hold: Callable[..., Holder]
    ) -> None:
        holder = hold("forked", ttl=1.5, max_skew=0, renew=True)
        holder.ask("fork()")
        assert holder.ask_child("(lease.held, lease.token, lease.fence)") == "(False, None, None)"
        assert holder.ask_child("outcome(lease.release)") == "RuntimeError"
        assert holder.ask_child("outcome(lease.extend)") == "RuntimeError"
        assert holder.ask_child("lease.acquire(wait=False)") == "False"
        holder.kill()
        other = hskv_store.lease("forked", ttl=60, max_skew=0, poll=0.01)
        assert other.acquire(SLOW_SECONDS)
        assert holder.ask_child("lease.held") == "False"
        assert other.held
        other.release()

    def test_a_forked_child_may_acquire_what_its_parent_releases(
        self, hskv_store: Store, hold: Callable[..., Holder]
    ) -> None:
        holder = hold("inherited", ttl=60, renew=True)
        holder.ask("fork()")
        assert holder.ask("lease.release()") == "None"
        assert holder.ask_child("(lease.acquire(), lease.held)") == "(True, True)"
        assert holder.ask("(lease.held, lease.acquire(wait=False))") == "(False, False)"
        assert holder.ask_child("lease.release()") == "None"
        assert not hskv_store.lease("inherited").locked()
