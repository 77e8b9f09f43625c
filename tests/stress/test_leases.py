"""Long races for one lease: `make stress`."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from ..server.test_lease_races import (
    PROCESSES,
    Holder,
    Race,
    Turn,
    check_exclusive,
    check_no_update_was_lost,
    take_numbers,
    take_turns,
)

Store = KeyValueStore[str, Any]


def raced(url: str, race: Race) -> list[Turn]:
    """The turns of all processes."""
    with hskv.connect(url) as store:
        store["number"] = 0
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(take_turns, number, url, race) for number in range(PROCESSES)]
        return [turn for future in futures for turn in future.result(timeout=800)]


@pytest.mark.timeout(900)
def test_24000_turns_of_8_processes_lose_no_update(
    hskv_store: Store, hskv_server: PrivateServer
) -> None:
    turns = raced(hskv_server.url, Race(turns=3_000, ttl=0.4))
    check_exclusive(turns)
    check_no_update_was_lost(turns)
    if all(turn.timely for turn in turns):
        assert hskv_store["number"] == len(turns) == 24_000


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fence", [False, True])
def test_24000_turns_with_holders_that_stall_past_the_end(
    hskv_store: Store, hskv_server: PrivateServer, fence: bool
) -> None:
    turns = raced(hskv_server.url, Race(turns=3_000, ttl=0.2, stall_every=50, fence=fence))
    check_exclusive(turns)
    check_no_update_was_lost(turns)
    assert sum(turn.lost for turn in turns) > 300
    if fence:
        assert sorted(turn.fence or 0 for turn in turns) == list(range(1, 24_001))


@pytest.mark.timeout(900)
def test_40000_fences_are_distinct_and_gapless(
    hskv_store: Store, hskv_server: PrivateServer
) -> None:
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        futures = [
            pool.submit(take_numbers, number, hskv_server.url, 5_000) for number in range(PROCESSES)
        ]
        numbers = [number for future in futures for number in future.result(timeout=800)]
    assert sorted(numbers) == list(range(1, 40_001))


@pytest.mark.timeout(300)
def test_50_holders_that_are_killed_or_stopped_one_after_another_hand_it_on(
    hskv_store: Store, hskv_server: PrivateServer
) -> None:
    for turn in range(1, 51):
        with holder(hskv_server.url) as one:
            assert one.ask("lease.fence") == str(turn)
            one.send(signal.SIGKILL if turn % 2 else signal.SIGSTOP)


@contextmanager
def holder(url: str) -> Iterator[Holder]:
    one = Holder(url, "handed on", ttl=0.5, max_skew=0.1, renew=True, fence=True, poll=0.01)
    try:
        yield one
    finally:
        one.end()
