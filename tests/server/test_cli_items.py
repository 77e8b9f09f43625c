"""hskv get, set, add, delete, incr, decr, ttl, touch, scan."""

import json
from pathlib import Path
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.cli.keys import shown, typed_key
from hskv.mariadb import PrivateServer

from .cli import Shell

Store = KeyValueStore[str, Any]
EVERY_BYTE = bytes(range(256))


def test_a_value_comes_out_exactly_as_it_went_in(shell: Shell, hskv_store: Store) -> None:
    assert shell("set", "text", "hello") == (0, b"", "")
    assert shell("get", "text") == (0, b"hello", "")
    assert shell("set", "bytes", stdin=EVERY_BYTE).code == 0
    assert shell("get", "bytes").out == EVERY_BYTE
    assert (hskv_store["text"], hskv_store["bytes"]) == ("hello", EVERY_BYTE)


def test_values_of_every_type(shell: Shell, hskv_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_bytes(b" 12 ")
    assert shell("set", "int", "--file", str(path), "--type", "int").code == 0
    assert shell("set", "json", '{"a": [1, null]}', "--type", "json").code == 0
    assert shell("set", "text", "-", "--type", "text", stdin="é".encode()).code == 0
    assert dict(hskv_store) == {"int": 12, "json": {"a": [1, None]}, "text": "é"}
    assert [shell("get", key).out for key in ("int", "json", "text")] == [
        b"12\n",
        b'{"a": [1, null]}\n',
        "é".encode(),
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["a", "x", "--type", "int"], b"", "no int"),
        (["a", "{", "--type", "json"], b"", "no json"),
        (["a", "--type", "text"], b"\xff", "no UTF-8"),
        (["a", "x", "--file", "/dev/null"], b"", "not both"),
        (["a", "x", "--ttl", "0"], b"", "lifetime"),
        (["a", "x", "--ttl", "nan"], b"", "lifetime"),
        (["a", "x", "--ttl", "9", "--keep-ttl"], b"", "not both"),
        (["a\\b", "x"], b"", "in a key"),
        (["", "x"], b"", "empty key"),
        (["x" * 256, "x"], b"", "256 bytes"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_it_is_sent(
    shell: Shell, hskv_store: Store, arguments: list[str], stdin: bytes, message: str
) -> None:
    said = shell("set", *arguments, stdin=stdin)
    assert (said.code, message in said.err) == (2, True), said.err
    assert len(hskv_store) == 0


def test_a_missing_key_is_no(shell: Shell) -> None:
    assert shell("get", "a") == (1, b"", "hskv: there is no key a\n")
    assert shell("get", "a", "--json") == (1, b"null\n", "")
    assert shell("ttl", "a").code == shell("touch", "a", "9").code == 1


def test_lifetimes(shell: Shell, hskv_store: Store) -> None:
    assert shell("set", "a", "x", "--ttl", "2h").code == 0
    assert 7190 < float(shell("ttl", "a").out) <= 7200
    assert shell("set", "a", "y", "--keep-ttl").code == 0
    assert 7190 < shell("ttl", "a", "--json").json["ttl"] <= 7200
    assert shell("touch", "a", "never").code == 0
    assert shell("ttl", "a").out == b"never\n"
    assert shell("touch", "a", "90").code == 0
    assert 80 < (hskv_store.ttl("a") or 0) <= 90


def test_add_and_delete_say_whether_they_did(shell: Shell, hskv_store: Store) -> None:
    assert shell("add", "a", "1").code == 0
    assert shell("add", "a", "2").code == 1
    assert shell("add", "a", "2", "--json").json == {"stored": False}
    assert hskv_store["a"] == "1"
    assert shell("delete", "a", "b").code == 1
    assert shell("delete", "a").code == 1
    hskv_store["a"] = 1
    assert shell("delete", "a", "--json") == (0, b'{"deleted": 1}\n', "")


def test_counting(shell: Shell, hskv_store: Store) -> None:
    assert shell("incr", "n").out == b"1\n"
    assert shell("incr", "n", "-5").out == b"-4\n"
    assert shell("decr", "n", "6", "--floor", "-10").out == b"-10\n"
    assert shell("decr", "n", "--floor", "-10").code == 1
    assert shell("incr", "m", "2", "--initial", "40", "--ttl", "1m").out == b"42\n"
    assert shell("incr", "m", "--ceiling", "42", "--json") == (1, b'{"value": null}\n', "")
    assert 50 < (hskv_store.ttl("m") or 0) <= 60
    hskv_store["text"] = "x"
    said = shell("incr", "text")
    assert (said.code, said.err.startswith("hskv: text: ")) == (4, True)
    assert shell("incr", "n", str(2**63 - 1)).code == 0
    assert shell("incr", "n", "11").code == 4


def test_scan(shell: Shell, hskv_store: Store) -> None:
    hskv_store.set_many({"a:1": "one", "a:2": {"n": 2}, "b": b"\x00\xff"})
    assert shell("scan").lines == ["a:1\tone", 'a:2\t{"n": 2}', "b\t\\x00\\xff"]
    assert shell("scan", "a:", "--start", "a:2", "--keys").lines == ["a:2"]
    assert shell("scan", "--limit", "2", "--keys").lines == ["a:1", "a:2"]
    first, second, third = map(json.loads, shell("scan", "--json").lines)
    assert {**first, "version": 0} == {
        "key": "a:1",
        "kind": "text",
        "value": "one",
        "ttl": None,
        "version": 0,
    }
    assert (second["kind"], second["value"]) == ("json", {"n": 2})
    assert third["value_base64"] == "AP8="


def test_any_key_can_be_typed_as_it_is_shown(shell: Shell, hskv_server: PrivateServer) -> None:
    keys = [b"\xff\x01", b"a\\b\n", "é".encode(), b"\x1b[31m", "\u202e".encode()]
    with hskv.connect(hskv_server.url, key_type=bytes) as store:
        store.set_many({key: key for key in keys})
        typed = shell("scan", "--keys").lines
        assert sorted(map(typed_key, typed)) == sorted(keys)
        for key in keys:
            assert shell("get", shown(key)).out == key
        assert all(line.isprintable() for line in typed)
        store.clear()


def test_values_of_programs_are_not_decoded(shell: Shell, hskv_server: PrivateServer) -> None:
    with hskv.connect(hskv_server.url, serializer="pickle") as store:
        store["p"] = {1, 2}
        said = shell("get", "p")
        assert (said.code, "--raw" in said.err) == (4, True)
        (row,) = store.find("=", ["p"], ["v"])
        assert shell("get", "p", "--raw").out == row[0]
        assert shell("scan").lines == [f"p\t(pickle, {len(row[0] or b'')} bytes)"]
        assert "value_base64" in shell("get", "p", "--json").json
    with hskv.connect(hskv_server.url, compress_min_bytes=1) as store:
        store["z"] = "z" * 1000
    assert shell("get", "z").out == b"z" * 1000
    assert shell("get", "z", "--json").json["kind"] == "text+zlib"


def test_the_prefix_of_the_url_is_heeded(shell: Shell, hskv_server: PrivateServer) -> None:
    shell.export("HSKV_URL", f"{hskv_server.url}&prefix=p:")
    assert shell("set", "a", "x").code == 0
    assert shell("scan").lines == ["a\tx"]
    shell.export("HSKV_URL", hskv_server.url)
    assert shell("scan").lines == ["p:a\tx"]
