import pickle
from pathlib import Path
from typing import Any

import pytest

from hskv import Client
from hskv.transport.address import Settings, load_settings
from hskv.transport.endpoint import Address
from hskv.transport.sql_address import Password, SqlLogin, parse_sql_url
from hskv.transport.tls import Tls

SECRET = "hunter2"
BY_SQL = "hskv:///db?reads=sql&writes=sql&sql="


def login_of(settings: Settings) -> SqlLogin:
    assert settings.sql is not None
    return settings.sql


@pytest.mark.parametrize(
    ("url", "user", "password", "hosts"),
    [
        ("mysql://u:p@h", "u", b"p", ["h:3306"]),
        ("mysql://u:p@h/", "u", b"p", ["h:3306"]),
        ("mysql://u@h:33,other/", "u", None, ["h:33", "other:3306"]),
        ("mysql://u:@h/", "u", b"", ["h:3306"]),
        ("mysql://u:a%2Fb%40%3a%26@h/", "u", b"a/b@:&", ["h:3306"]),
        ("mysql://u:a:b@c@h/", "u", b"a:b@c", ["h:3306"]),
        ("mysql://a%40b:p@[::1]:1,[fe80::2]/", "a@b", b"p", ["::1:1", "fe80::2:3306"]),
        ("mysql+unix://root:p@/run/my%20sql.sock", "root", b"p", ["/run/my sql.sock"]),
        ("mysql%2Bunix://root@/run/sock", "root", None, ["/run/sock"]),
        ("mysql%3A%2F%2Fu%3Aa%2540b%40h%2F", "u", b"a@b", ["h:3306"]),
    ],
)
def test_the_option_says_who_logs_in_where(
    url: str, user: str, password: bytes | None, hosts: list[str]
) -> None:
    login = parse_sql_url(url)
    assert (login.user, login.password.read()) == (user, password)
    assert [str(host) for host in login.hosts] == hosts
    assert login_of(load_settings(BY_SQL + url)).hosts == login.hosts


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql:/u:p@h",
        "postgres://u:p@h/",
        "mysql://h/",
        "mysql://:p@h/",
        "mysql://u:p@/",
        "mysql://u:p@h:x/",
        "mysql://u:p@h:0/",
        "mysql://u:p@h:70000/",
        "mysql://u:p@h,/",
        "mysql://u:p@h/db",
        "mysql://u:p@::1/",
        "mysql://u:p@h,h:3306/",
        "mysql+unix://u:p@run/sock",
        "mysql://u:a/b@h/",
        "mysql://%FF:p@h/",
    ],
)
def test_a_mistake_is_named_and_no_password_is(url: str) -> None:
    with pytest.raises(ValueError, match="sql") as caught:
        parse_sql_url(url.replace("p@", f"{SECRET}@"))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("hskv://h/db?writes=sql", "writes=sql needs sql="),
        ("hskv://h/db?writes=paper", "writes is handlersocket or sql, not 'paper'"),
        ("hskv://h/db?reads=SQL", "reads is handlersocket or sql, not 'SQL'"),
        ("hskv://h/db?reads=sql&sql=mysql://u@h/", "reads=sql goes with writes=sql"),
        ("hskv://h/db?read=nearest", "read is primary or replica, not 'nearest'"),
        ("hskv:///db", "the server is written HOST"),
        ("hskv:///db?writes=sql&sql=mysql://u@h/", "the server is written HOST"),
        ("hskv://h/db?replica=r:1,2", "a replica is written"),
        ("hskv://h/db?replica=", "a replica is written"),
        ("hskv://h/db?sql=mysql://u@h/&sql_password_file=/x&sql_password=y", "no option"),
        ("hskv://h/db?sql_password_file=/x", "give sql= too"),
    ],
)
def test_a_mode_that_cannot_be_is_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_settings(url)


def test_the_listeners_of_a_mode_are_those_it_uses() -> None:
    sql = "sql=mysql://u:p@h/"
    mixed = load_settings(f"hskv://h:1,2/db?replica=r&replica=s:7&writes=sql&read=replica&{sql}")
    assert [str(reader) for reader in mixed.readers] == ["h:1", "r:9998", "s:7"]
    assert (mixed.writers, mixed.read) == ((), "replica")
    alone = load_settings(f"hskv://h/db?writes=sql&reads=sql&{sql}")
    assert (alone.readers, alone.writers) == ((), ())
    unix = load_settings(f"hskv+unix:///db?read=/r&writes=sql&{sql}")
    assert (unix.readers, unix.writers) == ((Address(path="/r"),), ())
    watched = load_settings(f"hskv://h/db?{sql}")
    assert (len(watched.readers), len(watched.writers)) == (1, 1)


