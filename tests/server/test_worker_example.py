"""examples/worker: the queue by itself, then whole processes that are killed."""

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from examples.worker.jobs import Jobs
from examples.worker.leader import write_status
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from ..conftest import Clock

ROOT = Path(__file__).parents[2]

Store = KeyValueStore[str, Any]


@pytest.fixture
def jobs(hskv_store: Store, clock: Clock) -> Jobs:
    return Jobs(hskv_store, visible_after=30.0, attempts=3, pause=1.0, clock=clock)


def test_jobs_are_claimed_in_their_order_and_once(jobs: Jobs) -> None:
    ids = [jobs.put(number) for number in range(3)]
    claims = [jobs.claim() for _ in range(4)]
    assert [claim and (claim.id, claim.task) for claim in claims] == [
        *zip(ids, range(3), strict=True),
        None,
    ]


def test_threads_that_claim_at_once_never_get_the_same_job(jobs: Jobs) -> None:
    ids = [jobs.put(number) for number in range(100)]

    def claim_all(_: int) -> list[str]:
        claimed = []
        while claim := jobs.claim():
            claimed.append(claim.id)
        return claimed

    with ThreadPoolExecutor(8) as threads:
        claimed = Counter(job for found in threads.map(claim_all, range(8)) for job in found)
    # A claim that lost a race goes on to the next job, so each was claimed by somebody.
    assert claimed == Counter(ids)


def test_a_job_whose_worker_died_comes_back(jobs: Jobs, clock: Clock) -> None:
    job = jobs.put("task")
    assert jobs.claim()
    clock.now += 29.9
    assert jobs.claim() is None
    clock.now += 0.2
    again = jobs.claim()
    assert again
    assert (again.id, again.row["attempts"]) == (job, 2)
    assert jobs.finish(again)
    clock.now += 100
    assert jobs.claim() is None


def test_a_claim_that_is_extended_lasts(jobs: Jobs, clock: Clock) -> None:
    jobs.put("task")
    claim = jobs.claim()
    assert claim
    for _ in range(3):
        clock.now += 20
        assert jobs.extend(claim)
        assert jobs.claim() is None


def test_a_job_that_fails_waits_longer_each_time_and_then_is_dead(jobs: Jobs, clock: Clock) -> None:
    job = jobs.put("task")
    for pause in (1.0, 2.0, 3.0):
        claim = jobs.claim()
        assert claim
        jobs.fail(claim, "no")
        clock.now += pause - 0.1
        assert jobs.claim() is None
        clock.now += 0.2
    assert jobs.claim() is None
    assert (jobs.dead[job]["task"], jobs.dead[job]["why"]) == ("task", "no")
    assert not jobs.waiting


def test_a_job_that_kills_its_workers_is_dead_too(jobs: Jobs, clock: Clock) -> None:
    job = jobs.put("task")
    for _ in range(3):
        assert jobs.claim()
        clock.now += 31
    assert jobs.claim() is None
    assert "died" in jobs.dead[job]["why"]
    assert not jobs.waiting


def test_a_dead_letter_is_put_back(jobs: Jobs, clock: Clock) -> None:
    job = jobs.put("task")
    for _ in range(4):
        jobs.claim()
        clock.now += 31
    assert jobs.revive(job)
    assert not jobs.revive(job)
    claim = jobs.claim()
    assert claim
    assert (claim.id, claim.task, claim.row["attempts"]) == (job, "task", 1)
    assert not jobs.dead


def test_a_stalled_worker_changes_nothing_of_who_took_over(jobs: Jobs, clock: Clock) -> None:
    jobs.put("task")
    stalled = jobs.claim()
    clock.now += 31
    present = jobs.claim()
    assert stalled
    assert present
    jobs.fail(stalled, "late")
    assert jobs.extend(stalled) is None
    assert jobs.waiting[present.id] == present.row
    # But what it has done is done.
    assert jobs.finish(stalled)
    assert not jobs.finish(present)
    assert jobs.extend(present) is None


def test_a_former_leader_writes_no_status(hskv_store: Store) -> None:
    assert write_status(hskv_store, {"fence": 2})
    assert write_status(hskv_store, {"fence": 2, "waiting": 1})
    assert not write_status(hskv_store, {"fence": 1})
    assert write_status(hskv_store, {"fence": 3})
    assert hskv_store["status"] == {"fence": 3}


@pytest.mark.timeout(120)
def test_workers_that_are_killed_lose_no_job(hskv_server: PrivateServer, hskv_store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.worker"],
        cwd=ROOT,
        env={**os.environ, "HSKV_URL": hskv_server.url},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "101 jobs wait for 4 workers" in done.stdout
    assert "which was in the middle of a job" in done.stdout
    assert "Killed the leader" in done.stdout
    assert "100 jobs have their result" in done.stdout
    assert "'ValueError: a number below zero', after 3 attempts" in done.stdout
    results = hskv_store.namespace("examples.worker:result:")
    assert len(results) == 100
    assert len({row["answer"] for row in results.values()}) == 100
    # The job at hand when its worker was killed was done by another.
    killed = int(done.stdout.split("Killed worker ")[1].split(",")[0])
    assert results[min(results)]["worker"] != killed
