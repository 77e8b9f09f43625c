import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hskv.transport.address import Address, Secret, Settings, load_settings, parse_url

SECRET = "hunter2"


def given_secret() -> str:
    return "asked"


def parts(settings: Settings) -> tuple[Any, ...]:
    return (
        *map(str, settings.readers),
        *map(str, settings.writers),
        settings.secret.read(),
        settings.write_secret.read(),
        settings.database,
        settings.table,
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("hskv://h/db", ("h:9998", "h:9999", None, None, "db", None)),
        ("hskv://127.0.0.1/db/t", ("127.0.0.1:9998", "127.0.0.1:9999", None, None, "db", "t")),
        ("hskv://:s@h/db", ("h:9998", "h:9999", b"s", None, "db", None)),
        ("hskv://:@h/db", ("h:9998", "h:9999", b"", None, "db", None)),
        ("hskv://h:1/db", ("h:1", "h:9999", None, None, "db", None)),
        ("hskv://h:1,65535/db", ("h:1", "h:65535", None, None, "db", None)),
        ("hskv://:a:b@h:7,8/db", ("h:7", "h:8", b"a:b", None, "db", None)),
        ("hskv://:a@b@h/db", ("h:9998", "h:9999", b"a@b", None, "db", None)),
        ("hskv://:a%2Fb%40%3F%FF+@h/db", ("h:9998", "h:9999", b"a/b@?\xff+", None, "db", None)),
        ("hskv://h/my%20db/a%2Fb", ("h:9998", "h:9999", None, None, "my db", "a/b")),
        ("hskv://h/d%C3%BC", ("h:9998", "h:9999", None, None, "dü", None)),
        ("hskv://:r@h/db?write_secret=w", ("h:9998", "h:9999", b"r", b"w", "db", None)),
        ("hskv://h/db?write_secret=a+b%26=c", ("h:9998", "h:9999", None, b"a+b&=c", "db", None)),
        (
            "hskv+unix://:s@/db/t?read=/run/r&write=/run/w%20x",
            ("/run/r", "/run/w x", b"s", None, "db", "t"),
        ),
        ("hskv+unix:///db?write=w&read=r", ("r", "w", None, None, "db", None)),
    ],
)
def test_a_url_says_where_and_what(url: str, expected: tuple[Any, ...]) -> None:
    assert parts(parse_url(url)) == expected


def test_options_of_a_url_become_numbers() -> None:
    url = "hskv://h/db?timeout=1.5&connect_timeout=3&pool_size=4&pool_timeout=0.5"
    settings = parse_url(url + "&prefix=a%3A&default_ttl=60")
    assert (settings.timeout, settings.connect_timeout) == (1.5, 3.0)
    assert (settings.pool_size, settings.pool_timeout) == (4, 0.5)
    assert settings.store == {"prefix": "a:", "default_ttl": 60.0}


