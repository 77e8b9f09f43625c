"""examples/web, its three processes asked by real HTTP requests; each test has its own address."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.cookies import SimpleCookie
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask, session

from examples.web.app import CLICK_SECONDS, CLICKS, make_application
from examples.web.report import COST_SECONDS
from examples.web.sessions import COOKIE, LIFE_SECONDS, StoreSessions, row_key
from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from ..serving import serving

Store = KeyValueStore[str, Any]


class Answer:
    """A page, and what it says in the element of an id."""

    def __init__(self, response: HTTPResponse, seconds: float) -> None:
        self.status, self.headers = response.status, response.headers
        self.body = response.read().decode()
        self.seconds = seconds

    def said(self, id: str) -> str | None:  # noqa: A002 as HTML has it
        found = re.search(rf'id="{id}"[^>]*>([^<]*)<', self.body)
        return found[1] if found else None


class Visitor:
    """A browser that keeps its cookie; each request may reach another process."""

    addresses = count(2)

    def __init__(self, port: int) -> None:
        self.port, self.address = port, f"127.0.0.{next(self.addresses)}"
        self.cookie = ""

    @contextmanager
    def asking(self, method: str, path: str, **form: str) -> Iterator[HTTPResponse]:
        connection = HTTPConnection(
            "127.0.0.1", self.port, timeout=20, source_address=(self.address, 0)
        )
        headers = {"Cookie": self.cookie, "Content-Type": "application/x-www-form-urlencoded"}
        try:
            connection.request(method, path, urlencode(form), headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(self, method: str, path: str = "/", **form: str) -> Answer:
        began = time.monotonic()
        with self.asking(method, path, **form) as response:
            answer = Answer(response, time.monotonic() - began)
        if (cookie := SimpleCookie(answer.headers.get("Set-Cookie", "")).get(COOKIE)) is not None:
            self.cookie = f"{COOKIE}={cookie.value}" if cookie.value else ""
        return answer

    @property
    def token(self) -> str:
        return self.cookie.removeprefix(f"{COOKIE}=")


@pytest.fixture(scope="module")
def port(hskv_server: PrivateServer) -> Iterator[int]:
    with serving("web", hskv_server.url) as port:
        yield port


@pytest.fixture
def visitor(port: int, hskv_store: Store) -> Callable[[], Visitor]:
    return lambda: Visitor(port)


def events(response: HTTPResponse) -> Iterator[str]:
    for line in response:
        if line.startswith(b"data: "):
            yield line.removeprefix(b"data: ").decode().strip()


def pages_of_processes(ask: Callable[[], Answer], at_least: int) -> list[Answer]:
    """Pages that so many processes answered."""
    answers: list[Answer] = []
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            answers += [call.result() for call in [pool.submit(ask) for _ in range(8)]]
            if len({answer.said("process") for answer in answers}) >= at_least:
                return answers
    pytest.fail(f"400 requests reached {answers[0].said('process')} and too few others")


def test_a_window_that_is_open_sees_the_clicks_of_another(
    visitor: Callable[[], Visitor], hskv_store: Store
) -> None:
    ann, bob = visitor(), visitor()
    with ann.asking("GET", "/count") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        seen = events(stream)
        assert next(seen) == "0"
        for expected in ("1", "2", "3"):
            answer = (bob, ann, bob)[int(expected) - 1].ask("POST", "/count")
            assert (answer.status, answer.headers["Location"]) == (303, "/#counter")
            assert next(seen) == expected
    assert hskv_store["web:count"] == 3
    assert ann.ask("GET").said("count") == "3"


def test_a_sixth_click_of_an_address_is_refused_by_all_processes(
    visitor: Callable[[], Visitor], hskv_store: Store
) -> None:
    ann, bob, began = visitor(), visitor(), time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(ann.ask, "POST", "/count") for _ in range(12)]
        answers = [call.result() for call in calls]
    seconds = time.monotonic() - began
    allowed = [answer for answer in answers if answer.status == 303]
    assert CLICKS <= len(allowed) <= CLICKS + seconds * CLICKS / CLICK_SECONDS
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["Retry-After"] in ("1", "2")
    assert refused.headers["RateLimit-Policy"] == '"clicks";q=5;w=10'
    assert f"Try again in {refused.headers['Retry-After']} s." in refused.body
    assert bob.ask("POST", "/count").status == 303
    assert hskv_store["web:count"] == len(allowed) + 1


def test_the_report_is_made_once_for_all_processes(visitor: Callable[[], Visitor]) -> None:
    ann = visitor()
    first = ann.ask("GET")
    assert first.seconds >= COST_SECONDS
    answers = pages_of_processes(lambda: ann.ask("GET"), at_least=2)
    assert {answer.said("maker") for answer in answers} == {first.said("maker")}
    assert {answer.said("made") for answer in answers} == {first.said("made")}
    assert min(answer.seconds for answer in answers) < COST_SECONDS / 2
    assert ann.ask("POST", "/report").status == 303
    assert ann.ask("GET").seconds >= COST_SECONDS


def test_a_session_is_a_row_that_every_process_sees(
    visitor: Callable[[], Visitor], hskv_store: Store
) -> None:
    ann, sessions = visitor(), hskv_store.namespace("web:session:")
    answer = ann.ask("POST", "/sign-in", name=" Ann <b> ")
    assert answer.status == 303
    assert "; HttpOnly; Path=/; SameSite=Lax" in answer.headers["Set-Cookie"]
    assert sessions.to_dict() == {row_key(ann.token): {"name": "Ann <b>"}}
    assert ann.token not in str(hskv_store.to_dict())
    sessions.touch(row_key(ann.token), ttl=60)
    answers = pages_of_processes(lambda: ann.ask("GET"), at_least=2)
    assert {answer.said("name") for answer in answers} == {"Ann &lt;b&gt;"}
    left = sessions.ttl(row_key(ann.token))
    assert left is not None
    assert 60 < left <= LIFE_SECONDS
    assert visitor().ask("GET").said("name") is None


def test_who_signs_out_leaves_no_row(visitor: Callable[[], Visitor], hskv_store: Store) -> None:
    ann, thief = visitor(), visitor()
    ann.ask("POST", "/sign-in", name="Ann")
    thief.cookie = ann.cookie
    assert thief.ask("GET").said("name") == "Ann"
    assert ann.ask("POST", "/sign-out").status == 303
    assert ann.cookie == ""
    assert not hskv_store.namespace("web:session:")
    assert thief.ask("GET").said("name") is None


def test_who_signs_in_gets_an_id_that_nobody_knew(
    visitor: Callable[[], Visitor], hskv_store: Store
) -> None:
    ann = visitor()
    ann.cookie = f"{COOKIE}=planted"
    ann.ask("POST", "/sign-in", name="Ann")
    first = ann.token
    assert first != "planted"
    ann.ask("POST", "/sign-in", name="Anna")
    assert ann.token != first
    assert hskv_store.namespace("web:session:").to_dict() == {row_key(ann.token): {"name": "Anna"}}


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "a\x00b"])
def test_what_is_no_name_is_refused(
    name: str, visitor: Callable[[], Visitor], hskv_store: Store
) -> None:
    answer = visitor().ask("POST", "/sign-in", name=name)
    assert (answer.status, "Set-Cookie" in answer.headers) == (400, False)
    assert not hskv_store.namespace("web:session:")


def test_pages_are_kept_to_themselves(port: int, hskv_store: Store) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/count", headers={"Sec-Fetch-Site": "cross-site"})
    response = connection.getresponse()
    connection.close()
    assert response.status == 403
    assert "web:count" not in hskv_store
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"


def test_a_session_that_ended_meanwhile_is_not_brought_back(hskv_store: Store) -> None:
    application = Flask(__name__)
    application.session_interface = StoreSessions(hskv_store)

    @application.get("/in")
    def begin() -> str:
        session["name"] = "Ann"
        return ""

    @application.get("/late")
    def late() -> str:
        # In the place of a sign-out by another process.
        hskv_store.clear()
        session["name"] = "Anna"
        return ""

    client = application.test_client()
    client.get("/in")
    assert len(hskv_store) == 1
    client.get("/late")
    assert len(hskv_store) == 0
    assert client.get_cookie(COOKIE) is None


@pytest.mark.parametrize("cookie", [None, "some"])
def test_a_table_that_cannot_be_reached_is_told(cookie: str | None, tmp_path: Path) -> None:
    url = f"hskv+unix:///test?read={tmp_path}/read.sock&write={tmp_path}/write.sock&timeout=0.3"
    client = make_application(url).test_client()
    if cookie:
        client.set_cookie(COOKIE, cookie)
    answer = client.get("/")
    assert (answer.status_code, "Try again" in answer.text) == (503, True)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
