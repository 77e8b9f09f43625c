"""Values to columns and back, without a server."""

import enum
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskv.exceptions import SerializationError
from hskv.store.expiry import checked, expires_ms, now_ms
from hskv.store.table import NEVER, Table
from hskv.store.values import Kind, dumps, loads

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def through(value: object) -> Any:
    kind, number, data = dumps(value)
    return loads(data, b"%d" % number, b"%d" % kind)


@given(json_values | st.binary())
def test_a_value_comes_back_the_same_and_of_the_same_type(value: Any) -> None:
    try:
        stored = through(value)
    except SerializationError:
        # Only text that is no Unicode: as a value of its own it has no UTF-8.
        assert isinstance(value, str)
        return
    assert stored == value
    assert type(stored) is type(value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"x", Kind.BYTES),
        (bytearray(b"x"), Kind.BYTES),
        (memoryview(b"x"), Kind.BYTES),
        ("x", Kind.TEXT),
        (2**63 - 1, Kind.INTEGER),
        (-(2**63), Kind.INTEGER),
        (2**63, Kind.JSON),
        (True, Kind.JSON),
        (None, Kind.JSON),
        (1.5, Kind.JSON),
        ([], Kind.JSON),
    ],
)
def test_kinds(value: object, kind: Kind) -> None:
    assert dumps(value).kind == kind


def test_true_does_not_come_back_as_one() -> None:
    assert through(True) is True


def test_a_tuple_comes_back_as_a_list() -> None:
    assert through((1, (2,))) == [1, [2]]


def test_text_of_an_enum_comes_back_as_text() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    assert through(Colour.RED) == "red"


@pytest.mark.parametrize(
    "value",
    [{1: 2}, [{None: 1}], ({"a": {2.5: 1}},), math.nan, math.inf, {1, 2}, object(), "\ud800"],
)
def test_what_would_be_lost_or_changed_is_refused(value: object) -> None:
    with pytest.raises(SerializationError):
        dumps(value)


def test_what_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SerializationError):
        dumps(loop)


@pytest.mark.parametrize(
    ("kind", "value"), [(b"3", b"{"), (b"3", b"[" * 100_000), (b"1", b"\xff"), (b"9", b"")]
)
def test_what_cannot_be_read_is_an_error(kind: bytes, value: bytes) -> None:
    with pytest.raises(SerializationError):
        loads(value, b"0", kind)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, 101 * 365.25 * 86400, 0.0])
def test_a_ttl_out_of_range_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        checked(ttl)


@pytest.mark.parametrize("ttl", [True, "5", [1]])
def test_a_ttl_of_another_type_is_refused(ttl: Any) -> None:
    with pytest.raises(TypeError):
        checked(ttl)


def test_a_row_lives_at_least_its_ttl() -> None:
    clock = lambda: 1.00049  # noqa: E731
    assert now_ms(clock) == 1000
    assert expires_ms(clock, 0.0004) == 1002
    assert expires_ms(clock, None) == NEVER


def test_the_statement_quotes_names() -> None:
    sql = Table("a`b", database="d", key="my key", key_bytes=64).create_sql()
    assert sql.startswith(
        "CREATE TABLE `d`.`a``b` (\n  `my key` VARBINARY(64) NOT NULL PRIMARY KEY"
    )


@pytest.mark.parametrize("wrong", [{"name": ""}, {"key": None}, {"key_bytes": 0}])
def test_a_table_without_its_names_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name|width"):
        Table(**wrong)
