"""Servers that die under load, and what a store does about it: 8 processes, 5 rounds of each.

The processes and the comparison with the table are those of tests/faults: nothing acknowledged
is lost, counters are exact but for what was reported as unknown, no lease is held twice.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

import hskv
from hskv.exceptions import HandlerSocketError
from hskv.mariadb import PrivateGalera, PrivateReplication
from hskv.mariadb.cluster import PrivateCluster
from hskv.mariadb.galera import GaleraNode

from ..faults.ledger import Crowd, Shift, Store, compare
from .traffic import arrives, eventually, keys

LINES_OF_LOG = 150
ROUNDS = 5
# Those that a store has unless it is told otherwise.
TIMES: dict[str, Any] = {"timeout": 5.0, "connect_timeout": 2.0}


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    crowd.close()


class Caller(threading.Thread):
    """Calls again and again; the longest time between two successes, and the errors."""

    def __init__(self, call: Callable[[int], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._ended = threading.Event()
        self.succeeded = 0
        self.errors: Counter[str] = Counter()
        self._gaps = [0.0]

    def run(self) -> None:
        last = time.monotonic()
        while not self._ended.is_set():
            try:
                self._call(self.succeeded)
            except HandlerSocketError as error:
                self.errors[type(error).__name__] += 1
                time.sleep(0.01)
                continue
            now = time.monotonic()
            self._gaps[-1] = max(self._gaps[-1], now - last)
            last = now
            self.succeeded += 1

    def next_round(self) -> None:
        """Measure the longest gap anew."""
        self._gaps.append(0.0)

    @property
    def gaps(self) -> list[float]:
        """The longest gap of each round."""
        return self._gaps[1:]

    def __enter__(self) -> Self:
        self.start()
        assert eventually(lambda: self.succeeded > 10)
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()


class Witness:
    """A store that writes, and one that reads from all servers, beside the crowd."""

    def __init__(self, cluster: PrivateCluster[Any]) -> None:
        self._writing: Store = hskv.connect(cluster.url, **TIMES)
        self._reading: Store = hskv.connect(cluster.url, read="replica", **TIMES)
        self._writing["there"] = "yes"
        for server in cluster.servers:
            assert arrives(server, "there", b"yes")
        self.acknowledged: list[str] = []
        self.writer, self.reader = Caller(self._write), Caller(self._read)

    def _write(self, number: int) -> None:
        key = f"witness:{number}"
        self._writing[key] = number
        self.acknowledged.append(key)

    def _read(self, number: int) -> None:
        assert self._reading["there"] == "yes"

    def __enter__(self) -> Self:
        self.writer.__enter__()
        self.reader.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.__exit__()
        self.reader.__exit__()
        self._writing.close()
        self._reading.close()

    def next_round(self) -> None:
        self.writer.next_round()
        self.reader.next_round()

    def wait_for_writes(self) -> None:
        wanted = self.writer.succeeded + 10
        assert eventually(lambda: self.writer.succeeded >= wanted, 20)

    def tell(self, what: str) -> None:
        writes, reads = (
            " ".join(f"{gap:.2f}" for gap in caller.gaps) for caller in (self.writer, self.reader)
        )
        print(f"{what}: writes stopped for {writes} s, reads for {reads} s in the rounds")
        for name, caller in (("writes", self.writer), ("reads", self.reader)):
            print(f"  {caller.succeeded:,} {name} one after another, errors {dict(caller.errors)}")


def outlived(
    cluster: PrivateCluster[Any],
    crowd: Crowd,
    place: Path,
    disaster: Callable[[], object],
    mend: Callable[[], object],
) -> Witness:
    """So many rounds of a disaster, after which all go on; and of its mending."""

    def empty() -> None:
        next(iter(cluster.running)).query("DELETE FROM hskv.kv")

    with (
        crowd.at_work(cluster.url, place, empty=empty, **TIMES) as shift,
        Witness(cluster) as witness,
    ):
        for _ in range(ROUNDS):
            time.sleep(random.uniform(0.3, 0.6))
            witness.next_round()
            disaster()
            wait_until_all_work(shift, cluster)
            witness.wait_for_writes()
            mend()
        back = time.monotonic()
        wait_until_all_work(shift, cluster)
    judge(cluster, shift, back, witness)
    return witness


def wait_until_all_work(shift: Shift, cluster: PrivateCluster[Any]) -> None:
    """As of the shift; what the servers said is told where not all do."""
    try:
        shift.wait_until_all_work()
    except AssertionError as error:
        for server in cluster.servers:
            error.add_note("\n".join([f"{server}:", *server.log.splitlines()[-LINES_OF_LOG:]]))
        raise


def judge(cluster: PrivateCluster[Any], shift: Shift, back: float, witness: Witness) -> None:
    store: Store
    with hskv.connect(cluster.url, **TIMES) as store:
        store["last"] = "yes"
        for server in cluster.servers:
            assert arrives(server, "last", b"yes")
            assert set(witness.acknowledged) <= keys(server)
        verdict = compare(shift.logs, store)
    print(
        f"{verdict.acknowledged:,} calls of 8 processes acknowledged, {verdict.unknown} unknown, "
        f"{len(verdict.lost)} lost, {len(verdict.doubled)} doubled, "
        f"{len(verdict.misread)} misread, errors {dict(verdict.errors)}"
    )
    assert verdict.lost == []
    assert verdict.doubled == []
    assert verdict.misread == []
    assert min(log.last_acknowledged for log in shift.logs) > back
    assert sum(len(log.turns) for log in shift.logs) > 0
    assert verdict.acknowledged > 100
    # Each round cuts off what was under way.
    assert verdict.unknown + sum(verdict.errors.values()) > 0


@pytest.mark.timeout(400)
def test_nothing_is_lost_where_the_primary_is_killed_and_a_replica_promoted(
    crowd: Crowd, tmp_path: Path
) -> None:
    with PrivateReplication(2) as cluster:

        def kill_and_promote() -> None:
            cluster.primary.kill()
            # As long as it takes somebody to notice.
            time.sleep(random.uniform(0.0, 0.5))
            cluster.promote()

        witness = outlived(cluster, crowd, tmp_path, kill_and_promote, cluster.start)
    witness.tell("primary killed and replica promoted")
    # The replicas are read from meanwhile, since they are new enough.
    assert max(witness.reader.gaps) < 2.0
    assert max(witness.writer.gaps) < 15.0


def written_to(cluster: PrivateGalera) -> GaleraNode:
    """The node by which most of the writes of now come."""

    def replicated() -> list[int]:
        return [int(node.status["wsrep_replicated"]) for node in cluster.nodes]

    before = replicated()
    time.sleep(0.5)
    growth = [after - count for after, count in zip(replicated(), before, strict=True)]
    return cluster.nodes[growth.index(max(growth))]


@pytest.mark.timeout(400)
def test_nothing_is_lost_where_the_node_that_is_written_to_is_killed(
    crowd: Crowd, tmp_path: Path
) -> None:
    with PrivateGalera() as cluster:
        witness = outlived(
            cluster, crowd, tmp_path, lambda: written_to(cluster).kill(), cluster.start
        )
    witness.tell("Galera node that is written to killed")
    assert max(witness.reader.gaps) < 2.0
    assert max(witness.writer.gaps) < 15.0
