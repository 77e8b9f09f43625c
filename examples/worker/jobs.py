"""A queue of jobs in a store, from which a killed worker loses none.

A job is one row, which stays until the job is done. To claim it is to move its `due` into the
future by one compare-and-set: the job is hidden from the others for so long, and comes back by
itself when its worker dies. A claim counts as an attempt, so that a job that kills its workers
ends among the dead letters, too. A job may so be run twice, and what it does must bear that.

`due` is by the clocks of the workers: keep them in step (NTP).
"""

import os
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from hskv import KeyValueStore

# A page of the queue: about as many rows as there are workers busy at its head.
PAGE_ROWS: Final = 32


class Claim(NamedTuple):
    """A job that a worker has for now: the row's key and value as they are in the table."""

    id: str
    row: dict[str, Any]

    @property
    def task(self) -> Any:
        """What was put into the queue."""
        return self.row["task"]


class Jobs:
    """A queue under `prefix` of a store; its dead letters are beside it.

    A claim lasts `visible_after` seconds, unless it is extended; the attempt number n that fails
    is made up for after n times `pause` seconds, and the last of `attempts` makes a dead letter.
    """

    def __init__(
        self,
        store: KeyValueStore[str, Any],
        prefix: str = "jobs:",
        *,
        visible_after: float = 30.0,
        attempts: int = 5,
        pause: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.waiting = store.namespace(f"{prefix}waiting:")
        self.dead = store.namespace(f"{prefix}dead:")
        self.visible_after = visible_after
        self.attempts = attempts
        self._pause = pause
        self._clock = clock

    def put(self, task: Any) -> str:
        """Append a job; its id. Two round trips."""
        # The queue goes by keys: this one sorts behind those of earlier jobs.
        job = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self.waiting.add(job, {"task": task, "attempts": 0, "due": 0.0})
        return job

    def claim(self) -> Claim | None:
        """The first job that is due, for this worker alone; None where there is none.

        Looks through the jobs at the head that others have, a page of them a round trip; two more
        for the claim.
        """
        for job, row in self.waiting.scan(batch=PAGE_ROWS):
            if row["due"] <= self._clock() and (claim := self._claimed(job)):
                return claim
        return None

    def extend(self, claim: Claim) -> Claim | None:
        """Keep a job for `visible_after` more seconds from now; None where it was lost."""
        return self._changed(claim, due=self._clock() + self.visible_after)

    def finish(self, claim: Claim) -> bool:
        """Remove a job that is done; True where it was still there.

        Though the claim was lost meanwhile: done is done, and who has it now need not repeat it.
        """
        return self.waiting.delete(claim.id)

    def fail(self, claim: Claim, why: str) -> None:
        """Have a job tried again later, or make it a dead letter after its last attempt."""
        attempts = claim.row["attempts"]
        failed = self._changed(claim, due=self._clock() + self._pause * attempts, why=why)
        if failed and attempts >= self.attempts:
            self._bury(failed)

    def revive(self, job: str) -> bool:
        """Put a dead letter back, with all its attempts; True where there was one."""
        row = self.dead.get(job)
        if row is None:
            return False
        self.waiting.add(job, {"task": row["task"], "attempts": 0, "due": 0.0})
        return self.dead.delete(job)

    def _claimed(self, job: str) -> Claim | None:
        try:
            row, version = self.waiting.get_versioned(job)
        except KeyError:
            return None
        if row["due"] > self._clock():
            return None
        # The token tells one claim from another, where a worker was stalled past its end.
        token, due = secrets.token_hex(8), self._clock() + self.visible_after
        row = {**row, "attempts": row["attempts"] + 1, "due": due, "token": token}
        row["worker"] = os.getpid()
        if not self.waiting.compare_and_set(job, row, version):
            return None
        claim = Claim(job, row)
        if row["attempts"] > self.attempts:
            self._bury(claim)
            return None
        return claim

    def _changed(self, claim: Claim, **changes: Any) -> Claim | None:
        """The claim with its row changed, where the job is still this worker's."""
        try:
            row, version = self.waiting.get_versioned(claim.id)
        except KeyError:
            return None
        if row.get("token") != claim.row["token"]:
            return None
        row = {**row, **changes}
        stored = self.waiting.compare_and_set(claim.id, row, version)
        return Claim(claim.id, row) if stored else None

    def _bury(self, claim: Claim) -> None:
        # In this order: who dies between leaves the job in both, and the next one buries it again.
        self.dead[claim.id] = {"why": "its worker died, or was too slow", **claim.row}
        self.waiting.delete(claim.id)