def test_a_bare_url_has_the_defaults() -> None:
    settings = parse_url("hskv://h/db")
    assert settings == Settings(
        (Address("h", 9998),), (Address("h", 9999),), settings.secret, settings.write_secret, "db"
    )
    assert not settings.secret
    assert not settings.write_secret


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "a URL begins with"),
        ("127.0.0.1/db", "a URL begins with hskv:// or hskv\\+unix://"),
        ("mysql://h/db", "a URL begins with"),
        ("HSKV://h/db", "a URL begins with"),
        ("hskv:/h/db", "a URL begins with"),
        ("hskv://h", "/DATABASE or /DATABASE/TABLE"),
        ("hskv://h/", "/DATABASE or /DATABASE/TABLE"),
        ("hskv://h/db/", "/DATABASE or /DATABASE/TABLE"),
        ("hskv://h//t", "/DATABASE or /DATABASE/TABLE"),
        ("hskv://h/db/t/x", "/DATABASE or /DATABASE/TABLE"),
        ("hskv:///db", "the server is written"),
        ("hskv://:s@/db", "the server is written"),
        ("hskv://[::1]/db", "no IPv6"),
        ("hskv://::1/db", "no IPv6"),
        ("hskv://h:/db", "the server is written"),
        ("hskv://h:1,/db", "the server is written"),
        ("hskv://h:x/db", "the server is written"),
        ("hskv://h:1,2,3/db", "the server is written"),
        ("hskv://h,9999/db", "the server is written"),
        ("hskv://h:0/db", "0 is no port number"),
        ("hskv://h:65536/db", "65536 is no port number"),
        ("hskv://h:5,5/db", "read and write port are both 5"),
        ("hskv://h:9999/db", "read and write port are both 9999"),
        ("hskv://user@h/db", "no users"),
        ("hskv://user:s@h/db", "no users"),
        ("hskv://h/db?", None),
        ("hskv://h/db?timeout", "is not name=value"),
        ("hskv://h/db?timeout=1&", "is not name=value"),
        ("hskv://h/db?timeout=1&timeout=2", "'timeout' stands twice"),
        ("hskv://h/db?time_out=1", "'time_out' is no option of a URL; known: connect_timeout"),
        ("hskv://h/db?Timeout=1", "'Timeout' is no option"),
        ("hskv://h/db?read=/a", "read is primary or replica, not '/a'"),
        ("hskv://h/db?write=/b", "'write' is no option"),
        ("hskv://h/db?timeout=soon", "timeout of the URL is no number: 'soon'"),
        ("hskv://h/db?pool_size=1.5", "pool_size of the URL is no number"),
        ("hskv://h/db?default_ttl=x", "default_ttl of the URL is no number"),
        ("hskv://h/db?timeout=0", "timeout is a number of seconds above zero"),
        ("hskv://h/db?connect_timeout=-1", "connect_timeout is a number of seconds above"),
        ("hskv://h/db?pool_timeout=nan", "pool_timeout is a number of seconds above"),
        ("hskv://h/db?timeout=inf", "timeout is a number of seconds above"),
        ("hskv://h/db?pool_size=0", "pool_size is 1 to 10000"),
        ("hskv://h/db?pool_size=10001", "pool_size is 1 to 10000"),
        ("hskv://:s@h/db?secret_file=/x", "not both"),
        ("hskv://h/db?write_secret=s&write_secret_file=/x", "not both"),
        ("hskv://h/%FF", "UTF-8"),
        ("hskv+unix://h/db?read=r&write=w", "has no host"),
        ("hskv+unix:///db?read=r", "needs the option write=PATH"),
        ("hskv+unix:///db?write=w", "needs the option read=PATH"),
        ("hskv+unix:///db?read=r&write=r", "two different sockets"),
        ("hskv+unix:///db?read=&write=w", "two different sockets"),
        ("hskv+unix:///db?read=r&write=", "two different sockets"),
    ],
)
def test_a_mistake_in_a_url_is_named(url: str, says: str | None) -> None:
    if says is None:
        assert parse_url(url).database == "db"
        return
    with pytest.raises(ValueError, match=says):
        load_settings(url) if url else parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        f"hskv://:{SECRET}/db",
        f"hskv://{SECRET}@h/db",
        f"hskv://:{SECRET}@h",
        f"hskv://:{SECRET}@h:1,1/db",
        f"hskv://:{SECRET}@[::1]/db",
        f"hskv://:a/{SECRET}@h/db",
        f"hskv://:a?{SECRET}@h/db",
        f"hskv://:a?{SECRET}=1@h/db",
        f"hskv://:{SECRET}@h/db?typo=1",
        f"hskv://:{SECRET}@h/db?timeout=0",
        f"hskv://h/db?write_secret={SECRET}&typo=1",
        f"hskv://h/db?write_secret={SECRET}&write_secret={SECRET}",
        f"hskv://:{SECRET}@h/db?secret_file=/x",
        f"hskv+unix://:{SECRET}@h/db?read=r&write=w",
        f"hskv+unix://:{SECRET}@/db?read=r",
        f":{SECRET}@h/db",
    ],
)
def test_no_message_holds_a_secret(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        load_settings(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__


def test_no_repr_holds_a_secret() -> None:
    settings = load_settings(f"hskv://:{SECRET}@h/db?write_secret={SECRET}")
    for value in (
        settings,
        settings.secret,
        Secret(SECRET),
        Secret(SECRET.encode()),
        [Secret(SECRET)],
    ):
        assert SECRET not in f"{value!r} {value!s}"
    assert repr(Secret(SECRET)) == "Secret(***)"
    assert repr(Secret()) == "Secret(None)"


def test_a_secret_may_be_text_bytes_a_callable_or_another_secret() -> None:
    assert Secret("grün").read() == "grün".encode()
    assert Secret(b"\xff").read() == b"\xff"
    assert Secret(given_secret).read() == b"asked"
    assert Secret(Secret(given_secret)).read() == b"asked"
    assert Secret(lambda: b"raw").read() == b"raw"
    assert Secret().read() is None
    assert Secret(Secret()).read() is None


def test_an_empty_secret_is_one_and_none_is_not() -> None:
    assert Secret("")
    assert Secret("").read() == b""
    assert not Secret()
    assert not Secret(None)


def test_a_callable_secret_is_asked_at_each_login() -> None:
    answers: Iterator[str | bytes] = iter(["one", b"two"])
    secret = Secret(lambda: next(answers))
    assert [secret.read(), secret.read()] == [b"one", b"two"]


def test_a_file_is_read_at_each_login_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = Secret(file=str(file))
    assert secret
    for content, expected in ((b"one\n", b"one"), (b"two\r\n", b"two"), (b" 3 ", b" 3 ")):
        file.write_bytes(content)
        assert secret.read() == expected
    assert parse_url(f"hskv://h/db?secret_file={file}").secret.read() == b" 3 "


def test_a_secret_and_a_file_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        Secret("s", "/file")


@pytest.mark.parametrize("secret", ["a\n", b"\x00", "\x0f", "\t"])
def test_a_secret_the_server_never_accepts_is_refused_unshown(secret: str | bytes) -> None:
    with pytest.raises(ValueError, match="below 0x10") as caught:
        Secret(secret).read()
    assert repr(secret) not in str(caught.value)


@pytest.mark.parametrize("source", [None, "text", b"bytes", given_secret])
def test_a_secret_pickles(source: Any) -> None:
    secret = Secret(source)
    copy = pickle.loads(pickle.dumps(secret))
    assert copy.read() == secret.read()
    assert bool(copy) == bool(secret)


def test_settings_pickle_with_a_secret_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s\n")
    settings = load_settings("hskv://h:1,2/db/t?prefix=p", secret_file=str(file))
    copy = pickle.loads(pickle.dumps(settings))
    assert parts(copy) == parts(settings)
    assert copy.secret.read() == b"s"
    assert copy.store == {"prefix": "p"}


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSKV_URL", "hskv://env/db")
    assert load_settings(None).readers[0].host == "env"
    assert load_settings("hskv://given/db").readers[0].host == "given"


@pytest.mark.parametrize("value", [None, ""])
def test_without_any_url_the_error_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("HSKV_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("HSKV_URL", value)
    with pytest.raises(ValueError, match="set HSKV_URL"):
        load_settings(None)


def test_keywords_beat_the_url_and_none_counts_as_not_given(tmp_path: Path) -> None:
    url = "hskv://:url@h/db?timeout=1&pool_size=2&write_secret=w"
    settings = load_settings(url, timeout=7.0, pool_size=None, secret=None, table="t")
    assert (settings.timeout, settings.pool_size, settings.table) == (7.0, 2, "t")
    assert settings.secret.read() == b"url"
    given = load_settings(url, secret=given_secret, write_secret=b"x")
    assert (given.secret.read(), given.write_secret.read()) == (b"asked", b"x")
    file = tmp_path / "secret"
    file.write_text("filed")
    assert load_settings(url, secret_file=str(file)).secret.read() == b"filed"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"timeout": 0}, "timeout is a number"),
        ({"pool_timeout": float("nan")}, "pool_timeout is a number"),
        ({"pool_size": 0}, "pool_size is 1 to"),
        ({"pool_size": 1.5}, "pool_size is 1 to"),
        ({"secret": SECRET, "secret_file": "/x"}, "not both"),
    ],
)
def test_a_keyword_that_cannot_be_meant_is_a_value_error(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_settings("hskv://h/db", **given)
