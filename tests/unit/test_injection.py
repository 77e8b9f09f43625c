"""Nothing a user passes can start or end a line of the protocol, or change what a request asks."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskv.wire import requests
from hskv.wire.codec import decode_tokens, fill
from hskv.wire.requests import Filter, In

TOKENS = st.one_of(st.none(), st.binary(max_size=40))
KEYS = st.lists(TOKENS, min_size=1, max_size=4)


def tokens_of(line: bytes) -> list[bytes | None]:
    """What the server reads of a line, which is one line."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return decode_tokens(line[:-1])


@given(KEYS, st.lists(st.binary(max_size=40), min_size=1, max_size=4), TOKENS)
def test_a_find_asks_for_what_it_was_given(
    key: list[bytes | None], values: list[bytes], bound: bytes | None
) -> None:
    line = requests.find("=", key, 9, 3, In(0, values), [Filter(1, "<", bound)])
    assert tokens_of(line) == [
        *(b"", b"=", b"%d" % len(key), *key, b"9", b"3"),
        *(b"@", b"0", b"%d" % len(values), *values),
        *(b"F", b"<", b"1", bound),
    ]


@given(KEYS)
def test_an_insert_holds_what_it_was_given(values: list[bytes | None]) -> None:
    assert tokens_of(requests.insert(values)) == [b"", b"+", b"%d" % len(values), *values]


@given(st.binary(max_size=40), st.integers(-(2**63), 2**63 - 1), st.lists(st.binary(max_size=40)))
def test_a_template_is_filled_with_what_it_was_given(
    key: bytes, bound: int, values: list[bytes]
) -> None:
    template = requests.find_modify_template("U", [(2, ">")], [b"%b"] * len(values))
    filled = fill(template, (key, bound, *values))
    number = b"%d" % bound
    expected = [b"", b"=", b"1", key, b"1", b"0", b"F", b">", b"2", number, b"U", *values]
    assert tokens_of(filled) == expected


@given(st.binary(max_size=60))
def test_a_secret_is_one_token(secret: bytes) -> None:
    assert tokens_of(requests.auth(secret)) == [b"A", b"1", secret]


NAMES = st.one_of(st.text(max_size=30), st.text("a,\t\n\0\x01 `'\\;-/é9", max_size=12))


@given(NAMES, NAMES, NAMES, st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, max_size=2))
def test_a_name_is_one_name_or_refused(
    database: str, table: str, index: str, columns: list[str], filters: list[str]
) -> None:
    try:
        line = requests.open_index(7, database, table, index, columns, filters)
    except ValueError:
        return
    _, _, *names = tokens_of(line)
    expected: list[Any] = [database, table, index, *([columns, filters] if filters else [columns])]
    assert len(names) == len(expected)
    for name, meant in zip(names, expected, strict=True):
        parts = meant if isinstance(meant, list) else [meant]
        # The server splits columns at each comma.
        assert name is not None
        assert name.split(b",") == [part.encode() for part in parts]


@pytest.mark.parametrize("operation", ["=\t1", "U\n", "", "=\x00", "D?\t", "F"])
def test_an_operation_is_one_of_a_list(operation: str) -> None:
    with pytest.raises(ValueError, match="operation"):
        requests.find(operation, [b"k"])
    with pytest.raises(ValueError, match="operation"):
        requests.find_modify("=", [b"k"], operation)
    with pytest.raises(ValueError, match="operation"):
        requests.find("=", [b"k"], filters=[Filter(0, operation, b"v")])
