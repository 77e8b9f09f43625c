"""Two real servers behind one client: balance, failover, return."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pymysql
import pytest

from hskv import Client
from hskv.mariadb import PrivateServer
from hskv.transport.address import load_settings

SECRETS: dict[str, str | int | None] = {
    "handlersocket_plain_secret": "both",
    "handlersocket_plain_secret_wr": "both",
}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PrivateServer, PrivateServer]]:
    with PrivateServer(options=SECRETS) as one, PrivateServer(options=SECRETS) as two:
        for number, server in enumerate((one, two)):
            with closing(pymysql.connect(autocommit=True, **server.sql)) as connection:
                connection.cursor().execute(f"INSERT INTO kv (k, v, n) VALUES ('a', '', {number})")
        yield one, two


def client_of(pair: tuple[PrivateServer, PrivateServer]) -> Client:
    one, two = (load_settings(server.url) for server in pair)
    return Client.from_settings(replace(one, readers=one.readers + two.readers))


def test_reads_are_balanced(pair: tuple[PrivateServer, PrivateServer]) -> None:
    with client_of(pair) as client:
        index = client.open("kv", ["n"])
        seen = [client.find(index, "=", ["a"])[0][0] for _ in range(100)]
        assert seen.count(b"0") == seen.count(b"1") == 50


def test_one_of_two_killed_under_load_costs_no_reader_an_error_and_its_return_is_noticed(
    pair: tuple[PrivateServer, PrivateServer],
) -> None:
    stop = threading.Event()
    answers: list[tuple[float, bytes | None]] = []
    errors: list[BaseException] = []

    def read(client: Client) -> None:
        index = client.open("kv", ["n"])
        while not stop.is_set():
            try:
                answers.append((time.monotonic(), client.find(index, "=", ["a"])[0][0]))
            except BaseException as error:  # noqa: BLE001 every error counts
                errors.append(error)

    with client_of(pair) as client:
        threads = [threading.Thread(target=read, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        pair[1].kill()
        killed = time.monotonic()
        time.sleep(1.0)
        pair[1].start()
        started = time.monotonic()
        time.sleep(3.0)
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    while_dead = [answer for at, answer in answers if killed + 0.1 < at < started - 0.3]
    assert set(while_dead) == {b"0"}
    assert {b"0", b"1"} == {answer for at, answer in answers if at > started + 2.5}