def test_keywords_say_the_same_as_the_url(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\n")
    by_keyword: dict[str, Any] = {"writes": "sql", "sql": "mysql://u:p@h/", "replicas": ["r:1"]}
    settings = load_settings("hskv://h/db", **by_keyword)
    url = "hskv://h/db?writes=sql&replica=r:1&sql=mysql://u:p@h/"
    assert settings.readers == load_settings(url).readers
    assert login_of(load_settings(url, sql_password="k")).password.read() == b"k"
    assert login_of(load_settings(url, sql_password=lambda: "asked")).password.read() == b"asked"
    by_file = load_settings(url, sql_password_file=str(file))
    assert login_of(by_file).password.read() == b"from the file"
    in_url = load_settings(f"{url}&sql_password_file={file}")
    assert login_of(in_url).password.read() == b"from the file"
    with pytest.raises(ValueError, match="give sql= too"):
        load_settings("hskv://h/db", sql_password="k")


@pytest.mark.parametrize(
    ("options", "keywords", "tls"),
    [
        ("", {}, None),
        ("&sql_ssl=off", {}, None),
        ("&sql_ssl=on", {}, Tls()),
        ("&sql_ssl_ca=/ca%2Epem", {}, Tls(ca="/ca.pem")),
        ("&sql_ssl_ca=/ca&sql_ssl=true", {"sql_ssl": False}, None),
        ("&sql_ssl_ca=/ca", {"sql_ssl_ca": Path("/b")}, Tls(ca="/b")),
        ("&sql_ssl_ca=/ca", {"sql": "mysql://other@h/"}, Tls(ca="/ca")),
        ("&sql_ssl_cert=/c", {"sql_ssl_key": "/k"}, Tls(cert="/c", key="/k")),
        ("&sql_ssl_verify_identity=no", {}, Tls(verify_identity=False)),
        ("&sql_ssl_verify_identity=no", {"sql_ssl_verify_identity": True}, Tls()),
    ],
)
def test_tls_is_asked_for_by_any_of_its_options(
    options: str, keywords: dict[str, Any], tls: Tls | None
) -> None:
    settings = load_settings(f"{BY_SQL}mysql://u:p@h/{options}", **keywords)
    assert login_of(settings).tls == tls
    again = pickle.loads(pickle.dumps(settings))
    assert login_of(again).tls == tls


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("sql=mysql://u@h/&sql_ssl=maybe", "sql_ssl is on or off, not 'maybe'"),
        ("sql=mysql://u@h/&sql_ssl_verify_identity=", "sql_ssl_verify_identity is on or off"),
        ("sql=mysql://u@h/&sql_ssl=off&sql_ssl_ca=/ca", "leave one of both out"),
        ("sql=mysql://u@h/&sql_ssl_ca=", "sql_ssl_ca is the path of a file"),
        ("sql=mysql://u@h/&sql_ssl_key=/k", "sql_ssl_key is the key of sql_ssl_cert"),
        ("sql=mysql%2Bunix://u@/s&sql_ssl=on", "goes through no network"),
        ("sql_ssl_ca=/ca", "sql_ssl_ca is for the servers that sql= names"),
    ],
)
def test_what_tls_cannot_be_is_refused(options: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_settings(f"hskv://h/db?{options}")


def test_a_password_shows_nowhere_and_pickles() -> None:
    settings = load_settings(f"hskv://h/db?writes=sql&sql=mysql://u:{SECRET}@h/")
    client = Client.from_settings(settings)
    assert SECRET not in repr(settings) + repr(client) + str(login_of(settings))
    again: Client = pickle.loads(pickle.dumps(client))
    assert login_of(again.settings).password.read() == SECRET.encode()


def test_a_password_may_hold_what_a_secret_may_not() -> None:
    assert Password(b"a\tb").read() == b"a\tb"
    with pytest.raises(ValueError, match="no valid Unicode"):
        Password("\ud800").read()
