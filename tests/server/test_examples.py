"""The programs in examples/, asked by real HTTP requests."""

from email.message import Message
from http.client import HTTPConnection
from typing import NamedTuple

import pytest

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from ..serving import serving


class Answer(NamedTuple):
    status: int
    headers: Message
    body: str


def ask(port: int, path: str = "/") -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())
    finally:
        connection.close()


@pytest.mark.parametrize("example", ["wsgi_rate_limit", "asgi_rate_limit"])
def test_a_middleware_refuses_the_sixth_request(
    example: str, hskv_server: PrivateServer, hskv_store: KeyValueStore[str, object]
) -> None:
    with serving(example, hskv_server.url) as port:
        answers = [ask(port) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert [answer.body for answer in answers[4:]] == ["Hello.\n", "Too many requests.\n"]
    first, last = answers[0].headers, answers[-1].headers
    assert first["RateLimit-Policy"] == '"web";q=5;w=10'
    assert first["RateLimit"] == '"web";r=4;t=2'
    assert "Retry-After" not in first
    assert last["RateLimit"].startswith('"web";r=0;t=')
    assert last["Retry-After"] in ("1", "2")


def test_flask_limiter_counts_in_the_table(
    hskv_server: PrivateServer, hskv_store: KeyValueStore[str, object]
) -> None:
    with serving("flask_limits", hskv_server.url) as port:
        answers = [ask(port) for _ in range(4)]
        reports = [ask(port, "/report").status for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["X-RateLimit-Limit"] == "3"
    assert answers[0].headers["X-RateLimit-Remaining"] == "2"
    assert reports == [200, 429]
