"""Programs patched by gevent on the real server, over unix sockets and over TCP."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hskv.mariadb import PrivateServer

PROGRAM = Path(__file__).parent / "programs" / "greenlets.py"
# A program that forks has the threads that gevent resolves names with.
WARNINGS = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]

WITH_A_SERVER_OF_ITS_OWN = """
from gevent import monkey

monkey.patch_all()

import hskv
from hskv.mariadb import PrivateServer

with PrivateServer() as server, hskv.connect(server.url) as store:
    store["key"] = "value"
    server.kill()
    server.start()
    print(store["key"])
print(server.pid)
"""

Play = Callable[[str], dict[str, Any]]


@pytest.fixture(params=["hskv_server", "tcp_server"], ids=["unix", "tcp"])
def play(request: pytest.FixtureRequest) -> Iterator[Play]:
    """Runs a scenario of the program; what it saw."""
    server: PrivateServer = request.getfixturevalue(request.param)
    assert server.pid
    pid = server.pid

    def run(scenario: str) -> dict[str, Any]:
        command = [sys.executable, *WARNINGS, str(PROGRAM), scenario, server.url, str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    yield run
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_50_greenlets_share_4_channels_and_each_gets_the_answers_to_its_own_questions(
    play: Play,
) -> None:
    seen = play("share")
    assert seen["wrong"] == []
    assert sorted(seen["counted"]) == list(range(1, 501))
    assert seen["n"] == 500
    for side in (seen["read"], seen["write"]):
        assert 1 <= side["size"] <= 4
        assert side["idle"] == side["size"] == side["connects"]
        assert side["waiting"] == side["timeouts"] == 0


def test_requests_to_a_frozen_server_time_out_and_hold_up_no_other_greenlet(play: Play) -> None:
    seen = play("time_out")
    assert sorted(seen["reads"]) == 4 * ["PoolTimeoutError"] + 4 * ["RequestTimeoutError"]
    assert sorted(seen["writes"]) == 4 * ["OutcomeUnknownError"] + 4 * ["PoolTimeoutError"]
    assert 0.6 <= seen["seconds"] < 1.6
    assert seen["longest pause"] < 0.25
    assert seen["afterwards"] == [f"value of key{number}" for number in range(4)]
    for side in (seen["read"], seen["write"]):
        assert side["timeouts"] == 4
        assert side["size"] == side["idle"]
        assert side["waiting"] == 0


def test_logins_to_a_frozen_server_time_out_and_hold_up_no_other_greenlet(play: Play) -> None:
    seen = play("connect_slowly")
    assert seen["reads"] == 4 * ["ConnectionError"]
    assert seen["longest pause"] < 0.25
    assert seen["afterwards"] == "nothing"


def test_a_timeout_of_gevent_in_mid_request_closes_the_channel_and_the_next_call_is_right(
    play: Play,
) -> None:
    seen = play("give_up")
    assert seen["reads"] == 3 * ["Timeout"]
    assert seen["added"] == "Timeout"
    assert seen["killed"] == "GreenletExit"
    assert seen["left"]["read"]["size"] == seen["left"]["read"]["idle"] == 0
    assert seen["left"]["write"]["size"] == seen["left"]["write"]["idle"] == 3
    assert seen["afterwards"] == [f"value of key{number}" for number in range(4)]
    first, second = seen["counted"]
    assert second == first + 1
    for side in (seen["read"], seen["write"]):
        assert side["size"] == side["idle"]
        assert side["waiting"] == 0


def test_greenlets_that_leave_the_queue_cost_those_behind_them_nothing(play: Play) -> None:
    seen = play("leave_the_queue")
    assert (seen["waiting"], seen["left"]) == (5, 3)
    assert seen["order"] == [0, 2, 4, 5]
    assert seen["n"] == 4
    for side in (seen["read"], seen["write"]):
        assert side == {"size": 1, "idle": 1, "waiting": 0, "connects": 1, "timeouts": 0}


def check_both_sides_of_a_fork(seen: dict[str, Any], readers: int = 4) -> None:
    for name in ("parent", "child"):
        side = seen[name]
        assert side["answers"] == [f"value of key{number % 4}" for number in range(readers)], name
        assert side["own"] == [f"value of {name}"] * 100
        for counts in (side["read"], side["write"]):
            assert 1 <= counts["size"] <= 4, name
            assert counts["idle"] == counts["size"], name
            assert counts["waiting"] == counts["timeouts"] == 0, name
    assert seen["parent"]["read"]["connects"] == 4
    assert seen["child"]["shared"] == 0
    counted = seen["parent"]["counted"] + seen["child"]["counted"]
    assert sorted(counted) == list(range(1, 101))
    assert seen["n"] == 100


def test_a_fork_in_mid_request_gives_the_greenlets_of_both_processes_their_answers(
    play: Play,
) -> None:
    check_both_sides_of_a_fork(play("fork_in_mid_request"))


def test_a_fork_while_greenlets_wait_for_a_channel_lets_them_go_on_in_both_processes(
    play: Play,
) -> None:
    check_both_sides_of_a_fork(play("fork_with_a_queue"), readers=12)


def test_a_fork_in_mid_login_gives_the_greenlets_of_both_processes_their_answers(
    play: Play,
) -> None:
    check_both_sides_of_a_fork(play("fork_in_mid_login"))


def test_a_patched_program_has_a_server_of_its_own(hskv_server: PrivateServer) -> None:
    command = [sys.executable, *WARNINGS, "-c", WITH_A_SERVER_OF_ITS_OWN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == "value\nNone\n"
