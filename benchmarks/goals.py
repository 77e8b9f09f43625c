"""The goals of hskv's speed, beside what `make bench` measured on one core at flush 2."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

RUN = "one core, unix sockets, flush 2"
LOOP, BARE = "raw loop, same bytes", "raw loop, bare"
PURE = ", pure Python"

Runs = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""By run, operation and client: ratio, wall, cpu."""


class Goal(NamedTuple):
    """How fast a client is to be, as a multiple of another's speed."""

    operation: str
    client: str
    of: str
    compiled: float
    pure: float | None = None


GOALS = (
    # Client.find sends what the bare loop sends: no filter.
    Goal("get", "hskv Client.find", BARE, 0.95, 0.88),
    Goal("get", "hskv store", LOOP, 0.90, 0.80),
    Goal("get", "hskv store", BARE, 0.86),
    Goal("get", "hskv store", "pymemcache Client", 1.0),
    Goal("get", "hskv store", "pymemcache PooledClient", 1.0),
    Goal("get", "hskv store", "redis-py", 1.7),
    Goal("incr", "hskv store", LOOP, 0.90, 0.80),
    Goal("set", "hskv store", LOOP, 0.88, 0.75),
    Goal("get_many(100)", "hskv store", LOOP, 0.80, 0.65),
    Goal("get_many(100)", "hskv store", "pymemcache Client", 1.6),
    Goal("get_many(100)", "hskv store", "redis-py", 1.0),
    Goal("set_many(100), existing", "hskv store", LOOP, 0.75, 0.55),
    Goal("set_many(100), existing", "hskv store", "redis-py pipeline", 2.0),
    Goal("get, 1 MB random", "hskv store", LOOP, 0.70),
)


def lines(runs: Runs) -> Iterator[list[str]]:
    """What, the goal and what was measured, with hskv_fast and in pure Python."""
    for goal in GOALS:
        cells = runs[RUN][goal.operation]

        def measured(name: str, least: float | None, goal: Goal = goal, cells: Any = cells) -> str:
            if least is None or name not in cells:
                return ""
            ratio = cells[name]["ratio"] / cells[goal.of]["ratio"]
            verdict = "reached" if ratio >= least else f"{least - ratio:.2f} short"
            return f"{ratio:.2f} ({least:.2f}: {verdict})"

        yield [
            f"{goal.client}: {goal.operation}, beside {goal.of}",
            measured(goal.client, goal.compiled),
            measured(goal.client + PURE, goal.pure),
        ]


def markdown(runs: Runs) -> str:
    """A section of a page; nothing where the run was not made."""
    if RUN not in runs:
        return ""
    head = [["what", "hskv_fast (goal)", "pure Python (goal)"], ["---", "---", "---"]]
    rows = ("| " + " | ".join(line) + " |" for line in [*head, *lines(runs)])
    return f"## Goals: {RUN}\n\n" + "\n".join(rows) + "\n"
