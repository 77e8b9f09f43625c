"""URLs that the doctor prints: changed, and without their secrets."""

import pytest

from hskv.mariadb.doctor import urls
from hskv.transport.address import Address, parse_url

SECRETS = ("one-secret", "two-secret", "three-secret")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("hskv://h/d", "hskv://h/d"),
        ("hskv://:one-secret@h/d", "hskv://:***@h/d"),
        (
            "hskv://:one-secret@h:1,2/d/t?timeout=3&write_secret=two-secret&prefix=x",
            "hskv://:***@h:1,2/d/t?timeout=3&write_secret=***&prefix=x",
        ),
        (
            "hskv+unix://:one-secret@/d?read=/r&write=/w&write_secret=two-secret",
            "hskv+unix://:***@/d?read=/r&write=/w&write_secret=***",
        ),
        (
            "hskv://h/d?writes=sql&sql=mysql://u:three-secret@h:3,i/&timeout=3",
            "hskv://h/d?writes=sql&sql=mysql://u:***@h:3,i/&timeout=3",
        ),
        (
            "hskv://h/d?writes=sql&sql=mysql+unix://u:three-secret@/s",
            "hskv://h/d?writes=sql&sql=mysql+unix://u:***@/s",
        ),
        (
            "hskv://h/d?sql=mysql://u:one-secret@two-secret:three-secret@h/&prefix=a@b",
            "hskv://h/d?sql=mysql://u:***@h/&prefix=a@b",
        ),
        (
            "hskv://h/d?sql=mysql://u@x:one-secret?two-secret@h:3/",
            "hskv://h/d?sql=mysql://u@x:***@h:3/",
        ),
        ("hskv://h/d?sql=mysql://u@h/", "hskv://h/d?sql=mysql://u@h/"),
        ("hskv://h/d?sql=mysql://u%3Ax@h:3,i:4/", "hskv://h/d?sql=mysql://u%3Ax@h:3,i:4/"),
        ("hskv://h/d?sql=mysql:%2F%2Fu:one-secret%40h%2F", "hskv://h/d?sql=***"),
        ("hskv://h/d?sql=mysql%3A%2F%2Fu%3Athree-secret%40h%2F", "hskv://h/d?sql=***"),
        ("hskv://h/d?sql=mysql%3a//u:three-secret@h/&timeout=3", "hskv://h/d?sql=***&timeout=3"),
    ],
)
def test_no_secret_is_shown(url: str, shown: str) -> None:
    parse_url(url)
    assert urls.hidden(url) == shown
    changed = urls.with_options(url, timeout="9")
    changed += urls.with_secrets(url, "a", "b").url
    changed += urls.with_ports(url, Address("i", 5), Address("i", 6))
    assert not any(secret in shown + changed for secret in SECRETS)


def test_options_are_replaced_or_added() -> None:
    assert urls.with_options("hskv://h/d", timeout="9") == "hskv://h/d?timeout=9"
    url = "hskv://h/d?timeout=3&prefix=x"
    assert urls.with_options(url, timeout="9") == "hskv://h/d?prefix=x&timeout=9"


@pytest.mark.parametrize(
    ("url", "changed", "files"),
    [
        (
            "hskv://:s@h/d?timeout=3&write_secret=w",
            "hskv://:a@h/d?timeout=3&write_secret=b",
            {},
        ),
        (
            "hskv://h/d?write_secret_file=/w&secret_file=/s%201",
            "hskv://h/d?write_secret_file=/w&secret_file=/s%201",
            {"/s 1": "a", "/w": "b"},
        ),
        (
            "hskv://h/d?secret_file=/s%201&timeout=3",
            "hskv://h/d?secret_file=/s%201&timeout=3&write_secret_file=/s%201-write",
            {"/s 1": "a", "/s 1-write": "b"},
        ),
        (
            "hskv://h/d?secret_file=/s%201&write_secret_file=%2Fs%201&timeout=3",
            "hskv://h/d?secret_file=/s%201&timeout=3&write_secret_file=/s%201-write",
            {"/s 1": "a", "/s 1-write": "b"},
        ),
        (
            "hskv://:s@h/d?write_secret_file=/w",
            "hskv://:a@h/d?write_secret_file=/w",
            {"/w": "b"},
        ),
        (
            "hskv://h/d?secret_file=/s&write_secret=w",
            "hskv://h/d?secret_file=/s&write_secret=b",
            {"/s": "a"},
        ),
    ],
)
def test_other_secrets_go_where_the_secrets_are(
    url: str, changed: str, files: dict[str, str]
) -> None:
    assert urls.with_secrets(url, "a", "b") == (changed, files)


@pytest.mark.parametrize(
    ("url", "changed", "files"),
    [
        ("hskv://:s@h/d?writes=sql&sql=S", "hskv://:a@h/d?writes=sql&sql=S", {}),
        (
            "hskv://h/d?secret_file=/s&writes=sql&sql=S",
            "hskv://h/d?secret_file=/s&writes=sql&sql=S",
            {"/s": "a"},
        ),
    ],
)
def test_no_secret_to_write_where_sql_does(url: str, changed: str, files: dict[str, str]) -> None:
    assert urls.with_secrets(url, "a") == (changed, files)


def test_the_files_of_the_secrets() -> None:
    url = "hskv://h/d?write_secret_file=/w%201&secret_file=/s"
    assert (urls.secret_file(url, "read"), urls.secret_file(url, "write")) == ("/s", "/w 1")
    assert urls.secret_file("hskv://h/d?secret_file=/s&timeout=3", "write") == "/s"
    assert urls.secret_file("hskv://h/d", "read") == ""


@pytest.mark.parametrize(
    ("url", "read", "write", "changed"),
    [
        ("hskv://:s@h/d", Address("i", 5), Address("i", 6), "hskv://:***@i:5,6/d"),
        ("hskv://h:1,2/d/t?timeout=3", Address("i", 5), None, "hskv://i:5/d/t?timeout=3"),
        (
            "hskv+unix://:s@/d?read=/r&write=/w",
            Address("i", 5),
            Address("i", 6),
            "hskv://:***@i:5,6/d",
        ),
        (
            "hskv://:s@h/d?timeout=3",
            Address(path="/r"),
            Address(path="/w"),
            "hskv+unix://:***@/d?timeout=3&read=/r&write=/w",
        ),
        (
            "hskv+unix://:s@/d?read=/a&write=/b",
            Address(path="/r"),
            Address(path="/w"),
            "hskv+unix://:***@/d?read=/r&write=/w",
        ),
    ],
)
def test_other_ports(url: str, read: Address, write: Address | None, changed: str) -> None:
    assert urls.with_ports(url, read, write) == changed
